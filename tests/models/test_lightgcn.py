"""LightGCN: propagation against a dense reference, its gradient, planted groups, people without a name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, Unmet
from palate.models.graph.lightgcn import LightGCN, LightGCNConfig, Network, paper
from palate.parts import losses
from palate.parts.pair_losses import info_nce, log_partitions
from palate.parts.propagation import layer_mean, normalised_adjacency
from tests.models.collaborative_logs import dense_user_items, log_of, random_log
from tests.models.factor_logs import everybody, group_recall, grown, scores, two_groups

SMALL = LightGCNConfig(width=8, batch_size=64, training=TrainingConfig(epochs=30, learning_rate=1e-2))


@pytest.fixture(scope="module")
def fitted() -> LightGCN:
    return LightGCN(SMALL).fit(two_groups(), Run())


def dense_adjacency(train: Dataset) -> np.ndarray:
    """``[U + N, U + N]`` D^-1/2 A D^-1/2 in float64, by matrices."""
    met = (dense_user_items(train) > 0).astype(float)
    u, n = met.shape
    whole = np.block([[np.zeros((u, u)), met], [met.T, np.zeros((n, n))]])
    degrees = whole.sum(1)
    scale = np.diag(np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0))
    return scale @ whole @ scale


def adjacency_of(train: Dataset) -> torch.Tensor:
    users, items = torch.from_numpy(train.user_rows.copy()), torch.from_numpy(train.item_rows.copy())
    return normalised_adjacency(users, items, train.n_users, train.n_items)


# -- propagation -------------------------------------------------------------------------------------------------------


def test_the_adjacency_equals_the_dense_one_and_a_repeated_event_counts_once() -> None:
    train = random_log(2)
    assert len(set(zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True))) < train.n_interactions
    np.testing.assert_allclose(adjacency_of(train).to_dense().numpy(), dense_adjacency(train), atol=1e-6)


def test_by_hand_on_three_edges() -> None:
    """Users a, b and items x, y with edges ax, ay, bx: degrees 2, 1 and 2, 1."""
    adjacency = normalised_adjacency(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), 2, 2)
    ego = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    once = torch.tensor([[4 / 2 + 8 / 2**0.5], [4 / 2**0.5], [1 / 2 + 2 / 2**0.5], [1 / 2**0.5]])
    torch.testing.assert_close(layer_mean(adjacency, ego, 1), (ego + once) / 2)


@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_layer_mean_and_its_gradient_equal_the_dense_reference(n_layers: int) -> None:
    train = random_log(4)
    dense = torch.from_numpy(dense_adjacency(train))
    generator = torch.Generator().manual_seed(0)
    ego = torch.randn((len(dense), 5), generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn((len(dense), 5), generator=generator, dtype=torch.float64)
    reference = sum(torch.linalg.matrix_power(dense, n) @ ego for n in range(n_layers + 1)) / (n_layers + 1)
    assert isinstance(reference, torch.Tensor)
    (reference * weights).sum().backward()
    sparse = ego.detach().float().requires_grad_()
    found = layer_mean(adjacency_of(train), sparse, n_layers)
    (found * weights.float()).sum().backward()
    torch.testing.assert_close(found, reference.float(), atol=1e-5, rtol=1e-4)
    assert ego.grad is not None
    torch.testing.assert_close(sparse.grad, ego.grad.float(), atol=1e-5, rtol=1e-4)


def test_propagation_is_exact_under_reduced_precision() -> None:
    adjacency, ego = adjacency_of(random_log(4)), torch.randn(65, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer_mean(adjacency, ego, 2)
    torch.testing.assert_close(found, layer_mean(adjacency, ego, 2), rtol=0, atol=0)


# -- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bpr", "full-softmax"])
def test_the_loss_equals_a_dense_reference(loss: str) -> None:
    train = random_log(5)
    config = LightGCNConfig.model_validate({"width": 4, "layers": 2, "loss": loss, "reg": 0.01, "negatives": 3})
    network = Network(config, train.n_users, train.n_items)
    batch = PairBatch(torch.tensor([0, 7, 7, 30]), torch.tensor([3, 4, 1, 20]))  # a user twice
    unmet = Unmet(train)
    torch.manual_seed(1)
    taught = network.teach(adjacency_of(train), batch, unmet, network.ego())
    value = taught.loss.item()
    torch.manual_seed(1)
    negatives = unmet.draw(batch.users, 3)
    assert (taught.negatives is None) == (loss == "full-softmax")
    dense = torch.from_numpy(dense_adjacency(train)).float()
    ego = torch.cat([network.users.weight, network.items.weight]).detach()
    final = (ego + dense @ ego + dense @ dense @ ego) / 3
    table = final[: train.n_users] @ final[train.n_users :].T
    picked = [ego[batch.users], ego[train.n_users + batch.items]]
    own = table[batch.users, batch.items]
    if loss == "bpr":
        expected = -F.logsigmoid(own[:, None] - table[batch.users[:, None], negatives]).mean()
        picked.append(ego[train.n_users + negatives])
    else:
        expected = -(own - table[batch.users].logsumexp(1)).mean()
    penalty = sum(float(part.square().sum()) for part in picked)
    assert value == pytest.approx(float(expected) + 0.01 / 2 * penalty / 4, rel=1e-4)


def test_log_partitions_and_their_gradients_equal_the_plain_ones_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.tensor([1, 4, 2, 1, 3])
    users, items = torch.randn((5, 6), generator=generator), 20 * torch.randn((9, 6), generator=generator)
    users[0] = 0
    wanted = [part.clone().requires_grad_() for part in (users, items)]
    plain = ((wanted[0] @ wanted[1].T).logsumexp(1) * weights).sum()
    (2 * plain).backward()
    for n_bytes in (1, 4 * 9 * 2, 2**20):
        monkeypatch.setattr(losses, "LOGIT_BYTES", n_bytes)
        found = [part.clone().requires_grad_() for part in (users, items)]
        value = log_partitions(*found, weights)
        (2 * value).backward()
        torch.testing.assert_close(value, plain)
        for own, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(own.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_log_partitions_under_bf16_autocast_are_close_to_fp32() -> None:
    generator = torch.Generator().manual_seed(4)
    weights = torch.tensor([1.0, 4.0, 2.0, 1.0, 3.0])
    found = [torch.randn((n, 6), generator=generator).requires_grad_() for n in (5, 9)]
    plain = log_partitions(*found, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = log_partitions(*found, weights)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(plain.item(), rel=1e-2)
    for quick, exact in zip(torch.autograd.grad(low, found), torch.autograd.grad(plain, found), strict=True):
        assert quick.dtype == torch.float32
        assert not torch.equal(quick, exact)
        assert float((quick - exact).norm() / exact.norm()) < 1e-2


def test_info_nce_stays_exact_where_rounding_would_be_all_of_it() -> None:
    """Two views that nearly agree, at a small temperature: the loss is nearly 0, and so is its gradient."""
    generator = torch.Generator().manual_seed(5)
    keys = torch.randn((40, 16), generator=generator)
    anchors = (keys + 0.01 * torch.randn((40, 16), generator=generator)).requires_grad_()
    found = {}
    for low in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            loss = info_nce(anchors, keys, torch.arange(40), 0.05)
        found[low] = loss.detach(), *torch.autograd.grad(loss, anchors)
    assert float(found[False][0]) < 1e-3
    for exact, low_kind in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(low_kind, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = info_nce(anchors, keys, torch.arange(40), 1.0)
    plain = info_nce(anchors, keys, torch.arange(40), 1.0)
    assert rough.item() != plain.item()
    assert rough.item() == pytest.approx(plain.item(), rel=1e-2)


# -- what is learnt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bpr", "full-softmax"])
def test_planted_groups_are_recovered_with_and_without_a_name(loss: str) -> None:
    train = two_groups()
    system = LightGCN(SMALL.model_copy(update={"loss": loss})).fit(train, Run())
    group = np.arange(train.n_users) % 2
    assert group_recall(system, everybody(train), group) > 0.95
    assert group_recall(system, everybody(train, named=False), group) > 0.95


def test_a_known_user_with_the_trained_history_has_the_trained_vector(fitted: LightGCN) -> None:
    """Own ego embedding + propagated history = the full propagation over the whole graph, by dense matrices."""
    train, network = two_groups(), fitted.network
    assert network is not None
    dense = torch.from_numpy(dense_adjacency(train)).float()
    ego = torch.cat([network.users.weight, network.items.weight]).detach()
    final = sum(torch.linalg.matrix_power(dense, n) @ ego for n in range(4)) / 4
    assert isinstance(final, torch.Tensor)
    expected = (final[: train.n_users] @ final[train.n_users :].T).numpy()
    np.testing.assert_allclose(scores(fitted, everybody(train)), expected, atol=1e-4)
    no_history = Requests.of([[]] * 60, user_rows=np.arange(60))
    np.testing.assert_allclose(scores(fitted, no_history), expected, atol=1e-4)


def test_a_nameless_copy_of_a_known_user_resembles_the_known_user(fitted: LightGCN) -> None:
    train = two_groups()
    named, nameless = scores(fitted, everybody(train)), scores(fitted, everybody(train, named=False))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(named, nameless, strict=True)]
    strangers = [np.corrcoef(a, b)[0, 1] for a, b in zip(named, np.roll(nameless, 1, axis=0), strict=True)]
    assert np.mean(alike) > 0.85
    assert np.mean(strangers) < 0


def test_a_known_user_moves_with_new_events(fitted: LightGCN) -> None:
    before = list(two_groups().histories.row(0))
    odd = Requests.of([before, [*before, *range(1, 17, 2)]], user_rows=np.zeros(2, dtype=int))
    stays, moves = scores(fitted, odd)[:, np.arange(17, 40, 2)].mean(axis=1)
    assert moves > stays + 0.5


def test_an_unknown_person_without_history_gets_what_is_popular(fitted: LightGCN) -> None:
    counts = two_groups().item_counts
    requests = Requests.of([[], [], []], user_rows=np.array([-1, 60, 10**6]))
    for row in scores(fitted, requests):
        np.testing.assert_array_equal(np.argsort(-row, kind="stable"), np.argsort(-counts, kind="stable"))


def test_items_beyond_the_catalogue_and_items_nobody_met() -> None:
    system = LightGCN(SMALL).fit(log_of([[0, 1], [1, 2], [0, 2], [2]], 5), Run(max_steps=3))
    read, unread = scores(system, Requests.of([[0, 1, 99], [0, 1, 4]]))
    np.testing.assert_array_equal(read, unread)
    np.testing.assert_array_equal(np.isnan(read), [False, False, False, True, True])


def test_a_user_without_training_events_is_a_stranger() -> None:
    system = LightGCN(SMALL).fit(log_of([[0, 1], [], [1, 2]], 4), Run(max_steps=3))
    named = Requests.of([[], [0]], user_rows=np.array([1, 1]))
    np.testing.assert_array_equal(scores(system, named), scores(system, replace(named, user_rows=None)))


# -- keeping and continuing --------------------------------------------------------------------------------------------


def test_saved_and_loaded_without_the_graph(fitted: LightGCN, tmp_path: Path) -> None:
    fitted.save(tmp_path / "lightgcn")
    again = store.load(tmp_path / "lightgcn")
    requests = Requests.of([[0, 2], [1, 3], [0, 1], []], user_rows=np.array([4, -1, 5, -1]))
    np.testing.assert_array_equal(scores(again, requests), scores(fitted, requests))
    assert again.config == SMALL


def test_goes_on_with_more_users_and_items() -> None:
    train = two_groups()
    system = LightGCN(SMALL).fit(train, Run())
    before = system.network
    assert before is not None
    kept = before.items.weight.detach().clone()
    later = grown(train)
    system.continue_fit(later, Run(max_steps=1))
    network = system.network
    assert network is not None
    assert network.items.weight.shape == (41, 8)
    assert (network.items.weight[:40] - kept).abs().max() < 0.05
    assert group_recall(system, everybody(later), np.append(np.arange(60) % 2, 0)) > 0.9


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    """To the bit, negatives included: stopped in the middle of an epoch, then resumed."""
    train = two_groups()
    whole = LightGCN(SMALL).fit(train, Run(seed=2, max_steps=30))
    kept = Run(seed=2, folder=tmp_path / "run", checkpoint_seconds=0.0)
    LightGCN(SMALL).fit(train, replace(kept, max_steps=13))
    resumed = LightGCN(SMALL).fit(train, replace(kept, max_steps=30, resume=True))
    assert resumed.facts["training"]["steps"] == 30
    np.testing.assert_array_equal(scores(resumed, everybody(train)), scores(whole, everybody(train)))


def test_learns_in_reduced_precision() -> None:
    train = two_groups()
    system = LightGCN(SMALL).fit(train, Run(precision="bf16"))
    assert group_recall(system, everybody(train), np.arange(train.n_users) % 2) > 0.95


def test_the_paper_preset_is_the_published_loss() -> None:
    config = paper()
    assert (config.loss, config.negatives, config.layers, config.reg) == ("bpr", 1, 3, 1e-4)
    assert LightGCNConfig().loss == "full-softmax"


def test_not_fitted_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match="LightGCN was not fitted yet: call fit or load first"):
        list(LightGCN().score_blocks(Requests.of([[0]])))
