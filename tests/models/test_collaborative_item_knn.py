"""Item-kNN by hand, and against a dense reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palate.core import store
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.collaborative import item_knn
from palate.models.collaborative.item_knn import ItemKNN, ItemKNNConfig, largest
from tests.models.collaborative_logs import dense_user_items, log_of, random_log

# users of item 0: {0, 1, 2}, of 1: {0, 1}, of 2: {2, 3}, of 3: {3}, of 4: nobody
TINY = log_of([[0, 1], [1, 0], [0, 2], [2, 3]], n_items=5)


def scores_of(system: ItemKNN, histories: list[list[int]]) -> np.ndarray:
    return np.concatenate(list(system.score_blocks(Requests.of(histories))))


def test_similarities_by_hand() -> None:
    system = ItemKNN(ItemKNNConfig(neighbours=10, shrinkage=1.0)).fit(TINY, Run())
    assert system.similarity is not None
    similarity = system.similarity.toarray()
    assert similarity[0, 1] == pytest.approx(2 / (np.sqrt(3 * 2) + 1))
    assert similarity[0, 2] == pytest.approx(1 / (np.sqrt(3 * 2) + 1))
    assert similarity[2, 3] == pytest.approx(1 / (np.sqrt(2 * 1) + 1))
    assert similarity[0, 3] == similarity[1, 2] == 0
    assert (np.diag(similarity) == 0).all()


def test_each_item_keeps_its_own_nearest() -> None:
    """With one neighbour each, item 2 is asked of item 3 alone, so a history of 0 no longer speaks for it."""
    system = ItemKNN(ItemKNNConfig(neighbours=1, shrinkage=0.0)).fit(TINY, Run())
    scores = scores_of(system, [[0], [3]])
    assert scores[0, 1] == pytest.approx(2 / np.sqrt(6))
    assert scores[0, 2] < 0
    assert scores[1, 2] == pytest.approx(1 / np.sqrt(2))


def test_a_newcomer_is_answered_by_popularity_and_the_unseen_item_cannot_be_scored() -> None:
    scores = scores_of(ItemKNN().fit(TINY, Run()), [[], [9]])
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_allclose(scores[0], [0.0, 2 / 3 - 1, 2 / 3 - 1, 1 / 3 - 1, np.nan])


def test_a_spoken_for_item_stands_above_every_other() -> None:
    scores = scores_of(ItemKNN(ItemKNNConfig(shrinkage=1000.0)).fit(TINY, Run()), [[3]])
    assert scores[0, 2] > scores[0, 0]


@pytest.mark.parametrize("block_bytes", [2**25, 4 * 25 * 3])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_dense_cosine(seed: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn, "BLOCK_BYTES", block_bytes)
    train = random_log(seed)
    system = ItemKNN(ItemKNNConfig(neighbours=4, shrinkage=2.0)).fit(train, Run())
    met = np.minimum(dense_user_items(train), 1)
    users = met.sum(axis=0)
    cosine = met.T @ met / (np.sqrt(np.outer(users, users)) + 2.0)
    np.fill_diagonal(cosine, 0)
    histories = [[1, 5, 5, 7], [3], [24, 0, 2]]
    expected = np.zeros((len(histories), 25))
    for i in range(25):
        nearest = [j for j in sorted(range(25), key=lambda j: (-np.float32(cosine[j, i]), j))[:4] if cosine[j, i] > 0]
        for row, history in enumerate(histories):
            expected[row, i] = sum(cosine[j, i] for j in set(history) & set(nearest))
    scores = scores_of(system, histories)
    np.testing.assert_allclose(np.maximum(scores, 0), expected, atol=1e-6)


def test_half_life_weighs_the_newest_event_most() -> None:
    config = ItemKNNConfig(shrinkage=0.0, half_life_events=1.0)
    plain = ItemKNN(ItemKNNConfig(shrinkage=0.0)).fit(TINY, Run())
    system = ItemKNN(config).fit(TINY, Run())
    first, last = scores_of(plain, [[1], [3]])
    assert scores_of(system, [[1, 3]])[0, 2] == pytest.approx(last[2])
    assert scores_of(system, [[1, 3]])[0, 0] == pytest.approx(first[0] / 2)
    np.testing.assert_allclose(scores_of(system, [[1, 3, 1]])[0, 0], first[0])


def test_largest_keeps_n_and_of_equals_the_lower_columns() -> None:
    values = np.array([[1, 3, 3, 2, 3], [5, 0, 0, 0, 4]], dtype=np.float32)
    assert largest(values, 2).tolist() == [[0, 3, 3, 0, 0], [5, 0, 0, 0, 4]]


def test_saved_is_loaded(tmp_path: Path) -> None:
    train = random_log(5)
    system = ItemKNN(ItemKNNConfig(neighbours=3)).fit(train, Run())
    system.save(tmp_path / "model")
    loaded = store.load(tmp_path / "model")
    histories = [[1, 2], [], [30]]
    np.testing.assert_array_equal(scores_of(loaded, histories), scores_of(system, histories))
    assert store.open_folder(tmp_path / "model").fitted_on == train.fingerprint
