"""HSTU: planted patterns of order and of time, a plain reference network, and the mechanism as published."""

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
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.models.sequential import hstu
from palate.models.sequential.hstu import HSTU, HSTUConfig, Network, elapsed, large, paper_ml_1m, tiny
from tests.models.sequence_logs import (
    MINUTE,
    N_ITEMS,
    minutely,
    random_histories,
    random_times,
    scores,
    successor_recall,
    successors,
    timed_log,
)

SMALL = HSTUConfig(
    width=16,
    heads=2,
    query_width=8,
    value_width=6,
    length=10,
    dropout=0.1,
    batch_size=128,
    training=TrainingConfig(epochs=40, learning_rate=0.03),
)
WEEK = 7 * 24 * 60 * MINUTE


@pytest.fixture(scope="module")
def fitted() -> HSTU:
    return HSTU(SMALL).fit(successors(), Run())


def network_of(system: HSTU) -> Network:
    assert system.network is not None
    return system.network


def test_learns_what_follows(fitted: HSTU) -> None:
    assert successor_recall(fitted) >= 0.95


def test_published_loss_learns_what_follows() -> None:
    published = {"loss": "sampled-softmax", "normalise": True, "negatives": 16}
    assert successor_recall(HSTU(SMALL.model_copy(update=published)).fit(successors(), Run())) >= 0.9


# -- time --


def paced(seed: int = 0, n_users: int = 200) -> Dataset:
    """After a minute item n is followed by n + 1, after a week by n + 2; which of the two is a coin's choice."""
    rng = np.random.default_rng(seed)
    slow = rng.random((n_users, 8)) < 0.5
    items = (rng.integers(0, N_ITEMS, (n_users, 1)) + np.cumsum(1 + slow, axis=1)) % N_ITEMS
    times = np.cumsum(np.where(slow, WEEK, MINUTE), axis=1)
    return timed_log(items.tolist(), times.tolist(), N_ITEMS)


def paced_recall(system: HSTU) -> float:
    """How often the best item is the one that follows after the time at which the question is asked."""
    data = paced(seed=9)
    histories = data.histories
    assert data.times is not None
    before = Ragged(data.item_rows, histories.starts, histories.stops - 1)
    asked = Requests(before, history_times=data.times, times=data.times[histories.stops - 1])
    return float(np.mean(system.recommend(asked, 1).item_rows[:, 0] == data.item_rows[histories.stops - 1]))


def test_time_of_the_question_decides() -> None:
    """Only a network that knows when the target happens can tell the two followers apart."""
    longer = SMALL.model_copy(update={"training": TrainingConfig(epochs=50, learning_rate=0.03)})
    assert paced_recall(HSTU(longer).fit(paced(), Run())) >= 0.9
    assert paced_recall(HSTU(longer.model_copy(update={"time_bias": False})).fit(paced(), Run())) <= 0.7


def test_buckets_by_hand() -> None:
    """floor(ln(max(1, seconds)) / 0.301): ln 2 / 0.301 = 2.30, ln 86400 / 0.301 = 37.76."""
    day = 24 * 60 * MINUTE
    found = elapsed(torch.tensor([[0, 1000]]), torch.tensor([[2000, day]]))
    assert found.tolist() == [[[2, 0], [37, 37]]]
    assert elapsed(torch.tensor([[5000]]), torch.tensor([[3000]])).tolist() == [[[2]]]


def test_shifting_all_times_changes_nothing(fitted: HSTU) -> None:
    asked = random_times(Requests.of(random_histories(1)), seed=1)
    assert asked.history_times is not None
    assert asked.times is not None
    later = replace(asked, history_times=asked.history_times + 1_234_567_891, times=asked.times + 1_234_567_891)
    np.testing.assert_array_equal(scores(fitted, asked), scores(fitted, later))
    stretched = replace(asked, history_times=asked.history_times * 9, times=asked.times * 9)
    assert not np.allclose(scores(fitted, asked), scores(fitted, stretched), atol=1e-3)


def test_without_times_events_are_evenly_spaced(fitted: HSTU) -> None:
    """A minute is the median gap of what was taught."""
    histories = random_histories(2, longest=10)
    np.testing.assert_array_equal(scores(fitted, Requests.of(histories)), scores(fitted, minutely(histories)))


@pytest.mark.parametrize(("clock", "time_bias"), [("order", True), ("unix", False)])
def test_without_time_bias_it_says_so(clock: str, time_bias: bool, fitted: HSTU, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"time_bias": time_bias})
    system = HSTU(config).fit(successors(clock=clock), Run())  # type: ignore[arg-type]
    assert successor_recall(system) >= 0.95
    assert (system.label, system.facts["label"]) == ("HSTU without time bias",) * 2
    assert system.facts["time_bias"] is False
    assert ("no times" in system.facts.get("note", "")) == time_bias
    assert (fitted.label, fitted.facts["time_bias"], "note" in fitted.facts) == ("HSTU", True, False)
    asked = random_times(Requests.of(random_histories(1)), seed=1)
    assert asked.times is not None
    np.testing.assert_array_equal(scores(system, asked), scores(system, replace(asked, times=asked.times + WEEK)))
    system.save(tmp_path / "saved")
    np.testing.assert_array_equal(scores(store.load(tmp_path / "saved"), asked), scores(system, asked))


def test_cannot_continue_without_the_times_it_knew(fitted: HSTU) -> None:
    with pytest.raises(TrainingError, match="fitted with times and cannot continue on data without"):
        fitted.continue_fit(successors(clock="order"), Run())


# -- the mechanism --


def plain_state(network: Network, items: np.ndarray, times: np.ndarray, asked: int) -> torch.Tensor:
    """``[T, D]`` by the equations, pair by pair; ``times`` and ``asked`` in ms."""
    config, n = network.config, len(items)
    after = [*times[1:], asked]
    x = torch.stack(
        [network.items.weight[item] * 4 + network.positions.weight[i - n] for i, item in enumerate(items)]  # √16 = 4
    )
    for block in network.blocks:
        normed = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        product = normed @ block.uvqk.weight.T
        product = product / (1 + torch.exp(-product))
        u, v, q, k = product.split(block.sizes, dim=1)
        mixed = torch.zeros_like(v)
        for head in range(config.heads):
            a = slice(head * config.query_width, (head + 1) * config.query_width)
            c = slice(head * config.value_width, (head + 1) * config.value_width)
            for i in range(n):
                for j in range(i + 1):
                    bucket = int(np.log(max(1, abs(after[i] - times[j]) / 1000)) / 0.301)
                    pair = q[i, a] @ k[j, a] + block.place_bias[i - j] + block.time_bias[bucket]
                    mixed[i, c] += pair * torch.sigmoid(pair) / config.length * v[j, c]
        mixed = (mixed - mixed.mean(1, keepdim=True)) / (mixed.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        x = x + (mixed * u) @ block.out.weight.T + block.out.bias
    return F.layer_norm(x, x.shape[-1:], network.norm.weight, network.norm.bias, 1e-6)


def test_scores_are_those_of_the_plain_loop(fitted: HSTU, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed, padded by groups, a few sequences at a time = pair by pair; only the last ``length`` events are read."""
    network = network_of(fitted)
    asked = random_times(Requests.of(random_histories(3)), seed=3)
    assert asked.history_times is not None
    assert asked.times is not None
    expected = []
    for row, (a, b) in enumerate(zip(asked.histories.starts, asked.histories.stops, strict=True)):
        here = slice(max(a, b - SMALL.length), b)
        with torch.no_grad():
            state = plain_state(
                network, asked.histories.values[here], asked.history_times[here], int(asked.times[row])
            )[-1]
            expected.append(network.table @ state)
    monkeypatch.setattr(hstu, "PAIR_BYTES", 3000)
    np.testing.assert_allclose(scores(fitted, asked), torch.stack(expected), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("timed", [True, False])
def test_gradients_are_those_of_autograd(timed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hstu, "PAIR_BYTES", 2 * 4 * 3 * 7 * 7)
    random = torch.Generator().manual_seed(0)
    b, h, t = 5, 3, 7
    shapes = [(b, h, t, 4), (b, h, t, 4), (b, h, t, 2), (9,), (hstu.BUCKETS,)]
    inputs = [torch.randn(shape, generator=random, requires_grad=True) for shape in shapes]
    q, k, v, place, time = inputs
    buckets = torch.randint(hstu.BUCKETS, (b, t, t), generator=random, dtype=torch.uint8)
    direction = torch.randn((b, h, t, 2), generator=random)

    pairs = q @ k.mT + place[(torch.arange(t)[:, None] - torch.arange(t)).clamp(min=0)]
    if timed:
        pairs = pairs + time[buckets.long()][:, None]
    plain = (F.silu(pairs).tril()) @ v
    mixed = hstu._PointwiseAttention.apply(q, k, v, place, time if timed else None, buckets if timed else None)
    torch.testing.assert_close(mixed, plain, atol=1e-5, rtol=1e-5)
    used = inputs if timed else inputs[:4]
    for ours, theirs in zip(
        torch.autograd.grad((mixed * direction).sum(), used),
        torch.autograd.grad((plain * direction).sum(), used),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


def test_attention_rows_do_not_sum_to_one(fitted: HSTU) -> None:
    block = network_of(fitted).blocks[0]
    q, k = torch.randn((2, 4, 2, 10, 8), generator=torch.Generator().manual_seed(0)).unbind(0)
    buckets = torch.zeros((4, 10, 10), dtype=torch.uint8)
    ones = torch.ones((4, 2, 10, 1))
    sums = hstu._PointwiseAttention.apply(q, k, ones, block.place_bias, block.time_bias, buckets) / SMALL.length
    assert (sums - 1).abs().mean() > 0.1
    assert sums.std() > 1e-2


@pytest.mark.parametrize("name", ["place_bias", "time_bias"])
def test_each_bias_counts(name: str, fitted: HSTU, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    changed = HSTU.load(tmp_path / "saved")
    asked = random_times(Requests.of(random_histories(4)), seed=4)
    for block in network_of(changed).blocks:
        getattr(block, name).data.zero_()
    assert not np.allclose(scores(changed, asked), scores(fitted, asked), atol=1e-3)


def test_layers_hold_what_the_paper_says() -> None:
    """No bias in W_uvqk, no affine LayerNorm inside a layer, 129 time scalars, no feed-forward layer."""
    shapes = {name: tuple(weight.shape) for name, weight in Network(paper_ml_1m(), 7, timed=True).named_parameters()}
    assert {name: shape for name, shape in shapes.items() if name.startswith("blocks.0.")} == {
        "blocks.0.uvqk.weight": (200, 50),
        "blocks.0.out.weight": (50, 50),
        "blocks.0.out.bias": (50,),
        "blocks.0.place_bias": (200,),
        "blocks.0.time_bias": (129,),
    }
    assert "norm.weight" not in shapes


def test_published_settings() -> None:
    paper, big = paper_ml_1m(), large()
    assert (paper.layers, paper.heads, paper.query_width, paper.value_width) == (2, 1, 50, 50)
    assert (big.layers, big.heads, big.query_width, big.value_width) == (8, 2, 25, 25)
    for config in (paper, big):
        assert (config.width, config.length, config.dropout, config.time_bias) == (50, 200, 0.2, True)
        assert (config.loss, config.negatives, config.normalise, config.temperature) == (
            "sampled-softmax", 128, True, 0.05,
        )  # fmt: skip
        assert (config.training.learning_rate, config.training.weight_decay, config.training.betas) == (
            1e-3, 0.0, (0.9, 0.98),
        )  # fmt: skip


def test_later_events_do_not_change_earlier_states(fitted: HSTU) -> None:
    """State i reads the items up to i and the times up to i + 1, nothing later."""
    from palate.data.batches import SequenceBatch

    def states(items: list[int], times: list[int]) -> torch.Tensor:
        ms = torch.tensor(times) * 1000
        batch = SequenceBatch(torch.tensor(items), torch.tensor([len(items)]), ms[:-1], None, ms[1:], torch.tensor([0]))
        with torch.no_grad():
            return network_of(fitted)(batch)

    before = states([1, 2, 3, 4, 5], [0, 60, 90, 4000, 10_000, 10_001])
    after = states([1, 2, 3, 9, 8], [0, 60, 90, 4000, 900_000, 990_000])
    torch.testing.assert_close(before[:3], after[:3], atol=0, rtol=0)
    assert not torch.allclose(before[3:], after[3:], atol=1e-3)


def test_alone_or_among_others(fitted: HSTU) -> None:
    """Nothing depends on how a batch was padded: attention is divided by a constant."""
    asked = random_times(Requests.of(random_histories(5)), seed=5)
    alone = np.concatenate([scores(fitted, asked[row : row + 1]) for row in range(len(asked))])
    np.testing.assert_allclose(scores(fitted, asked), alone, atol=1e-5)


# -- the shell --


def test_newcomer_gets_what_is_popular(fitted: HSTU) -> None:
    counts = successors().item_counts + 1
    found = scores(fitted, Requests.of([[], [3, 4], [N_ITEMS + 5]]))
    np.testing.assert_allclose(found[0], np.log(counts / counts.sum()), rtol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


def test_saved_is_loaded(fitted: HSTU, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    asked = Requests.of(random_histories(6))
    np.testing.assert_array_equal(scores(loaded, asked), scores(fitted, asked))
    assert (loaded.config, loaded.facts, loaded.label) == (fitted.config, fitted.facts, "HSTU")


def test_same_seed_same_network_and_refit_forgets() -> None:
    short = SMALL.model_copy(update={"training": TrainingConfig(epochs=2)})
    asked = minutely(random_histories(7))
    system = HSTU(short).fit(successors(seed=1), Run())
    first = scores(system.fit(successors(), Run(seed=3)), asked)
    np.testing.assert_array_equal(first, scores(HSTU(short).fit(successors(), Run(seed=3)), asked))
    assert not np.allclose(first, scores(HSTU(short).fit(successors(), Run(seed=4)), asked))


def test_goes_on_with_a_grown_catalogue(fitted: HSTU, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    system = store.load(tmp_path / "saved").continue_fit(successors(n_items=N_ITEMS + 4, seed=2), Run())
    assert scores(system, minutely([[1, 2]])).shape == (1, N_ITEMS + 4)
    assert successor_recall(system, N_ITEMS + 4) >= 0.9


def test_unfitted_says_so() -> None:
    with pytest.raises(TrainingError, match="was not fitted yet"):
        scores(HSTU(tiny()), Requests.of([[1]]))
