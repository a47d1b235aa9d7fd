"""Events with ratings → questions about ratings and batches to learn from. No history holds the moment it is asked at.

Shapes: b events of a batch, T events of a history that are read, L distinct ratings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.core.ragged import IntArray, Ragged
from palate.core.ratings import RatingCases, RatingRequests, Stars
from palate.core.split import Split


def ratings_of(dataset: Dataset) -> Stars:
    """``[E]`` the rating of each event, NaN where none was given. Raises ``DataError`` where there are none at all."""
    if "rating" not in dataset.interactions.columns:
        raise DataError(f"the events of '{dataset.name}' have no ratings, so none can be predicted")
    ratings = dataset.interactions["rating"].cast(float).fill_null(float("nan")).to_numpy().astype(np.float32)
    if not len(ratings) or not np.isnan(ratings).all():
        return ratings
    raise DataError(f"no event of '{dataset.name}' has a rating, so none can be predicted")


def rated_before(dataset: Dataset, events: IntArray) -> RatingRequests:
    """The questions that these events answered, each after all that its user did strictly before that moment."""
    users = dataset.user_rows[events].astype(np.int64)
    stops = np.minimum(_first_of_moment(dataset)[events], events)
    histories = Ragged(dataset.item_rows, dataset.histories.starts[users], stops.astype(np.int64))
    return RatingRequests(histories, ratings_of(dataset), dataset.item_rows[events].astype(np.int64), users)


def drawn_questions(train: Dataset, ratings: Stars, n: int, seed: list[int]) -> tuple[RatingRequests, Stars]:
    """Up to ``n`` rated events with what their users rated before, of as many users as there are, drawn once."""
    rated = np.flatnonzero(~np.isnan(ratings))
    asked = rated_before(train, rated) if len(rated) else None
    if asked is not None:
        rng = np.random.default_rng(seed)
        some = rng.permutation(np.flatnonzero(asked.histories.lengths > 0))
        _, first = np.unique(asked.user_rows[some], return_index=True)
        chosen = some[np.sort(first)][:n]
        of = asked[chosen]
        flat = of.histories.flat_positions()
        histories = Ragged.from_lengths(of.histories.values[flat].astype(np.int64), of.histories.lengths)
        return RatingRequests(histories, of.history_ratings[flat], of.items, of.user_rows), ratings[rated[chosen]]
    nothing = np.zeros(0, dtype=np.int64)
    return RatingRequests(Ragged.empty(0), np.zeros(0, np.float32), nothing, nothing), np.zeros(0, np.float32)


def rating_cases(split: Split, part: Literal["valid", "test"] = "test") -> RatingCases:
    """The rated events of a part of the split, in its order. Histories are those of the split's own cases, without
    events of the very moment that is asked about. Raises ``DataError`` where the split shows only some events."""
    whole, cases = split.dataset, split.valid if part == "valid" else split.test
    ratings = ratings_of(whole)
    events = cases.events[~np.isnan(ratings[cases.events])] if len(cases) else cases.events
    if len(cases) and len(cases.requests.histories.values) != whole.n_interactions:
        raise DataError(f"split rule '{split.rule}' hides events of histories; ratings need leave-one-out or temporal")
    own = cases[np.flatnonzero(~np.isnan(ratings[cases.events]))] if len(cases) else cases
    stops = np.minimum(own.requests.histories.stops, _first_of_moment(whole)[events]) if len(own) else np.zeros(0, int)
    starts = own.requests.histories.starts
    histories = Ragged(whole.item_rows, starts, np.maximum(stops, starts))
    users = whole.user_rows[events].astype(np.int64)
    return RatingCases(RatingRequests(histories, ratings, own.targets, users), ratings[events], events)


def hash_of(cases: RatingCases) -> str:
    """Equal exactly when the same events are asked about with the same ratings and histories."""
    digest = hashlib.blake2b(digest_size=6)
    asked = cases.requests
    for column in (cases.events, asked.histories.lengths, asked.user_rows, asked.items):
        digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(cases.ratings).tobytes())
    for start in range(0, len(cases), 4096):  # histories overlap, so that all of them together may outgrow the log
        histories = asked.histories[slice(start, start + 4096)]
        places = histories.flat_positions()
        digest.update(histories.values[places].astype(np.int64).tobytes())
        digest.update(asked.history_ratings[places].tobytes())
    return digest.hexdigest()


def statistics(split: Split, cases: RatingCases) -> str:
    """One line: how many ratings teach and are asked, how they spread, histories, cold users and items."""
    taught = ratings_of(split.train)
    taught = taught[~np.isnan(taught)]
    levels, counts = np.unique(cases.ratings, return_counts=True)
    spread = ", ".join(
        f"{level:g}★ {share:.0%}" for level, share in zip(levels, counts / max(len(cases), 1), strict=True)
    )
    users = split.train.histories.lengths[cases.requests.user_rows] == 0
    items = split.train.item_counts[cases.requests.items] == 0
    return (
        f"{len(taught):,} ratings teach, {len(rating_cases(split, 'valid')):,} validate, {len(cases):,} are asked "
        f"({spread}); histories hold {cases.requests.histories.lengths.mean():.1f} on average; "
        f"{users.mean():.0%} of the users and {items.mean():.0%} of the items are cold"
    )


def _first_of_moment(dataset: Dataset) -> IntArray:
    """``[E]`` the first event of the same user at the same time; where no times are known, the event itself."""
    places = np.arange(dataset.n_interactions)
    if dataset.times is None or not len(places):
        return places
    users, times = dataset.user_rows, dataset.times
    new = np.ones(len(places), dtype=np.bool_)
    new[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    return np.maximum.accumulate(np.where(new, places, 0))


@dataclass(frozen=True, eq=False)
class RatingBatch:
    """b questions. ``users``, ``items`` ``[b]`` rows, -1 or beyond the tables = unknown; ``history`` ``[b, T]`` item
    rows, newest last, -1 = none; ``given`` ``[b, T]`` their ratings; ``stars`` ``[b]`` what is learnt."""

    users: Tensor
    items: Tensor
    history: Tensor
    given: Tensor
    stars: Tensor | None = None

    @classmethod
    def of(cls, requests: RatingRequests, length: int, stars: Stars | None = None) -> RatingBatch:
        history, given = requests.recent(length)
        return cls(
            torch.from_numpy(np.asarray(requests.user_rows, dtype=np.int64)),
            torch.from_numpy(np.asarray(requests.items, dtype=np.int64)),
            torch.from_numpy(history), torch.from_numpy(given),
            None if stars is None else torch.from_numpy(np.asarray(stars, dtype=np.float32)),
        )  # fmt: skip

    def to(self, device: torch.device | str) -> RatingBatch:
        moved = {name: getattr(self, name).to(device) for name in ("users", "items", "history", "given")}
        return replace(self, **moved, stars=None if self.stars is None else self.stars.to(device))


class RatingBatches:
    """Every rated event once an epoch, shuffled, with what its user rated before it; a pure function of (seed,
    epoch). ``most`` events at most, the same ones every epoch. Where there are more than ``each`` events, an epoch is
    only so many, and goes on where the last one ended: validation is looked at more often than once a pass."""

    def __init__(
        self,
        train: Dataset,
        *,
        length: int,
        batch_size: int,
        seed: int,
        most: int | None = None,
        each: int | None = None,
    ) -> None:
        self.ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
        rated = np.flatnonzero(~np.isnan(self.ratings))
        if most is not None and len(rated) > most:
            rated = np.sort(np.random.default_rng([seed, 0]).choice(rated, size=most, replace=False))
        self.train, self.events = train, rated
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.requests = rated_before(train, rated) if train.n_interactions else None
        self.each = len(rated) if each is None else min(each, len(rated))

    def __len__(self) -> int:
        return -(-self.each // self.batch_size)

    def orders(self, epoch: int, skip: int = 0) -> Iterator[IntArray]:
        """``[b]`` which of the rated events each batch of an epoch holds."""
        n, first = len(self.events), epoch * self.each
        passes = range(first // max(n, 1), (first + self.each - 1) // max(n, 1) + 1)
        shuffled = [np.random.default_rng([self.seed, 1 + one]).permutation(n) for one in passes]
        begin = first - passes.start * n
        order = np.concatenate(shuffled)[begin : begin + self.each] if n else np.zeros(0, dtype=np.int64)
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[RatingBatch]:
        for some in self.orders(epoch, skip):
            assert self.requests is not None
            yield RatingBatch.of(self.requests[some], self.length, self.ratings[self.events[some]])
