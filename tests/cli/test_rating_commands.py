"""Predicted ratings from the command line: fit, evaluate, compare, also on a slice, and the curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palate.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def palate(*words: str) -> None:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    assert done.value.code in (0, None)


def test_ratings_from_fit_to_curve(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    on = ("--data", "world-test", "--quiet")
    few = ("--set", "backbone.steps=0", "--set", "training.epochs=1", "--set", "events=64")
    palate("fit", "rating-lm", *on, "--preset", "tiny", *few, "--out", "lm")
    palate("fit", "rating-average", *on, "--preset", "user", "--out", "user")
    palate("fit", "rating-average", *on, "--out", "item")
    capsys.readouterr()
    palate("evaluate", "lm", "--protocol", "rating", "--json", "lm.json")
    told = json.loads((here / "lm.json").read_text())
    assert set(told["runs"][0]["metrics"]) >= {"rmse", "mae", "auc", "failures"}
    said = capsys.readouterr().out
    assert "asked ratings" in said
    assert "prompt rating/1" in said
    palate("compare", "lm", "user", "item", "--protocol", "rating", "--json", "all.json")
    pairs = json.loads((here / "all.json").read_text())["comparisons"]
    assert {(pair["a"], pair["b"]) for pair in pairs if pair["metric"] == "rmse"} == {
        ("lm", "user"), ("lm", "item"), ("user", "item")
    }  # fmt: skip
    palate("compare", "user", "item", "--protocol", "rating", "--slice", "short-histories", "--json", "short.json")
    short = json.loads((here / "short.json").read_text())
    assert short["slice"] == "short-histories"
    figures = {run["name"]: run["metrics"]["rmse"]["value"] for run in short["runs"]}
    (pair,) = (pair for pair in short["comparisons"] if pair["metric"] == "rmse")
    assert pair["difference"] == pytest.approx(figures["user"] - figures["item"])
    folder = next((here / "user" / "reports").iterdir())
    kept = json.loads((folder / "report.json").read_text())
    assert kept["slices"]["short-histories"]["rmse"]["value"] == pytest.approx(figures["user"])


def test_a_curve_holds_one_system_with_several_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("rating-average", "rating-average[user]", "rating-average damping=5")
    palate("curve", *words, "--data", "world-test", "--shares", "0.2,1", "--quiet")
    kept = json.loads((here / "curve.json").read_text())
    assert list(dict.fromkeys(point["name"] for point in kept["points"])) == list(words)
    figures = {(point["name"], point["share"]): point["figure"]["value"] for point in kept["points"]}
    assert figures[words[1], 0.2] != figures[words[0], 0.2]
    assert figures[words[2], 0.2] < figures[words[0], 0.2], "the mean of two ratings says less than it seems"
    assert (here / "curve.png").stat().st_size > 1000
    assert "rating-average damping=5" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["curve", "rating-average", "rating-average", "--data", "world-test"])
    assert "is named twice" in capsys.readouterr().err


def test_a_curve_is_fitted_in_the_precision_that_is_asked_for(here: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        words = ("rating-mlp", "--data", "world-test", "--shares", "1", "--set", "training.epochs=2", "--quiet")
        palate("curve", *words, "--precision", precision, "--json", f"{precision}.json")
        (point,) = json.loads((here / f"{precision}.json").read_text())["points"]
        found[precision] = point["figure"]["value"]
    assert found["fp32"] != found["bf16"]
    assert found["fp32"] == pytest.approx(found["bf16"], abs=0.05)
