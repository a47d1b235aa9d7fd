"""ALS against the normal equations solved one row at a time, and its objective against the sum over all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from palate.core import store
from palate.core.requests import Requests
from palate.core.run import Run, Silent
from palate.models.collaborative import als
from palate.models.collaborative.als import ALS, ALSConfig, solve
from tests.models.collaborative_logs import dense_user_items, log_of, random_log


class Recorded(Silent):
    """Keeps every loss it is told."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.losses.append(figures["loss"])


def scores_of(system: ALS, histories: list[list[int]]) -> np.ndarray:
    return np.concatenate(list(system.score_blocks(Requests.of(histories))))


def direct(counts: np.ndarray, others: np.ndarray, alpha: float, reg: np.ndarray) -> np.ndarray:
    """Equation 4, one row and one dense confidence matrix at a time."""
    solved = []
    for row, own in zip(counts, reg, strict=True):
        confidence = np.diag(1 + alpha * row)
        left = others.T @ confidence @ others + own * np.eye(others.shape[1])
        solved.append(np.linalg.solve(left, others.T @ confidence @ (row > 0)))
    return np.array(solved)


@pytest.mark.parametrize("block_bytes", [2**25, 400])
@pytest.mark.parametrize("seed", range(3))
def test_solve_agrees_with_the_normal_equations(seed: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(als, "BLOCK_BYTES", block_bytes)
    counts = dense_user_items(random_log(seed))
    counts[3] = counts[7] = 0
    others = np.random.default_rng(seed).normal(size=(25, 4))
    regs = np.linspace(0.1, 2, len(counts))
    found = solve(csr_array(counts), others, 5.0, regs)
    np.testing.assert_allclose(found, direct(counts, others, 5.0, regs), atol=1e-9)
    assert (found[[3, 7]] == 0).all()


def test_one_user_one_item_by_hand() -> None:
    """Y = [2], α = 3, λ = 1, one event: (4 + 3·4 + 1) x = 2·4, so x = 8/17."""
    found = solve(csr_array(np.array([[1.0]])), np.array([[2.0]]), 3.0, np.array([1.0]))
    assert found[0, 0] == pytest.approx(8 / 17)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_objective_is_the_papers_and_never_rises(exponent: float) -> None:
    train, progress = random_log(2), Recorded()
    config = ALSConfig(width=3, alpha=2.0, reg=0.5, reg_exponent=exponent, iterations=8)
    ALS(config).fit(train, Run(progress=progress))
    assert len(progress.losses) == 8
    assert (np.diff(progress.losses) <= 1e-3).all()
    counts = dense_user_items(train)
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(train.n_users, 3)), rng.normal(size=(train.n_items, 3))
    confidence = 1 + 2.0 * counts
    fit = (confidence * ((counts > 0) - users @ items.T) ** 2).sum()
    of_users = 0.5 * ((counts > 0).sum(1) + train.n_items / 2.0) ** exponent
    of_items = 0.5 * ((counts > 0).sum(0) + train.n_users / 2.0) ** exponent
    expected = fit + of_users @ (users**2).sum(1) + of_items @ (items**2).sum(1)
    assert ALS(config).loss(csr_array(counts), users, items) == pytest.approx(expected)


def test_a_request_is_solved_from_its_history_alone() -> None:
    train = random_log(4)
    config = ALSConfig(width=5, alpha=3.0, reg=0.7, reg_exponent=0.5)
    system = ALS(config).fit(train, Run(seed=1))
    assert system.items is not None
    items = system.items.astype(np.float64)
    history = [2, 9, 9, 20]
    counts = np.bincount(history, minlength=25)[None].astype(float)
    reg = np.array([0.7 * (3 + 25 / 3.0) ** 0.5])
    expected = direct(counts, items, 3.0, reg) @ items.T
    np.testing.assert_allclose(scores_of(system, [history])[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(scores_of(system, [[1], history, []])[1], expected[0], atol=1e-5)


def test_two_blocks_of_taste_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    histories = [list(rng.permutation(6)[:4] + 6 * (user % 2)) for user in range(40)]
    system = ALS(ALSConfig(width=2, iterations=20)).fit(log_of(histories, 12), Run())
    best = system.recommend(Requests.of([[0, 1], [6, 7]]).leaving_out_history(), 4)
    assert sorted(best.item_rows[0]) == [2, 3, 4, 5]
    assert sorted(best.item_rows[1]) == [8, 9, 10, 11]


def test_a_newcomer_is_answered_by_popularity_and_the_unseen_item_cannot_be_scored() -> None:
    system = ALS(ALSConfig(width=2)).fit(log_of([[0, 1], [0], [2, 0]], n_items=4), Run())
    np.testing.assert_allclose(scores_of(system, [[], [7]]), [[1, 1 / 3, 1 / 3, np.nan]] * 2, rtol=1e-6)
    assert np.isnan(scores_of(system, [[0]])[0]).tolist() == [False, False, False, True]


def test_same_seed_same_bits_and_limits_stop_early() -> None:
    train = random_log(6)
    first, second = (ALS(ALSConfig(width=4)).fit(train, Run(seed=3)) for _ in range(2))
    assert first.items is not None
    assert second.items is not None
    assert first.items.tobytes() == second.items.tobytes()
    progress = Recorded()
    ALS(ALSConfig(width=4)).fit(train, Run(max_steps=2, progress=progress))
    assert len(progress.losses) == 2
    progress = Recorded()
    ALS(ALSConfig(width=4)).fit(train, Run(budget_seconds=0.0, progress=progress))
    assert len(progress.losses) == 1


def test_saved_is_loaded(tmp_path: Path) -> None:
    train = random_log(5)
    system = ALS(ALSConfig(width=4, reg_exponent=0.5)).fit(train, Run())
    system.save(tmp_path / "model")
    histories = [[1, 2], [], [30]]
    np.testing.assert_array_equal(scores_of(store.load(tmp_path / "model"), histories), scores_of(system, histories))
    assert store.open_folder(tmp_path / "model").fitted_on == train.fingerprint
