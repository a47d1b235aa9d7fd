"""``palate annotate`` without a model, with one over HTTP, and as a rehearsal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("openai")

from chat_server import ChatServer

from palate.annotation.tasks import KINDS
from palate.cli import main
from palate.cli.annotate import Kind
from palate.core import store
from palate.core.provenance import check_fitted_on
from palate.core.written import WrittenTable
from palate.data.folder import write_folder
from palate.data.sources import load
from palate.data.split import leave_one_out
from palate.data.world import world


def run(command: list[str]) -> int:
    """The exit code of a command in this process."""
    try:
        return main.run(command)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "small"
    write_folder(world("test").dataset, folder)
    return str(folder)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    found = ChatServer(lambda asked: json.dumps({"summarization": "For sailors.", "reasoning": "Ships."}))
    yield found
    found.close()


def test_without_a_model(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in get_args(Kind):
        assert run(["annotate", kind, "--data", data, "--out", str(tmp_path / kind), "--rows", "9"]) == 0
        table = store.load(tmp_path / kind)
        assert isinstance(table, WrittenTable)
        assert len(table) == 9
        assert set(table.columns["written by"]) == {"extractive"}
        assert any(text for name, texts in table.columns.items() if name != "written by" for text in texts)
        assert table.table().height == 9
        assert check_fitted_on(tmp_path / kind, leave_one_out(load(data)).train) is None
    assert "no model was asked" in capsys.readouterr().out


def test_every_kind_that_needs_no_candidates_can_be_written() -> None:
    assert {*get_args(Kind), "choice"} == set(KINDS)


def test_attributes_and_traits_are_those_that_are_named(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["annotate", "user-traits", "--data", data, "--rows", "4", "--out", str(tmp_path / "traits")]
    assert run([*named, "--name", "liked author", "--name", "disliked themes"]) == 0
    table = store.load(tmp_path / "traits")
    assert isinstance(table, WrittenTable)
    assert list(table.columns) == ["liked author", "disliked themes", "written by"]
    assert all(table.columns["liked author"])
    assert run(["annotate", "item-attributes", "--data", data, "--out", str(tmp_path / "items")]) == 0
    assert "Jane Austen" in store.load(tmp_path / "items").columns["author"]
    for mistake, message in (
        (["annotate", "item-profile", "--data", data, "--name", "x"], "item-profile has fields of its own"),
        ([*named, "--name", "model"], "the table has a column of that name"),
        ([*named, "--name", "mood"], "name another annotator"),
        ([*named, "--name", "_liked x"], "cannot be asked for"),
    ):
        assert run(mistake) in (1, 2)
        assert message in capsys.readouterr().err


def test_rehearsed_then_written_then_free(
    data: str, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "annotate", "item-profile", "--data", data, "--annotator", "chat", "--rows", "5", "--quiet",
        "--out", str(tmp_path / "out"), "--set", "chat.name=endpoint", "--set", f"chat.url={server.url}",
        "--set", "chat.model=m", "--set", "chat.money_read=1", "--set", "chat.money_written=2",
        "--set", "chat.tools=false",
    ]  # fmt: skip
    assert run([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "5 rows, 5 records are missing" in said
    assert said.count("--- prompt") == 3
    assert "at most:" in said
    assert not server.asked
    assert run(command) == 0
    assert "calls: 5 done; 0 records could not be read" in capsys.readouterr().out
    table = store.load(tmp_path / "out")
    assert set(table.columns["summarization"]) == {"For sailors."}
    assert set(table.columns["written by"]) == {"m"}
    assert all("item-profile/2" in prompt for prompt in table.columns["prompt"])
    assert len(server.asked) == 5
    assert run(command) == 0
    assert len(server.asked) == 5
    assert run([*("9" if word == "5" else word for word in command), "--budget-tokens", "1"]) == 1
    assert "could be exceeded by the next call" in capsys.readouterr().err
