"""``palate names`` of a run with several seeds: each seed's user index and their mean, or the seed that is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palate.data.world import planted
from palate.evaluation.agreement import agreement
from palate.runs import FittedRun
from tests.cli.test_axes_command import run

FEW = [
    "training.epochs=1", "backbone.steps=5", "prefixes=1", "length=2", "candidates=4", "retriever=item-knn",
    "user_index.training.epochs=2",
]  # fmt: skip


def test_every_seed_has_its_user_index_and_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "ulm")
    settings = [part for setting in FEW for part in ("--set", setting)]
    fit = ["fit", "ulmrec", "--data", "world-test", "--preset", "tiny", *settings, "--seeds", "2", "--quiet"]
    assert run([*fit, "--out", out]) == 0
    capsys.readouterr()
    assert run(["names", out]) == 0
    said = capsys.readouterr().out
    assert run(["names", out, "--seed", "1"]) == 0
    alone = capsys.readouterr().out
    assert run(["names", out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    fitted = FittedRun.open(Path(out))
    truth = planted(fitted.dataset)
    assert truth is not None
    loved = truth.truth.readers.taste[:, :-1] > 0
    above = []
    for seed, one in zip((0, 1), told["seeds"], strict=True):
        numbers = fitted.system(seed).parts["user_index"].numbers  # type: ignore[attr-defined]
        above.append(agreement(numbers[:, 0], loved).above.value)
        assert (one["seed"], one["planted_tastes"][0]["above"]["value"]) == (seed, pytest.approx(above[-1]))
        assert f"ulm, seed {seed}, names 120 of 120 users" in said
    assert above[0] != above[1]
    mean = told["mean above a random index"][0]
    assert mean["value"] == pytest.approx(sum(above) / 2)
    assert f"mean of 2 seeds, grouped by 1 code: above a random index {mean['value']:+.3f}" in said
    assert "seed 0" not in alone
    assert "mean of" not in alone
    assert run(["names", out, "--seed", "7"]) == 2
    assert "ulm has no seed 7; its seeds are 0, 1" in capsys.readouterr().err
