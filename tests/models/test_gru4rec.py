"""GRU4Rec: a planted pattern, a plain reference network, the losses of 2018 by hand, and what a shell promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from palate.core import store
from palate.core.errors import TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.models.sequential.gru4rec import GRU4Rec, GRU4RecConfig, Network, bpr_max, tiny, top1_max
from palate.parts.packing import Packing
from tests.models.sequence_logs import (
    N_ITEMS,
    minutely,
    random_histories,
    scores,
    successor_recall,
    successors,
)

SMALL = GRU4RecConfig(
    width=16,
    hidden=24,
    layers=2,
    length=10,
    dropout=0.1,
    batch_size=128,
    negatives=64,
    training=TrainingConfig(epochs=60, learning_rate=0.03),
)


@pytest.fixture(scope="module")
def fitted() -> GRU4Rec:
    return GRU4Rec(SMALL).fit(successors(), Run())


def test_learns_what_follows(fitted: GRU4Rec) -> None:
    assert successor_recall(fitted) >= 0.95


@pytest.mark.parametrize("loss", ["sampled-softmax", "bpr-max", "top1-max"])
def test_every_loss_learns_what_follows(loss: str) -> None:
    system = GRU4Rec(SMALL.model_copy(update={"loss": loss, "score_decay": 0.1})).fit(successors(), Run())
    assert successor_recall(system) >= 0.9


def test_bpr_max_by_hand() -> None:
    """s⁺ = 1; s = (0, 2), the third does not count: w = (e⁰, e²) / (e⁰ + e²)."""
    w = np.array([1, np.exp(2)]) / (1 + np.exp(2))
    sigma = 1 / (1 + np.exp(-np.array([1 - 0, 1 - 2])))
    expected = -np.log((w * sigma).sum()) + 0.5 * (w * np.array([0, 4])).sum()
    found = bpr_max(torch.tensor([1.0]), torch.tensor([[0.0, 2.0, -torch.inf]]), 0.5)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_top1_max_by_hand() -> None:
    w = np.array([1, np.exp(2)]) / (1 + np.exp(2))
    terms = 1 / (1 + np.exp(-np.array([0 - 1, 2 - 1]))) + 1 / (1 + np.exp(-np.array([0, 4])))
    found = top1_max(torch.tensor([1.0]), torch.tensor([[0.0, 2.0, -torch.inf]]))
    assert float(found) == pytest.approx((w * terms).sum(), rel=1e-6)


def plain_states(network: Network, history: list[int]) -> torch.Tensor:
    """``[T, D]`` by the equations of a gated recurrent unit, one event at a time."""
    inputs = [network.items.weight[item] for item in history]
    for layer in network.recurrent:
        h = torch.zeros(layer.hidden_size)
        outputs = []
        for x in inputs:
            from_x, from_h = layer.weight_ih_l0 @ x + layer.bias_ih_l0, layer.weight_hh_l0 @ h + layer.bias_hh_l0
            (xr, xz, xn), (hr, hz, hn) = from_x.chunk(3), from_h.chunk(3)
            reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
            h = (1 - update) * torch.tanh(xn + reset * hn) + update * h
            outputs.append(h)
        inputs = outputs
    return torch.stack([network.out(h) for h in inputs])


def test_packed_network_equals_plain_loop(fitted: GRU4Rec) -> None:
    network = fitted.network
    assert network is not None
    histories = sorted(random_histories(1, longest=10), key=len, reverse=True)
    packing = Packing(torch.tensor([len(row) for row in histories]))
    with torch.no_grad():
        packed = network(torch.tensor([item for row in histories for item in row]), packing)
        plain = torch.cat([plain_states(network, row) for row in histories])
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=0)


def test_scores_are_those_of_the_plain_loop(fitted: GRU4Rec) -> None:
    """Order restored, only the last ``length`` events read, the item offsets added."""
    network = fitted.network
    assert network is not None
    assert network.offsets is not None
    histories = random_histories(2)
    with torch.no_grad():
        states = torch.stack([plain_states(network, row[-SMALL.length :])[-1] for row in histories])
        expected = states @ network.items.weight.T + network.offsets
    np.testing.assert_allclose(scores(fitted, minutely(histories)), expected, atol=2e-5)


def test_later_events_do_not_change_earlier_states(fitted: GRU4Rec) -> None:
    network = fitted.network
    assert network is not None
    one, other = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([1, 2, 3, 9, 8])
    with torch.no_grad():
        packing = Packing(torch.tensor([5]))
        states, changed = network(one, packing), network(other, packing)
    torch.testing.assert_close(states[:3], changed[:3], atol=0, rtol=0)
    assert not torch.allclose(states[3:], changed[3:], atol=1e-3)


def test_alone_or_among_others(fitted: GRU4Rec) -> None:
    histories = random_histories(3)
    together = scores(fitted, minutely(histories))
    alone = np.concatenate([scores(fitted, minutely([row])) for row in histories])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_newcomer_gets_what_is_popular(fitted: GRU4Rec) -> None:
    counts = successors().item_counts + 1
    found = scores(fitted, Requests.of([[], [3, 4], [N_ITEMS + 5]]))
    np.testing.assert_allclose(found[0], np.log(counts / counts.sum()), rtol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


def test_saved_is_loaded(fitted: GRU4Rec, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    asked = minutely(random_histories(4))
    np.testing.assert_array_equal(scores(loaded, asked), scores(fitted, asked))
    assert (loaded.config, loaded.facts) == (fitted.config, fitted.facts)


def test_same_seed_same_network_and_refit_forgets() -> None:
    short = SMALL.model_copy(update={"training": TrainingConfig(epochs=2)})
    asked = minutely(random_histories(5))
    system = GRU4Rec(short).fit(successors(seed=1), Run())
    first = scores(system.fit(successors(), Run(seed=3)), asked)
    np.testing.assert_array_equal(first, scores(GRU4Rec(short).fit(successors(), Run(seed=3)), asked))
    assert not np.allclose(first, scores(GRU4Rec(short).fit(successors(), Run(seed=4)), asked))


def test_goes_on_with_a_grown_catalogue(fitted: GRU4Rec, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    system = store.load(tmp_path / "saved").continue_fit(successors(n_items=N_ITEMS + 4, seed=2), Run())
    assert scores(system, minutely([[1, 2]])).shape == (1, N_ITEMS + 4)
    assert successor_recall(system, N_ITEMS + 4) >= 0.9


def test_unfitted_says_so() -> None:
    with pytest.raises(TrainingError, match="was not fitted yet"):
        scores(GRU4Rec(tiny()), Requests.of([[1]]))
