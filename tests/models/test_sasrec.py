"""SASRec: a plain reference network, causality, planted order, every loss, and what a shell promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.models.sequential.sasrec import Network, SASRec, SASRecConfig, paper_2018, tiny
from palate.parts.packing import Packing
from palate.training.loop import seeded
from tests.models.sequence_logs import (
    N_ITEMS,
    minutely,
    random_histories,
    scores,
    successor_recall,
    successors,
    timed_log,
)  # fmt: skip

SMALL = SASRecConfig(
    width=16, length=10, dropout=0.1, heads=2, batch_size=64, negatives=8,
    training=TrainingConfig(epochs=25, learning_rate=0.02),
)  # fmt: skip


def small(**settings: Any) -> SASRecConfig:
    return SMALL.model_copy(update=settings)


def network(config: SASRecConfig = SMALL, seed: int = 0) -> Network:
    with seeded(Run(seed=seed)):
        return Network(config, N_ITEMS).eval()


def states(net: Network, histories: list[list[int]]) -> list[Tensor]:
    """One ``[n, D]`` a history, in the order given."""
    order = sorted(range(len(histories)), key=lambda i: -len(histories[i]))
    lengths = torch.tensor([len(histories[i]) for i in order])
    with torch.no_grad():
        packed = net(torch.tensor([item for i in order for item in histories[i]]), Packing(lengths))
    parts = dict(zip(order, packed.split(lengths.tolist()), strict=True))
    return [parts[i] for i in range(len(histories))]


def plain_states(net: Network, history: list[int]) -> Tensor:
    """The equations of the docstring for one history, written out."""
    config, n = net.config, len(history)
    x = net.items.weight[history] * config.width**0.5 + net.positions.weight[config.length - n :]
    for block in net.blocks:
        normed = block.norm_attention(x)
        q, (k, v) = block.query(normed), block.key_value(x).chunk(2, dim=1)
        heads = []
        for q_, k_, v_ in zip(*(part.chunk(config.heads, dim=1) for part in (q, k, v)), strict=True):
            weights = q_ @ k_.T / q_.shape[1] ** 0.5
            weights = weights.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(1)
            heads.append(weights @ v_)
        h = block.norm_forward(normed + block.out(torch.cat(heads, dim=1)))
        x = h + block.forward_2(F.relu(block.forward_1(h)))
    return net.norm(x)


def test_states_are_those_of_the_equations() -> None:
    net = network()
    histories = random_histories(0, longest=10)
    with torch.no_grad():
        for state, history in zip(states(net, histories), histories, strict=True):
            torch.testing.assert_close(state, plain_states(net, history), rtol=1e-4, atol=1e-5)


def test_later_events_do_not_reach_earlier_states() -> None:
    net = network()
    history = random_histories(1, n=1, longest=10)[0] * 3
    before, after = states(net, [[*history[:8], 1, 2], [*history[:8], 3, 4]])
    torch.testing.assert_close(before[:8], after[:8])
    assert not torch.allclose(before[8:], after[8:])


def test_a_history_alone_answers_as_it_does_in_a_batch() -> None:
    system = SASRec(SMALL)
    system.network = network()
    histories = [*random_histories(2), [], [5], []]
    together = scores(system, minutely(histories))
    for row, history in enumerate(histories):
        np.testing.assert_allclose(together[row], scores(system, minutely([history]))[0], rtol=1e-4, atol=1e-5)


def test_only_the_newest_events_are_read() -> None:
    system = SASRec(SMALL)
    system.network = network()
    history = random_histories(3, n=1, longest=10)[0] * 4
    long, short = scores(system, minutely([history, history[-SMALL.length :]]))
    np.testing.assert_allclose(long, short, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [  # gBCE first learns that nearly everything is no answer, then what is
        {"loss": "full-softmax"},
        {"loss": "full-softmax", "windows": "last"},
        {"loss": "sampled-softmax"},
        {"loss": "sampled-softmax", "log_q": False},
        {"loss": "gbce", "training": TrainingConfig(epochs=100, learning_rate=0.003)},
        {"loss": "bce", "negatives": 1},
        {"tied": False},
        {"normalise": True, "temperature": 0.1},
    ],
    ids=str,
)
def test_every_loss_learns_what_follows_what(settings: dict[str, Any]) -> None:
    """Chance is 1 in 30."""
    system = SASRec(small(**settings)).fit(successors(), Run())
    assert successor_recall(system) >= 0.8


def test_bf16_learns_as_well() -> None:
    assert successor_recall(SASRec(SMALL).fit(successors(), Run(precision="bf16"))) >= 0.8


def shuffled(log: Dataset, seed: int = 0) -> Dataset:
    """The same histories with their events in random order: the control without the planted order."""
    rng = np.random.default_rng(seed)
    histories = [rng.permutation(row).tolist() for row in log.histories]
    return timed_log(histories, [list(range(len(row))) for row in histories], log.n_items)


def test_the_order_of_events_is_what_it_learns() -> None:
    """Items of a shuffled history still lie near each other, so better than chance, and far from the order's 0.8."""
    system = SASRec(SMALL).fit(shuffled(successors()), Run())
    assert successor_recall(system) <= 0.5


def test_an_untied_table_is_another_table() -> None:
    net = network(small(tied=False))
    assert net.table is not net.items.weight
    assert network().targets is None
    with torch.no_grad():
        before = states(net, [[1, 2, 3]])[0]
        net.targets.weight += 1
        assert torch.equal(states(net, [[1, 2, 3]])[0], before)


def test_normalised_states_and_items_have_length_one() -> None:
    net = network(small(normalise=True))
    (found,) = states(net, [[1, 2, 3]])
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(net.table.norm(dim=1), torch.ones(N_ITEMS))


def test_a_newcomer_gets_what_is_popular_and_a_stranger_item_is_skipped() -> None:
    log = timed_log([[0, 1, 2, 1, 1]] * 8, [[1, 2, 3, 4, 5]] * 8, N_ITEMS)
    system = SASRec(small(training=TrainingConfig(epochs=1))).fit(log, Run())
    assert system.recommend(Requests.of([[]]), 1).item_rows[0, 0] == 1
    known, strange = scores(system, Requests.of([[0, 2], [0, N_ITEMS + 3, 2]]))
    np.testing.assert_array_equal(known, strange)


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    config = small(training=TrainingConfig(epochs=2))
    found = [scores(SASRec(config).fit(successors(), Run(seed=seed)), minutely([[1, 2, 3]])) for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_saved_is_loaded(tmp_path: Path) -> None:
    system = SASRec(small(training=TrainingConfig(epochs=2), tied=False)).fit(successors(), Run())
    system.save(tmp_path / "saved")
    loaded = SASRec.load(tmp_path / "saved")
    assert loaded.config == system.config
    asked = minutely([*random_histories(4), []])
    assert np.array_equal(scores(loaded, asked), scores(system, asked))


def test_going_on_with_new_items_keeps_what_was_learnt() -> None:
    system = SASRec(SMALL).fit(successors(), Run())
    assert system.network is not None
    before = system.network.items.weight.detach().clone()
    system.continue_fit(successors(n_items=N_ITEMS + 5), Run(max_steps=0))
    assert len(system.network.items.weight) == N_ITEMS + 5
    torch.testing.assert_close(system.network.items.weight[:N_ITEMS].detach(), before)


def test_presets_differ_from_the_default_where_they_say() -> None:
    assert tiny().width < SASRecConfig().width
    assert (paper_2018().loss, paper_2018().negatives) == ("bce", 1)
    # One uniform negative and binary cross entropy learn, if slowly.
    paper = paper_2018().model_copy(update={"training": TrainingConfig(epochs=25, learning_rate=0.02), "length": 10})
    assert successor_recall(SASRec(paper).fit(successors(), Run())) >= 0.5


def test_an_answer_leaves_out_what_it_must() -> None:
    system = SASRec(SMALL)
    system.network = network()
    requests = Requests.of([[1, 2, 3]] * 2, leave_out=Ragged.of([[5, 6], list(range(N_ITEMS - 1))]))
    found = system.recommend(requests, 5).item_rows
    assert not set(found[0]) & {5, 6}
    assert found[1].tolist() == [N_ITEMS - 1, -1, -1, -1, -1]


def test_reading_score_blocks_leaves_the_caller_s_gradients_on() -> None:
    system = SASRec(SMALL)
    system.network = network()
    blocks = system.score_blocks(minutely([[1, 2], []]))
    block = next(blocks)
    assert torch.is_grad_enabled()
    assert block.shape == (2, N_ITEMS)
    block[:] = np.nan  # a caller may overwrite it
