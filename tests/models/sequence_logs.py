"""Small logs whose next item follows from the last one, and ways to ask about them."""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.core.dataset import Clock, Dataset
from palate.core.protocols import ScoresAll
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests

N_ITEMS = 30
MINUTE = 60_000


def timed_log(histories: list[list[int]], times: list[list[int]], n_items: int, clock: Clock = "unix") -> Dataset:
    """One user a list of item rows, oldest first, with their times in ms."""
    rows = np.repeat(np.arange(len(histories)), [len(row) for row in histories])
    interactions = pl.DataFrame(
        {
            "user_row": pl.Series(rows, dtype=pl.Int32),
            "item_row": pl.Series([item for row in histories for item in row], dtype=pl.Int32),
            "time": pl.Series([time for row in times for time in row], dtype=pl.Int64),
        }
    )
    items = pl.DataFrame({"item": [f"i{row}" for row in range(n_items)]})
    return Dataset(
        "planted", interactions, items, pl.DataFrame({"user": [f"u{r}" for r in range(len(histories))]}), clock
    )


def successors(n_users: int = 120, n_items: int = N_ITEMS, clock: Clock = "unix", seed: int = 0) -> Dataset:
    """Item n is followed by n + 1, round and round; histories of 2 to 14 events a minute apart, equal popularity."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(0, n_items, n_users), rng.integers(2, 15, n_users)
    histories = [[(a + i) % n_items for i in range(n)] for a, n in zip(starts, lengths, strict=True)]
    times = [[MINUTE * (1000 * user + i) for i in range(n)] for user, n in enumerate(lengths)]
    return timed_log(histories, times, n_items, clock)


def successor_recall(system: ScoresAll, n_items: int = N_ITEMS) -> float:
    """How often the best item after every history of three is the one that follows, with the times it was taught."""
    histories = [[(a + i) % n_items for i in range(3)] for a in range(n_items)]
    rankings = system.recommend(minutely(histories), 1)
    return float(np.mean(rankings.item_rows[:, 0] == (np.arange(n_items) + 3) % n_items))


def minutely(histories: list[list[int]]) -> Requests:
    """Questions about histories whose events, and the question, lie a minute apart."""
    ragged = Ragged.of(histories)
    within = np.arange(len(ragged.values)) - np.repeat(ragged.starts, ragged.lengths)
    return Requests(ragged, history_times=MINUTE * within, times=MINUTE * ragged.lengths)


def scores(system: ScoresAll, requests: Requests) -> np.ndarray:
    """``[B, N]``."""
    return np.concatenate([block.copy() for block in system.score_blocks(requests)])


def random_histories(seed: int, n: int = 40, longest: int = 20, n_items: int = N_ITEMS) -> list[list[int]]:
    """Histories of 1 to ``longest`` random items, of very different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n_items, rng.integers(1, longest + 1)).tolist() for _ in range(n)]


def random_times(requests: Requests, seed: int) -> Requests:
    """The same questions with random ascending times, from seconds to weeks apart."""
    rng = np.random.default_rng(seed)
    times: IntArray = np.cumsum((10 ** rng.uniform(2, 9, len(requests.histories.values))).astype(np.int64))
    asked = times[requests.histories.stops - 1] + (10 ** rng.uniform(2, 9, len(requests))).astype(np.int64)
    return Requests(requests.histories, history_times=times, times=asked)
