"""What was measured: named numbers, each with its interval and the per-request values it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval. ``n`` users stand behind it.

    ``low`` and ``high`` are NaN where no single user has a value (coverage, Gini). ``chance`` is what a ranking by
    lot would reach, given where a figure cannot be read without it.
    """

    value: float
    low: float
    high: float
    n: int = 0
    chance: float | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """One run judged by one protocol.

    cases     one row a (seed, case): ``seed``, ``case``, ``user_row``, ``target_row``, ``rank``, ``tied`` (how many
              share that rank), ``rank_among_cold`` and ``tied_among_cold``, a column a metric, a flag a slice and
              ``answers``, the item rows of the list that was given; everything else is computed from it
    metrics   ``recall@10`` → interval, over all cases
    slices    slice name → the same metrics over that slice; ``slice_rules`` says what each slice is
    beyond    figures that are not about the target: ``coverage@10``, ``novelty@10`` …
    cost      ``fit_seconds``, ``peak_mb``, ``parameters`` …
    marks     words every figure must carry: ``simulated``, ``unverified`` …
    part      the slice that all of this speaks of; "" = every case
    notes     lines that stand under every table: which questions were asked, how they spread, how prompts read
    """

    name: str
    system: str
    data: str
    split: str
    split_hash: str
    protocol: str
    pretrained: str
    seeds: tuple[int, ...]
    cases: pl.DataFrame
    metrics: Mapping[str, Interval]
    slices: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    slice_rules: Mapping[str, str] = field(default_factory=dict)
    beyond: Mapping[str, Interval] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    part: str = ""
