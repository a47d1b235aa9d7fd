"""Text tokenizers: nothing is lost, words added are never split, all of it survives saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from checkpoints import save_letters, save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.backbones.item_text import texts_of
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core.errors import ConfigError, DataError
from palate.data.sources import load

TEXTS = texts_of(load("world-test"))
TAUGHT = TextTokenizer.taught(TEXTS, 600)
GROWN = TAUGHT.copy()
GROWN.add([f"<a_{i}>" for i in range(20)])


def no_mark(text: str) -> bool:
    return not any(mark in text for mark in ("<pad>", "<s>", "</s>"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(no_mark), max_size=4))
def test_what_is_read_is_spelled_again(texts: list[str]) -> None:
    assert TAUGHT.spell(TAUGHT.read(texts)) == texts
    assert GROWN.spell(GROWN.read(texts)) == texts


def test_frequent_words_are_short_and_the_size_is_kept() -> None:
    assert TAUGHT.size == 600
    lengths = TAUGHT.read(TEXTS).lengths
    assert 2.5 * lengths.sum() < sum(map(len, TEXTS))
    assert TextTokenizer.taught(["aa"], 4096).size < 270  # no more merges than the text has


def test_the_same_texts_in_any_order_teach_the_same() -> None:
    again = TextTokenizer.taught([*TEXTS[::-1], "", *TEXTS[:3]], 600)
    assert again.facts() == TAUGHT.facts()


def test_added_words_are_one_token_anywhere_and_the_rest_reads_as_before() -> None:
    ids = GROWN.add(["<a_3>", "<b_0>", "<a_3>", "<b_1>"])
    assert ids.tolist() == [603, 620, 603, 621]
    rows = GROWN.read(["read <a_3><b_0>, then <b_1>", "x<a_19>"])
    assert [i for i in rows.row(0).tolist() if i >= 600] == [603, 620, 621]
    assert GROWN.spell(rows) == ["read <a_3><b_0>, then <b_1>", "x<a_19>"]
    np.testing.assert_array_equal(GROWN.read(TEXTS).flat(), TAUGHT.read(TEXTS).flat())
    assert len(TAUGHT.read(["<a_3>"]).row(0)) > 1  # the copy alone has grown
    with pytest.raises(DataError, match="cannot be empty or begin or end with white space"):
        GROWN.add([" a"])


def test_saved_words_are_loaded() -> None:
    loaded = TextTokenizer.from_facts(json.loads(json.dumps(GROWN.facts())))
    text = [TEXTS[0] + " <a_7>"]
    np.testing.assert_array_equal(loaded.read(text).flat(), GROWN.read(text).flat())
    assert (loaded.size, loaded.pad, loaded.start, loaded.end) == (GROWN.size, 0, 1, 2)


def test_every_token_knows_its_word() -> None:
    texts = ["a redhead reads", "  two   <a_1><a_2> gaps", "", "näive 日本 words"]
    tokens, words = GROWN.read(texts), GROWN.words(texts)
    np.testing.assert_array_equal(tokens.lengths, words.lengths)
    for text, ids, numbers in zip(texts, tokens, words, strict=True):
        assert (np.diff(numbers) >= 0).all()
        pieces = text.split(" ")
        for number in np.unique(numbers):
            spelled = GROWN.inner.decode(ids[numbers == number].tolist(), skip_special_tokens=False)
            assert spelled.strip() in (pieces[number], "")
    np.testing.assert_array_equal(GROWN.words(texts, 2).lengths, np.minimum(tokens.lengths, 2))


def test_long_texts_are_cut() -> None:
    whole = TAUGHT.read(TEXTS[:2])
    cut = TAUGHT.read(TEXTS[:2], 5)
    assert cut.lengths.tolist() == [5, 5]
    np.testing.assert_array_equal(cut.row(1), whole.row(1)[:5])
    assert len(TAUGHT.read([])) == 0


def test_the_tokenizer_of_a_model(tmp_path: Path) -> None:
    size = save_tokenizer(tmp_path)
    found = TextTokenizer.of_model(tmp_path)
    assert (found.size, found.pad, found.start, found.end) == (size, 0, None, 4)
    assert found.spell(found.read(["A red sea"])) == ["a red sea"]
    found.fill_up(size + 3)
    assert found.add(["<a_1>"]).tolist() == [size + 3]
    with pytest.raises(ConfigError, match="cannot be read"):
        TextTokenizer.of_model(tmp_path / "nothing")


@pytest.mark.parametrize("legacy", [True, False])
def test_what_stands_inside_a_text_has_no_space_put_before_it(legacy: bool, tmp_path: Path) -> None:
    save_letters(tmp_path, legacy)
    text = TextTokenizer.of_model(tmp_path)
    phrases = ["Which item is called", " The = Sea", "? Name:", "", "\nAnswer", "="]
    inside = text.read(phrases[1:], inside=True)
    joined = np.concatenate([text.read(phrases[:1]).flat(), inside.flat()])
    np.testing.assert_array_equal(joined, text.read(["".join(phrases)]).flat())
    assert len(text.read(phrases).flat()) > len(joined)  # a space before each
    np.testing.assert_array_equal(text.read(phrases[1:], 2, inside=True).lengths, [2, 2, 0, 2, 1])
    # One that puts nothing before a text reads it alike in any place.
    np.testing.assert_array_equal(GROWN.read(TEXTS, inside=True).flat(), GROWN.read(TEXTS).flat())


def test_no_text_teaches_nothing() -> None:
    with pytest.raises(DataError, match="cannot be taught without any text"):
        TextTokenizer.taught(["", ""], 500)
