"""What would this user say of this item: questions about ratings, and their answers, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.core.errors import DataError
from palate.core.ragged import IntArray, Ragged

Stars = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RatingRequests:
    """B questions, each about one user and one item.

    histories        item rows that the user rated before, oldest first; an empty row is a newcomer
    history_ratings  ``[E]`` aligned with ``histories.values``; NaN where none was given
    items            ``[B]`` the item rows that are asked about
    user_rows        ``[B]``, -1 = unknown user
    """

    histories: Ragged
    history_ratings: Stars
    items: IntArray
    user_rows: IntArray

    def __post_init__(self) -> None:
        if len(self.history_ratings) != len(self.histories.values):
            n = len(self.histories.values)
            raise DataError(f"{n} events of histories need as many ratings, not {len(self.history_ratings)}")
        if not len(self.histories) == len(self.items) == len(self.user_rows):
            raise DataError("questions about ratings need a history, an item and a user each")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: slice | IntArray) -> RatingRequests:
        """Some of the questions; histories stay views."""
        return RatingRequests(self.histories[rows], self.history_ratings, self.items[rows], self.user_rows[rows])

    def recent(self, n: int) -> tuple[IntArray, Stars]:
        """``[B, n]`` the last n rated items and their ratings, newest last; -1 and NaN fill the front."""
        if not n or not len(self.histories.values):
            return np.full((len(self), n), -1, dtype=np.int64), np.full((len(self), n), np.nan, dtype=np.float32)
        places = self.histories.stops[:, None] - n + np.arange(n)
        inside = places >= self.histories.starts[:, None]
        safe = np.where(inside, places, 0)
        ratings = np.where(inside, self.history_ratings[safe], np.float32(np.nan))
        items = np.where(inside & ~np.isnan(ratings), self.histories.values[safe].astype(np.int64), -1)
        return items, ratings

    def user_means(self, fallback: float, damping: float = 0.0) -> Stars:
        """``[B]`` the mean of each history's ratings, drawn to ``fallback`` as by ``damping`` ratings of that value."""
        rows = self.histories.row_numbers()
        ratings = self.history_ratings[self.histories.flat_positions()]
        known = ~np.isnan(ratings)
        sums = np.bincount(rows[known], weights=ratings[known], minlength=len(self)) + damping * fallback
        counts = np.bincount(rows[known], minlength=len(self)) + damping
        return np.where(counts > 0, sums / np.maximum(counts, 1e-12), fallback).astype(np.float32)


@dataclass(frozen=True, eq=False)
class RatingCases:
    """Questions with the rating that was really given. ``events`` ``[B]`` are positions in the whole dataset."""

    requests: RatingRequests
    ratings: Stars
    events: IntArray

    def __len__(self) -> int:
        return len(self.ratings)

    def __getitem__(self, rows: slice | IntArray) -> RatingCases:
        return RatingCases(self.requests[rows], self.ratings[rows], self.events[rows])


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers in the data's own stars, a finite number for every question.

    failed   ``[B]`` nothing could be read from what a model wrote, so the user's past average stands in
    retried  ``[B]`` a model was asked a second time
    """

    stars: Stars
    failed: npt.NDArray[np.bool_]
    retried: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, stars: npt.NDArray[np.floating]) -> Predictions:
        """Numbers that were computed, none of them read from a text."""
        no = np.zeros(len(stars), dtype=np.bool_)
        return cls(np.asarray(stars, dtype=np.float32), no, no)
