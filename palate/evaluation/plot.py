"""The leaderboard as a picture that is understood at a glance: a dot and its 95 % interval per run, cost beside it.

Drawn with matplotlib's objects alone, so nothing global is touched. Colours are two of Okabe & Ito's, which people with
any colour vision tell apart; shape says the same again (filled = not shown to be worse than the best).

Figures of the five axes that say how words are followed have a panel each, and no run is called the best: the dots of a
run say what its words are worth, with them, without any, and with another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.core.errors import ConfigError
from palate.core.report import Interval, Report
from palate.core.store import write_bytes, write_text
from palate.evaluation.axes import AXES, ORACLE, SHUFFLED, SILENT, STATED
from palate.evaluation.comparison import Comparisons, compare
from palate.evaluation.metrics import shown
from palate.evaluation.protocols import MAIN
from palate.evaluation.tables import axis_metric, duration, headline, of_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST_COLOUR, OTHER_COLOUR, INK, SOFT, PALE = "#0072B2", "#8A8A8A", "#222222", "#555555", "#D9D9D9"
OTHERS_COLOUR = "#E69F00"
SUFFIXES = (".svg", ".png")
AXIS_TITLES = {
    "recommendation": ("Recommendation", "history and one sentence:\nwhat comes next"),
    "fine-steering": ("Fine steering", "a sentence asks for the item\nnearest to what came next"),
    "coarse-steering": ("Coarse steering", "a sentence asks for the item\nfarthest from what came next"),
    "sentiment": ("Sentiment", "no history: found when wished\nfor, not when refused"),
    "consolidation": ("History consolidation", "history and all five\nsentences: what comes next"),
}
"""What the panels of the five axes are called, and what is asked there."""
CONDITIONS = {
    STATED: ("o", BEST_COLOUR, BEST_COLOUR, "with its own words"),
    SILENT: ("o", OTHER_COLOUR, "white", "without words"),
    SHUFFLED: ("X", OTHERS_COLOUR, OTHERS_COLOUR, "with another question's words"),
    ORACLE: ("D", PALE, "white", "oracle, not servable"),
}
"""Marker, colour, fill and words of each condition, in the order in which they stand below each other."""


def draw_leaderboard(
    reports: Sequence[Report], path: str | Path, comparisons: Comparisons | None = None, *, main: str = MAIN
) -> None:
    """Write the picture to ``path``; the suffix, ``.svg`` or ``.png``, chooses the format."""
    path = _drawable(path)
    save_figure(leaderboard_figure(reports, comparisons, main=main), path)


def _drawable(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a plot is written as {' or '.join(SUFFIXES)}, not as '{path.suffix or path.name}'")
    return path


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture whole or not at all, as its suffix says."""
    path = _drawable(path)
    if path.suffix.lower() == ".svg":
        from matplotlib import rc_context

        text = StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "palate"}):  # words stay words; the same twice
            figure.savefig(text, format="svg", metadata={"Date": None})
        write_text(path, text.getvalue())
    else:
        image = BytesIO()
        figure.savefig(image, format="png", dpi=200)
        write_bytes(path, image.getvalue())


def leaderboard_figure(
    reports: Sequence[Report], comparisons: Comparisons | None = None, *, main: str = MAIN
) -> Figure:
    """The picture as a matplotlib figure on its own canvas; of the five axes where the reports are of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not reports:
        raise ConfigError("there is no report to draw")
    if of_axes(reports):
        return _axes_figure(reports)
    if comparisons is None and len(reports) > 1:
        comparisons = compare(reports)
    main = main if main in reports[0].metrics else next(iter(reports[0].metrics))
    best = comparisons.best(main) if comparisons else [reports[0].name]
    rows = sorted(reports, key=lambda report: shown(main).good(report.metrics[main].value))
    height = 1.85 + 0.42 * len(rows)
    figure = Figure(figsize=(6.4, height), facecolor="white")
    FigureCanvasAgg(figure)
    costs = any("fit_seconds" in report.cost for report in rows)
    grid = figure.add_gridspec(1, 2 if costs else 1, width_ratios=[3, 1] if costs else [1], wspace=0.06)
    figure.subplots_adjust(left=_name_margin(rows), right=0.965, top=1 - 0.80 / height, bottom=0.84 / height)
    quality = figure.add_subplot(grid[0])
    _quality(quality, rows, best, main)
    if costs:
        _cost(figure.add_subplot(grid[1], sharey=quality), rows, best)
    _words(figure, rows, best, main, height)
    return figure


def _quality(axes: Axes, rows: Sequence[Report], best: Sequence[str], main: str) -> None:
    spans = [report.metrics[main] for report in rows]
    top = spans[-1]
    if not np.isnan(top.low):
        axes.axvspan(top.low, top.high, color=BEST_COLOUR, alpha=0.08, linewidth=0)
    for place, (report, span) in enumerate(zip(rows, spans, strict=True)):
        level = report.name in best
        colour = BEST_COLOUR if level else OTHER_COLOUR
        if not np.isnan(span.low):
            axes.plot([span.low, span.high], [place, place], color=colour, linewidth=2.6, solid_capstyle="round")
        axes.plot(span.value, place, "o", color=colour, markersize=9, markerfacecolor=colour if level else "white",
                  markeredgewidth=2)  # fmt: skip
        axes.annotate(f"{span.value:.3f}", (span.value, place), xytext=(0, 8), textcoords="offset points",
                      ha="center", va="bottom", fontsize=9.5, color=INK,
                      weight="bold" if level else "normal")  # fmt: skip
    _bare(axes)
    axes.set_yticks(range(len(rows)), [report.name for report in rows], fontsize=12)
    for label, report in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(BEST_COLOUR if report.name in best else INK)
        label.set_fontweight("bold" if report.name in best else "normal")
    axes.set_ylim(-0.6, len(rows) - 0.25)
    axes.set_xlabel(shown(main).pretty, fontsize=11, color=INK)
    axes.margins(x=0.06)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=PALE, linewidth=0.8)


def _cost(axes: Axes, rows: Sequence[Report], best: Sequence[str]) -> None:
    seconds = np.array([report.cost.get("fit_seconds", np.nan) for report in rows])
    known = seconds[np.isfinite(seconds) & (seconds > 0)]
    floor = float(known.min()) / 2 if len(known) else 1.0
    span = np.log10(float(known.max()) / floor) if len(known) else 1.0
    for place, (report, value) in enumerate(zip(rows, seconds, strict=True)):
        if not np.isfinite(value):
            continue
        length = max(0.02, float(np.log10(max(value, floor) / floor) / span))
        axes.barh(place, length, height=0.34, color=BEST_COLOUR if report.name in best else OTHER_COLOUR, alpha=0.55)
        axes.annotate(duration(float(value)), (length, place), xytext=(4, 0), textcoords="offset points", va="center",
                      fontsize=9.5, color=INK)  # fmt: skip
    axes.set_xlim(0, 1.75)
    axes.set_xticks([])
    axes.set_xlabel("fit time (log)", fontsize=11, color=INK)
    axes.tick_params(labelleft=False)
    _bare(axes)


def _words(figure: Figure, rows: Sequence[Report], best: Sequence[str], main: str, height: float) -> None:
    top = rows[-1]
    others = [name for name in best if name != top.name]
    if len(rows) == 1:
        title = f"{top.name}: {shown(main).pretty} with its 95 % interval"
    elif not others:
        title = f"{top.name} is better than the other {len(rows) - 1}" if len(rows) > 2 else f"{top.name} is better"
    elif len(best) == len(rows):
        title = "No run is shown to be better than the others"
    else:
        title = f"{top.name} leads; {len(others)} {'is' if len(others) == 1 else 'are'} not shown to be worse"
    figure.text(0.02, 1 - 0.30 / height, title, fontsize=14, weight="bold", color=INK, va="center")
    data, _, rest = headline(rows).partition(" · ")
    split, users, *_ = rest.split(" · ")
    figure.text(0.02, 1 - 0.58 / height, f"{data} · {split} · {users} · lines: 95 % interval", fontsize=9.5,
                color=SOFT, va="center")  # fmt: skip
    if len(rows) > 1:
        legend = f"filled: not shown to be worse than the {shown(main).best} · band: its interval"
        figure.text(0.02, 0.17 / height, legend, fontsize=9.5, color=SOFT, va="center")


# -- the five axes -----------------------------------------------------------------------------------------------------


def _axes_figure(reports: Sequence[Report]) -> Figure:
    """One panel an axis on one scale, one row a run in the order given."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at = axis_metric(reports)
    asked = [axis for axis in AXES if any(f"{axis}/{at}" in report.metrics for report in reports)]
    height = 2.45 + 0.86 * len(reports)
    names = 6.4 * _name_margin(reports)
    width = names + 1.95 * max(4, len(asked))
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, len(asked), wspace=0.1)
    figure.subplots_adjust(left=names / width, right=0.985, top=1 - 1.28 / height, bottom=1.08 / height)
    first: Axes | None = None
    for place, axis in enumerate(asked):
        panel = figure.add_subplot(grid[place], sharex=first, sharey=first)
        first = first or panel
        _axis_panel(panel, reports, axis, at)
    assert first is not None
    first.set_yticks(range(len(reports)), [report.name for report in reports], fontsize=12)
    first.set_ylim(len(reports) - 0.5, -0.5)
    ends = [max(span.value, np.nan_to_num(span.high)) for axis in asked for _, _, span in _spans(reports, axis, at)]
    first.set_xlim(0, min(1.0, 1.12 * max(ends)) or 1.0)
    first.locator_params(axis="x", nbins=4)
    figure.text(0.012, 1 - 0.24 / height, "Do the systems follow the words of a request?", fontsize=14, weight="bold",
                color=INK, va="center")  # fmt: skip
    data, _, rest = headline(reports).partition(" · ")
    split, users, *_ = rest.split(" · ")
    told = f"{data} · {split} · {users} · {shown(at).pretty}: {_in_words(at)} · lines: 95 % interval"
    figure.text(0.012, 1 - 0.50 / height, told, fontsize=9.5, color=SOFT, va="center")
    _axes_legend(figure, reports, at, height)
    return figure


def _spans(reports: Sequence[Report], axis: str, at: str) -> list[tuple[int, str, Interval]]:
    """Row, condition and figure of everything measured on an axis."""
    found = []
    for row, report in enumerate(reports):
        for condition in CONDITIONS:
            span = (report.metrics if condition == STATED else report.slices.get(condition, {})).get(f"{axis}/{at}")
            if span is not None and np.isfinite(span.value):
                found.append((row, condition, span))
    return found


def _axis_panel(axes: Axes, reports: Sequence[Report], axis: str, at: str) -> None:
    title, question = AXIS_TITLES[axis]
    axes.set_title(title, fontsize=11, weight="bold", color=INK, loc="left", pad=29)
    axes.text(0, 1.02, question, transform=axes.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    for row in range(0, len(reports), 2):
        axes.axhspan(row - 0.5, row + 0.5, color=PALE, alpha=0.25, linewidth=0)
    order = list(CONDITIONS)
    for row, condition, span in _spans(reports, axis, at):
        marker, colour, fill, _ = CONDITIONS[condition]
        edge = SOFT if condition == ORACLE else colour
        place = row - 0.27 + 0.2 * order.index(condition)
        if not np.isnan(span.low):
            axes.plot([span.low, span.high], [place, place], color=edge, linewidth=1.8, solid_capstyle="round",
                      linestyle=":" if condition == ORACLE else "-")  # fmt: skip
        axes.plot(span.value, place, marker, color=edge, markerfacecolor=fill, markersize=6.5, markeredgewidth=1.2,
                  clip_on=False)  # fmt: skip
        if condition == STATED:
            axes.annotate(f"{span.value:.3f}", (span.value, place), xytext=(0, 4), textcoords="offset points",
                          ha="center", va="bottom", fontsize=9, color=INK)  # fmt: skip
    _bare(axes)
    users = max(span.n for row, condition, span in _spans(reports, axis, at) if condition == STATED)
    axes.set_xlabel(f"{users:,} users", fontsize=9.5, color=SOFT)
    axes.label_outer(remove_inner_ticks=True)
    axes.tick_params(axis="x", labelbottom=True)
    axes.grid(axis="x", color=PALE, linewidth=0.8)


def _axes_legend(figure: Figure, reports: Sequence[Report], at: str, height: float) -> None:
    from matplotlib.lines import Line2D

    seen = {condition for axis in AXES for _, condition, _ in _spans(reports, axis, at)}
    marks = []
    for condition, (marker, colour, fill, words) in CONDITIONS.items():
        if condition in seen:
            edge = SOFT if condition == ORACLE else colour
            marks.append(Line2D([], [], marker=marker, color=edge, markerfacecolor=fill, markersize=6.5, label=words,
                                linestyle=":" if condition == ORACLE else "-"))  # fmt: skip
    figure.legend(handles=marks, loc="lower left", bbox_to_anchor=(0.004, 0.0), ncols=len(marks), frameon=False,
                  fontsize=9.5, labelcolor=SOFT, columnspacing=1.4, handletextpad=0.5)  # fmt: skip
    note = "A system that follows words gains with its own words and not with another's."
    if ORACLE in seen:
        note += " The oracle's sentence was picked by looking at the answer."
    figure.text(0.012, 0.42 / height, note, fontsize=9.5, color=INK, va="center")


def _in_words(name: str) -> str:
    """What the value of a metric says, for somebody who has not met it."""
    kind, _, k = name.partition("@")
    if kind in ("recall", "hit"):
        return f"share of questions whose item is among the first {k}"
    return f"how high the item stands among the first {k}" if k else "how high the item stands"


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=10)
    axes.set_axisbelow(True)


def _name_margin(rows: Sequence[Any]) -> float:
    """Share of the width that the longest name needs at twelve points."""
    return min(0.45, 0.05 + 0.0155 * max(len(report.name) for report in rows))
