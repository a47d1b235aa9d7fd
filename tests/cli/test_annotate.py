"""``palate annotate`` without a model, with one over HTTP, and as a rehearsal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

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


def in_words(asked: dict[str, Any]) -> str:
    """A record of whatever schema is asked for."""
    schema = asked["response_format"]["json_schema"]["schema"]
    return json.dumps({name: f"{name} of ships" for name in schema["properties"]})


FITS = {
    "rlmrec": ("graph.training.epochs=1",),
    "ulmrec": ("training.epochs=1", "retriever.training.epochs=1", "user_index.training.epochs=1", "backbone.steps=2"),
}


@pytest.mark.parametrize("system", FITS)
def test_user_profiles_that_were_annotated_are_those_that_a_fit_asks_for(
    data: str, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    if system == "ulmrec":
        pytest.importorskip("tokenizers")
    server.brain, ledger = in_words, str(tmp_path / "l.sqlite")
    chat = ("chat.name=endpoint", f"chat.url={server.url}", "chat.model=m", "chat.tools=false")
    command = ["annotate", "user-profile", "--data", data, "--annotator", "chat", "--quiet", "--ledger", ledger]
    command += ["--out", str(tmp_path / "out"), *(word for one in chat for word in ("--set", one))]
    assert run([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    train = leave_one_out(load(data)).train
    assert f"item-profile: {train.n_items} rows, {train.n_items} records are missing" in said
    assert f"user-profile: {train.n_users} rows, {train.n_users} records are missing" in said
    assert said.count("the profile of this item, which is not written yet") >= 3
    assert not server.asked
    assert run(command) == 0
    asked = len(server.asked)
    assert asked == train.n_items + train.n_users
    assert "enjoyed by" in server.asked[-1]["messages"][-1]["content"]
    fit = [
        "fit",
        system,
        "--data",
        data,
        "--out",
        str(tmp_path / "run"),
        "--quiet",
        "--device",
        "cpu",
        "--preset",
        "tiny",
    ]
    fit += [word for one in FITS[system] for word in ("--set", one)]
    fit += ["--set", "annotator=chat", "--set", f"annotator.ledger={ledger}"]
    assert run([*fit, *(word for one in chat for word in ("--set", f"annotator.{one}"))]) == 0
    assert len(server.asked) == asked, "nothing is paid for twice"


def test_a_few_user_profiles_need_those_of_their_items_alone(data: str, server: ChatServer, tmp_path: Path) -> None:
    server.brain = in_words
    command = ["annotate", "user-profile", "--data", data, "--annotator", "chat", "--quiet", "--rows", "2"]
    command += ["--out", str(tmp_path / "out"), "--set", "chat.name=endpoint", "--set", f"chat.url={server.url}"]
    assert run([*command, "--set", "chat.model=m", "--set", "chat.tools=false"]) == 0
    train = leave_one_out(load(data)).train
    shown = {item for user in (0, 1) for item in train.histories.row(user)[-20:].tolist()}
    assert len(server.asked) == len(shown) + 2 < train.n_items


def test_what_is_rehearsed_is_what_is_sent(
    data: str, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.brain = lambda asked: json.dumps({"summarization": "For sailors.", "reasoning": "Ships."})
    for forms in (("chat.tools=false",), ("chat.tools=false", "chat.schema_answers=false"), ()):
        command = ["annotate", "item-profile", "--data", data, "--annotator", "chat", "--rows", "1", "--quiet"]
        command += ["--out", str(tmp_path / "-".join(forms or ("all",))), "--set", "chat.name=endpoint"]
        command += ["--set", f"chat.url={server.url}", "--set", "chat.model=m"]
        command += [word for one in forms for word in ("--set", one)]
        assert run([*command, "--dry-run"]) == 0
        said = capsys.readouterr().out
        assert run(command) == 0
        sent = server.asked[-1]
        assert all(message["content"] in said for message in sent["messages"])
        shown = [tool["function"]["parameters"] for tool in sent.get("tools", ())]
        if "response_format" in sent:
            shown.append(sent["response_format"]["json_schema"]["schema"])
        assert len(shown) == (0 if len(forms) == 2 else 1)
        assert all(json.dumps(schema) in said for schema in shown)
        capsys.readouterr()


def test_recorded_by_a_command_and_replayed_without_a_server(
    data: str, server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server takes no tools, so the replay must ask as the recording did."""
    server.brain, path = in_words, tmp_path / "said.jsonl"
    command = ["annotate", "item-profile", "--data", data, "--annotator", "chat", "--rows", "4", "--quiet"]
    recorder = ["chat.name=recorder", f"chat.path={path}", "chat.chat.name=endpoint", f"chat.chat.url={server.url}"]
    recorder += ["chat.chat.model=m", "chat.chat.tools=false", "chat.chat.money_read=1"]
    assert run([*command, "--out", str(tmp_path / "a"), *(w for one in recorder for w in ("--set", one))]) == 0
    assert len(server.asked) == len(path.read_text().splitlines()) == 4
    server.close()
    capsys.readouterr()
    replay = [*command, "--out", str(tmp_path / "b"), "--set", "chat=replay", "--set", f"chat.path={path}"]
    assert run([*replay, "--budget-tokens", "1", "--budget-money", "0.001"]) == 0
    assert "0 tokens and 0 of money spent in all; calls: 4 done" in capsys.readouterr().out
    one, other = store.load(tmp_path / "a"), store.load(tmp_path / "b")
    same = ("summarization", "reasoning", "model", "prompt", "hash")
    assert [one.columns[name] for name in same] == [other.columns[name] for name in same]
