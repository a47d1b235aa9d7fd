"""Mender follows words: planted wishes, what is read, what learns and what stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.protocols import Grows, ReadsWords
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.generative.mender_emb import in_slots
from palate.models.generative.mender_tok import composed
from palate.parts.t5 import T5Config, packed
from palate.parts.worded import NameDecoder
from palate.systems import TABLE, build
from tests.models.wishful_logs import THEMES, wishful

EMB = {
    "tokenizer": {"name": "residual-kmeans", "settings": {"size": 4, "levels": 2, "encoder": "tf-idf"}},
    "encoder": "tf-idf", "prefixes": "all", "batch_size": 128, "length": 8,
    "network": {"width": 32, "layers": 1, "heads": 2, "head_width": 16, "forward_width": 64, "dropout": 0.0},
    "training.learning_rate": 5e-3, "training.warmup_steps": 10,
}  # fmt: skip
NANO = {"name": "nano", "settings": {
    "width": 32, "heads": 2, "layers": 1, "forward_width": 64, "length": 256, "steps": 0, "vocabulary": 400,
    "tune": "new-rows",
}}  # fmt: skip
TOK = EMB | {"reader": NANO, "title_tokens": 6, "word_tokens": 24, "max_tokens": 128}


def made(name: str, **changed: Any) -> Any:
    return build(name, (EMB if name == "mender-emb" else TOK) | changed, preset="tiny")


def asked(train: Dataset, users: int, theme: np.ndarray) -> Requests:
    """The first users with their histories, each wishing for a theme."""
    requests = Requests.for_users(train, np.arange(users))
    return replace(requests, words=tuple(f"Find {THEMES[one]}." for one in theme))


def test_every_system_that_reads_words_says_so() -> None:
    rows = [row for row in TABLE if row.ability == "Recommender"]
    for row in rows:
        assert ("words" in row.tags) == hasattr(row.kind, "reads_words"), row.name
    assert {row.name for row in rows if "words" in row.tags} >= {"mender-tok", "mender-emb", "text-cosine"}


def test_a_wish_decides_whatever_the_history_says(tmp_path: Path) -> None:
    train = wishful()
    system = made("mender-emb").fit(train, Run(max_steps=150))
    assert isinstance(system, ReadsWords)
    assert system.reads_words
    rng = np.random.default_rng(0)
    wished, other = rng.integers(0, 12, 40), rng.integers(0, 12, 40)
    requests = asked(train, 40, wished)
    found = system.recommend(requests, 3).item_rows[:, 0]
    assert (found == wished).mean() > 0.9
    changed = system.recommend(asked(train, 40, other), 3).item_rows[:, 0]
    assert (changed == other).mean() > 0.9, "only the words were changed"
    silent = system.recommend(replace(requests, words=None), 3).item_rows[:, 0]
    assert (silent == wished).mean() < 0.3, "by lot it is one in twelve"
    alone = Requests(Ragged.empty(12), words=tuple(f"Find {theme}." for theme in THEMES))
    assert (system.recommend(alone, 1).item_rows[:, 0] == np.arange(12)).mean() > 0.9
    one = system.recommend(requests[np.array([7])], 3)
    assert one.item_rows[0].tolist() == system.recommend(requests, 3).item_rows[7].tolist()
    system.save(tmp_path / "saved")
    again = store.load(tmp_path / "saved").recommend(requests, 3)
    assert np.array_equal(again.item_rows[:, 0], found)
    control = made("mender-emb", shuffled=True).fit(train, Run(max_steps=150))
    assert (control.recommend(requests, 3).item_rows[:, 0] == wished).mean() < 0.3


def test_a_text_is_read_with_its_words(tmp_path: Path) -> None:
    train = wishful()
    system = made("mender-tok", **{"reader.settings.tune": "full"}).fit(train, Run(max_steps=120))
    wished = np.random.default_rng(1).integers(0, 12, 30)
    requests = asked(train, 30, wished)
    found = system.recommend(requests, 3)
    assert (found.item_rows[:, 0] == wished).mean() > 0.8
    one = system.recommend(requests[np.array([3])], 3)
    assert one.item_rows[0].tolist() == found.item_rows[3].tolist()
    assert np.allclose(one.scores[0], found.scores[3], atol=1e-4), "padding and company change nothing"
    system.save(tmp_path / "saved")
    assert np.array_equal(store.load(tmp_path / "saved").recommend(requests, 3).item_rows, found.item_rows)


def test_a_frozen_reader_stays_as_it_is_to_the_bit() -> None:
    train = wishful(20)
    fresh = made("mender-tok")
    fresh.fit(train, Run(max_steps=1))
    before = {name: tensor.clone() for name, tensor in fresh.reader.model.state_dict().items()}
    longer = made("mender-tok").fit(train, Run(max_steps=6))
    after = longer.reader.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert longer.network.frozen


def test_with_adapters_the_base_stays() -> None:
    pytest.importorskip("peft")
    train = wishful(20)
    base: list[dict[str, torch.Tensor]] = []
    for steps in (1, 6):
        system = made("mender-tok", **{"reader.settings.tune": "lora"}).fit(train, Run(max_steps=steps))
        base.append({name: tensor.clone() for name, tensor in system.reader.model.state_dict().items()})
        assert not system.network.frozen
    moved = {name for name in base[0] if not torch.equal(base[0][name], base[1][name])}
    assert moved
    assert all("lora_" in name for name in moved)


@pytest.mark.parametrize("name", ["mender-tok", "mender-emb"])
def test_new_items_are_found_by_a_wish_or_at_least_named(name: str) -> None:
    train = wishful(20)
    system = made(name).fit(train, Run(max_steps=3))
    assert isinstance(system, Grows)
    grown = replace(train, items=train.items.vstack(train.items[:2].with_columns(item=train.items["item"][:2] + "b")))
    system.add_items(grown)
    found = system.recommend(asked(train, 5, np.arange(5)), 14).item_rows
    assert all(sorted(row) == list(range(14)) for row in found.tolist())
    system.retire_items(np.array([13]))
    assert 13 not in system.recommend(asked(train, 5, np.arange(5)), 14).item_rows


def test_what_is_read_token_by_token() -> None:
    pieces = Ragged.of([[1, 2], [3], [4], [10, 11], [20], [30, 31, 32]])
    said = Ragged.of([[7, 8], [9]])
    tokens, counts = composed(
        pieces, np.array([0, 1, 2, 2]), np.array([3, 0, 1]), np.array([1, 0, -1]), said, max_tokens=100
    )
    assert counts.tolist() == [11, 6, 7]
    assert tokens.tolist() == [1, 2, 9, 3, 10, 11, 20, 30, 31, 32, 4, 1, 2, 7, 8, 3, 4, 1, 2, 3, 30, 31, 32, 4]
    tokens, counts = composed(pieces, np.array([0, 1, 2]), np.array([3]), np.array([1]), said, max_tokens=10)
    assert tokens.tolist() == [1, 2, 9, 3, 20, 30, 31, 32, 4], "the oldest item is left out"
    nothing = np.zeros(0, dtype=np.int64)
    tokens, counts = composed(pieces, nothing, np.array([0]), np.array([-1]), Ragged.of([]), max_tokens=10)
    assert tokens.tolist() == [1, 2, 3, 4]


def test_sentences_have_a_slot_each() -> None:
    assert in_slots("Find ships.  Avoid war! More tea") == ["Find ships.", "Avoid war!", "More tea"]
    assert in_slots("  ") == []
    many = in_slots(" ".join(f"Find {number} x." for number in range(20)))
    assert len(many) == 8
    assert many[-1].endswith("Find 19 x.")


def test_the_loss_of_refusals_is_bounded_and_pushes_away() -> None:
    torch.manual_seed(0)
    decoder = NameDecoder(
        T5Config(width=16, layers=1, heads=2, head_width=8, forward_width=32, dropout=0.0), 6, False, 5
    )
    lengths = torch.tensor([3, 2])
    packing = packed(lengths, "cpu")
    memory = decoder.lift(torch.randn(5, 5))
    names = torch.tensor([[2, 5], [3, -1]])
    logits = decoder.t5.states(names, memory, packing) @ decoder.t5.table.T
    said = logits.log_softmax(-1)
    whole = torch.stack([said[0, 0, 2] + said[0, 1, 5], said[1, 0, 3]])
    plain = decoder.loss(memory, packing, names, torch.tensor([False, False]))
    assert torch.allclose(plain, -whole.sum() / 3)
    mixed = decoder.loss(memory, packing, names, torch.tensor([False, True]))
    assert torch.allclose(mixed, -whole[0] / 2 - 0.5 * torch.log(1 - whole[1].exp()))
    both = torch.tensor([True, True])
    parameters = [p for p in decoder.t5.parameters()]
    with torch.enable_grad():
        against = decoder.loss(memory.detach(), packing, names, both)
        gradients = torch.autograd.grad(against, parameters, allow_unused=True)
    assert 0 < against.item() < 1
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.1 * gradient
    assert decoder.loss(memory.detach(), packing, names, both).item() < against.item()
