"""``palate bench`` in a subprocess: the table, the fixed JSON, one sentence for each mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from palate.cli import bench
from palate.core.errors import ConfigError, PalateError

FIELDS = ["name", "peak_mb", "ratio", "reference", "reference_seconds", "seconds"]


@pytest.mark.parametrize("name", ["evaluate", "exact-search"])
def test_a_quick_run_writes_the_schema(name: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    code = f"from palate.cli.bench import app; app(['{name}', '--quick', '--json', {str(figures)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
    written = json.loads(figures.read_text())
    assert written["schema"] == "palate.bench/1"
    assert len(written["results"]) == (1 if name == "evaluate" else 3)
    for line in written["results"]:
        assert sorted(line) == FIELDS
        assert line["name"].startswith(name)
        assert line["ratio"] == pytest.approx(line["seconds"] / line["reference_seconds"], rel=1e-3)
        assert "GFLOP/s (matmul" in line["reference"]
        assert line["peak_mb"] > 1


def test_an_unknown_benchmark_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no benchmark 'evalute'; did you mean 'evaluate'\?"):
        bench.bench("evalute")


def test_without_a_checkout_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "palate" / "cli" / "bench.py"))
    with pytest.raises(PalateError, match="clone the repository"):
        bench.bench("evaluate")


def test_a_benchmark_that_fails_says_so_and_keeps_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "harness.py").touch()
    (folder / "__init__.py").write_text("BENCHMARKS = {'good': '', 'bad': ''}\n")
    line = {"name": "good", "ratio": 0.5, "reference": "plain", "seconds": 1, "reference_seconds": 2, "peak_mb": 3}
    (folder / "__main__.py").write_text(
        "import json, sys, pathlib\n"
        "assert sys.argv[1] != 'bad', 'results differ'\n"
        f"pathlib.Path(sys.argv[3]).write_text(json.dumps({{'schema': 'palate.bench/1', 'results': [{line!r}]}}))\n"
    )
    monkeypatch.setattr(bench, "checkout", lambda: tmp_path)
    figures = tmp_path / "figures.json"
    with pytest.raises(PalateError, match="no figures for bad"):
        bench.bench(json_file=figures)
    assert json.loads(figures.read_text())["results"] == [line]
    printed = capfd.readouterr()
    assert "AssertionError: results differ" in printed.err
    assert "0.50" in printed.out
