"""Saved folders: what goes in comes out; whatever is wrong is refused before a weight is read; a kill harms nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.core import store
from palate.core.config import Config
from palate.core.errors import StoreError
from palate.models.collaborative.popularity import Popularity

FILES = ("arrays.safetensors", "config.json", "facts.json")


class Widths(Config):
    width: int = 8
    name: str = "é"


class Thing:
    """Something with arrays."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def save(self, folder: Path) -> None:
        store.save(folder, self, arrays={"a": np.full((3, 2), self.value, np.float32)}, facts={"value": self.value})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved folder with settings, arrays, facts and a part, whose class is one of Palate's."""
    path = tmp_path / "run" / "model"
    store.save(
        path,
        Thing(),
        config=Widths(width=16),
        arrays={"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "rows": np.arange(4)[::2]},
        facts={"epochs": 3},
        parts={"part": Thing(2.0)},
        fitted_on="abc",
    )
    return path


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a weight fails the test."""

    def read(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("safetensors.numpy.load_file", read)
    monkeypatch.setattr(store.Stored, "arrays", read)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as somebody would who knows how its checksum is made."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps({**content, "checksum": store._seal(content)}))


def test_what_is_saved_is_read_back(folder: Path) -> None:
    stored = store.open_folder(str(folder))
    assert stored.kind.endswith(":Thing")
    assert stored.fitted_on == "abc"
    assert stored.facts == {"epochs": 3}
    assert stored.parts == ("part",)
    assert Widths.model_validate(stored.config) == Widths(width=16)
    arrays = stored.arrays()
    np.testing.assert_array_equal(arrays["weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["rows"], [0, 2])
    assert arrays["rows"].dtype == np.int64
    assert store.open_folder(folder / "part").facts == {"value": 2.0}
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "manifest.json", "part"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_without_arrays_there_is_no_arrays_file(tmp_path: Path) -> None:
    store.save(tmp_path / "x", Thing())
    assert not (tmp_path / "x" / "arrays.safetensors").exists()
    assert store.open_folder(tmp_path / "x").arrays() == {}
    assert store.open_folder(tmp_path / "x").fitted_on == store.NO_DATA


def test_others_may_read_what_was_saved(folder: Path) -> None:
    """A server often runs as another user; the umask decides, not the way of writing."""
    umask = os.umask(0o022)
    try:
        store.save(folder.parent / "again", Thing())
    finally:
        os.umask(umask)
    assert (folder.parent / "again").stat().st_mode & 0o777 == 0o755
    assert (folder.parent / "again" / "manifest.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("where", ["", "part"])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "missing"])
def test_every_damaged_file_is_refused(folder: Path, where: str, name: str, damage: str) -> None:
    """The part's files too, and already when the whole is opened."""
    path = folder / where / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"flipped": flipped, "truncated": content[:-3], "emptied": b""}[damage])
    with pytest.raises(StoreError) as caught:
        store.open_folder(folder)
    assert "\n" not in str(caught.value)
    assert folder.name in str(caught.value)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema="palate.store/9"), "schema 'palate.store/9' is not 'palate.store/1'"),
        (lambda m: m.pop("schema"), "schema None"),
        (lambda m: m.pop("class"), "'class' is missing"),
        (lambda m: m.update(fitted_on=5), "'fitted_on' is missing or of the wrong type"),
        (lambda m: m.update(files=[]), "'files' is missing or of the wrong type"),
        (lambda m: m.update(parts=["part"]), "'parts' is missing or of the wrong type"),
        (lambda m: m["files"].pop("config.json"), "'config.json' of its manifest is missing"),
        (lambda m: m["files"].update({"../../secret": "0"}), "'../../secret' of its manifest is missing"),
        (lambda m: m["files"].update({"/etc/passwd": "0"}), "'/etc/passwd' of its manifest is missing"),
        (lambda m: m["files"].update({"more.bin": "0"}), "'more.bin' of its manifest is missing"),
        (lambda m: m["parts"].update({"../model": "0"}), "part '../model' is missing or another"),
        (lambda m: m["parts"].update({"other": "0"}), "part 'other' is missing or another"),
    ],
)
def test_a_foreign_manifest_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    (folder.parent.parent / "secret").write_text("")
    edit(folder / "manifest.json", change)
    with pytest.raises(StoreError, match=re.escape(message)):
        store.open_folder(folder)


@pytest.mark.usefixtures("no_weights")
def test_every_byte_of_a_manifest_counts(folder: Path) -> None:
    """White space apart: a manifest that names other training data or another class would mislead."""
    path = folder / "manifest.json"
    content = path.read_bytes()
    for i, byte in enumerate(content):
        if chr(byte).isspace():
            continue
        path.write_bytes(content[:i] + bytes([byte ^ 1]) + content[i + 1 :])
        with pytest.raises(StoreError):
            store.read_manifest(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("content", ["[1]", '"text"', "{", "\x00\xff"])
def test_a_manifest_that_is_no_mapping_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError, match=r"manifest\.json"):
        store.open_folder(folder)


@pytest.mark.usefixtures("no_weights")
def test_weights_that_the_manifest_does_not_know_are_refused(folder: Path) -> None:
    shutil.copy(folder / "arrays.safetensors", folder / "more.safetensors")
    with pytest.raises(StoreError, match=r"'more\.safetensors' is not in its manifest"):
        store.open_folder(folder)


def test_a_part_of_another_model_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "part")
    Thing(3.0).save(folder / "part")
    with pytest.raises(StoreError, match="part 'part' is missing or another"):
        store.open_folder(folder)


def test_settings_that_are_no_mapping_are_refused(folder: Path) -> None:
    for content, message in (("[1]", "does not hold a mapping"), ("{", "is damaged")):
        (folder / "config.json").write_text(content)
        checksum = store._checksum(folder / "config.json")
        edit(folder / "manifest.json", lambda m, c=checksum: m["files"].update({"config.json": c}))
        with pytest.raises(StoreError, match=message):
            store.open_folder(folder)


def test_a_part_is_asked_by_its_name(folder: Path) -> None:
    with pytest.raises(StoreError, match="holds no part 'parts'; did you mean 'part'"):
        store.open_folder(folder).part("parts")


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    "kind",
    [
        "os:system",
        "subprocess:Popen",
        "palate:load",
        "palatable.core:Thing",
        "palate.core.store:np",
        "palate.core.store:json",
        "palate.core.store:load",
        "palate.core.store:Config",
        "palate.evaluation.judging:Recommender",
        "palate.core.store:nothing",
        "palate.core.nowhere:Thing",
        "palate.core.store:__dict__",
        "palate.core.store:Stored.arrays",
        "palate.core.store",
        "",
        "test_store:Thing",
    ],
)
def test_only_classes_of_palate_are_loaded(folder: Path, kind: str) -> None:
    edit(folder / "manifest.json", lambda m: m.update({"class": kind}))
    with pytest.raises(StoreError, match=re.escape(f"'{kind}'")):
        store.load(folder)


def test_load_finds_the_class_and_refuses_its_damaged_folder(tmp_path: Path) -> None:
    import polars as pl

    from palate.core.dataset import Dataset
    from palate.core.run import Run

    events = pl.DataFrame({"user_row": [0, 0, 1], "item_row": [0, 1, 1]}, schema_overrides={"user_row": pl.Int32})
    dataset = Dataset(
        "tiny",
        events.cast({"item_row": pl.Int32}),
        pl.DataFrame({"item": ["a", "b"]}),
        pl.DataFrame({"user": ["u", "v"]}),
    )
    Popularity().fit(dataset, Run()).save(tmp_path / "model")
    assert isinstance(store.load(tmp_path / "model"), Popularity)
    (tmp_path / "model" / "arrays.safetensors").write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        store.load(tmp_path / "model")


def test_no_folder_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is not a saved Palate folder: it has no manifest\.json"):
        store.load(tmp_path / "nowhere")


def test_saving_again_replaces_the_whole(folder: Path) -> None:
    store.save(folder, Thing())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "facts.json", "manifest.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="holds something else; choose another folder"):
        store.save(tmp_path / "thesis", Thing())
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_failing_part_leaves_the_previous_folder(folder: Path) -> None:
    class Broken:
        def save(self, folder: Path) -> None:
            raise RuntimeError("no")

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(RuntimeError, match="no"):
        store.save(folder, Thing(), parts={"broken": Broken()})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from palate.core import store

class Part:
    def save(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "half").write_bytes(b"half a")
        os.kill(os.getpid(), signal.SIGKILL)

original, calls = os.replace, []
def replace(source, goal):
    if sys.argv[2] == "between" and Path(goal).name == "model":
        os.kill(os.getpid(), signal.SIGKILL)
    original(source, goal)
os.replace = replace
parts = {"part": Part()} if sys.argv[2] == "while writing" else None
store.save(sys.argv[1], Part(), arrays={"a": np.zeros(1 << 20)}, parts=parts, facts={"new": True})
"""


@pytest.mark.parametrize("moment", ["while writing", "between"])
def test_kill_9_while_saving_leaves_the_previous_folder(folder: Path, moment: str) -> None:
    """Killed while the files are written, or at the worst moment, between the two renames."""
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.open_folder(folder).facts == {"epochs": 3}
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    store.save(folder, Thing(), facts={"new": True})
    assert store.open_folder(folder).facts == {"new": True}


FULL = """
import resource, sys
import numpy as np
from pathlib import Path
from palate.core import store
from palate.core.errors import StoreError

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for write in (
    lambda: store.save(sys.argv[1], object(), arrays={"a": np.zeros(1 << 16)}),
    lambda: store.write_bytes(Path(sys.argv[1]) / "facts.json", bytes(1 << 17)),
):
    try:
        write()
    except StoreError as failure:
        print(failure)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_a_full_disk_is_one_sentence_and_harms_nothing(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(folder)], capture_output=True, text=True, check=True)
    sentences = done.stdout.splitlines()
    assert len(sentences) == 2
    for sentence in sentences:
        assert sentence.startswith(f"cannot write {folder}")
        assert sentence.endswith("what was there before is untouched")
    assert store.open_folder(folder).facts == {"epochs": 3}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert sorted(path.name for path in folder.iterdir()) == [*FILES, "manifest.json", "part"]


def test_texts_are_written_whole(tmp_path: Path) -> None:
    store.write_json(tmp_path / "new" / "x.json", {"b": 1, "a": "é"})
    assert (tmp_path / "new" / "x.json").read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(TypeError):
        store.write_json(tmp_path / "new" / "x.json", {"a": object()})
    assert json.loads((tmp_path / "new" / "x.json").read_text(encoding="utf-8"))["b"] == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.json"]


def test_a_folder_without_its_parts_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from palate.models.content.text_cosine import TextCosine, TextCosineConfig

    system = object.__new__(TextCosine)
    store.save(tmp_path / "bare", system, config=TextCosineConfig())
    with pytest.raises(StoreError, match="bare does not hold the parts of what it says it is"):
        store.open_folder(tmp_path / "bare").begun(TextCosine)
