"""How good a user index is, seen from outside: how many codes and names are used, and whether names follow tastes.

Shapes: U users, K levels, T tastes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray
from palate.evaluation.agreement import Agreement, agreement

DEPTHS = 2
"""Users are grouped by their first code, by their first two: beyond that groups are single users."""


@dataclass(frozen=True)
class IndexHealth:
    """``named`` of ``users`` have a name, ``different`` ones there are; ``codes_in_use`` by level. ``read`` and
    ``repair`` are what the fit says of itself. ``planted_tastes`` by depth, from one code on; empty where no tastes are
    known. ``notes`` warn of a thin or unspread level."""

    users: int
    named: int
    different: int
    codes_in_use: tuple[int, ...]
    read: Any
    repair: Any
    planted_tastes: tuple[Agreement, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """The report a person reads, after the name of the run."""
        lines = [
            f"names {self.named:,} of {self.users:,} users, {self.different:,} differently; "
            f"codes in use a level: {', '.join(map(str, self.codes_in_use))}",
            f"read: {self.read}",
        ]
        for depth, found in enumerate(self.planted_tastes, start=1):
            above = found.above
            lines.append(
                f"planted tastes (simulated), users grouped by {depth} code{'s' * (depth > 1)} "
                f"({found.groups} groups): NMI {found.own:.3f}, random index {found.random:.3f}, "
                f"above it {above.value:+.3f} [{above.low:+.3f}, {above.high:+.3f}]"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def index_health(
    numbers: IntArray, tastes: npt.NDArray[np.bool_] | None = None, facts: Mapping[str, Any] | None = None
) -> IndexHealth:
    """Of ``numbers`` ``[U, K]``, -1 where a user has no name, with ``tastes`` ``[U, T]`` also the agreement of both;
    ``facts`` of a tokenizer say what was read and repaired."""
    facts, named = facts or {}, np.flatnonzero(numbers[:, 0] >= 0)
    names, found = numbers[named], []
    if tastes is not None and len(named) > 1:
        for depth in range(1, min(DEPTHS, numbers.shape[1]) + 1):
            groups = np.unique(names[:, :depth], axis=0, return_inverse=True)[1].ravel()
            found.append(agreement(groups, tastes[named]))
    return IndexHealth(
        len(numbers), len(named), len(np.unique(names, axis=0)), tuple(len(np.unique(level)) for level in names.T),
        facts.get("read"), facts.get("repair"), tuple(found), tuple(facts.get("notes", ())),
    )  # fmt: skip
