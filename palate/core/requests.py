"""Questions to a recommender, a batch at a time, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged

if TYPE_CHECKING:
    from palate.core.dataset import Dataset


@dataclass(frozen=True, eq=False)
class Requests:
    """B questions. Item and user rows are those of the dataset; the doors translate ids.

    histories        item rows, oldest first; an empty row is a newcomer
    history_times    ``[E]`` ms, aligned with ``histories.values``; None where unknown
    user_rows        ``[B]``, -1 = unknown user; None = nobody is named
    times            ``[B]`` ms, when each question is asked; None where unknown
    words            B sentences such as "something lighter"; "" = none
    candidates       only these item rows may be answered; None = the whole catalogue
    leave_out        item rows that must not be answered; None = nothing is left out
    """

    histories: Ragged
    history_times: IntArray | None = None
    user_rows: IntArray | None = None
    times: IntArray | None = None
    words: tuple[str, ...] | None = None
    candidates: Ragged | None = None
    leave_out: Ragged | None = None

    @classmethod
    def of(cls, histories: Sequence[Sequence[int]], **columns: object) -> Requests:
        """From lists of item rows, oldest first."""
        return cls(Ragged.of(histories), **columns)  # type: ignore[arg-type]

    @classmethod
    def for_users(cls, dataset: Dataset, user_rows: npt.NDArray[np.integer]) -> Requests:
        """Each named user with the whole history that ``dataset`` holds of them; -1 gives an empty history."""
        rows = np.asarray(user_rows, dtype=np.int64)
        histories = dataset.histories
        known = np.maximum(rows, 0)
        starts = np.where(rows >= 0, histories.starts[known], 0)
        stops = np.where(rows >= 0, histories.stops[known], 0)
        return cls(Ragged(histories.values, starts, stops), history_times=dataset.times, user_rows=rows)

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> Requests:
        """Some of the questions; histories stay views."""
        words = None
        if self.words is not None:
            words = self.words[rows] if isinstance(rows, slice) else tuple(self.words[i] for i in rows)
        return Requests(
            histories=self.histories[rows],
            history_times=self.history_times,
            user_rows=None if self.user_rows is None else self.user_rows[rows],
            times=None if self.times is None else self.times[rows],
            words=words,
            candidates=None if self.candidates is None else self.candidates[rows],
            leave_out=None if self.leave_out is None else self.leave_out[rows],
        )

    def leaving_out_history(self) -> Requests:
        """The same questions where what was already met is not answered again."""
        left = self.histories if self.leave_out is None else self.leave_out.joined(self.histories)
        return replace(self, leave_out=left)

    def known(self, n_items: int) -> Requests:
        """Histories without item rows at or beyond ``n_items``: what a model fitted on fewer items can read."""
        flat = self.histories.flat()
        keep = (flat >= 0) & (flat < n_items)
        if keep.all():
            return self
        times = self.history_times
        if times is not None:
            times = times[self.histories.flat_positions()][keep]
        return replace(self, histories=self.histories.where(keep), history_times=times)
