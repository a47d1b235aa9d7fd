"""Vectors kept on disk: each text is encoded once, whatever happens to the process, the files or the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from palate.backbones import vectors
from palate.backbones.cache import cache
from palate.backbones.item_text import ItemText
from palate.backbones.tf_idf import TfIdf, TfIdfConfig
from palate.backbones.vectors import VectorStore, item_vectors, keys_of, text_vectors
from palate.core.dataset import Dataset
from palate.core.errors import DataError, StoreError
from palate.core.run import Run
from palate.data.sources import load


def catalogue(*titles: str) -> Dataset:
    events = pl.DataFrame({"user_row": [0], "item_row": [0]}, schema={"user_row": pl.Int32, "item_row": pl.Int32})
    items = pl.DataFrame({"item": [str(i) for i in range(len(titles))], "title": titles})
    return Dataset("tiny", events, items, pl.DataFrame({"user": ["u"]}), clock="order")


def letters(texts: Sequence[str]) -> np.ndarray:
    return np.array([[text.count(letter) for letter in "aeiou"] for text in texts], dtype=np.float32)


def test_each_text_is_encoded_once_and_rows_follow_the_items(counting: Any) -> None:
    data = catalogue("sand", "sea", "sand", "moon")
    found = item_vectors(data, counting)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, letters(["sand", "sea", "sand", "moon"]))
    assert sorted(counting.asked) == ["moon", "sand", "sea"]
    np.testing.assert_array_equal(item_vectors(data, counting), found)
    assert len(counting.asked) == 3


def test_only_changed_and_new_texts_are_encoded(counting: Any) -> None:
    item_vectors(catalogue("sand", "sea", "moon"), counting)
    counting.asked.clear()
    grown = catalogue("sand", "a sea", "moon", "io", "sand")
    np.testing.assert_array_equal(item_vectors(grown, counting), letters(["sand", "a sea", "moon", "io", "sand"]))
    assert sorted(counting.asked) == ["a sea", "io"]
    counting.asked.clear()
    item_vectors(catalogue("moon", "sea"), counting)  # what the catalogue had before is still there
    assert counting.asked == []


def test_another_template_or_encoder_encodes_anew(counting: Any) -> None:
    data = catalogue("sand", "sea")
    item_vectors(data, counting)
    # The texts are the same; what they would be for other items is not.
    item_vectors(data, counting, ItemText(separator="; "))
    assert len(counting.asked) == 4
    counting.version = "letters/2"
    item_vectors(data, counting)
    assert len(counting.asked) == 6
    item_vectors(data, counting, ItemText(separator="; "))
    item_vectors(data, counting)
    assert len(counting.asked) == 8


def test_the_cache_lives_where_it_is_told(counting: Any, own_cache: Path, tmp_path: Path, monkeypatch: Any) -> None:
    item_vectors(catalogue("sand"), counting)
    assert len(list((own_cache / "vectors").glob("*/*.safetensors"))) == 1
    item_vectors(catalogue("sand"), counting, folder=tmp_path / "here")
    assert len(list((tmp_path / "here").glob("*/*.safetensors"))) == 1
    assert len(counting.asked) == 2
    monkeypatch.delenv("PALATE_CACHE")
    assert cache("vectors") == Path.home() / ".cache" / "palate" / "vectors"


def test_a_kill_keeps_finished_blocks(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 2)
    encode = counting.encode

    def dies(texts: Sequence[str]) -> Any:
        if len(counting.asked) >= 4:
            raise KeyboardInterrupt
        return encode(texts)

    counting.encode = dies
    data = catalogue("a", "e", "i", "o", "u", "ae")
    with pytest.raises(KeyboardInterrupt):
        item_vectors(data, counting)
    counting.asked.clear()
    counting.encode = encode
    np.testing.assert_array_equal(item_vectors(data, counting), letters(["a", "e", "i", "o", "u", "ae"]))
    assert counting.asked == ["u", "ae"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_encoded_again(counting: Any, own_cache: Path, damage: str) -> None:
    data = catalogue("sand", "sea", "moon")
    expected = item_vectors(data, counting)
    (path,) = own_cache.glob("vectors/*/*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes(b"" if damage == "empty" else bytes(content[:-3] if damage == "cut" else content))
    np.testing.assert_array_equal(item_vectors(data, counting), expected)
    assert len(counting.asked) == 6


def test_many_small_files_become_one_and_nothing_is_lost(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK_ROWS", 1)
    monkeypatch.setattr(vectors, "FILES", 4)
    titles = [f"title {number}" for number in range(9)]
    item_vectors(catalogue(*titles[:3]), counting)
    folder = next(cache("vectors").iterdir())
    assert len(list(folder.iterdir())) == 3
    found = item_vectors(catalogue(*titles), counting)
    assert len(list(folder.iterdir())) == 1
    np.testing.assert_array_equal(found, letters(titles))
    np.testing.assert_array_equal(item_vectors(catalogue(*titles), counting), found)
    assert len(counting.asked) == 9


def test_a_file_that_holds_everything_already_is_the_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "FILES", 1)
    store = VectorStore(tmp_path / "store")
    texts = sorted("abc", key=lambda text: keys_of([text]).tobytes())
    store.write(keys_of(texts), letters(texts))
    store.write(keys_of(texts[1:]), letters(texts[1:]))  # a process that did not know of the first
    store.tidy()
    assert len(store._files()) == 1
    np.testing.assert_array_equal(store.read()[1], letters(texts))


def test_a_reader_who_meets_a_file_that_is_gone_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VectorStore(tmp_path / "store")
    for text in ("a", "b"):
        store.write(keys_of([text]), letters([text]))
    before = store._files()
    listings = iter([[*before, tmp_path / "store" / "gone.safetensors"], before])
    monkeypatch.setattr(VectorStore, "_files", lambda self: next(listings))
    keys, rows = store.read()
    assert set(keys) == set(keys_of(["a", "b"]))
    assert rows.shape == (2, 5)


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = VectorStore(tmp_path / "store")
    texts = [f"text {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: store.write(keys_of([text]), letters([text])), texts))
    keys, rows = store.read()
    assert sorted(keys.tolist()) == sorted(keys_of(texts).tolist())
    assert rows.shape == (40, 5)


def test_an_encoder_that_gives_nonsense_is_found_out(counting: Any) -> None:
    counting.encode = lambda texts: np.zeros((1, 5), np.float32)
    with pytest.raises(DataError, match=r"gave \(1, 5\) for 2 texts"):
        text_vectors(["a", "b"], counting)
    counting.encode = lambda texts: np.full((len(texts), 5), np.nan, np.float32)
    with pytest.raises(DataError, match="not a number for the text 'a'"):
        text_vectors(["a", "b"], counting)
    with pytest.raises(DataError, match="no texts"):
        text_vectors([], counting)
    counting.encode = letters
    text_vectors(["a"], counting)
    counting.encode = lambda texts: np.ones((len(texts), 3), np.float32)
    with pytest.raises(DataError, match="were 5 wide and are 3 now, under the same version 'letters/1'"):
        text_vectors(["a", "b"], counting)


def test_a_place_that_cannot_be_written_is_one_sentence(counting: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        text_vectors(["a"], counting, folder=tmp_path / "file")


def test_an_encoder_that_must_learn_words_learns_them_once() -> None:
    data = load("world-test")
    encoder = TfIdf(TfIdfConfig(width=16))
    found = item_vectors(data, encoder)
    assert encoder.fitted
    assert found.shape == (data.n_items, 16)
    version = encoder.version
    items = data.items.with_columns(title=pl.lit("Dune"), text=pl.lit("A desert planet."))
    item_vectors(replace(data, items=items), encoder)
    assert encoder.version == version


def test_the_run_gives_device_and_progress(counting: Any) -> None:
    heard: list[Any] = []

    class Watcher:
        def start(self, what: str, total: int | None) -> None:
            heard.append((what, total))

        def advance(self, steps: int = 1, **figures: float) -> None:
            heard.append(steps)

        def finish(self) -> None:
            heard.append("over")

    counting.to = lambda device: heard.append(device)
    text_vectors(["a", "b", "a"], counting, run=Run(device="cuda:1", progress=Watcher()))
    assert heard == ["cuda:1", ("encoding texts", 2), 2, "over"]
    text_vectors(["a", "b", "a"], counting, run=Run(device="cuda:1", progress=Watcher()))
    assert len(heard) == 4
