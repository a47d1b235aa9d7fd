"""Which examples stay, what is remembered, what is hidden and said again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.core.protocols import FloatArray
from palate.data.pairs import PairBatch, Unmet
from palate.parts.augmented_bpr import Triplets
from palate.parts.masked_features import MaskedFeatures
from palate.parts.pruning import EPOCHS, LossMemory, Prune, kept
from palate.parts.side_features import Features
from tests.models.collaborative_logs import random_log

LOSSES = torch.tensor([0.3, 2.0, 0.1, 0.9, 0.5, 1.5, 0.2, 0.7, 3.0, 0.4])


@pytest.mark.parametrize(
    ("prune", "rate", "stay"),
    [
        ("published", 0.71, [1, 8]),
        ("published", 0.3, [1, 3, 4, 5, 7, 8, 9]),
        ("small_loss", 0.3, [0, 2, 3, 4, 6, 7, 9]),
        ("small_loss", 0.1, [0, 1, 2, 3, 4, 5, 6, 7, 9]),
        ("small_loss", 0.999, [2]),
        ("none", 0.5, list(range(10))),
        ("published", 0.0, list(range(10))),
    ],
)
def test_each_direction_keeps_its_rows_and_drops_their_gradient(prune: Prune, rate: float, stay: list[int]) -> None:
    losses = LOSSES.clone().requires_grad_()
    rows = kept(losses, rate, prune)
    assert sorted(rows.tolist()) == stay
    losses[rows].mean().backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad != 0, torch.isin(torch.arange(10), torch.tensor(stay)))
    assert len(kept(losses[:0], rate, prune)) == 0


def test_the_last_five_epochs_are_remembered() -> None:
    memory = LossMemory(4)
    for epoch in range(EPOCHS + 2):
        memory.write(torch.tensor([0, 2]), torch.tensor([float(epoch), 1.0]), epoch)
    memory.write(torch.tensor([1]), torch.tensor([7.0]), EPOCHS + 2)
    mean = memory.mean()
    assert mean[:3].tolist() == [4.0, 7.0, 1.0]  # epochs 2 to 6; one; always the same
    assert mean[3].isnan()
    torch.testing.assert_close(memory.mean(torch.tensor([2, 0])), mean[[2, 0]])
    memory.forget()
    assert memory.mean().isnan().all()


def test_chosen_pairs_stand_beside_the_events() -> None:
    train = random_log(5)
    batch, unmet = PairBatch(torch.arange(10), torch.arange(10)), Unmet(train)
    chosen = torch.full((40, 2), -1)
    chosen[:8] = torch.tensor([[20, 21]])
    torch.manual_seed(0)
    some = Triplets.drawn(batch, unmet, 2, chosen, 0.5)
    users, items = torch.randn(40, 3), torch.randn(25, 3)
    losses = some.losses(users, items)
    rejected = 5 - len(some.chosen_users)
    assert len(losses) == 10 + 5 - rejected
    assert (some.chosen_users < 8).all()
    event = torch.stack([-F.logsigmoid(users[3] @ (items[3] - items[n])) for n in some.negatives[3]]).mean()
    torch.testing.assert_close(losses[3], event)
    torch.testing.assert_close(losses[10], -F.logsigmoid(users[some.chosen_users[0]] @ (items[20] - items[21])))
    torch.manual_seed(0)
    none = Triplets.drawn(batch, unmet, 2, chosen, 0.0)
    after = torch.rand(1)
    torch.manual_seed(0)
    torch.testing.assert_close(none.negatives, unmet.draw(batch.users, 2), rtol=0, atol=0)
    assert torch.equal(after, torch.rand(1)), "without a share nothing is drawn"
    torch.testing.assert_close(none.losses(users, items), losses[:10])


def test_hidden_features_are_said_again_better_and_better() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 6)
    before, hidden = features.clone(), MaskedFeatures(4, 6)
    encoder = torch.nn.Linear(6, 4)
    optimiser = torch.optim.Adam([*hidden.parameters(), *encoder.parameters()], 0.02)
    start = hidden.decoder[0].weight.detach().clone()
    around = features + 0.1 * torch.randn(50, 6)  # what flows to a node from others tells of it
    told = []
    for _ in range(100):
        shown, rows = hidden.hide(features, 0.2)
        assert len(rows) == 10
        torch.testing.assert_close(shown[rows], hidden.token.expand(10, -1))
        loss = hidden.loss(encoder(0.5 * shown + 0.5 * around)[rows], features[rows], torch.ones(10), 2.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        told.append(float(loss))
    assert sum(told[-10:]) < 0.5 * sum(told[:10])
    assert torch.equal(features, before), "masks are fresh copies"
    assert not torch.equal(hidden.decoder[0].weight, start)
    _, nobody = hidden.hide(features, 0.0)
    assert hidden.loss(encoder(features)[nobody], features[nobody], torch.ones(0), 2.0).item() == 0
    unknown = torch.tensor([1.0] + [0.0] * 9)
    one = hidden.loss(encoder(features)[:10], features[:10], unknown, 2.0)
    torch.testing.assert_close(one, hidden.loss(encoder(features)[:1], features[:1], torch.ones(1), 2.0))


def test_features_are_gathered_in_their_places() -> None:
    def lengths(texts: Sequence[str]) -> FloatArray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    found = Features.of(["a", "", "ccc"], [["x", "xx", ""], ["", "", "yyyy"]], ["", "uuuuu"], lengths)
    assert found.text[:, 0].tolist() == [1, 0, 3]
    assert found.text_known.tolist() == [True, False, True]
    assert found.attributes[:, :, 0].tolist() == [[1, 2, 0], [0, 0, 4]]
    assert found.attributes_known.tolist() == [[True, True, False], [False, False, True]]
    assert found.traits[:, 0].tolist() == [0, 5]
