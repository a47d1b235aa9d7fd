"""What ``palate data split`` prints, keeps and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from palate.cli.split import as_document, split_command
from palate.core.errors import ConfigError, DataError
from palate.data.sources import load
from palate.data.split import load as load_split
from palate.data.split import split


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    rows = [f"{user},{item},{100000 * place}" for user in "abcdef" for place, item in enumerate("pqrst")]
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    return path


def test_json_names_sizes_and_proof(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_command(str(log_file), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "palate.split/1"
    assert document["train"] == {"events": 18, "users": 6, "items": 3}
    assert document["test"] == {"cases": 6, "users": 6, "items": 1, "cold_targets": 6, "mean_history": 4.0}
    assert document == as_document(split(load(log_file), "leave-one-out"))


def test_the_table_shows_the_rule_the_sizes_and_every_check(
    log_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    split_command(str(log_file), rule="few-shot", settings=("n=2",))
    shown = capsys.readouterr().out
    made = split(load(log_file), "few-shot", n=2)
    assert "split by few-shot n=2" in shown
    assert "No leak found" in shown
    assert made.hash in shown
    for check, saw in made.proof.items():
        assert check in shown
        assert saw[:40] in shown


def test_out_keeps_a_split_that_loads(log_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split_command(str(log_file), rule="cold-users", settings=("share=0.3", "seed=4"), out=tmp_path / "kept")
    assert f"split → {tmp_path / 'kept'}" in capsys.readouterr().out.replace("\n", "")
    dataset = load(log_file)
    assert load_split(tmp_path / "kept", dataset).hash == split(dataset, "cold-users", share=0.3, seed=4).hash


def test_a_wrong_rule_or_setting_is_said_before_the_data_are_read() -> None:
    with pytest.raises(ConfigError, match="no split rule 'leave-two-out'; did you mean 'leave-one-out'"):
        split_command("nowhere", rule="leave-two-out")
    with pytest.raises(ConfigError, match="unknown setting 'shares'; did you mean 'share'"):
        split_command("nowhere", rule="cold-users", settings=("shares=0.1",))


def test_too_little_data_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\na,p,1\nb,p,2\n")
    with pytest.raises(DataError, match="leaves nothing to ask"):
        split_command(str(path))
