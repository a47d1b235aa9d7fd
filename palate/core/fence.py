"""A fence around what a split asks about: what is written or learnt for a fit may read the train part alone.

Events are told apart by ids (user, item, time), not by rows, so the proof holds for any dataset that one is handed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.ragged import IntArray
from palate.core.split import Split

if TYPE_CHECKING:
    import polars as pl


class Fence:
    """What of one split may be read: an event that is asked about only where the train part holds one of the same ids
    and time."""

    def __init__(self, split: Split) -> None:
        self._split = split

    @cached_property
    def _taught(self) -> pl.DataFrame:
        return _ids(self._split.train, np.arange(self._split.train.n_interactions))

    @cached_property
    def n_asked(self) -> int:
        """Different events of validation and test that are none of the train part."""
        events = np.concatenate([self._split.valid.events, self._split.test.events])
        return _ids(self._split.dataset, events[events >= 0]).join(self._taught, on=_KEY, how="anti").height

    def check(self, dataset: Dataset, events: IntArray) -> int:
        """How many different ``events``, positions in ``dataset.interactions``, were read. Raises ``LeakError`` where
        one of them does not teach."""
        read = np.unique(np.asarray(events, dtype=np.int64))
        if len(read) and (read[0] < 0 or read[-1] >= dataset.n_interactions):
            raise LeakError("a prompt was written from an event that is not in the train part")
        foreign = _ids(dataset, read).join(self._taught, on=_KEY, how="anti")
        if foreign.height:
            user, item, _ = min(foreign.rows())
            raise LeakError(f"a prompt has read the event of user '{user}' with item '{item}', which does not teach")
        return len(read)


@runtime_checkable
class Fenced(Protocol):
    """A part that checks what it reads within a fit; None = nobody asks it to."""

    fence: Fence | None


@contextmanager
def fenced(system: object, fence: Fence | None) -> Iterator[None]:
    """Put the fence around every part of ``system`` that minds one, parts of parts too, while the block runs."""
    found = list(_fenced_parts(system))
    for part in found:
        part.fence = fence
    try:
        yield
    finally:
        for part in found:
            part.fence = None


def _fenced_parts(made: object) -> Iterator[Fenced]:
    for part in (getattr(made, "parts", None) or {}).values():
        if isinstance(part, Fenced):
            yield part
        yield from _fenced_parts(part)


_KEY = ["user", "item", "time"]


def _ids(dataset: Dataset, events: IntArray) -> pl.DataFrame:
    """User, item and time of each event, each once; -1 where no time is known."""
    import polars as pl

    time = pl.Series("time", np.full(len(events), -1, dtype=np.int64))
    if "time" in dataset.interactions.columns:
        time = dataset.interactions["time"].gather(events).cast(pl.Int64).fill_null(-1)
    return pl.DataFrame(
        {
            "user": dataset.users["user"].gather(dataset.user_rows[events]).cast(pl.String),
            "item": dataset.items["item"].gather(dataset.item_rows[events]).cast(pl.String),
            "time": time,
        }
    ).unique()
