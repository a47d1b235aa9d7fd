"""``palate doubts``: the events that a run's system fits worst, and on the world whether they are the planted noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from palate.core.report import Interval
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
    """Show the training events that RUN mistrusts most, by their mean loss over its seeds: clicks by mistake, or what
    fits nobody else. On the world, where noise was planted, also how much of it each seed finds, beside oracles.

    Parameters
    ----------
    run
        A run folder of a system that remembers the loss of each event, such as llmrec.
    n
        How many events are shown.
    out
        A Parquet file for all of them: user, item, title, loss (of several seeds the mean, and that of each beside
        it), and on the world noise.
    as_json
        Print JSON instead.
    """
    from dataclasses import asdict

    from palate.core.errors import MisuseError
    from palate.runs import FittedRun

    if n < 1:
        raise MisuseError(f"--n {n}: show at least one event")
    fitted = FittedRun.open(run)
    seeds = fitted.plan.seeds
    table, truth = mistrusted(fitted)
    found = {} if truth is None else judged(table, truth, fitted)
    shown = table.drop("user_row", "item_row", *(of_seed(seeds) if len(seeds) == 1 else []))
    if out is not None:
        write(shown, out)
    worst = shown.drop(of_seed(seeds), strict=False).head(n)
    if as_json:
        noise = {who: {**asdict(one), "chance": one.chance} for who, one in found.items()}
        marks = ["simulated"] if fitted.facts["data"].get("simulated") else []
        head = {"seeds": list(seeds), "marks": marks, "events": table.height, "noise": noise}
        print(json.dumps({**head, "worst": worst.to_dicts()}, indent=2))
        return
    who = f"seed {seeds[0]}," if len(seeds) == 1 else f"{len(seeds)} seeds, the mean of which"
    print(f"{fitted.name}, {who} remembers a loss of {table.height:,} training events\n")
    if found:
        print(told(found, seeds))
    print("Those that agree least with the rest:")
    for row in worst.iter_rows(named=True):
        print(
            f"  {row['loss']:.3f}  {row['user']}  {row['item']}  {row['title']}{'  (noise)' * row.get('noise', False)}"
        )
    if out is not None:
        print(f"all of them → {out}")


def of_seed(seeds: Sequence[int]) -> list[str]:
    """The columns of the losses of each seed."""
    return [f"loss of seed {seed}" for seed in seeds]


def mistrusted(fitted: FittedRun) -> tuple[pl.DataFrame, World | None]:
    """user_row, item_row, user, item, title, mean loss and loss of each seed of every training event whose loss all
    seeds know, worst first; on the world also ``noise``, and the world. Raises ``MisuseError`` for a system that
    remembers none."""
    import numpy as np
    import polars as pl

    from palate.core.errors import MisuseError
    from palate.core.protocols import RemembersLosses
    from palate.data.world import planted

    found: dict[str, np.ndarray] = {}
    for seed, column in zip(fitted.plan.seeds, of_seed(fitted.plan.seeds), strict=True):
        system: Any = fitted.system(seed)
        if not isinstance(system, RemembersLosses):
            what = f"{fitted.name} is a {fitted.plan.system}, which remembers no losses of events"
            raise MisuseError(f"{what}; llmrec does")
        users, items, found[column] = system.edge_losses()  # of one train part, so the events are the same
    losses = np.mean(list(found.values()), axis=0)
    titles = pl.Series("title", fitted.dataset.titles)
    columns: dict[str, Any] = {
        "user_row": users, "item_row": items, "user": fitted.users["user"].gather(users),
        "item": fitted.items["item"].gather(items), "title": titles.gather(items), "loss": losses, **found,
    }  # fmt: skip
    truth = planted(fitted.dataset)
    if truth is not None:
        events = truth.dataset
        keys = events.user_rows.astype(np.int64) * events.n_items + events.item_rows
        columns["noise"] = np.isin(users.astype(np.int64) * events.n_items + items, keys[truth.truth.noise])
    known = pl.DataFrame(columns).filter(pl.col("loss").is_not_nan())
    return known.sort("loss", descending=True, maintain_order=True), truth


def judged(table: pl.DataFrame, truth: World, fitted: FittedRun) -> dict[str, Doubts]:
    """Against the planted noise: the run, the mean loss of its seeds, and oracles as its guides, one of which knows all
    but what follows what. A signal that was destroyed as a control is nothing that an oracle could go by."""
    import numpy as np

    from palate.data.world.oracle import ALL, noise_chances
    from palate.evaluation.doubts import doubts as measured
    from palate.evaluation.uncertainty import run_number

    users, items, noise = (table[name].to_numpy() for name in ("user_row", "item_row", "noise"))
    if noise.all() or not noise.any():
        return {}
    losses = table.select(of_seed(fitted.plan.seeds)).to_numpy().T
    found = {"this run": measured(users, losses, noise, run=run_number(fitted.name))}
    if len(losses) > 1:
        found["by the mean loss of its seeds"] = measured(users, table["loss"].to_numpy(), noise)
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


def told(found: Mapping[str, Doubts], seeds: Sequence[int]) -> str:
    one = found["this run"]
    lines = [
        f"planted noise (simulated): {one.noise:,} of {one.events:,} events; its share among as many events of largest "
        f"loss, where chance gives {one.chance:.3f}:"
    ]
    own = "this run" if len(seeds) == 1 else f"this run, mean of {len(seeds)} seeds"
    for who, by in found.items():
        lines.append(_line(own if who == "this run" else who, by.largest))
        if who == "this run" and len(seeds) > 1:
            lines += [
                f"    {f'seed {seed}':<34} {share:.3f}"
                for seed, share in zip(seeds, by.largest_by_seed, strict=True)
            ]  # fmt: skip
    lines.append(_line(f"{own}, smallest loss", one.smallest))
    spans = "users and seeds" if len(seeds) > 1 else "users; one seed says nothing about the luck of training"
    return "\n".join([*lines, f"  [95 % interval over {spans}]"]) + "\n"


def _line(who: str, span: Interval) -> str:
    return f"  {who:<36} {span.value:.3f} [{span.low:.3f}, {span.high:.3f}]"


def write(table: pl.DataFrame, out: Path) -> None:
    from palate.core.errors import MisuseError
    from palate.core.store import write_bytes

    if out.is_dir():
        raise MisuseError(f"--out {out} is a folder; name a file")
    written = BytesIO()
    table.write_parquet(written)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, written.getvalue())
