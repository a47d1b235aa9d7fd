"""The leaderboard as a picture that is understood at a glance: a dot and its 95 % interval per run, cost beside it.

Drawn with matplotlib's objects alone, so nothing global is touched. Colours are two of Okabe & Ito's, which people with
any colour vision tell apart; shape says the same again (filled = not shown to be worse than the best).
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.core.errors import ConfigError
from palate.core.report import Report
from palate.core.store import write_bytes, write_text
from palate.evaluation.comparison import Comparisons, compare
from palate.evaluation.metrics import shown
from palate.evaluation.protocols import MAIN
from palate.evaluation.tables import duration, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST_COLOUR, OTHER_COLOUR, INK, SOFT, PALE = "#0072B2", "#8A8A8A", "#222222", "#555555", "#D9D9D9"
SUFFIXES = (".svg", ".png")


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
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        write_text(path, text.getvalue())
    else:
        image = BytesIO()
        figure.savefig(image, format="png", dpi=200)
        write_bytes(path, image.getvalue())


def leaderboard_figure(
    reports: Sequence[Report], comparisons: Comparisons | None = None, *, main: str = MAIN
) -> Figure:
    """The picture as a matplotlib figure on its own canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not reports:
        raise ConfigError("there is no report to draw")
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
