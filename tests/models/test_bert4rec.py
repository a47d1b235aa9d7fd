"""BERT4Rec: planted patterns, a plain reference network, what is hidden from whom, and what a shell promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.core import store
from palate.core.config import configure
from palate.core.errors import ConfigError, TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.models.sequential.bert4rec import BERT4Rec, BERT4RecConfig, Network, draw_hidden, tiny, with_one_more
from palate.parts.packing import Packing
from tests.models.sequence_logs import (
    N_ITEMS,
    minutely,
    random_histories,
    scores,
    successor_recall,
    successors,
)

SMALL = BERT4RecConfig(
    width=64,
    length=10,
    dropout=0.05,
    mask_share=0.3,
    last_share=0.4,
    batch_size=128,
    training=TrainingConfig(epochs=80, learning_rate=0.005, warmup_steps=20),
)


@pytest.fixture(scope="module")
def fitted() -> BERT4Rec:
    return BERT4Rec(SMALL).fit(successors(), Run())


def network_of(system: BERT4Rec) -> Network:
    assert system.network is not None
    return system.network


def guesses(system: BERT4Rec, items: list[int], hidden: list[int]) -> torch.Tensor:
    """``[M, N]`` scores at the hidden places of one history."""
    network = network_of(system)
    flags = torch.zeros(len(items), dtype=torch.bool)
    flags[hidden] = True
    with torch.no_grad():
        states = network(torch.tensor(items), flags, Packing(torch.tensor([len(items)])))
        return states @ network.items.weight.T + network.offsets


def test_learns_what_follows(fitted: BERT4Rec) -> None:
    assert successor_recall(fitted) >= 0.95


def test_guesses_what_lies_between(fitted: BERT4Rec) -> None:
    """Item 7 stands between 6 and 8, and before 8 when nothing came earlier: both sides are read."""
    assert guesses(fitted, [4, 5, 6, 0, 8, 9], [3]).argmax(1).tolist() == [7]
    first = [guesses(fitted, [0, *range(a + 1, a + 6)], [0]).argmax(1).item() for a in range(N_ITEMS - 6)]
    assert np.mean(np.array(first) == np.arange(N_ITEMS - 6)) >= 0.8


def test_hidden_event_does_not_see_its_own_item(fitted: BERT4Rec) -> None:
    one, other = guesses(fitted, [4, 5, 6, 7, 8], [1, 3]), guesses(fitted, [4, 20, 6, 21, 8], [1, 3])
    torch.testing.assert_close(one, other, atol=0, rtol=0)
    seen = guesses(fitted, [4, 5, 6, 7, 9], [1, 3])
    assert not torch.allclose(one, seen, atol=1e-3)


def test_gradient_of_the_cloze_reaches_no_answer() -> None:
    """What is guessed at a hidden place does not depend on the input row of the item hidden there."""
    network = Network(SMALL, N_ITEMS).eval()
    hidden = torch.tensor([False, True, False, False, True])
    states = network(torch.tensor([1, 2, 3, 4, 5]), hidden, Packing(torch.tensor([3, 2])))
    (gradient,) = torch.autograd.grad(states.square().sum() + states[:, 0].sum(), [network.items.weight])
    moved = gradient.abs().sum(1) > 0
    assert moved[[1, 3, 4]].all()
    assert not moved[[2, 5]].any()


# -- which events are hidden --


def test_hidden_shares() -> None:
    lengths = torch.full((4000,), 10)
    torch.manual_seed(0)
    hidden = draw_hidden(Packing(lengths), 0.3, 0.0).view(4000, 10)
    assert hidden.any(1).all()
    # Of the 0.7^10 = 2.8 % that the lot leaves bare, each hides one: 0.3 + 0.028 / 10.
    assert hidden.float().mean().item() == pytest.approx(0.3028, abs=0.01)
    assert hidden.float().mean(0).std() < 0.02

    last_alone = draw_hidden(Packing(lengths), 1.0, 0.25).view(4000, 10)
    alone = last_alone.sum(1) == 1
    assert alone.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert last_alone[alone, -1].all()
    assert last_alone[~alone].all()


def test_short_histories_always_teach() -> None:
    torch.manual_seed(0)
    lengths = torch.sort(torch.randint(1, 6, (500,)), descending=True).values
    hidden = draw_hidden(Packing(lengths), 1e-6, 0.0)
    assert [int(part.sum()) for part in hidden.split(lengths.tolist())] == [1] * 500


def test_one_more_by_hand() -> None:
    items, lengths, last = with_one_more(torch.tensor([1, 2, 3, 7]), torch.tensor([3, 1]), torch.tensor([4, 8]))
    assert items.tolist() == [1, 2, 3, 4, 7, 8]
    assert lengths.tolist() == [4, 2]
    assert last.tolist() == [False, False, False, True, False, True]


# -- the network --


def plain_guess(network: Network, history: list[int]) -> torch.Tensor:
    """``[N]`` scores of what follows, by the equations, for one history alone."""
    config = network.config
    x = torch.cat([network.items.weight[history], network.mask])
    n, width = len(x), config.width // config.heads
    x = network.norm(x + network.positions.weight[config.length - n :])
    for block in network.blocks:
        q, k, v = block.query_key_value(x).split(config.width, dim=1)
        mixed = torch.zeros_like(x)
        for head in range(config.heads):
            own = slice(head * width, (head + 1) * width)
            for i in range(n):
                weights = torch.stack([q[i, own] @ k[j, own] / width**0.5 for j in range(n)]).exp()
                mixed[i, own] = (weights / weights.sum()) @ v[:, own]
        x = block.norm_attention(x + block.out(mixed))
        x = block.norm_forward(x + block.forward_2(F.gelu(block.forward_1(x))))
    return network.items.weight @ network.norm_guess(F.gelu(network.guess(x[-1]))) + network.bias.weight[:, 0]


def test_scores_are_those_of_the_plain_loop(fitted: BERT4Rec) -> None:
    """Packed, padded by groups, order restored; the last ``length - 1`` events and the hidden one are read."""
    histories = random_histories(1, longest=14)
    with torch.no_grad():
        expected = torch.stack([plain_guess(network_of(fitted), row[1 - SMALL.length :]) for row in histories])
    np.testing.assert_allclose(scores(fitted, minutely(histories)), expected, atol=2e-5, rtol=1e-5)


def test_alone_or_among_others(fitted: BERT4Rec) -> None:
    histories = random_histories(2)
    alone = np.concatenate([scores(fitted, minutely([row])) for row in histories])
    np.testing.assert_allclose(scores(fitted, minutely(histories)), alone, atol=2e-5)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match=r"width 64 .* 3 heads"):
        configure(BERT4RecConfig, {"heads": 3})


# -- the shell --


def test_newcomer_gets_what_is_popular(fitted: BERT4Rec) -> None:
    counts = successors().item_counts + 1
    found = scores(fitted, Requests.of([[], [3, 4], [N_ITEMS + 5]]))
    np.testing.assert_allclose(found[0], np.log(counts / counts.sum()), rtol=1e-5)
    np.testing.assert_array_equal(found[2], found[0])
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


def test_saved_is_loaded(fitted: BERT4Rec, tmp_path: Path) -> None:
    fitted.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    asked = minutely(random_histories(3))
    np.testing.assert_array_equal(scores(loaded, asked), scores(fitted, asked))
    assert (loaded.config, loaded.facts) == (fitted.config, fitted.facts)


def test_same_seed_same_network_and_refit_forgets() -> None:
    short = SMALL.model_copy(update={"training": TrainingConfig(epochs=2)})
    asked = minutely(random_histories(4))
    system = BERT4Rec(short).fit(successors(seed=1), Run())
    first = scores(system.fit(successors(), Run(seed=3)), asked)
    np.testing.assert_array_equal(first, scores(BERT4Rec(short).fit(successors(), Run(seed=3)), asked))
    assert not np.allclose(first, scores(BERT4Rec(short).fit(successors(), Run(seed=4)), asked))


def test_goes_on_with_a_grown_catalogue(fitted: BERT4Rec, tmp_path: Path) -> None:
    """The hidden event has no row among the items, so new items do not take its place."""
    fitted.save(tmp_path / "saved")
    system = store.load(tmp_path / "saved").continue_fit(successors(n_items=N_ITEMS + 4, seed=2), Run())
    assert scores(system, minutely([[1, 2]])).shape == (1, N_ITEMS + 4)
    assert successor_recall(system, N_ITEMS + 4) >= 0.9


def test_unfitted_says_so() -> None:
    with pytest.raises(TrainingError, match="was not fitted yet"):
        scores(BERT4Rec(tiny()), Requests.of([[1]]))
