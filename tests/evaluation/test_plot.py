"""The picture says what the table says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_reports import run_of

from palate.core.errors import ConfigError
from palate.core.report import Interval, Report
from palate.core.split import Split
from palate.evaluation.axes import AXES, ORACLE, SHUFFLED, SILENT
from palate.evaluation.plot import AXIS_TITLES, BEST_COLOUR, CONDITIONS, draw_leaderboard, leaderboard_figure


def words(figure: object) -> str:
    axes = figure.axes  # type: ignore[attr-defined]
    parts = [text.get_text() for text in figure.texts]  # type: ignore[attr-defined]
    for one in axes:
        parts += [text.get_text() for text in one.texts] + [label.get_text() for label in one.get_yticklabels()]
        parts.append(one.get_xlabel())
    return "\n".join(parts)


def test_it_shows_every_run_its_figure_and_its_cost(simulated: Split) -> None:
    runs = [run_of(simulated, "Good", help_targets=2.0), run_of(simulated, "Lot"), run_of(simulated, "Chance")]
    figure = leaderboard_figure(runs)
    said = words(figure)
    for run in runs:
        assert run.name in said
        assert f"{run.metrics['ndcg@10'].value:.3f}" in said
    assert "Good is better than the other 2" in said
    assert "simulated" in said
    assert "NDCG@10" in said
    assert "83 s" in said
    quality = figure.axes[0]
    assert [label.get_text() for label in quality.get_yticklabels()][-1] == "Good"
    tops = [line for line in quality.lines if line.get_ydata()[0] == 2]
    assert {line.get_color() for line in tops} == {BEST_COLOUR}
    assert {line.get_color() for line in quality.lines if line.get_ydata()[0] == 0} != {BEST_COLOUR}


def test_without_costs_there_is_one_panel(split: Split) -> None:
    runs = [replace(run_of(split, name), cost={}) for name in ("One", "Three")]
    assert len(leaderboard_figure(runs).axes) == 1
    assert "No run is shown to be better" in words(leaderboard_figure(runs))


def test_names_stay_inside(split: Split) -> None:
    long = replace(run_of(split, "One"), name="a-rather-long-name-of-a-run")
    figure = leaderboard_figure([long, run_of(split, "Three")])
    figure.canvas.draw()
    left = min(label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels())
    assert left >= 0


def test_files_by_suffix(split: Split, tmp_path: Path) -> None:
    run = run_of(split, "One")
    draw_leaderboard([run], tmp_path / "one.png")
    draw_leaderboard([run], tmp_path / "one.SVG")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "one.SVG").read_text()
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        draw_leaderboard([run], tmp_path / "one.jpeg")
    with pytest.raises(ConfigError, match="no report"):
        draw_leaderboard([], tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.SVG", "one.png"]


def of_axes(split: Split, name: str, shift: float = 0.0) -> Report:
    """Figures of the five axes, each its own: 0.2 on the first axis with words, 0.3 on the second …"""

    def row(start: float, axes: tuple[str, ...]) -> dict[str, Interval]:
        values = {axis: start + shift + AXES.index(axis) / 10 for axis in axes}
        return {
            f"{axis}/recall@10": Interval(v, v - 0.05, v + 0.04, 40 + AXES.index(axis)) for axis, v in values.items()
        }

    unmute = tuple(axis for axis in AXES if axis != "sentiment")
    slices = {SILENT: row(0.11, unmute), SHUFFLED: row(0.12, AXES), ORACLE: row(0.33, AXES[:1])}
    return replace(run_of(split, "One"), name=name, metrics=row(0.2, AXES), slices=slices)


def test_the_five_axes_have_a_panel_each_with_all_that_was_asked(split: Split) -> None:
    runs = [of_axes(split, "mender"), of_axes(split, "other", shift=0.005)]
    figure = leaderboard_figure(runs)
    assert len(figure.axes) == len(AXES)
    assert [panel.get_title(loc="left") for panel in figure.axes] == [AXIS_TITLES[axis][0] for axis in AXES]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["mender", "other"]
    for place, (axis, panel) in enumerate(zip(AXES, figure.axes, strict=True)):
        lines = [line for line in panel.lines if len(line.get_xdata()) == 2]
        dots = {float(line.get_xdata()[0]): line for line in panel.lines if len(line.get_xdata()) == 1}
        wanted = [0.2, 0.12, *([0.11] if axis != "sentiment" else []), *([0.33] if place == 0 else [])]
        values = [start + shift + place / 10 for start in wanted for shift in (0.0, 0.005)]
        assert sorted(dots) == pytest.approx(sorted(values)), axis
        assert sorted(line.get_xdata()[0] for line in lines) == pytest.approx(sorted(v - 0.05 for v in values))
        assert panel.get_xlabel() == f"{40 + place} users"
        assert panel.get_xlim() == figure.axes[0].get_xlim()
    oracle, stated = (next(dot for at, dot in _dots(figure.axes[0]) if at == pytest.approx(v)) for v in (0.33, 0.2))
    assert oracle.get_marker() == CONDITIONS[ORACLE][0] != stated.get_marker()
    assert oracle.get_ydata()[0] > stated.get_ydata()[0], "apart, below the others (rows go down)"
    (legend,) = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == [CONDITIONS[name][3] for name in CONDITIONS]
    assert "not servable" in told[-1]
    assert "picked by looking at the answer" in words(figure)


def _dots(panel: Any) -> list[tuple[float, Any]]:
    return [(float(line.get_xdata()[0]), line) for line in panel.lines if len(line.get_xdata()) == 1]


def test_axes_that_were_not_asked_have_no_panel_and_names_stay_inside(split: Split) -> None:
    whole = of_axes(split, "a-rather-long-name-of-a-run")
    few = replace(whole, metrics={name: span for name, span in whole.metrics.items() if "sentiment" not in name})
    figure = leaderboard_figure([few])
    assert len(figure.axes) == 4
    figure.canvas.draw()
    assert min(label.get_window_extent().x0 for label in figure.axes[0].get_yticklabels()) >= 0
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    boxes = [panel.title.get_window_extent() for panel in figure.axes]
    assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))


def test_the_room_is_light_and_touches_nothing_global() -> None:
    """Importing all of it loads no torch, matplotlib, scipy or rich; drawing loads no pyplot."""
    code = (
        "import sys, palate.evaluation.plot, palate.evaluation.reports, palate.evaluation.tables, "
        "palate.evaluation.judging, palate.evaluation.beyond\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'rich', 'pandas', 'statsmodels'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "matplotlib.pyplot" not in sys.modules
