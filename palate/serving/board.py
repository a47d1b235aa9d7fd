"""The leaderboard: what ``palate evaluate`` measured of the served runs, side by side, with what is shown to differ."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from palate.core.errors import ComparisonError, StoreError
from palate.core.report import Interval, Report
from palate.evaluation.comparison import Comparisons, compare
from palate.evaluation.metrics import shown
from palate.evaluation.protocols import MAIN
from palate.evaluation.reports import read_report
from palate.serving.served import Served

KEPT = 8
"""Comparisons that are remembered: one takes seconds."""


@dataclass(frozen=True)
class Span:
    """A number with its 95 % interval; ``chance`` is what a ranking by lot would reach, where that matters."""

    value: float | None
    low: float | None
    high: float | None
    chance: float | None = None


@dataclass(frozen=True)
class Measured:
    """One run in a table; figures beyond accuracy stand among the metrics."""

    name: str
    system: str
    pretrained: str
    seeds: list[int]
    cost: dict[str, float]
    metrics: dict[str, Span]
    slices: dict[str, dict[str, Span]]


@dataclass(frozen=True)
class Pair:
    """``difference`` = a - b. ``better`` is set where the interval excludes 0 and the corrected p is below 0.05."""

    a: str
    b: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    better: str | None


@dataclass(frozen=True)
class MetricName:
    name: str
    pretty: str
    higher_is_better: bool | None
    """None for a figure that is neither good nor bad by itself."""


@dataclass(frozen=True)
class Verdict:
    """On one metric: the best run with all not shown worse than it, and the finding in words."""

    metric: str
    best: list[str]
    sentence: str


@dataclass(frozen=True)
class Table:
    """Runs that answered the same questions. ``problem`` says why they are not compared, where they are not."""

    data: str
    split: str
    protocol: str
    marks: list[str]
    users: int
    metrics: list[MetricName]
    main: str
    runs: list[Measured]
    slice_rules: dict[str, str]
    pairs: list[Pair]
    verdicts: list[Verdict]
    notes: list[str]
    problem: str | None = field(default=None)


@dataclass(frozen=True)
class Leaderboard:
    """One table for each set of questions; ``unmeasured`` are runs that ``palate evaluate`` has not judged."""

    tables: list[Table]
    unmeasured: list[str]


class Board:
    """Makes leaderboards and remembers them; any thread may ask."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._made: dict[tuple[tuple[str, int], ...], Table] = {}
        self._read: dict[Path, tuple[int, Report]] = {}

    def leaderboard(self, served: Sequence[Served]) -> Leaderboard:
        """All reports of these runs, those that may be compared in one table."""
        groups: dict[tuple[str, ...], list[tuple[Report, int]]] = {}
        unmeasured = []
        for one in served:
            reports = self._reports(one)
            if not reports:
                unmeasured.append(one.name)
            for report, changed in reports:
                key = (report.data, report.split, report.split_hash, report.protocol)
                groups.setdefault(key, []).append((report, changed))
        return Leaderboard([self._table(group) for group in groups.values()], unmeasured)

    def _reports(self, served: Served) -> list[tuple[Report, int]]:
        """The reports in a run's folder, each with when it was written; damaged ones are left out. One that has not
        changed is not read again."""
        found = []
        for folder in sorted((served.folder / "reports").glob("*/")):
            try:
                changed = (folder / "report.json").stat().st_mtime_ns
                with self._making:
                    if self._read.get(folder, (None,))[0] != changed:
                        self._read[folder] = changed, replace(read_report(folder), name=served.name)
                    found.append((self._read[folder][1], changed))
            except (OSError, StoreError):
                self._read.pop(folder, None)
        return found

    def _table(self, group: Sequence[tuple[Report, int]]) -> Table:
        key = tuple((report.name, changed) for report, changed in group)
        with self._making:
            if key not in self._made:
                while len(self._made) >= KEPT:
                    self._made.pop(next(iter(self._made)))
                self._made[key] = _make([report for report, _ in group])
            return self._made[key]


def _make(reports: Sequence[Report]) -> Table:
    first = reports[0]
    names = [name for name in first.metrics if all(name in report.metrics for report in reports)]
    main = MAIN if MAIN in names else next(iter(names), "")
    beyond = [name for name in first.beyond if all(name in report.beyond for report in reports)]
    problem, comparisons = None, None
    if not names:
        problem = "these reports have no metric in common; evaluate the runs anew"
    elif len(reports) > 1:
        try:
            comparisons = compare(reports, names)
        except ComparisonError as failure:
            problem = str(failure)
    return Table(
        data=first.data, split=first.split, protocol=first.protocol,
        marks=list(dict.fromkeys(mark for report in reports for mark in report.marks)),
        users=first.cases["user_row"].n_unique(),
        metrics=[*(MetricName(name, shown(name).pretty, shown(name).good(1.0) > 0) for name in names),
                 *(MetricName(name, name, None) for name in beyond)],
        main=main,
        runs=sorted((_measured(report) for report in reports), key=lambda run: -_goodness(run, main)),
        slice_rules=dict(first.slice_rules),
        pairs=[] if comparisons is None else _pairs(comparisons),
        verdicts=[] if comparisons is None else [
            Verdict(name, comparisons.best(name), comparisons.sentence(name)) for name in names
        ],
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
        problem=problem,
    )  # fmt: skip


def _goodness(run: Measured, main: str) -> float:
    value = run.metrics[main].value if main in run.metrics else None
    return -math.inf if value is None else shown(main).good(value)


def _measured(report: Report) -> Measured:
    return Measured(
        report.name, report.system, report.pretrained, list(report.seeds),
        {key: value for key, value in report.cost.items() if value is not None and math.isfinite(value)},
        _spans({**report.metrics, **report.beyond}),
        {part: _spans(figures) for part, figures in report.slices.items()},
    )  # fmt: skip


def _spans(figures: Mapping[str, Interval]) -> dict[str, Span]:
    return {
        name: Span(*(_number(value) for value in (span.value, span.low, span.high, span.chance)))
        for name, span in figures.items()
    }


def _pairs(comparisons: Comparisons) -> list[Pair]:
    return [
        Pair(
            one.a, one.b, one.metric, _number(one.difference), _number(one.low), _number(one.high), _number(one.p_holm),
            one.winner,
        )
        for one in comparisons.pairs
    ]  # fmt: skip


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
