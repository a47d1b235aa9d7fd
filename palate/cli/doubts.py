"""``palate doubts``: the events that a run's system fits worst, and on the world whether they are the planted noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import polars as pl

    from palate.data.world import World
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
    """Show the training events that the system of RUN's first seed mistrusts most: clicks by mistake, or what fits
    nobody else. On the world, where noise was planted, also how much of it is among them, beside what oracles find.

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
    table, truth = mistrusted(fitted)
    found = {} if truth is None else judged(table, truth)
    if out is not None:
        write(table.drop("user_row", "item_row"), out)
    worst = table.drop("user_row", "item_row").head(n)
    if as_json:
        noise = {who: {**asdict(one), "chance": one.chance} for who, one in found.items()}
        marks = ["simulated"] if fitted.facts["data"].get("simulated") else []
        head = {"seed": fitted.plan.seeds[0], "marks": marks, "events": table.height, "noise": noise}
        print(json.dumps({**head, "worst": worst.to_dicts()}, indent=2))
        return
    print(f"{fitted.name}, seed {fitted.plan.seeds[0]}, remembers a loss of {table.height:,} training events\n")
    if found:
        print(told(found))
    print("Those that agree least with the rest:")
    for row in worst.iter_rows(named=True):
        print(
            f"  {row['loss']:.3f}  {row['user']}  {row['item']}  {row['title']}{'  (noise)' * row.get('noise', False)}"
        )
    if out is not None:
        print(f"all of them → {out}")


def mistrusted(fitted: FittedRun) -> tuple[pl.DataFrame, World | None]:
    """user_row, item_row, user, item, title and loss of each training event whose loss is known, worst first; on the
    world also ``noise``, and the world. Raises ``MisuseError`` for a system that remembers none."""
    import numpy as np
    import polars as pl

    from palate.core.errors import MisuseError
    from palate.core.protocols import RemembersLosses
    from palate.data.world import planted

    system: Any = fitted.system(fitted.plan.seeds[0])
    if not isinstance(system, RemembersLosses):
        raise MisuseError(f"{fitted.name} is a {fitted.plan.system}, which remembers no losses of events; llmrec does")
    users, items, losses = system.edge_losses()
    titles = pl.Series("title", fitted.dataset.titles)
    columns: dict[str, Any] = {
        "user_row": users, "item_row": items, "user": fitted.users["user"].gather(users),
        "item": fitted.items["item"].gather(items), "title": titles.gather(items), "loss": losses,
    }  # fmt: skip
    truth = planted(fitted.dataset)
    if truth is not None:
        events = truth.dataset
        keys = events.user_rows.astype(np.int64) * events.n_items + events.item_rows
        columns["noise"] = np.isin(users.astype(np.int64) * events.n_items + items, keys[truth.truth.noise])
    known = pl.DataFrame(columns).filter(pl.col("loss").is_not_nan())
    return known.sort("loss", descending=True, maintain_order=True), truth


def judged(table: pl.DataFrame, truth: World) -> dict[str, Doubts]:
    """Against the planted noise: the run, and oracles as its guides, one of which knows all but what follows what. A
    signal that was destroyed as a control is nothing that an oracle could go by."""
    import numpy as np

    from palate.data.world.oracle import ALL, noise_chances
    from palate.evaluation.doubts import doubts as measured

    users, items, noise = (table[name].to_numpy() for name in ("user_row", "item_row", "noise"))
    if noise.all() or not noise.any():
        return {}
    found = {"this run": measured(users, table["loss"].to_numpy(), noise)}
    events, planted = truth.dataset, [name for name in ALL if name != truth.config.shuffled]
    keys = events.user_rows.astype(np.int64) * events.n_items + events.item_rows
    asked = users.astype(np.int64) * events.n_items + items
    without = [name for name in planted if name != "order"]
    for who, knows in (("oracle that does not know the order", without), ("oracle that knows the order too", planted)):
        at, chances = noise_chances(truth, knows)
        order = np.argsort(keys[at])
        place = np.minimum(np.searchsorted(keys[at], asked, sorter=order), len(at) - 1)
        there = keys[at][order[place]] == asked
        found[who] = measured(users, np.where(there, chances[order[place]], np.nan), noise)
    return found


def told(found: Mapping[str, Doubts]) -> str:
    one = next(iter(found.values()))
    lines = [
        f"planted noise (simulated): {one.noise:,} of {one.events:,} events; its share among as many events of largest "
        f"loss, where chance gives {one.chance:.3f}:"
    ]
    for who, by in found.items():
        lines.append(f"  {who:<36} {by.largest.value:.3f} [{by.largest.low:.3f}, {by.largest.high:.3f}]")
    least = one.smallest
    lines.append(f"  {'this run, smallest loss':<36} {least.value:.3f} [{least.low:.3f}, {least.high:.3f}]")
    return "\n".join(lines) + "\n"


def write(table: pl.DataFrame, out: Path) -> None:
    from palate.core.errors import MisuseError
    from palate.core.store import write_bytes

    if out.is_dir():
        raise MisuseError(f"--out {out} is a folder; name a file")
    written = BytesIO()
    table.write_parquet(written)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, written.getvalue())
