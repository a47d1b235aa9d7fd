"""``palate evaluate --protocol preference-axes`` for a system that reads words; a sentence for one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palate.cli import main
from palate.data.folder import write_folder
from tests.models.wishful_logs import wishful


def run(command: list[str]) -> int:
    """The exit code of a command in this process."""
    try:
        return main.run(command)
    except SystemExit as end:
        return int(end.code or 0)


def test_axes_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(wishful(40), tmp_path / "data")
    for system in ("text-cosine", "popularity"):
        command = ["fit", system, "--data", str(tmp_path / "data"), "--out", str(tmp_path / system), "--quiet"]
        assert run([*command, *(["--preset", "tiny"] if system == "text-cosine" else [])]) == 0
    capsys.readouterr()
    ask = ["--protocol", "preference-axes", "--set", "encoder=tf-idf", "--set", "match=text"]
    assert run(["evaluate", str(tmp_path / "text-cosine"), *ask, "--json", str(tmp_path / "out.json")]) == 0
    said = capsys.readouterr().out
    assert "fine-steering" in said
    assert "NOT a serving condition" in said
    made = json.loads((tmp_path / "out.json").read_text())
    assert made["runs"][0]["metrics"]["coarse-steering/recall@10"]["value"] > 0.9
    command = ["fit", "text-cosine", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "again"), "--quiet"]
    assert run([*command, "--preset", "tiny"]) == 0
    runs = [str(tmp_path / "text-cosine"), str(tmp_path / "again")]
    assert run(["compare", *runs, *ask, "--plot", str(tmp_path / "axes.svg")]) == 0
    drawn = (tmp_path / "axes.svg").read_text()
    assert all(f">{title}</text>" in drawn for title in ("Recommendation", "Coarse steering", "History consolidation"))
    assert run(["compare", *runs, *ask]) == 0
    assert (tmp_path / "compare.png").is_file()
    capsys.readouterr()
    assert run(["evaluate", str(tmp_path / "popularity"), *ask]) == 2
    assert "reads no words" in capsys.readouterr().err
