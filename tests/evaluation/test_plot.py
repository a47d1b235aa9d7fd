"""The picture says what the table says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_reports import run_of

from palate.core.errors import ConfigError
from palate.core.split import Split
from palate.evaluation.plot import BEST_COLOUR, draw_leaderboard, leaderboard_figure


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
