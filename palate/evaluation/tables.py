"""The leaderboard a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from palate.core.errors import ConfigError
from palate.core.report import Interval, Report
from palate.evaluation.axes import AXES, ORACLE, RULES
from palate.evaluation.comparison import Comparisons, compare
from palate.evaluation.metrics import OF_RATINGS
from palate.evaluation.metrics import shown as shown_as
from palate.evaluation.protocols import MAIN

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

BEST, LEVEL = "★", "≈"
_SLICES_ABREAST = 4


def leaderboard(
    reports: Sequence[Report], comparisons: Comparisons | None = None, *, main: str = MAIN
) -> RenderableType:
    """A table of runs, best ``main`` first, with what it was measured on above and what it shows below.

    ★ is the best run, ≈ those not shown to be worse than it. Without ``comparisons`` they are made here.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not reports:
        raise ConfigError("there is no report to show")
    if comparisons is None and len(reports) > 1:
        comparisons = compare(reports)
    main = main if main in reports[0].metrics else next(iter(reports[0].metrics))
    best = comparisons.best(main) if comparisons else [reports[0].name]
    of_ratings = main in OF_RATINGS
    wanted = tuple(reports[0].metrics) if of_ratings else ("recall@10", main)
    shown = list(dict.fromkeys(name for name in wanted if name in reports[0].metrics))
    beyond = [name for name in reports[0].beyond if name.startswith("coverage@")]
    if any(report.beyond["failures"].value for report in reports if "failures" in report.beyond):
        beyond.append("failures")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", width=1)
    table.add_column("system", overflow="fold", min_width=10)
    table.add_column("pretrained", no_wrap=True)
    for name in shown:
        table.add_column(shown_as(name).pretty, no_wrap=True)
    for heading in (*(name.partition("@")[0] for name in beyond), "fit", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    for report in sorted(reports, key=lambda report: -shown_as(main).good(report.metrics[main].value)):
        mark = BEST if report.name == best[0] else LEVEL if report.name in best else ""
        style = "bold green" if mark == BEST else "green" if mark else ""
        table.add_row(
            Text(mark, style),
            Text(report.name, style),
            report.pretrained,
            *(_figure(report.metrics[name], style, bare=name == "mae") for name in shown),
            *(_share(report.beyond.get(name)) for name in beyond),
            duration(report.cost.get("fit_seconds")),
            _count(report.cost.get("parameters")),
        )
    said = Text(comparisons.sentence(main)) if comparisons else Text("")
    notes = list(dict.fromkeys(note for report in reports for note in report.notes))
    told = [Text(note, "dim") for note in notes]
    return Group(Text(headline(reports), "bold"), Text(""), table, Text(""), _legend(reports, main), said, *told)


def of_axes(reports: Sequence[Report]) -> bool:
    """Whether these are figures of parts of the questions, as ``evaluation.axes`` makes them."""
    return any("/" in name for report in reports for name in report.metrics)


def axis_metric(reports: Sequence[Report], at: str = "recall@10") -> str:
    """The one metric of all axes that is shown: ``at`` where it was measured, else the first that was."""
    known = [_inner(name) for name in reports[0].metrics]
    return at if at in known else known[0]


def axes_tables(reports: Sequence[Report], comparisons: Comparisons | None = None, *, at: str = "recall@10") -> Group:
    """For each run one row an axis: with words, without, with another's, and what both add. The oracle is no way to
    serve: its figure has a row of its own."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = axis_metric(reports, at)
    parts: list[RenderableType] = [Text(headline(reports), "bold"), Text("")]
    for report in reports:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column(report.name, overflow="fold", min_width=15)
        headings = [heading for heading in RULES if heading in report.slices and heading != ORACLE]
        for heading in (f"{shown_as(shown).pretty}, own words", *headings):
            table.add_column(heading, max_width=11, overflow="fold")
        for axis in AXES:
            name = f"{axis}/{shown}"
            if name in report.metrics:
                others = (report.slices[heading].get(name) for heading in headings)
                table.add_row(axis, *(_figure(one) if one else Text("–") for one in (report.metrics[name], *others)))
        for name, span in report.slices.get(ORACLE, {}).items():
            if _inner(name) == shown:
                table.add_row(Text(f"{name.partition('/')[0]}, {ORACLE}", "dim"), _figure(span, "dim"))
        parts += [table, Text("")]
    rules = {heading: rule for report in reports for heading, rule in report.slice_rules.items()}
    parts += [Text(f"{heading}: {rules[heading]}.", "dim") for heading in RULES if heading in rules]
    if comparisons:
        mains = [f"{axis}/{shown}" for axis in AXES if f"{axis}/{shown}" in comparisons.values]
        parts += [Text(""), *(Text(f"{name.partition('/')[0]}: {comparisons.sentence(name)}") for name in mains)]
    notes = list(dict.fromkeys(note for report in reports for note in report.notes))
    return Group(*parts, Text("pale: 95 % interval", "dim"), *(Text(note, "dim") for note in notes))


def _inner(name: str) -> str:
    """The metric of ``axis/metric``."""
    return name.rpartition("/")[2]


def headline(reports: Sequence[Report]) -> str:
    """What was measured, in one line; ``simulated`` and every other mark stands here."""
    first = reports[0]
    marks = list(dict.fromkeys(mark for report in reports for mark in report.marks))
    users = first.cases["user_row"].n_unique()
    asked = f"{users:,} users"
    if first.part:
        asked = f"{max(span.n for span in first.metrics.values()):,} of the users: {first.part}"
    marked = f" ({', '.join(marks)})" if marks else ""
    return f"{first.data}{marked} · {first.split} · {asked} · {first.protocol}"


def slice_table(reports: Sequence[Report], *, main: str = MAIN) -> RenderableType:
    """One row a run, one column a slice, four slices side by side; the figure that chance gives where it matters."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    main = main if main in reports[0].metrics else next(iter(reports[0].metrics))
    parts = list(dict.fromkeys(part for report in reports for part in report.slices))
    tables: list[RenderableType] = []
    for start in range(0, len(parts), _SLICES_ABREAST):
        shown = parts[start : start + _SLICES_ABREAST]
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("system", overflow="fold", min_width=10)
        for part in shown:
            table.add_column(part, min_width=15)
        for report in reports:
            spans = [report.slices.get(part, {}).get(main) for part in shown]
            table.add_row(report.name, *(_figure(span) if span else Text("–") for span in spans))
        tables += [table, Text("")]
    rules = {part: rule for report in reversed(reports) for part, rule in report.slice_rules.items()}
    notes = [f"{part}: {rules[part]}." for part in parts if part in rules]
    for part in parts:
        span = reports[0].slices.get(part, {}).get(main)
        if span is not None and span.chance is not None:
            notes.append(f"{part}: chance alone gives {span.chance:.3f}.")
    heads = (Text(headline(reports), "bold"), Text(f"{shown_as(main).pretty} by slice; pale: 95 % interval\n", "bold"))
    return Group(*heads, *tables, *(Text(note, "dim") for note in notes))


def _legend(reports: Sequence[Report], main: str) -> Text:
    from rich.text import Text

    counts = sorted({len(report.seeds) for report in reports})
    if counts == [1]:
        seeds = "One seed each: the intervals do not cover the luck of training."
    else:
        seeds = f"Mean of {' to '.join(map(str, {counts[0]: 0, counts[-1]: 0}))} seeds; intervals over users and seeds."
    marks = (
        f"{BEST} {shown_as(main).best} {shown_as(main).pretty}   {LEVEL} not shown to be worse   pale: 95 % interval"
    )
    own = [
        f"{report.name} is marked: {', '.join(extra)}." for report in reports if (extra := _not_shared(report, reports))
    ]
    return Text("\n".join([marks, seeds, *own]) + "\n", "dim")


def _not_shared(report: Report, reports: Sequence[Report]) -> list[str]:
    """The marks of one run that not all of them carry."""
    return [mark for mark in report.marks if not all(mark in other.marks for other in reports)]


def _figure(span: Interval, style: str = "", *, bare: bool = False) -> Text:
    from rich.text import Text

    figure = Text(f"{span.value:.3f}", style)
    if not (bare or np.isnan(span.low)):
        figure.append(f" {_short(span.low)}–{_short(span.high)}", "dim")
    return figure


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _share(span: Interval | None) -> str:
    return "–" if span is None else f"{span.value:.0%}"


def duration(seconds: float | None) -> str:
    """``0.4 s``, ``83 s``, ``12 min``, ``3.5 h``; a dash for what is not known."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 else "<0.1 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _count(number: float | None) -> str:
    if number is None:
        return "–"
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f} {letter}"
    return f"{number:.0f}"
