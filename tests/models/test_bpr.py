"""BPR-MF: one gradient step by hand, exact negatives, planted groups, people without a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.core import store
from palate.core.errors import TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, PairBatches, Unmet
from palate.models.collaborative.bpr import BPR, BPRConfig, Network
from tests.models.collaborative_logs import log_of, random_log
from tests.models.factor_logs import everybody, group_recall, grown, scores, two_groups

SMALL = BPRConfig(width=8, batch_size=64, training=TrainingConfig(epochs=40, learning_rate=1e-2))


@pytest.fixture(scope="module")
def fitted() -> BPR:
    return BPR(SMALL).fit(two_groups(), Run())


# -- negatives and batches ---------------------------------------------------------------------------------------------


def test_negatives_are_never_met_and_uniform_over_the_rest() -> None:
    train = log_of([[0, 2, 2, 5], [4], [], [0, 1, 2, 3, 4]], 6)
    users = torch.arange(4).repeat_interleave(30_000)
    drawn = Unmet(train).draw(users, 2)
    assert drawn.shape == (120_000, 2)
    for user, unmet in enumerate(([1, 3, 4], [0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 5], [5])):
        rows, counts = np.unique(drawn[users == user].numpy(), return_counts=True)
        assert rows.tolist() == unmet
        np.testing.assert_allclose(counts / counts.sum(), 1 / len(unmet), atol=0.01)


def test_negatives_never_equal_positives_on_a_random_log() -> None:
    train = random_log(3)
    batches, unmet = PairBatches(train, batch_size=50, seed=0), Unmet(train)
    met = set(zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True))
    for batch in batches.epoch(0):
        for user, others in zip(batch.users.tolist(), unmet.draw(batch.users, 4).tolist(), strict=True):
            assert not {(user, other) for other in others} & met


def test_an_epoch_holds_every_event_once_and_depends_on_seed_and_epoch_alone() -> None:
    train = random_log(1)
    batches = PairBatches(train, batch_size=32, seed=5)

    def pairs(epoch: int, skip: int = 0, source: PairBatches = batches) -> list[tuple[int, int]]:
        return [
            (u, i)
            for batch in source.epoch(epoch, skip)
            for u, i in zip(batch.users.tolist(), batch.items.tolist(), strict=True)
        ]

    first = pairs(0)
    assert sorted(first) == sorted(zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True))
    pairs(1)
    assert pairs(0) == first != pairs(1)
    assert pairs(0, skip=2) == first[64:]
    assert pairs(0, source=PairBatches(train, batch_size=32, seed=6)) != first
    assert len(batches) == sum(1 for _ in batches.epoch(0))


def test_who_met_everything_teaches_nothing_and_breaks_nothing() -> None:
    train = log_of([[0, 1, 2], [1, 1], [2, 0]], 3)
    batches = PairBatches(train, batch_size=10, seed=0)
    (batch,) = batches.epoch(0)
    assert sorted(batch.users.tolist()) == [1, 1, 2, 2]
    alone = BPR(SMALL).fit(log_of([[0, 1, 2]], 3), Run())
    assert np.isfinite(scores(alone, Requests.of([[0], []]))).all()


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_one_step_by_hand() -> None:
    """The update of section 4.3.1 of the paper for one triple, with the L2 of all five parameters."""
    config = BPRConfig(width=2, reg=0.1, bias_reg=0.05)
    network = Network(config, 2, 3)
    p, q_i, q_j = np.array([0.5, -1.0]), np.array([0.2, 0.4]), np.array([-0.3, 0.1])
    b_i, b_j = 0.3, -0.2
    with torch.no_grad():
        network.users.weight[1] = torch.tensor(p)
        network.items.weight[2], network.items.weight[0] = torch.tensor(q_i), torch.tensor(q_j)
        network.bias[2], network.bias[0] = b_i, b_j
    loss = network.loss(PairBatch(torch.tensor([1]), torch.tensor([2])), torch.tensor([[0]]))
    loss.backward()
    x = p @ q_i + b_i - p @ q_j - b_j
    missing = 1 / (1 + np.exp(x))
    penalty = 0.05 * (p @ p + q_i @ q_i + q_j @ q_j) + 0.025 * (b_i**2 + b_j**2)
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-x)) + penalty, abs=1e-6)
    users, items, bias = network.users.weight.grad, network.items.weight.grad, network.bias.grad
    assert users is not None
    assert items is not None
    assert bias is not None
    np.testing.assert_allclose(users, [[0, 0], -missing * (q_i - q_j) + 0.1 * p], atol=1e-6)
    np.testing.assert_allclose(items, [missing * p + 0.1 * q_j, [0, 0], -missing * p + 0.1 * q_i], atol=1e-6)
    np.testing.assert_allclose(bias, [missing + 0.05 * b_j, 0, -missing + 0.05 * b_i], atol=1e-6)


def test_a_batch_is_the_mean_over_its_triples() -> None:
    network = Network(BPRConfig(width=4, reg=0.02, bias_reg=0.01), 5, 7)
    users, items = torch.tensor([0, 3, 3]), torch.tensor([1, 6, 2])
    negatives = torch.tensor([[2], [0], [2]])
    single = [
        network.loss(PairBatch(users[k : k + 1], items[k : k + 1]), negatives[k : k + 1]).item() for k in range(3)
    ]
    assert network.loss(PairBatch(users, items), negatives).item() == pytest.approx(np.mean(single), rel=1e-5)


# -- what is learnt ----------------------------------------------------------------------------------------------------


def test_planted_groups_are_recovered_with_and_without_a_name(fitted: BPR) -> None:
    train = two_groups()
    group = np.arange(train.n_users) % 2
    assert group_recall(fitted, everybody(train), group) > 0.95
    assert group_recall(fitted, everybody(train, named=False), group) > 0.95


def test_a_known_user_with_the_trained_history_has_the_trained_vector(fitted: BPR) -> None:
    network = fitted.network
    assert network is not None
    by_hand = (network.users.weight @ network.items.weight.T + network.bias).detach().numpy()
    np.testing.assert_allclose(scores(fitted, everybody(two_groups())), by_hand, atol=1e-4)
    no_history = Requests.of([[]] * 60, user_rows=np.arange(60))
    np.testing.assert_allclose(scores(fitted, no_history), by_hand, atol=1e-4)


def test_a_nameless_copy_of_a_known_user_resembles_the_known_user(fitted: BPR) -> None:
    train = two_groups()
    named, nameless = scores(fitted, everybody(train)), scores(fitted, everybody(train, named=False))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(named, nameless, strict=True)]
    strangers = [np.corrcoef(a, b)[0, 1] for a, b in zip(named, np.roll(nameless, 1, axis=0), strict=True)]
    assert np.mean(alike) > 0.85
    assert np.mean(strangers) < 0


def test_a_known_user_moves_with_new_events(fitted: BPR) -> None:
    """User 0 is of the even group; eight odd items pull towards the odd group, eight more even ones do not."""
    train = two_groups()
    before = list(train.histories.row(0))
    unmet_odd = np.arange(17, 40, 2)
    odd = Requests.of([before, [*before, *range(1, 17, 2)]], user_rows=np.zeros(2, dtype=int))
    stays, moves = scores(fitted, odd)[:, unmet_odd].mean(axis=1)
    assert moves > stays + 0.5


def test_an_unknown_person_without_history_gets_what_is_popular(fitted: BPR) -> None:
    train = two_groups()
    requests = Requests.of([[], [], []], user_rows=np.array([-1, 60, 10**6]))
    for row in scores(fitted, requests):
        np.testing.assert_array_equal(np.argsort(-row, kind="stable"), np.argsort(-train.item_counts, kind="stable"))


def test_items_beyond_the_catalogue_and_items_nobody_met() -> None:
    train = log_of([[0, 1], [1, 2], [0, 2], [2]], 5)
    system = BPR(SMALL).fit(train, Run(max_steps=3))
    read, unread = scores(system, Requests.of([[0, 1, 99], [0, 1]]))
    np.testing.assert_array_equal(read, unread)
    np.testing.assert_array_equal(np.isnan(read), [False, False, False, True, True])
    only_unknown, newcomer = scores(system, Requests.of([[4, 99], []]))
    np.testing.assert_array_equal(only_unknown, newcomer)


def test_a_user_without_training_events_is_a_stranger() -> None:
    system = BPR(SMALL).fit(log_of([[0, 1], [], [1, 2]], 4), Run(max_steps=3))
    named = Requests.of([[], [0]], user_rows=np.array([1, 1]))
    np.testing.assert_array_equal(scores(system, named), scores(system, replace(named, user_rows=None)))


# -- keeping and continuing --------------------------------------------------------------------------------------------


def test_saved_and_loaded(fitted: BPR, tmp_path: Path) -> None:
    fitted.save(tmp_path / "bpr")
    again = store.load(tmp_path / "bpr")
    requests = Requests.of([[0, 2], [1, 3], []], user_rows=np.array([4, -1, -1]))
    np.testing.assert_array_equal(scores(again, requests), scores(fitted, requests))
    assert again.config == SMALL


def test_goes_on_with_more_users_and_items() -> None:
    train = two_groups()
    system = BPR(SMALL).fit(train, Run())
    old = system.network
    assert old is not None
    kept = old.items.weight.detach().clone()
    later = grown(train)
    system.continue_fit(later, Run(max_steps=1))
    network = system.network
    assert network is not None
    assert network.items.weight.shape == (41, 8)
    assert network.users.weight.shape == (61, 8)
    assert (network.items.weight[:40] - kept).abs().max() < 0.05
    assert group_recall(system, everybody(later), np.append(np.arange(60) % 2, 0)) > 0.9


def test_the_best_weights_on_validation_answer() -> None:
    """The judge likes the first epoch best, so the answers are those of one epoch."""
    looks: list[float] = []

    def judge(system: object) -> float:
        looks.append(-float(len(looks)))
        return looks[-1]

    config = SMALL.model_copy(update={"training": TrainingConfig(epochs=4, learning_rate=1e-2)})
    judged = BPR(config).fit(two_groups(), Run(), judge)
    once = BPR(config.model_copy(update={"training": TrainingConfig(epochs=1, learning_rate=1e-2)}))
    once.fit(two_groups(), Run())
    assert len(looks) == 4
    requests = Requests.of([[0, 2], [1]], user_rows=np.array([5, -1]))
    np.testing.assert_array_equal(scores(judged, requests), scores(once, requests))


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    """To the bit, negatives included: stopped in the middle of an epoch, then resumed."""
    train = two_groups()
    whole = BPR(SMALL).fit(train, Run(seed=2, max_steps=30))
    kept = Run(seed=2, folder=tmp_path / "run", checkpoint_seconds=0.0)
    BPR(SMALL).fit(train, replace(kept, max_steps=13))
    resumed = BPR(SMALL).fit(train, replace(kept, max_steps=30, resume=True))
    assert resumed.facts["training"]["steps"] == 30
    np.testing.assert_array_equal(scores(resumed, everybody(train)), scores(whole, everybody(train)))


def test_learns_in_reduced_precision() -> None:
    train = two_groups()
    system = BPR(SMALL).fit(train, Run(precision="bf16"))
    assert group_recall(system, everybody(train), np.arange(train.n_users) % 2) > 0.95


def test_not_fitted_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match="BPR was not fitted yet: call fit or load first"):
        list(BPR().score_blocks(Requests.of([[0]])))


def test_the_loss_is_the_published_one() -> None:
    """Without penalty: -log σ of the difference."""
    network = Network(BPRConfig(width=3, reg=0.0), 2, 4)
    batch = PairBatch(torch.tensor([0, 1]), torch.tensor([1, 3]))
    value = network.loss(batch, torch.tensor([[2], [0]])).item()
    table = (network.users.weight @ network.items.weight.T + network.bias).detach()
    expected = -F.logsigmoid(table[[0, 1], [1, 3]] - table[[0, 1], [2, 0]]).mean().item()
    assert value == pytest.approx(expected, rel=1e-5)
