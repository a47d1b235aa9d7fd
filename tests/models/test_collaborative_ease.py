"""EASE against the paper's formula, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palate.core import store
from palate.core.errors import TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.collaborative import ease
from palate.models.collaborative.ease import EASE, EASEConfig
from tests.models.collaborative_logs import dense_user_items, log_of, random_log


def scores_of(system: EASE, histories: list[list[int]]) -> np.ndarray:
    return np.concatenate(list(system.score_blocks(Requests.of(histories))))


def test_two_items_by_hand() -> None:
    """X'X + I = [[3, 1], [1, 2]], its inverse is [[2, -1], [-1, 3]] / 5: weights 1/3 and 1/2."""
    system = EASE(EASEConfig(reg=1.0)).fit(log_of([[0, 1], [0]], n_items=2), Run())
    assert system.weights is not None
    np.testing.assert_allclose(system.weights, [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)
    np.testing.assert_allclose(scores_of(system, [[0], [1], [0, 0]]), [[0, 1 / 3], [1 / 2, 0], [0, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("block_bytes", [2**25, 4 * 25 * 7])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_formula_in_double_precision(
    seed: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "BLOCK_BYTES", block_bytes)
    train = random_log(seed)
    met = np.minimum(dense_user_items(train), 1)
    inverse = np.linalg.inv(met.T @ met + 3.0 * np.eye(25))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    system = EASE(EASEConfig(reg=3.0)).fit(train, Run())
    assert system.weights is not None
    np.testing.assert_allclose(system.weights, weights, atol=1e-5)


def test_a_newcomer_is_answered_by_popularity_and_the_unseen_item_cannot_be_scored() -> None:
    system = EASE().fit(log_of([[0, 1], [0], [2, 0]], n_items=4), Run())
    np.testing.assert_allclose(scores_of(system, [[], [7]]), [[1, 1 / 3, 1 / 3, np.nan]] * 2)
    assert np.isnan(scores_of(system, [[0]])[0]).tolist() == [False, False, False, True]


def test_half_life_weighs_the_newest_event_most() -> None:
    train = random_log(1)
    plain, recent = (
        EASE(EASEConfig(reg=5)).fit(train, Run()),
        EASE(EASEConfig(reg=5, half_life_events=2)).fit(train, Run()),
    )
    old, new = scores_of(plain, [[3], [8]])
    np.testing.assert_allclose(scores_of(recent, [[3, 8]])[0], old * 0.5**0.5 + new, rtol=1e-5)


def test_too_large_a_catalogue_is_refused_in_one_sentence() -> None:
    with pytest.raises(TrainingError, match=r"EASE holds a 25 x 25 table .* stops at 24 items: use item-knn"):
        EASE(EASEConfig(most_items=24)).fit(random_log(0), Run())


def test_saved_is_loaded(tmp_path: Path) -> None:
    train = random_log(5)
    system = EASE().fit(train, Run())
    system.save(tmp_path / "model")
    histories = [[1, 2], [], [30]]
    np.testing.assert_array_equal(scores_of(store.load(tmp_path / "model"), histories), scores_of(system, histories))
    assert store.open_folder(tmp_path / "model").fitted_on == train.fingerprint
