"""``load``: 20 million events from Parquet to a split: iterated 5-core, dense ids, histories in order, leave-one-out.

200,000 users with lognormal activity (σ 1.2), 100,000 items by Zipf (0.9), unsorted uniform seconds, seed 0. Against
the same work in pandas, with equal output; a second line has text ids. The memory is that of a fresh process that loads
once, the interpreter and every library included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.harness import REPEATS, Result, compare

if TYPE_CHECKING:
    from palate.core.split import Split

N_EVENTS, N_USERS, N_ITEMS, MIN_COUNT = 20_000_000, 200_000, 100_000, 5

Ints = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Loaded:
    """What both sides must agree on. users, items, times: the training log; the targets and who they are asked of."""

    users: Ints
    items: Ints
    times: Ints
    asked: Ints
    valid: Ints
    test: Ints
    user_ids: list[str]
    item_ids: list[str]


def run(quick: bool = False) -> list[Result]:
    """Both lines; ``quick`` uses a hundredth of the events and two rounds."""
    return load(quick)


def load(quick: bool = False) -> list[Result]:
    """``load`` with whole-number ids and ``load-text`` with text ids."""
    results = []
    with tempfile.TemporaryDirectory(prefix="palate-load-") as folder:
        for name, text in (("load", False), ("load-text", True)):
            path = Path(folder) / f"{name}.parquet"
            write_events(path, N_EVENTS // 100 if quick else N_EVENTS, text=text)
            results.append(_line(name, path, repeats=2 if quick else 3 if text else REPEATS))
            path.unlink()
    return results


def _line(name: str, path: Path, repeats: int) -> Result:
    _assert_equal(with_palate(path), with_pandas(path))
    timed = compare(name, lambda: palate_split(path), {"pandas": lambda: with_pandas(path)}, repeats=repeats)
    return replace(timed, peak_mb=peak_in_fresh_process(path))


def write_events(path: Path, n_events: int, *, text: bool = False, seed: int = 0) -> None:
    """An unsorted log with columns user, item and time (int64 milliseconds, whole seconds)."""
    rng = np.random.default_rng(seed)
    users = _draw(rng, rng.lognormal(0.0, 1.2, N_USERS), n_events)
    items = _draw(rng, np.arange(1, N_ITEMS + 1) ** -0.9, n_events)
    times = rng.integers(1_500_000_000, 1_700_000_000, n_events) * 1000
    table = pl.DataFrame({"user": users, "item": items, "time": times})
    if text:
        table = table.with_columns(
            pl.concat_str(pl.lit("user-"), pl.col("user")).alias("user"),
            pl.concat_str(pl.lit("item-"), pl.col("item")).alias("item"),
        )
    table.write_parquet(path)


def _draw(rng: np.random.Generator, weights: npt.NDArray[np.floating], n: int) -> npt.NDArray[np.int64]:
    """``[n]`` numbers drawn with these weights, in stretches that keep the memory small."""
    cumulated = np.cumsum(weights) / weights.sum()
    cumulated[-1] = 1.0
    drawn = np.empty(n, dtype=np.int64)
    for begin in range(0, n, 1 << 20):
        stretch = drawn[begin : begin + (1 << 20)]
        stretch[:] = np.searchsorted(cumulated, rng.random(len(stretch)), side="right")
    return drawn


def palate_split(path: Path) -> Split:
    """The product's own path."""
    from palate.data.build import dataset_from
    from palate.data.split import leave_one_out

    return leave_one_out(dataset_from("events", pl.scan_parquet(path), min_count=MIN_COUNT))


def with_palate(path: Path) -> Loaded:
    made = palate_split(path)
    log = made.train.interactions
    return Loaded(
        users=log["user_row"].to_numpy(),
        items=log["item_row"].to_numpy(),
        times=log["time"].to_numpy(),
        asked=made.test.user_rows,
        valid=made.valid.targets,
        test=made.test.targets,
        user_ids=made.dataset.user_ids,
        item_ids=made.dataset.item_ids,
    )


def with_pandas(path: Path) -> Loaded:
    """What a good engineer writes first."""
    import pandas as pd

    log = pd.read_parquet(path)
    while True:
        before = len(log)
        for column in ("user", "item"):
            counts = log[column].value_counts()
            weak = counts.index[counts < MIN_COUNT]
            if len(weak):
                log = log[~log[column].isin(weak)]
        if len(log) == before:
            break
    log["user"], user_ids = pd.factorize(log["user"])
    log["item"], item_ids = pd.factorize(log["item"])
    log = log.sort_values(["user", "time"], kind="stable")
    from_end = log.groupby("user").cumcount(ascending=False)
    test, valid, train = log[from_end == 0], log[from_end == 1], log[from_end >= 2]
    return Loaded(
        users=train["user"].to_numpy(),
        items=train["item"].to_numpy(),
        times=train["time"].to_numpy(),
        asked=test["user"].to_numpy(),
        valid=valid["item"].to_numpy(),
        test=test["item"].to_numpy(),
        user_ids=[str(user) for user in user_ids],
        item_ids=[str(item) for item in item_ids],
    )


def _assert_equal(ours: Loaded, theirs: Loaded) -> None:
    for name in ("users", "items", "times", "asked", "valid", "test"):
        if not np.array_equal(getattr(ours, name), getattr(theirs, name)):
            raise AssertionError(f"load: '{name}' differs from pandas")
    if ours.user_ids != theirs.user_ids or ours.item_ids != theirs.item_ids:
        raise AssertionError("load: the ids behind the rows differ from pandas")


def peak_in_fresh_process(path: Path) -> float:
    """MB at most resident in a new process that loads the file once."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", str(path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout)


def _main(path: Path) -> None:
    from benchmarks.harness import peak_memory

    # The high-water mark of the kernel's accounting would still hold that of the parent; this one begins anew.
    print(peak_memory(lambda: palate_split(path)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
