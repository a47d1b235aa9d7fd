"""Records that somebody else wrote: checked as any reply, kept in the ledger, marked wherever they were used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.annotation.imported import KINDS, WARNING, Imported, ImportedConfig, find, xrec
from palate.annotation.ledger import Ledger
from palate.annotation.tasks import TASKS, ProfileWords
from palate.cli import main
from palate.core import store
from palate.core.config import Part, configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, LeakError, StoreError
from palate.core.protocols import Profiler
from palate.core.provenance import UNKNOWN, check_fitted_on, mark_of
from palate.core.written import WrittenTable
from palate.data.build import dataset_from
from palate.runs import FittedRun
from palate.systems import build, component

N_USERS, N_ITEMS = 24, 12


def pair(user: object, item: object, likes: object, for_whom: object) -> str:
    """A line as XRec has it."""
    said = {"title": "Ships for sailors and riders", "user_summary": likes, "item_summary": for_whom}
    return json.dumps({"uid": user, "iid": item, **said, "explanation": "So."})


LINES = (
    pair(1, 1, "Likes ships.", "For sailors."),
    pair(1, 2, "Likes ships.", "For riders."),  # 1 is told again, in the same words
    pair(2, 1, "Likes ships.", "For cooks."),  # item 1 is told otherwise
    pair(3, 3, 5, "x" * 2001),  # no text, too long
    pair(4, 4, "Likes \u0007 bells.", "For \ud800 nobody."),  # a character that is no text
    pair(5, None, "Likes tea.", "For nobody."),  # of no item
    pair(6, 77, "None", "For strangers."),  # an item that the data do not hold; a user of whom nothing can be told
    '{"uid": 7, "iid": 7, "user_summary": "Likes',  # cut off
    pair(7, 5, "Likes wool.", None),  # nothing said of the item
)


def log() -> Dataset:
    """Users 1 to 24 and items 1 to 12; each user meets five items."""
    rows = [(user, 1 + (user * 5 + k * (1 + user % 3)) % N_ITEMS) for user in range(1, N_USERS + 1) for k in range(5)]
    table = pl.DataFrame(rows, schema={"user": pl.Int64, "item": pl.Int64}, orient="row")
    items = pl.DataFrame({"item": [str(one) for one in range(1, N_ITEMS + 1)]})
    users = pl.DataFrame({"user": [str(one) for one in range(1, N_USERS + 1)]})
    return dataset_from("log", table, items=items, users=users)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tst.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(LINES).encode()))
    return path


def reader(file: Path) -> Imported:
    settings = {"file": str(file), "ledger": str(file.parent / "l.sqlite")}
    made: Imported = component("annotator", Part(name="imported", preset="xrec", settings=settings))
    return made


def test_records_are_checked_as_replies_are_and_none_is_lost(file: Path) -> None:
    writer, data = reader(file), log()
    items, users = writer.take("item-profile", data), writer.take("user-profile", data)
    assert items.counts == {"read": 9, "good": 2, "again": 0, "otherwise": 1, "refused": 5, "of nobody": 1}
    assert users.counts == {"read": 9, "good": 5, "again": 1, "otherwise": 0, "refused": 3, "of nobody": 0}
    for taken in (items, users):
        assert sum(taken.counts.values()) == 2 * taken.counts["read"], "each record is told once"
    assert {row: entry.record and entry.record["summarization"] for row, entry in items.of.items()} == {
        0: "For sailors.", 1: "For riders.", 2: None, 3: None, 4: None,
    }  # fmt: skip
    assert "at most 2000 characters" in items.of[2].problem
    assert "valid string" in items.of[3].problem
    assert items.of[4].problem == "'summarization': Field required"
    assert "valid string" in users.of[2].problem
    assert "U+0007 at 6 is no text" in users.of[3].problem
    assert "a whole record on one line" in items.problems[0]
    assert "9 read, 2 good, 0 again, 1 otherwise, 5 refused, 1 of nobody\nrefused: " in items.said()


def test_the_ledger_keeps_each_with_where_it_comes_from_once(file: Path) -> None:
    writer, data = reader(file), log()
    first = writer.take("item-profile", data)
    again = reader(file).take("item-profile", data)
    assert {row: entry for row, entry in again.of.items()} == dict(first.of), "the earlier record stays, time included"
    with Ledger(file.parent / "l.sqlite") as ledger:
        kept = ledger.kept([entry.key for entry in first.of.values()])
        assert kept[first.of[0].key].record == {"summarization": "For sailors.", "reasoning": ""}
        assert kept[first.of[2].key].record is None
        assert {(entry.model, entry.prompt, entry.tries) for entry in kept.values()} == {(UNKNOWN, UNKNOWN, 0)}
        assert kept[first.of[1].key].step == f"imported {first.source} line 2"
        assert (ledger.counts(), ledger.spent.tokens) == ({}, 0), "nobody was asked"
        assert ledger.forget_failures() == 4, "refused lines that are records"
    assert reader(file).take("user-profile", data, keep=False).counts["good"] == 5


def test_whoever_is_not_told_of_has_empty_texts(file: Path) -> None:
    writer, data = reader(file), log()
    assert isinstance(writer, Profiler)
    items = writer.item_profiles(data, np.array([1, 0, 2, 11]))
    assert [(one.item_row, one.summarization) for one in items] == [
        (1, "For riders."),
        (0, "For sailors."),
        (2, ""),
        (11, ""),
    ]
    users = writer.user_profiles(data, np.arange(7), items)
    assert [one.summarization for one in users] == ["Likes ships."] * 2 + ["", "", "Likes tea.", "", "Likes wool."]
    assert {one.author for one in (*items, *users)} == {UNKNOWN}


def test_a_table_of_any_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('sku,summarization,why\n2,"For sailors, mostly.",ships\n1,For cooks.,\n')
    fields = {"item-profile": {"reasoning": "why"}}
    config = ImportedConfig(file=str(tmp_path / "p.csv"), item="sku", fields=fields, ledger=str(tmp_path / "l.sqlite"))
    found = Imported(config).item_profiles(log(), np.arange(3))
    assert [(one.summarization, one.reasoning) for one in found] == [
        ("For cooks.", ""), ("For sailors, mostly.", "ships"), ("", ""),
    ]  # fmt: skip


def test_what_cannot_be_taken_is_said_in_a_sentence(file: Path, tmp_path: Path) -> None:
    data = log()
    for settings, problem in (
        ({}, "needs the file of records"),
        ({"file": "nowhere/p.jsonl"}, r"no file of records 'nowhere/p.jsonl' \(sought"),
        ({"file": str(file), "item": "ii"}, "no record has the column 'ii'; did you mean 'iid'"),
        ({"file": str(file), "item": "iid"}, "no record has the column 'summarization'"),
    ):
        config = ImportedConfig(ledger=str(tmp_path / "l.sqlite"), **settings)
        with pytest.raises((ConfigError, DataError), match=problem):
            Imported(config).take("item-profile", data)
    with pytest.raises(ConfigError, match="imported takes item-profile or user-profile records"):
        reader(file).take("intention", data)
    with pytest.raises(ConfigError, match=r"fields.item-profile.sumarization.*did you mean 'summarization'"):
        configure(ImportedConfig, {"fields.item-profile.sumarization": "x"})
    with pytest.raises(ConfigError, match="lc-rec needs an annotator that writes intentions and preferences"):
        build("lc-rec", {"annotator": "imported"})


def test_a_reply_of_a_model_is_held_to_the_same() -> None:
    with pytest.raises(ValueError, match=r"U\+0000 at 3 is no text"):
        ProfileWords(summarization="For\0", reasoning="")
    with pytest.raises(ValueError, match=r"U\+001B"):
        TASKS["step-preferences"].record.model_validate({"sentences": ["Find ships."] * 4 + ["Find \x1b[2J."]})
    assert ProfileWords(summarization="For\nsailors\tand 猫 🐈", reasoning="").summarization.startswith("For")


# -- where it was used, it is said -------------------------------------------------------------------------------------


def run(*command: str) -> int:
    """The exit code of a command in this process."""
    try:
        return main.run(list(command))
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def folder(tmp_path: Path, file: Path) -> Path:
    """A set of XRec's layout, in which items 1 and 2 and five users have a profile."""
    data, at = log(), tmp_path / "set"
    at.mkdir()
    events = zip(data.user_rows.tolist(), data.item_rows.tolist(), strict=True)
    told = [f"{data.user_ids[user]},{data.item_ids[item]}" for user, item in events]
    for name, some in (("trn", told[:100]), ("val", told[100:110]), ("tst", told[110:])):
        (at / f"total_{name}.csv").write_text("\n".join(["user,item", *some]) + "\n")
    (at / "tst.jsonl").write_text("\n".join(line for line in LINES if line.endswith("}") and "null" not in line) + "\n")
    return at


def test_annotate_takes_a_file_and_says_what_nobody_knows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["annotate", "item-profile", "--data", str(folder), "--annotator", "imported", "--set", "preset=xrec",
               "--set", f"file={folder / 'tst.jsonl'}", "--out", str(tmp_path / "out")]  # fmt: skip
    assert run(*command, "--dry-run") == 0
    assert "would be taken" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.sqlite").exists()
    assert run(*command) == 0
    said = capsys.readouterr().out
    assert f"2 records of the 12 items of set → {tmp_path / 'out'}\n{WARNING}\n" in said
    table = store.load(tmp_path / "out")
    assert isinstance(table, WrittenTable)
    assert (table.fitted_on, set(table.columns["written by"]), set(table.columns["model"])) == (
        UNKNOWN,
        {UNKNOWN},
        {UNKNOWN},
    )
    assert table.columns["summarization"] == ["For sailors.", "For riders.", "", ""]
    assert table.facts["proof"] == WARNING
    assert check_fitted_on(tmp_path / "out", log()) == UNKNOWN
    capsys.readouterr()
    assert run(*command, "--budget-tokens", "5") == 2
    assert "imported asks nobody" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text(pair(1, 1, "", "a\u202eb") + "\n")
    assert run(*command[:-3], f"file={tmp_path / 'bad.jsonl'}", "--out", str(tmp_path / "bad")) == 1
    assert "no record of set is good" in capsys.readouterr().err
    assert run("annotate", "intention", *command[2:]) == 1


def test_every_figure_of_a_run_that_learnt_from_them_is_marked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "rlmrec", "--data", str(folder), "--preset", "tiny", "--quiet", "--device", "cpu",
           "--set", "graph.training.epochs=1", "--set", "encoder.width=4"]  # fmt: skip
    taken = ["--set", "annotator=imported", "--set", "annotator.preset=xrec",
             "--set", f"annotator.file={folder / 'tst.jsonl'}",
             "--set", f"annotator.ledger={tmp_path / 'l.sqlite'}"]  # fmt: skip
    marked, plain = tmp_path / "marked", tmp_path / "plain"
    assert run(*fit, *taken, "--out", str(marked)) == 0
    assert f"every figure of this run is marked: {UNKNOWN}" in capsys.readouterr().out
    assert run(*fit, "--out", str(plain)) == 0
    assert UNKNOWN not in capsys.readouterr().out
    assert json.loads((marked / "run.json").read_text())["marks"] == [UNKNOWN]
    stored = store.open_folder(marked / "seed-0")
    assert stored.facts["profiles"] == {"users": 2, "items": 2}, "whoever has none stays out of the alignment"
    assert stored.facts["written by"] == UNKNOWN
    assert store.load(marked / "seed-0" / "annotator").taken["item-profile"]["good"] == 2
    assert FittedRun.open(marked).verify(0) == UNKNOWN
    assert FittedRun.open(plain).verify(0) is None
    with pytest.raises(LeakError, match="fitted on other interactions"):
        FittedRun.open(marked).verify(0, FittedRun.open(marked).split.dataset)
    assert run("evaluate", str(marked), "--json", str(tmp_path / "figures.json")) == 0
    assert f"({UNKNOWN})" in capsys.readouterr().out.replace("\n", " ")
    assert UNKNOWN in (tmp_path / "figures.json").read_text()
    assert run("evaluate", str(plain)) == 0
    assert UNKNOWN not in capsys.readouterr().out
    assert run("compare", str(marked), str(plain), "--json", str(tmp_path / "both.json")) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert f"({UNKNOWN})" in said
    assert f"marked: {UNKNOWN}." in said
    assert [one["marks"] for one in json.loads((tmp_path / "both.json").read_text())["runs"]] == [[UNKNOWN], []]
    train = FittedRun.open(marked).split.train
    assert check_fitted_on(marked / "seed-0" / "graph", train) == UNKNOWN, "it learnt with them, too"
    curve = ["curve", "rlmrec", "--data", str(folder), "--preset", "tiny", "--quiet", "--shares", "1", *taken,
             "--set", "graph.training.epochs=1", "--set", "encoder.width=4"]  # fmt: skip
    assert run(*curve, "--json", str(tmp_path / "c.json"), "--plot", str(tmp_path / "c.svg")) == 0
    assert f"({UNKNOWN})" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text())["marks"] == [UNKNOWN]


def test_a_part_lies_in_its_folder(tmp_path: Path) -> None:
    store.save(tmp_path / "x", Imported(), config=ImportedConfig(file="f.jsonl"))
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    for part in (".", ".."):
        forged = {key: value for key, value in manifest.items() if key != "checksum"} | {"parts": {part: "0"}}
        (tmp_path / "x" / "manifest.json").write_text(json.dumps({**forged, "checksum": store._seal(forged)}))
        with pytest.raises(StoreError, match="lies elsewhere"):
            mark_of(tmp_path / "x")


@pytest.mark.parametrize("file", ["~nobody-of-that-name/f.jsonl", "a" * 5000 + ".jsonl"])
def test_a_name_that_no_file_has_is_one_sentence(file: str) -> None:
    with pytest.raises(DataError, match="cannot be a file of records"):
        find(file)


def test_kinds_are_tasks() -> None:
    assert set(KINDS) <= set(TASKS)
    assert set(xrec().fields) == set(KINDS)
