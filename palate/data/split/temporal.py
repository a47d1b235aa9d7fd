"""The rule that asks about the future: nothing after a point in time teaches."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Literal

import numpy as np
from pydantic import field_validator

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import DataError, LeakError
from palate.core.ragged import IntArray
from palate.core.split import Cases, Split
from palate.data.split import checks
from palate.data.split.questions import cases_after


class Temporal(Config):
    """Events before ``valid_from`` teach, those from it on are valid, those from ``test_from`` on are test.

    Each event after a cut is a case; its history is all that the user did strictly before it, later questions
    included (rolling). A cut is a date such as "1998-03-01" (UTC) or the share of all events that come before it.
    """

    name: ClassVar[str] = "temporal"
    valid_from: float | str = 0.8
    test_from: float | str = 0.9
    asked: Literal["every", "first"] = "every"
    """Every event of a period, or only each user's first one."""

    @field_validator("valid_from", "test_from")
    @classmethod
    def _is_a_cut(cls, cut: float | str) -> float | str:
        if isinstance(cut, str):
            try:
                datetime.fromisoformat(cut)
            except ValueError:
                raise ValueError("write a date such as 1998-03-01, or a share of the events such as 0.9") from None
        elif not 0 < cut < 1:
            raise ValueError("a share of the events lies between 0 and 1")
        return cut

    def make(self, dataset: Dataset) -> Split:
        times = _times_of(dataset)
        cuts = [_cut_ms(times, cut) for cut in (self.valid_from, self.test_from)]
        if cuts[0] >= cuts[1]:
            raise DataError(
                f"temporal split: valid_from ({_date(cuts[0])}) must come before test_from ({_date(cuts[1])})"
            )
        return Split(
            dataset,
            dataset.keeping(times < cuts[0]),
            valid=self._cases(dataset, times, (times >= cuts[0]) & (times < cuts[1])),
            test=self._cases(dataset, times, times >= cuts[1]),
            rule=self.name,
        )

    def _cases(self, dataset: Dataset, times: IntArray, period: np.ndarray) -> Cases:
        events = np.flatnonzero(period)
        users = dataset.user_rows
        if self.asked == "first" and len(events):
            events = events[np.concatenate([[True], users[events][1:] != users[events][:-1]])]
        new_moment = np.ones(len(times), dtype=np.bool_)
        new_moment[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
        moment = np.maximum.accumulate(np.where(new_moment, np.arange(len(times)), 0))  # first event of the same time
        return cases_after(dataset, events, dataset.histories.starts[users[events]], moment[events])

    def proofs(self, split: Split) -> dict[str, str]:
        return {
            "histories": checks.check_histories(split),
            "time": _check_time(split),
            "training": checks.check_training(split, _times_of(split.dataset) >= _first_question(split)),
            "newcomers": f"{int((split.test.requests.histories.lengths == 0).sum()):,} test events of users without "
            "any earlier event",
        }


def _check_time(split: Split) -> str:
    """Train ends before valid begins, valid before test, and every history strictly before its question."""
    times = _times_of(split.dataset)
    ends: list[tuple[str, int]] = []
    parts = (
        ("train", _times_of(split.train)),
        ("valid", times[split.valid.events]),
        ("test", times[split.test.events]),
    )
    for name, own in parts:
        if not len(own):
            continue
        if ends and own.min() <= ends[-1][1]:
            before, end = ends[-1]
            raise LeakError(
                f"{before} holds an event of {_date(end)}, which is not before {_date(int(own.min()))}, "
                f"the first question of {name}"
            )
        ends.append((name, int(own.max())))
    for name, cases in (("valid", split.valid), ("test", split.test)):
        histories = cases.requests.histories
        filled = histories.lengths > 0
        last = times[histories.stops[filled] - 1]
        if (last >= times[cases.events[filled]]).any():
            raise LeakError(f"{name}: a history holds an event of the very time of its question, or of a later one")
    return (
        "; ".join(f"{name} ends {_date(end)}" for name, end in ends) + "; histories end strictly before each question"
    )


def _first_question(split: Split) -> int:
    times = _times_of(split.dataset)
    return min(int(times[cases.events].min()) for cases in (split.valid, split.test) if len(cases))


def _times_of(dataset: Dataset) -> IntArray:
    if dataset.clock == "order":
        raise DataError(
            f"the temporal split needs real times, and dataset '{dataset.name}' only knows the order of each user's "
            "events; use leave-one-out"
        )
    if dataset.times is None:
        raise DataError(f"the temporal split needs a time for every event, and dataset '{dataset.name}' lacks some")
    return dataset.times


def _cut_ms(times: IntArray, cut: float | str) -> int:
    """A cut as ms: events at or after it come later."""
    if isinstance(cut, str):
        when = datetime.fromisoformat(cut)
        return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    place = min(int(cut * len(times)), len(times) - 1)
    return int(np.partition(times, place)[place])


def _date(ms: int) -> str:
    return str(np.datetime64(ms, "ms").astype("datetime64[s]")).replace("T", " ")
