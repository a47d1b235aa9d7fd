"""A small log with cold items, and systems whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.core.config import Config
from palate.core.dataset import About, Dataset
from palate.core.protocols import ScoresAll
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.split import Cases, Split

N_USERS, N_ITEMS = 60, 40


def dataset_of(histories: list[list[int]], n_items: int, *, simulated: bool = False, **items: object) -> Dataset:
    events = [(user, item, 1000 * user + place) for user, row in enumerate(histories) for place, item in enumerate(row)]
    table = pl.DataFrame(events, schema={"user_row": pl.Int32, "item_row": pl.Int32, "time": pl.Int64}, orient="row")
    return Dataset(
        name="tiny",
        interactions=table,
        items=pl.DataFrame({"item": [f"i{row}" for row in range(n_items)], **items}),
        users=pl.DataFrame({"user": [f"u{row}" for row in range(len(histories))]}),
        about=About(simulated=simulated),
    )


def split_of(dataset: Dataset) -> Split:
    """Leave one out: the last event is asked at test, the one before at validation."""
    rows, lengths = dataset.user_rows, dataset.histories.lengths
    from_end = dataset.histories.stops[rows] - np.arange(len(rows))
    train = dataset.keeping(from_end > 2)

    def cases(back: int) -> Cases:
        users = np.flatnonzero(lengths >= 3)
        known = Ragged(dataset.item_rows, dataset.histories.starts[users], dataset.histories.stops[users] - back)
        targets = dataset.item_rows[known.stops].astype(np.int64)
        return Cases(Requests(known, history_times=dataset.times, user_rows=users), targets, known.stops)

    return Split(dataset, train, cases(2), cases(1), rule="leave-one-out")


class Scorer(ScoresAll):
    """Scores that follow from a table ``[U, N]``; blocks of 7 requests."""

    config = Config()

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores.astype(np.float32)
        self.asked: list[Requests] = []

    def score_blocks(self, requests: Requests) -> Iterator[np.ndarray]:
        self.asked.append(requests)
        assert requests.user_rows is not None
        for start in range(0, len(requests), 7):
            yield self.scores[requests.user_rows[start : start + 7]].copy()


class Searcher:
    """Answers a list, as a beam search does; never says how good the rest is."""

    config = Config()

    def __init__(self, lists: np.ndarray) -> None:
        self.lists = lists

    def recommend(self, requests: Requests, k: int) -> Rankings:
        assert requests.user_rows is not None
        rows = self.lists[requests.user_rows][:, :k]
        return Rankings(rows, np.zeros(rows.shape, dtype=np.float32), exact=False)


@pytest.fixture(scope="session")
def split() -> Split:
    rng = np.random.default_rng(5)
    weights = 1 / np.arange(1, N_ITEMS + 1)
    histories = [
        rng.choice(N_ITEMS - 6, size=rng.integers(3, 12), replace=False, p=weights[:-6] / weights[:-6].sum()).tolist()
        for _ in range(N_USERS)
    ]
    for user in range(0, 12):  # the last six items are met for the first time at test: cold
        histories[user][-1] = N_ITEMS - 6 + user % 6
    genres = [["a"] if row % 3 == 0 else ["b", "c"] if row % 3 == 1 else ["c"] for row in range(N_ITEMS)]
    return split_of(dataset_of(histories, N_ITEMS, category=genres))


@pytest.fixture(scope="session")
def simulated(split: Split) -> Split:
    about = About(simulated=True)
    return replace(split, dataset=replace(split.dataset, about=about), train=replace(split.train, about=about))
