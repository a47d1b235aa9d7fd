"""A comparison in plain English: says what is shown and what is not, and never more than five lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from palate.evaluation.metrics import shown

MAX_LINES = 5


class Gap(Protocol):
    """What a sentence needs to know of a pair."""

    @property
    def difference(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def sentence(
    tiers: Sequence[Sequence[str]], values: Mapping[str, float], between: Callable[[str, str], Gap], metric: str
) -> str:
    """Lines about ``tiers`` (best first; the first of a tier is better than every run of the later ones)."""
    on, best = f"on {shown(metric).pretty}", shown(metric).best
    heads = [tier[0] for tier in tiers]
    if len(tiers) == 1:
        return _no_difference(tiers[0], values, between, on, best)
    lines = []
    for place, (head, tier) in enumerate(zip(heads, tiers, strict=True)):
        later = [name for below in tiers[place + 1 :] for name in below]
        level = _level(tier)
        if place == MAX_LINES - 1 and len(later) > 0:
            rest = len(later) + len(tier)
            lines.append(f"How the last {rest} compare with each other stands in the table of comparisons.")
            break
        if not later:
            lines += [f"{level[0].upper()}{level[1:]}."] if level else []
            break
        gap = between(head, later[0])
        over = f" over {later[0]}" if len(later) > 1 else ""
        better = f"{head} is better than {_some(later)} {on} ({_signed(gap, over)})"
        lines.append(better + (f"; {level}." if level else "."))
        on = ""
    return "\n".join(" ".join(line.split()).replace(" ;", ";") for line in lines)


def _no_difference(
    tier: Sequence[str], values: Mapping[str, float], between: Callable[[str, str], Gap], on: str, best: str
) -> str:
    head, *others = tier
    if not others:
        return f"{head} stands alone: there is nothing to compare it with."
    if len(others) == 1:
        return (
            f"{head} and {others[0]} are not shown to differ {on} "
            f"({head} minus {others[0]}: {_signed(between(head, others[0]))})."
        )
    verb = "are" if len(others) > 1 else "is"
    return f"{_listed(others)} {verb} not shown to differ {on} from {head}, the {best} ({values[head]:.3f})."


def _level(tier: Sequence[str]) -> str:
    head, *others = tier
    if not others:
        return ""
    return f"{_listed(others)} {'are' if len(others) > 1 else 'is'} not shown to differ from {head}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _some(names: Sequence[str]) -> str:
    """Names while they are few, else the first and how many more."""
    return _listed(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"


def _signed(gap: Gap, over: str = "") -> str:
    digits = 3 if abs(gap.difference) >= 0.002 else 4
    value, low, high = (f"{number:+.{digits}f}".replace("-", "−") for number in (gap.difference, gap.low, gap.high))
    return f"{value}{over}, 95 % interval {low} to {high}"
