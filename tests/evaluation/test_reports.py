"""Reports hold the plain means, survive the disk, and every table of simulated data says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, N_USERS, Scorer
from rich.console import Console

from palate.core.errors import ConfigError, DataError, StoreError
from palate.core.report import Report
from palate.core.split import Split
from palate.evaluation.comparison import compare
from palate.evaluation.judging import judge_cases
from palate.evaluation.protocols import FullRanking
from palate.evaluation.reports import make_report, read_report, to_json, write_report
from palate.evaluation.slices import COLD_AMONG_COLD
from palate.evaluation.tables import leaderboard, slice_table

COST = {"fit_seconds": 83.0, "peak_mb": 210.5, "parameters": 1_234_567.0}


def run_of(split: Split, name: str, seeds: int = 1, help_targets: float = 0.0) -> Report:
    protocol = FullRanking(k=5, metrics=("recall@10", "ndcg@10"))
    tables = []
    for seed in range(seeds):
        scores = np.random.default_rng([seed, len(name)]).random((N_USERS, N_ITEMS))
        scores[split.test.user_rows, split.test.targets] += help_targets
        tables.append(judge_cases(Scorer(scores), split.test, protocol, train=split.train, seed=seed))
    return make_report(tables, split, protocol, name=name, system=name.lower(), cost=COST, resamples=200)


def text_of(thing: object, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(thing)
    return console.export_text()


@pytest.fixture(scope="module")
def report(split: Split) -> Report:
    return run_of(split, "Lot", seeds=2)


def test_figures_are_the_means_of_the_cases(split: Split, report: Report) -> None:
    assert report.seeds == (0, 1)
    assert report.split_hash == split.hash
    for name in ("recall@10", "ndcg@10"):
        span = report.metrics[name]
        assert span.value == pytest.approx(report.cases[name].mean())
        assert span.low < span.value < span.high
        assert span.n == len(split.test)
        for part in ("cold-items", "warm-items", "head-items", "short-histories"):
            inside = report.cases.filter(pl.col(part))
            assert report.slices[part][name].value == pytest.approx(inside[name].mean())
            assert report.slices[part][name].n == inside["user_row"].n_unique()
    n_cold = int(split.cold_items.sum())
    assert report.slices[COLD_AMONG_COLD]["recall@10"].chance == pytest.approx(min(1, 10 / n_cold))
    assert str(n_cold) in report.slice_rules[COLD_AMONG_COLD]
    assert "coverage@5" in report.beyond


def test_a_model_that_cannot_see_cold_items_is_at_chance_among_them(split: Split) -> None:
    scores = np.random.default_rng(0).random((N_USERS, N_ITEMS))
    scores[:, split.cold_items] = np.nan
    protocol = FullRanking(metrics=("recall@1", "ndcg@3"))
    cases = judge_cases(Scorer(scores), split.test, protocol, train=split.train)
    report = make_report(cases, split, protocol, name="Blind", system="blind", resamples=50)
    for span in report.slices[COLD_AMONG_COLD].values():
        assert span.value == pytest.approx(span.chance)
    assert report.slices["cold-items"]["recall@1"].value == 0


def test_written_and_read_is_the_same(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "run")
    again = read_report(tmp_path / "run")
    assert again.cases.equals(report.cases)
    assert to_json([again]) == to_json([report])
    for part in ("name", "system", "data", "split", "split_hash", "protocol", "pretrained", "seeds", "metrics",
                 "slices", "slice_rules", "cost", "marks"):  # fmt: skip
        assert getattr(again, part) == getattr(report, part), part
    assert np.isnan(again.beyond["coverage@5"].low)
    write_report(replace(report, name="second"), tmp_path / "run")
    assert read_report(tmp_path / "run").name == "second"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["cases.parquet", "report.json"]


def test_damaged_or_missing_files_are_one_sentence(report: Report, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no report"):
        read_report(tmp_path / "nothing")
    write_report(report, tmp_path)
    whole = (tmp_path / "report.json").read_text()
    for text in ("{", "[]", whole.replace('"metrics"', '"metrix"')):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(StoreError, match=r"damaged|schema"):
            read_report(tmp_path)
    (tmp_path / "report.json").write_text(whole.replace("run-report/1", "run-report/9"))
    with pytest.raises(StoreError, match="its schema is not"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text(whole)
    (tmp_path / "cases.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="damaged"):
        read_report(tmp_path)


def test_json_follows_the_fixed_schema(split: Split, report: Report) -> None:
    other = run_of(split, "Other", help_targets=0.5)
    written = json.loads(json.dumps(to_json([report, other], compare([report, other], resamples=50)), allow_nan=False))
    assert set(written) == {"schema", "data", "split", "protocol", "runs", "comparisons"}
    assert written["schema"] == "palate.report/1"
    for run in written["runs"]:
        assert set(run) == {"name", "system", "pretrained", "seeds", "marks", "metrics", "slices", "cost"}
        assert set(run["metrics"]["recall@10"]) == {"value", "low", "high"}
        assert run["cost"]["fit_seconds"] == 83.0
    assert written["runs"][0]["metrics"]["coverage@5"]["low"] is None
    assert len(written["comparisons"]) == 2
    assert set(written["comparisons"][0]) == {"a", "b", "metric", "difference", "low", "high", "p", "p_holm", "effect"}


def test_the_leaderboard_can_be_read(split: Split, report: Report) -> None:
    good = run_of(split, "Good", help_targets=2.0)
    said = text_of(leaderboard([report, good]))
    assert said.index("Good") < said.index("Lot")
    assert "★" in said
    assert "≈" not in said.split("highest")[0]
    assert f"{good.metrics['recall@10'].value:.3f}" in said
    assert "R@10" in said
    assert "NDCG@10" in said
    assert "1.2 M" in said
    assert "83 s" in said
    assert "Good is better than Lot on NDCG@10" in said
    assert "simulated" not in said
    assert max(map(len, said.splitlines())) <= 100


def test_every_table_of_simulated_data_says_so(simulated: Split) -> None:
    one, two = run_of(simulated, "One"), run_of(simulated, "Two!")
    assert one.marks == ("simulated",)
    assert "simulated" in text_of(leaderboard([one, two]))
    assert "simulated" in text_of(leaderboard([one]))
    assert "simulated" in text_of(slice_table([one, two]))
    assert "simulated" in to_json([one])["data"]


def test_slices_show_chance(report: Report) -> None:
    said = text_of(slice_table([report], main="recall@10"), width=80)
    for part, figures in report.slices.items():
        assert f"{figures['recall@10'].value:.3f}" in said, part
    assert "…" not in said
    assert "chance alone gives" in said
    assert "train events" in said


def test_wrong_tables_are_refused(split: Split, report: Report) -> None:
    one = report.cases.filter(pl.col("seed") == 0)
    with pytest.raises(ConfigError, match="same seed"):
        make_report([one, one], split, FullRanking(), name="x", system="x")
    with pytest.raises(DataError, match="nothing to ask"):
        make_report(one.clear(), split, FullRanking(), name="x", system="x")
    with pytest.raises(DataError, match="same cases"):
        make_report(
            [one, report.cases.filter(pl.col("seed") == 1)[:-1]],
            split,
            FullRanking(metrics=("ndcg@10",)),
            name="x",
            system="x",
        )
    with pytest.raises(ConfigError, match="no report"):
        to_json([])
    with pytest.raises(ConfigError, match="no report"):
        leaderboard([])
