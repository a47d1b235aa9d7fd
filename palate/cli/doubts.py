"""``palate doubts``: the events that a run's system fits worst, and on the world whether they are the planted noise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import polars as pl

    from palate.evaluation.doubts import Doubts
    from palate.runs import FittedRun


def doubts(
    run: Path,
    /,
    *,
    n: Annotated[int, Parameter(name=("--n", "-n"))] = 10,
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show the training events that RUN's system mistrusts most: clicks by mistake, or what fits nobody else. On the
    world, where noise was planted, also how much of it is among them.

    Parameters
    ----------
    run
        A run folder of a system that remembers the loss of each event, such as llmrec.
    n
        How many events are shown.
    out
        A Parquet file for all of them: user, item, title, loss, and on the world noise.
    as_json
        Print JSON instead.
    """
    from dataclasses import asdict

    from palate.core.errors import MisuseError
    from palate.runs import FittedRun

    if n < 1:
        raise MisuseError(f"--n {n}: show at least one event")
    fitted = FittedRun.open(run)
    table = mistrusted(fitted)
    found = judged(table)
    if out is not None:
        write(table.drop("user_row"), out)
    worst = table.drop("user_row").head(n)
    if as_json:
        noise = None if found is None else {**asdict(found), "chance": found.chance}
        print(json.dumps({"events": table.height, "noise": noise, "worst": worst.to_dicts()}, indent=2))
        return
    print(f"{fitted.name} remembers a loss of {table.height:,} training events\n")
    if found is not None:
        print(told(found))
    print("Those that agree least with the rest:")
    for row in worst.iter_rows(named=True):
        print(f"  {row['loss']:.3f}  {row['user']}  {row['title']}{'  (noise)' if row.get('noise') else ''}")
    if out is not None:
        print(f"all of them → {out}")


def mistrusted(fitted: FittedRun) -> pl.DataFrame:
    """user_row, user, item, title and loss of each training event whose loss is known, worst first; on the world also
    ``noise``. Raises ``MisuseError`` for a system that remembers none."""
    import numpy as np
    import polars as pl

    from palate.core.errors import MisuseError
    from palate.core.protocols import RemembersLosses
    from palate.data.world import planted

    system: Any = fitted.system(fitted.plan.seeds[0])
    if not isinstance(system, RemembersLosses):
        raise MisuseError(f"{fitted.name} is a {fitted.plan.system}, which remembers no losses of events; llmrec does")
    users, items, losses = system.edge_losses()
    named = fitted.items["title"] if "title" in fitted.items.columns else fitted.items["item"]
    columns: dict[str, Any] = {
        "user_row": users, "user": fitted.users["user"].gather(users), "item": fitted.items["item"].gather(items),
        "title": named.gather(items), "loss": losses,
    }  # fmt: skip
    truth = planted(fitted.dataset)
    if truth is not None:
        events = truth.dataset
        keys = events.user_rows.astype(np.int64) * events.n_items + events.item_rows
        columns["noise"] = np.isin(users.astype(np.int64) * events.n_items + items, keys[truth.truth.noise])
    return pl.DataFrame(columns).filter(pl.col("loss").is_not_nan()).sort("loss", descending=True, maintain_order=True)


def judged(table: pl.DataFrame) -> Doubts | None:
    """Against the planted noise; None where none is known."""
    from palate.evaluation.doubts import doubts as measured

    if "noise" not in table.columns or not table["noise"].any():
        return None
    return measured(table["user_row"].to_numpy(), table["loss"].to_numpy(), table["noise"].to_numpy())


def told(found: Doubts) -> str:
    lines = [f"planted noise (simulated): {found.noise:,} of {found.events:,} events, chance {found.chance:.3f}"]
    for which, share in (("largest", found.largest), ("smallest", found.smallest)):
        lines.append(
            f"noise among the {found.noise:,} of {which} loss: {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
        )
    return "\n".join(lines) + "\n"


def write(table: pl.DataFrame, out: Path) -> None:
    """Aside first, then renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    try:
        table.write_parquet(aside)
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
