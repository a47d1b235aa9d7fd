"""What is worth searching: the ``SPACE`` that a system's file states for ``palate fit --tune``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included; ``log`` searches orders of magnitude, ``whole`` integers.

    ``optional`` adds the value None, which switches the setting off: whether it is on is searched first, then how much.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False
    optional: bool = False

    def holds(self, value: object) -> bool:
        """Whether a search could propose ``value``."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or value == int(value))


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[str | int | float | bool, ...]

    def holds(self, value: object) -> bool:
        """Whether a search could propose ``value``; True is not 1."""
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values)


SearchSpace = Mapping[str, Range | Choice]
"""Setting, possibly dotted, → what it may be."""
