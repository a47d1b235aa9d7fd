"""Lite-LLM4Rec: one pass and one product, what reaches the Item LLM, what a free and a tied head can answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, StoreError
from palate.core.protocols import TwoTower
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.hierarchical.lite_llm4rec import LiteLLM4Rec
from palate.parts.retrieval import Indexed
from palate.systems import build
from tests.backbones.checkpoints import bert, seq2seq
from tests.models.coloured_logs import COLOURS, EACH, NANO, N, log_of, rainbow, recall

SMALL: dict[str, object] = {
    "item_model": {"name": "nano", "settings": NANO}, "rec_model": {"name": "llama", "settings": {"layers": 1}},
    "max_tokens": 12, "length": 8, "dropout": 0.0, "batch_size": 64, "training.learning_rate": 1e-2,
    "training.rates": {}, "training.warmup_steps": 5, "training.epochs": 1000, "training.schedule": "constant",
}  # fmt: skip


def made(settings: dict[str, object] | None = None) -> LiteLLM4Rec:
    system = build("lite-llm4rec", SMALL | (settings or {}))
    assert isinstance(system, LiteLLM4Rec)
    return system


def fitted(settings: dict[str, object] | None = None, steps: int = 60, data: Dataset | None = None) -> LiteLLM4Rec:
    return made(settings).fit(data or rainbow(), Run(max_steps=steps))


def scores_of(system: Any, requests: Requests) -> np.ndarray:
    return np.concatenate([block.copy() for block in system.score_blocks(requests)])


@pytest.fixture(scope="module")
def log() -> Dataset:
    return rainbow(spare=2)


@pytest.fixture(scope="module")
def tied(log: Dataset) -> LiteLLM4Rec:
    return fitted({"head": "tied"}, steps=120, data=log)


def test_one_pass_answers_whatever_is_asked(tied: LiteLLM4Rec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the Recommendation LLM, none of the Item LLM, over as many places as items are read."""
    calls: list[list[int]] = []
    kind = type(tied.rec_model)
    original = kind.packed_states

    def watched(self: Any, vectors: Tensor, groups: Any, attend: Any) -> Tensor:
        calls.append(groups.lengths.tolist())
        return original(self, vectors, groups, attend)

    monkeypatch.setattr(kind, "packed_states", watched)
    monkeypatch.setattr(type(tied.fitted().tower), "encode", lambda *_: pytest.fail("a text was read"))
    for k in (1, 100):
        tied.recommend(Requests.of([[5, 9, 40], [3]]), k)
    assert calls == [[3, 1], [3, 1]]


def recommender(kind: str, folder: Path) -> dict[str, object]:
    """The setting of a small Recommendation LLM: a decoder over vectors, nano, the encoder of a T5, BERT."""
    if kind in ("hub", "hub-encoder"):
        (bert if kind == "hub-encoder" else seq2seq)(folder)
        return {"name": kind, "settings": {"model": str(folder)}}
    return {"name": kind, "settings": NANO if kind == "nano" else {"layers": 1}}


class Watched:
    """Every forward of every transformer of a system while it is inside: whose, and over how many places."""

    def __init__(self, system: LiteLLM4Rec) -> None:
        from transformers import PreTrainedModel

        self.calls: list[tuple[str, int]] = []
        self.hooks = []
        for half, model in (("item", system.item_model.model), ("rec", system.rec_model.model)):
            for module in model.modules():
                if isinstance(module, PreTrainedModel):
                    self.hooks.append(module.register_forward_pre_hook(partial(self._heard, half), with_kwargs=True))

    def _heard(self, half: str, module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        self.calls.append((half, given["inputs_embeds"].shape[0] * given["inputs_embeds"].shape[1]))

    def __enter__(self) -> list[tuple[str, int]]:
        return self.calls

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


@pytest.mark.parametrize("kind", ["llama", "nano", "hub", "hub-encoder"])
def test_a_request_is_one_forward_of_the_transformer_itself(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many answers are asked for. Nothing is generated: neither by ``generate`` nor by a decoder of a T5."""
    from transformers import GenerationMixin

    system = fitted({"rec_model": recommender(kind, tmp_path), "prefixes": "all"}, steps=2, data=rainbow(20))
    monkeypatch.setattr(GenerationMixin, "generate", lambda *_, **__: pytest.fail("something was generated"))
    for k in (1, 10, N):
        with Watched(system) as calls:
            system.recommend(Requests.of([[5, 9, 40]]), k)
        assert calls == [("rec", 3)]


def test_texts_of_any_length_are_equally_many_places() -> None:
    """The Item LLM reads ten times more, once an item; the Recommendation LLM reads a place an item all the same."""
    places: dict[int, dict[str, int]] = {}
    for times in (1, 10):
        data = rainbow(20)
        longer = data.items.with_columns(pl.concat_str([pl.col("title")] * times, separator=" "))
        data = replace(data, items=longer)
        system = fitted({"max_tokens": 400}, steps=1, data=data)
        batch = next(iter(system.lesson(data, Run()).batches.epoch(0)))
        with Watched(system) as taught:
            system.loss(batch)
        with Watched(system) as answered:
            system.recommend(Requests.of([[5, 9, 40], [3]]), 10)
        assert answered == [("rec", 3 + 1)]
        places[times] = {half: sum(n for of, n in taught if of == half) for half in ("item", "rec")}
    assert places[1]["rec"] == places[10]["rec"] == 20 * 8
    assert places[10]["item"] > 8 * places[1]["item"] > 0


def test_texts_teach_what_nobody_met_and_shuffled_texts_do_not(tied: LiteLLM4Rec, log: Dataset) -> None:
    unmet = np.flatnonzero(log.item_counts == 0)
    chance = 3 / len(unmet)
    assert recall(tied, log, 3, unmet) >= 3 * chance
    shuffled = log.items.with_columns(pl.Series("title", np.random.default_rng(0).permutation(log.items["title"])))
    broken = fitted({"head": "tied"}, steps=120, data=replace(log, items=shuffled))
    assert recall(broken, log, 3, unmet) < 2 * chance
    popular = build("popularity").fit(log, Run())
    met = np.setdiff1d(np.arange(N), unmet)
    assert recall(tied, log, 10, met) >= 3 * recall(popular, log, 10, met)
    numbers = fitted({"reads": "ids"}, steps=120, data=log)
    assert recall(numbers, log, 3, unmet) < 2 * chance, "the control knows no texts"


def test_items_of_one_text_have_one_vector_and_only_a_free_head_tells_them_apart() -> None:
    data = log_of(np.tile([3, 4, 5], (20, 1)))
    titles = data.items["title"].to_list()
    titles[7] = titles[5]
    data = replace(data, items=data.items.with_columns(pl.Series("title", titles)))
    asked = Requests.of([[3, 4]])
    for head in ("free", "tied"):
        system = fitted({"head": head}, steps=20, data=data)
        assert system.items.held is not None
        np.testing.assert_array_equal(system.items.held.vectors[5], system.items.held.vectors[7])
        one, other = scores_of(system, asked)[0, [5, 7]]
        assert (abs(one - other) < 1e-6) == (head == "tied")


def test_gradients_reach_the_item_model_unless_it_rests(log: Dataset) -> None:
    for settings, moving in (
        ({}, True),
        ({"head": "tied"}, True),
        ({"learns": "user"}, False),
        ({"reads": "ids"}, False),
    ):
        system = fitted(settings, steps=1, data=log)
        network = system.fitted()
        network.zero_grad()
        batch = next(iter(system.lesson(log, Run()).batches.epoch(0)))
        system.loss(batch).backward()
        reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.tower.parameters()]
        assert any(reached) == moving, settings


def test_heads_score_by_hand(tied: LiteLLM4Rec, log: Dataset) -> None:
    """Tied: the state times A z; free: the state times a row of its own, and a bias."""
    asked = Requests.of([[9, 20]])
    free = fitted(steps=3, data=log)
    for system in (tied, free):
        network, held = system.fitted(), system.items.held
        assert held is not None
        z = torch.from_numpy(held.vectors)
        with torch.no_grad():
            out = system.rec_model.model(inputs_embeds=z[None, [9, 20]])
            state = out.last_hidden_state[0, -1]
            if network.turn is not None:
                expected = network.turn(z) @ state
            else:
                assert network.rows is not None
                expected = network.rows.weight @ state + network.bias
        np.testing.assert_allclose(scores_of(system, asked)[0], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("head", ["free", "tied"])
def test_two_towers_stand_behind_every_score(head: str, log: Dataset, tmp_path: Path) -> None:
    """The products of its vectors are its scores, the bias of a free head included, while the catalogue grows and
    shrinks; whatever changes an item's vector changes the version."""
    system = fitted({"head": head}, steps=5, data=log)
    assert isinstance(system, TwoTower)
    asked = Requests.of([[5, 9, 40], [], [N, 3]])
    versions = [system.vectors_version]

    def check() -> None:
        users, items, scores = system.user_vectors(asked), system.item_vectors(), scores_of(system, asked)
        assert items.shape == (scores.shape[1], 32 + (head == "free"))
        np.testing.assert_array_equal(np.isnan(users).all(1), [False, True, False])
        np.testing.assert_array_equal(np.isnan(items), np.broadcast_to(np.isnan(scores[:1]).T, items.shape))
        np.testing.assert_allclose(users[[0, 2]] @ items.T, scores[[0, 2]], atol=1e-4)
        indexed, own = Indexed(system).recommend(asked, 5), system.recommend(asked, 5)
        np.testing.assert_allclose(indexed.scores, own.scores, atol=1e-4)

    check()
    new = pl.DataFrame({"item": ["new"], "title": ["teal vase 5"]})
    system.add_items(replace(log, items=pl.concat([log.items, new], how="diagonal")))
    versions.append(system.vectors_version)
    check()
    assert np.isnan(system.item_vectors()[N]).any() == (head == "free"), "it has no row of its own"
    indexed = Indexed(system)
    system.retire_items(np.array([3]))
    versions.append(system.vectors_version)
    check()
    assert np.isnan(system.item_vectors()[3]).all()
    with pytest.raises(StoreError, match="call refresh"):
        indexed.recommend(asked, 5)
    system.save(tmp_path)
    assert store.load(tmp_path).vectors_version == versions[-1]
    other = fitted({"head": head, "learns": "user"}, steps=1, data=log)
    more = fitted({"head": head, "learns": "user", "training.learning_rate": 0.5}, steps=1, data=log)
    assert other.items.held is not None
    assert more.items.held is not None
    versions += [other.vectors_version, more.vectors_version]
    assert len(set(versions)) == len(versions), "the head's weights count, too"


def test_new_items_are_answered_by_a_tied_head_and_only_read_by_a_free_one(
    tied: LiteLLM4Rec, log: Dataset, tmp_path: Path
) -> None:
    tied.save(tmp_path / "tied")
    new = pl.DataFrame({"item": ["new"], "title": ["teal vase 5"]})
    grown = replace(log, items=pl.concat([log.items, new], how="diagonal"))
    system = store.load(tmp_path / "tied")
    navy = EACH * COLOURS.index("navy")
    system.add_items(grown)
    scores = scores_of(system, Requests.of([[navy], [N, navy], []]))
    assert (scores[0, N] > scores[0, :N]).mean() > 0.9
    system.retire_items(np.array([N]))
    assert np.isnan(scores_of(system, Requests.of([[navy], []]))[:, N]).all()
    free = fitted(steps=3, data=log)
    before = scores_of(free, Requests.of([[navy], []]))
    free.add_items(grown)
    after = scores_of(free, Requests.of([[navy], [], [N]]))
    assert np.isnan(after[:, N]).all()
    np.testing.assert_allclose(after[:2, :N], before, atol=1e-6)
    assert not np.allclose(after[2, :N], after[1, :N])
    free.save(tmp_path / "free")
    np.testing.assert_array_equal(scores_of(store.load(tmp_path / "free"), Requests.of([[navy], [], [N]])), after)


def test_cached_vectors_answer_as_fresh_ones(tied: LiteLLM4Rec, log: Dataset, tmp_path: Path) -> None:
    """What lies ready is what its texts give now, and vectors of other weights are never read."""
    asked = Requests.for_users(log, np.arange(30))
    kept, held = scores_of(tied, asked), tied.items.held
    try:
        tied.items.held = None
        tied.add_items(log)
        np.testing.assert_allclose(scores_of(tied, asked), kept, atol=1e-5)
    finally:
        tied.items.held = held
    version, bias = tied.version, tied.fitted().map.bias
    begun = bias.detach().clone()
    with torch.no_grad():
        bias[0] += 1
    try:
        assert tied.version != version
        tied.save(tmp_path / "mixed")
    finally:
        with torch.no_grad():
            bias.copy_(begun)
    with pytest.raises(StoreError, match="made by other weights"):
        store.load(tmp_path / "mixed")


def test_learns_a_hundred_users_by_heart() -> None:
    """Every window has one item that follows; the best answer is that one, for all of them."""
    items = np.random.default_rng(0).permutation(N)[(np.arange(100)[:, None] + np.arange(4)) % N]
    data = log_of(items)
    system = fitted(steps=150, data=data)
    found = system.recommend(Requests.of(items[:, :3].tolist()), 1)
    assert (found.item_rows[:, 0] == items[:, 3]).mean() == 1.0


@pytest.mark.parametrize("kind", ["hub-encoder", "hub", "nano"])
def test_prompts_stand_around_the_items_whatever_the_model(kind: str, tmp_path: Path) -> None:
    """An encoder, the encoder of a T5, a decoder: each learns, and reads as many places as items and prompts have."""
    rec = recommender(kind, tmp_path)
    prompts = {"before": "red sea", "after": "books about"}
    data = rainbow(30)
    system = fitted({"rec_model": rec, **prompts, "prefixes": "all"}, steps=4, data=data)
    assert not system.at_once
    read: list[list[int]] = []
    original = type(system.rec_model).packed_states

    def watched(self: Any, vectors: Tensor, groups: Any, attend: Any) -> Tensor:
        read.append(groups.lengths.tolist())
        return original(self, vectors, groups, attend)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(system.rec_model), "packed_states", watched)
        whole = scores_of(system, Requests.of([[1, 2, 3, 4], [9]]))
    around = len(system.rec_model.read(["red sea"]).flat()) + len(system.rec_model.read(["books about"]).flat())
    assert read == [[4 + around, 1 + around]]
    np.testing.assert_allclose(scores_of(system, Requests.of([[9]]))[0], whole[1], atol=1e-4)
    plain = fitted({"rec_model": rec, "prefixes": "all"}, steps=4, data=data)
    assert not np.allclose(scores_of(plain, Requests.of([[9]])), whole[1], atol=1e-3)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="head=tied compares with the vectors of texts"):
        made({"reads": "ids", "head": "tied"})
    with pytest.raises(ConfigError, match="a prompt needs a Recommendation LLM that knows words"):
        made({"before": "next:"})


def test_a_second_lesson_leaves_the_item_vectors() -> None:
    data = rainbow(30)
    once = made({"training.epochs": 2}).fit(data, Run())
    twice = made({"training.epochs": 2, "cached_epochs": 2}).fit(data, Run())
    assert once.items.held is not None
    assert twice.items.held is not None
    np.testing.assert_array_equal(once.items.held.vectors, twice.items.held.vectors)
    assert not np.allclose(scores_of(once, Requests.of([[3]])), scores_of(twice, Requests.of([[3]])))


def test_a_batch_of_people_who_met_nothing_yet_is_a_step_in_both_lessons(tmp_path: Path) -> None:
    """An encoder learns one event of each history, which may be the first; here every batch holds one history."""
    bert(tmp_path)
    rec = {"name": "hub-encoder", "settings": {"model": str(tmp_path)}}
    settings = {"rec_model": rec, "batch_size": 1, "prefixes": "all", "training.epochs": 1, "cached_epochs": 1}
    system = made(settings).fit(log_of(np.array([[3, 4], [5, 6]])), Run())
    assert system.facts["training after that"][0]["steps"] == 4
