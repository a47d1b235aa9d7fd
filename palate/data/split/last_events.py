"""Rules that ask every user for the last two events."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.split import Split
from palate.data.split import checks
from palate.data.split.questions import cases_after


class LeaveOneOut(Config):
    """The last event of each user is test, the one before it valid, the rest teaches.

    Users with fewer than three events only teach. A test history includes the validation event.
    """

    name: ClassVar[str] = "leave-one-out"

    def make(self, dataset: Dataset) -> Split:
        histories = dataset.histories
        asked = histories[np.flatnonzero(histories.lengths >= 3)]
        valid, test = asked.stops - 2, asked.stops - 1
        teaches = np.ones(dataset.n_interactions, dtype=np.bool_)
        teaches[valid] = teaches[test] = False
        return Split(
            dataset,
            dataset.keeping(teaches),
            valid=cases_after(dataset, valid, asked.starts, valid),
            test=cases_after(dataset, test, asked.starts, test),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        return {
            "histories": checks.check_histories(split),
            "training": checks.check_training(split, checks.asked_or_later(split)),
            "users": _who_is_asked(split),
        }


class FewShot(Config):
    """As leave-one-out, but train keeps only the ``n`` newest events of a user before those that are asked.

    Histories hold the same ``n`` events (in test the validation event too): what is older is forgotten everywhere.
    """

    name: ClassVar[str] = "few-shot"
    n: int = Field(5, ge=1)
    """Events of a user that train keeps."""

    def make(self, dataset: Dataset) -> Split:
        histories = dataset.histories
        is_asked = histories.lengths >= 3
        stops = np.where(is_asked, histories.stops - 2, histories.stops)
        starts = np.maximum(histories.starts, stops - self.n)
        position, users = np.arange(dataset.n_interactions), dataset.user_rows
        teaches = (position >= starts[users]) & (position < stops[users])
        valid = stops[is_asked]
        return Split(
            dataset,
            dataset.keeping(teaches),
            valid=cases_after(dataset, valid, starts[is_asked], valid),
            test=cases_after(dataset, valid + 1, starts[is_asked], valid + 1),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        return {
            "histories": checks.check_histories(split),
            "shots": self._check_shots(split),
            "training": checks.check_training(split, checks.asked_or_later(split, keeps=self.n)),
            "users": _who_is_asked(split),
        }

    def _check_shots(self, split: Split) -> str:
        most = int(split.train.histories.lengths.max(initial=0))
        if most > self.n:
            user = split.dataset.user_ids[int(split.train.histories.lengths.argmax())]
            raise LeakError(f"train holds {most:,} events of user '{user}', more than the {self.n:,} it may keep")
        for name, cases, room in (("valid", split.valid, self.n), ("test", split.test, self.n + 1)):
            longest = int(cases.requests.histories.lengths.max(initial=0))
            if longest > room:
                raise LeakError(f"{name}: a history shows {longest:,} events, more than the {room:,} it may")
        return f"no user teaches more than {most:,} events (at most {self.n:,} allowed), no history shows older ones"


def _who_is_asked(split: Split) -> str:
    lengths = split.dataset.histories.lengths
    short = int(((lengths > 0) & (lengths < 3)).sum())
    n_asked = len(np.unique(split.test.user_rows))
    return f"{n_asked:,} users are asked; {short:,} with fewer than 3 events only teach"
