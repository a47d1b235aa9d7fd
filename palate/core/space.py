"""What is worth searching: the ``SPACE`` that a system's file states for ``palate fit --tune``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included; ``log`` searches orders of magnitude, ``whole`` integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[str | int | float | bool, ...]


SearchSpace = Mapping[str, Range | Choice]
"""Setting, possibly dotted, → what it may be."""
