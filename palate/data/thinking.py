"""Texts of a model that thinks before it answers: lines of steps, and the line that the answer stands on.

Shared by rankings and ratings, so that the steps of both are read by one rule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST = 20_000
"""Characters of an answer that are looked at."""

_STEP = re.compile(r"^[\s*_#>-]*step\b", re.IGNORECASE)


def mark_of(*words: str) -> re.Pattern[str]:
    """What a line begins with that holds the answer: ``Ranking:``, ``**Final answer:** `` …, for these words."""
    return re.compile(rf"^[\s*_#>]*(?:final\s+)?(?:{'|'.join(words)})[\s*_]*:[\s*_]*", re.IGNORECASE)


def is_step(line: str) -> bool:
    """Whether a line calls itself a step."""
    return _STEP.match(line) is not None


def steps_of(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines that hold something, without the space around them."""
    return tuple(line.strip() for line in lines if line.strip())
