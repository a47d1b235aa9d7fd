"""The own format: what is written is read back; damaged or foreign is refused; failed writes change nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from palate.core.dataset import About, Dataset
from palate.core.errors import DataError
from palate.data import folder as folder_module
from palate.data.build import dataset_from
from palate.data.folder import read_folder, write_folder

WORDS = st.text(st.characters(codec="utf-8"), max_size=5)
EVENT = st.fixed_dictionaries(
    {
        "user": WORDS,
        "item": WORDS,
        "time": st.one_of(st.none(), st.integers(-(2**62), 2**62)),
        "rating": st.one_of(st.none(), st.floats(allow_nan=False)),
        "review": st.one_of(st.none(), WORDS),
    }
)
SCHEMA = {"user": pl.String, "item": pl.String, "time": pl.Int64, "rating": pl.Float64, "review": pl.String}


def same(left: Dataset, right: Dataset) -> None:
    for name in ("interactions", "items", "users"):
        assert_frame_equal(getattr(left, name), getattr(right, name))
    assert (left.name, left.clock, left.about) == (right.name, right.clock, right.about)
    assert left.fingerprint == right.fingerprint


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, max_size=12), WORDS, st.lists(WORDS, max_size=3))
def test_what_is_written_is_read_back(events: list[dict[str, object]], title: str, notes: list[str]) -> None:
    log = pl.DataFrame(events, schema=SCHEMA)
    listed = pl.DataFrame({"item": ["never met"], "category": [["a", "b"]]})
    about = About(title=title, notes=tuple(notes), simulated=True)
    dataset = dataset_from(title, log, items=listed, about=about)
    with tempfile.TemporaryDirectory() as place:
        same(read_folder(write_folder(dataset, Path(place) / "set")), dataset)


def small(rating: float = 4.0) -> Dataset:
    log = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": [2, 1], "rating": [rating, 2.0]})
    return dataset_from("small", log)


def test_the_files_can_be_read_by_anything(tmp_path: Path) -> None:
    write_folder(small(), tmp_path / "set")
    log = pl.read_parquet(tmp_path / "set" / "interactions.parquet")
    assert log.to_dicts()[0] == {"user": "a", "item": "x", "time": 2, "rating": 4.0}
    said = tomllib.loads((tmp_path / "set" / "dataset.toml").read_text())
    assert (said["name"], said["time"], said["events"]) == ("small", "unix", 2)
    assert said["about"]["ties"] == "time, then file order"


def test_an_earlier_dataset_is_replaced_and_anything_else_refused(tmp_path: Path) -> None:
    write_folder(small(1.0), tmp_path / "set")
    write_folder(small(5.0), tmp_path / "set")
    assert read_folder(tmp_path / "set").interactions["rating"][0] == 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else"):
        write_folder(small(), tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "items.parquet").unlink(), r"the file 'items.parquet' of its dataset.toml is missing"),
        (lambda f: (f / "users.parquet").write_bytes(b"PAR1"), r"'users.parquet' is damaged \(its checksum differs\)"),
        (lambda f: _flip(f / "interactions.parquet"), r"'interactions.parquet' is damaged"),
        (lambda f: (f / "dataset.toml").write_text("schema = 'palate.dataset/99'"), r"'palate.dataset/99' is not"),
        (lambda f: (f / "dataset.toml").write_text("= broken"), r"dataset.toml is damaged"),
        (lambda f: (f / "dataset.toml").unlink(), r"dataset.toml cannot be opened"),
        (lambda f: _edit(f, 'time = "unix"', 'time = "lunar"'), r"time = 'lunar', expected one of unix, day, order"),
        (lambda f: _edit(f, '"users.parquet" =', '"../users.parquet" ='), r"must have a name and list the files"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, harm: object, said: str) -> None:
    write_folder(small(), tmp_path / "set")
    harm(tmp_path / "set")  # type: ignore[operator]
    with pytest.raises(DataError, match=said) as problem:
        read_folder(tmp_path / "set")
    assert "\n" not in str(problem.value)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "dataset.toml").read_text()
    assert old in text
    (folder / "dataset.toml").write_text(text.replace(old, new))


def test_an_event_of_a_stranger_is_refused(tmp_path: Path) -> None:
    import hashlib

    write_folder(small(), tmp_path / "set")
    path = tmp_path / "set" / "items.parquet"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    pl.DataFrame({"item": ["x", "z"]}).write_parquet(path)
    _edit(tmp_path / "set", old, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"names the item 'y', which items\.parquet lacks"):
        read_folder(tmp_path / "set")


def test_a_full_disk_leaves_the_previous_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(small(1.0), tmp_path / "set")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "_flush", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        write_folder(small(5.0), tmp_path / "set")
    assert read_folder(tmp_path / "set").interactions["rating"][0] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_killed_process_leaves_the_previous_folder(tmp_path: Path) -> None:
    write_folder(small(1.0), tmp_path / "set")
    script = f"""
import os, signal, polars as pl
from palate.data import folder
from palate.data.build import dataset_from
folder._put = lambda aside, place: os.kill(os.getpid(), signal.SIGKILL)
log = pl.DataFrame({{"user": ["a"], "item": ["x"], "rating": [5.0]}})
folder.write_folder(dataset_from("small", log), {str(tmp_path / "set")!r})
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert read_folder(tmp_path / "set").interactions["rating"][0] == 1.0
