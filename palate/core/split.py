"""Which events teach and which are asked: the two halves of every honest figure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray
from palate.core.requests import Requests


@dataclass(frozen=True, eq=False)
class Cases:
    """Questions with the answer that really came next. One target a case; a user may have several cases.

    requests    everything known before the target, including its own time (never the target itself)
    targets     ``[B]`` item rows
    events      ``[B]`` the target's position in the interactions of the whole dataset, -1 = from elsewhere
    """

    requests: Requests
    targets: IntArray
    events: IntArray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: slice | IntArray) -> Cases:
        return Cases(self.requests[rows], self.targets[rows], self.events[rows])

    @property
    def user_rows(self) -> IntArray:
        """``[B]`` the unit of every interval: cases of one user are averaged first."""
        rows = self.requests.user_rows
        return np.arange(len(self)) if rows is None else rows


@dataclass(frozen=True, eq=False)
class Split:
    """Train, valid and test of one dataset, made by a named rule and checked for leaks when it was made.

    ``train`` has the users and items of ``dataset`` and only the events that may teach. ``rule`` and ``settings``
    say how to make it again; ``proof`` lists each check that passed with the numbers it saw.
    """

    dataset: Dataset
    train: Dataset
    valid: Cases
    test: Cases
    rule: str
    settings: Mapping[str, object] = field(default_factory=dict)
    proof: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """Equal exactly when the same rule asks the same questions after the same teaching."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.rule, dict(self.settings)], sort_keys=True, default=str).encode())
        digest.update(self.train.fingerprint.encode())
        for cases in (self.valid, self.test):
            for column in (cases.user_rows, cases.targets, cases.requests.histories.lengths):
                digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
                digest.update(b"\0")
        return digest.hexdigest()

    @cached_property
    def cold_items(self) -> np.ndarray:
        """``[N]`` bool: items that no training event shows."""
        return self.train.item_counts == 0
