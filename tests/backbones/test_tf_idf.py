"""TF-IDF and SVD against scikit-learn, and what a text-only encoder promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palate.backbones import tf_idf
from palate.backbones.item_text import texts_of
from palate.backbones.tf_idf import TfIdf, TfIdfConfig
from palate.core import store
from palate.core.errors import DataError
from palate.core.protocols import Encoder, FitsTexts
from palate.data.sources import load

TEXTS = texts_of(load("world-test"))


@pytest.mark.parametrize("dense", [True, False])
def test_it_agrees_with_scikit_learn(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sklearn = pytest.importorskip("sklearn.decomposition")
    from sklearn.feature_extraction.text import TfidfVectorizer

    monkeypatch.setattr(tf_idf, "_DENSE", 10**9 if dense else 0)
    ours = TfIdf(TfIdfConfig(width=12, normalise=False)).fit(TEXTS)
    counted = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True)
    weighted = counted.fit_transform(TEXTS)
    np.testing.assert_array_equal(sorted(counted.vocabulary_), list(ours.columns))
    theirs = sklearn.TruncatedSVD(12, algorithm="arpack", random_state=0).fit_transform(weighted)
    vectors = ours.encode(TEXTS)
    np.testing.assert_allclose(vectors @ vectors.T, theirs @ theirs.T, atol=1e-5)


def test_texts_that_share_words_are_nearer() -> None:
    encoder = TfIdf(TfIdfConfig(width=2)).fit(["sand and spice", "spice and sand", "snow and ice", "ice on snow"])
    sand, spice, snow = encoder.encode(["sand", "spice spice", "snow"])
    assert sand @ spice > 0.95
    assert sand @ snow < 0.5


def test_every_direction_of_few_texts_is_kept_and_no_noise() -> None:
    encoder = TfIdf().fit(["one two", "two three", "two one", "one two"])
    assert encoder.encode(["one"]).shape[1] == 3  # three distinct texts
    assert TfIdf().fit(["alone"]).encode(["alone", "unknown", ""]).tolist() == [[1.0], [0.0], [0.0]]


@pytest.mark.parametrize("dense", [True, False])
def test_directions_without_meaning_are_left_out(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf_idf, "_DENSE", 10**9 if dense else 0)
    texts = [f"{first}{second}" for first in ("a b ", "b a ") for second in ("c d", "d c", "c c d d e", "e", "e e")]
    encoder = TfIdf(TfIdfConfig(width=4, pairs=False)).fit(texts)
    rank = np.linalg.matrix_rank(encoder._weighted([encoder._terms(text) for text in texts]).toarray())
    assert rank == 3
    assert encoder.encode(texts).shape == (10, 3)


def test_the_same_texts_give_the_same_bits_and_another_text_another_version() -> None:
    one, two = TfIdf().fit(TEXTS), TfIdf().fit(TEXTS[::-1] + TEXTS[:3])
    np.testing.assert_array_equal(one.encode(TEXTS), two.encode(TEXTS))
    assert one.version == two.version
    assert TfIdf().fit([*TEXTS, "another"]).version != one.version
    assert TfIdf(TfIdfConfig(pairs=False)).fit(TEXTS).version != one.version


def test_rare_and_too_many_terms_are_left_out() -> None:
    texts = ["a b", "a c", "a b d"]
    assert list(TfIdf(TfIdfConfig(pairs=False, min_texts=2)).fit(texts).columns) == ["a", "b"]
    assert list(TfIdf(TfIdfConfig(pairs=False, max_terms=1)).fit(texts).columns) == ["a"]


def test_saved_is_loaded(tmp_path: Path) -> None:
    encoder = TfIdf(TfIdfConfig(width=8)).fit(TEXTS)
    encoder.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    assert isinstance(loaded, TfIdf)
    assert loaded.version == encoder.version
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_it_says_what_it_lacks() -> None:
    with pytest.raises(DataError, match="has not seen any text yet"):
        TfIdf().encode(["a"])
    with pytest.raises(DataError, match="found no word in 2 texts"):
        TfIdf().fit(["", "!"])
    assert isinstance(TfIdf(), Encoder)
    assert isinstance(TfIdf(), FitsTexts)
