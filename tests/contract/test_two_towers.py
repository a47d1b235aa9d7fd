"""What every system promises whose scores are products of two vectors."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core.errors import MisuseError
from palate.core.protocols import Recommender, TwoTower
from palate.core.requests import Requests
from palate.core.split import Split
from palate.parts.retrieval import Indexed
from palate.systems import able, build
from tests.contract.questions import table

NAMES = {
    "als", "bpr", "lightgcn", "gccf", "sgl", "simgcl", "autocf", "text-cosine", "gru4rec", "bert4rec", "sasrec", "hstu",
    "rlmrec", "llmrec", "hllm", "lite-llm4rec",
}  # fmt: skip
"""By hand: a system that lost what it takes would otherwise drop out of these tests and nobody would know."""
ROWS = [row for row in able("Recommender") if row.name in NAMES]


def test_the_systems_that_compare_two_vectors_say_so() -> None:
    members = ("user_vectors", "item_vectors", "vectors_version")
    able_to = {row.name for row in able("Recommender") if all(hasattr(row.kind, member) for member in members)}
    assert able_to == NAMES


def test_a_system_that_compares_no_two_vectors_is_refused_in_a_sentence() -> None:
    for name in ("popularity", "item-knn", "ease"):
        with pytest.raises(MisuseError, match="are no products of two vectors: ask it without an index"):
            Indexed(build(name))  # type: ignore[arg-type]


def test_the_product_of_the_vectors_is_the_score(system: Recommender, questions: Requests, split: Split) -> None:
    """Nothing to go by is NaN on one side, never answered on the other; no other number is missing."""
    assert isinstance(system, TwoTower)
    users, items = system.user_vectors(questions), system.item_vectors()
    scores = table(system, questions, split.train.n_items)
    assert users.dtype == items.dtype == np.float32
    assert users.shape == (len(questions), items.shape[1])
    silent = np.isnan(users).all(1)
    assert np.isfinite(users[~silent]).all()
    assert 0 < silent.sum() < len(questions) / 2, "only who has no history that can be read"
    products = users[~silent] @ items.T
    np.testing.assert_allclose(products, scores[~silent], rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(np.isnan(items).any(1), np.isnan(scores[0]))
    few = questions[np.array([3, 44, 0])]
    np.testing.assert_allclose(system.user_vectors(few), users[[3, 44, 0]], rtol=2e-4, atol=2e-5)
    assert system.user_vectors(questions[:0]).shape == (0, items.shape[1])


def test_exact_retrieval_answers_as_the_system(system: Recommender, questions: Requests, split: Split) -> None:
    """Places may be exchanged only where scores are level up to rounding."""
    assert isinstance(system, TwoTower)
    asked = questions.leaving_out_history()
    own, found = system.recommend(asked, 10), Indexed(system).recommend(asked, 10)
    assert found.exact
    np.testing.assert_allclose(found.scores, own.scores, rtol=2e-4, atol=2e-5)
    scores = table(system, questions, split.train.n_items)
    for row, answered in enumerate(found.item_rows):
        there = answered >= 0
        np.testing.assert_allclose(scores[row, answered[there]], found.scores[row, there], rtol=2e-4, atol=2e-5)
        assert not set(answered[there].tolist()) & set(questions.histories.row(row).tolist())


def test_the_version_follows_the_vectors(system: Recommender) -> None:
    assert isinstance(system, TwoTower)
    assert system.vectors_version == system.vectors_version != ""
