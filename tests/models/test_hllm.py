"""HLLM: what its loss is, what it learns from texts, what it makes of new items, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, StoreError, TrainingError
from palate.core.item_vectors import keys_of
from palate.core.protocols import TakesNotes, TwoTower
from palate.core.ranks import ranks
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.batches import SequenceBatch
from palate.models.hierarchical import hllm
from palate.models.hierarchical.hllm import HLLM
from palate.parts import item_side
from palate.parts.contrastive import info_nce
from palate.parts.fusion import Late
from palate.parts.item_tower import attend_within
from palate.parts.packing import Packing
from palate.parts.retrieval import Indexed
from palate.systems import build
from palate.training.loop import seeded
from tests.models.coloured_logs import COLOURS, EACH, HOUR, NANO, N, log_of, rainbow, recall

SMALL: dict[str, object] = {
    "item_model": {"name": "nano", "settings": NANO}, "user_model": {"name": "llama", "settings": {"layers": 1}},
    "max_tokens": 12, "length": 8, "dropout": 0.0, "batch_size": 64, "negatives": N,
    "training.learning_rate": 1e-2, "training.rates": {}, "training.warmup_steps": 5, "training.epochs": 1000,
}  # fmt: skip


def made(settings: dict[str, object] | None = None) -> HLLM:
    system = build("hllm", SMALL | (settings or {}))
    assert isinstance(system, HLLM)
    return system


def fitted(settings: dict[str, object] | None = None, steps: int = 60, data: Dataset | None = None) -> HLLM:
    return made(settings).fit(data or rainbow(), Run(max_steps=steps))


@pytest.fixture(scope="module")
def cold() -> Dataset:
    """There is no teal vase 5: two are called teal vase 4."""
    data = rainbow(spare=2)
    title = pl.col("title").replace("teal vase 5", "teal vase 4")
    return replace(data, items=data.items.with_columns(title))


@pytest.fixture(scope="module")
def painter(cold: Dataset) -> HLLM:
    """Has learnt the rainbow without having met two items of each colour."""
    return fitted(data=cold, steps=120)


# -- the loss ----------------------------------------------------------------------------------------------------------


def first_batch(system: HLLM, data: Dataset) -> SequenceBatch:
    return next(iter(system.lesson(data, Run()).batches.epoch(0)))


def test_distinct_items_give_the_loss_and_gradients_of_every_occurrence() -> None:
    """Each occurrence of an item, as event, target or negative, read on its own and with its own gradient."""
    data = rainbow(6)
    system = fitted(data=data, steps=3)
    network, batch = system.fitted(), first_batch(system, data)
    network.train()
    network.zero_grad()
    system.loss(batch).backward()
    packed = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    own = float(system.loss(batch).detach())

    def alone(rows: Tensor) -> Tensor:
        return torch.cat([system.items.vectors(network, row[None]) for row in rows])

    network.zero_grad()
    assert batch.targets is not None
    pool, packing = torch.arange(N)[data.item_counts > 0], Packing(batch.lengths)
    read, targets, others = alone(batch.items), alone(batch.targets), alone(pool)
    states = system.user_model.packed_states(read, packing, attend_within(packing))
    naive, _ = info_nce(states, targets, others, network.scale(), target_rows=batch.targets, pool_rows=pool)
    naive.backward()
    assert own == pytest.approx(float(naive.detach()), abs=1e-5)
    assert {"tower.slot", "scale.log"} <= packed.keys()
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(packed[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_gradients_reach_the_item_model_from_what_is_read_predicted_and_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through each of the three alone; ``learns`` says which half moves."""
    data = rainbow(20)
    system = fitted(data=data, steps=1)
    network, batch = system.fitted(), first_batch(system, data)
    for kept in range(3):

        def cut(sizes: Any, parts: Any, kept: int = kept) -> Any:
            whole = torch.tensor_split(sizes, np.cumsum(parts)[:-1].tolist())
            return tuple(part if place == kept else part.detach() for place, part in enumerate(whole))

        network.zero_grad()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "split", cut)
            loss = system.loss(batch)
        loss.backward()
        assert network.tower.slot is not None
        assert network.tower.slot.grad is not None
        assert float(network.tower.slot.grad.abs().sum()) > 0, ("read", "predicted", "refused")[kept]
    for learns, moving in (
        ("both", {"tower", "user", "scale"}),
        ("user", {"user", "scale"}),
        ("item", {"tower", "scale"}),
    ):
        network = fitted({"learns": learns}, data=data, steps=1).fitted()
        assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == moving


def test_a_frozen_item_model_stays_as_it_was() -> None:
    fits = [made({"learns": "user", "training.epochs": epochs}).fit(rainbow(20), Run()) for epochs in (1, 4)]
    first, second = (system.items.held for system in fits)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_a_collapse_is_an_error_and_no_success() -> None:
    with pytest.raises(TrainingError, match=r"item vectors have collapsed: 100% .* give items texts that differ"):
        fitted({"alarm_steps": 4}, data=rainbow(20, same=True), steps=30)
    system = fitted({"alarm_steps": 100}, data=rainbow(20, same=True), steps=3)
    assert system.facts["note"] == "item vectors had collapsed when training ended"
    assert isinstance(system, TakesNotes), "its reports say so"
    assert system.notes[-1] == system.facts["note"]
    assert "collapsed" not in "".join(fitted(data=rainbow(20), steps=3).notes)


# -- what it learns ----------------------------------------------------------------------------------------------------


def test_learns_what_texts_say_also_of_items_that_nobody_met(painter: HLLM, cold: Dataset) -> None:
    """Ten of 144 by chance are 7 %, of the 36 that nobody met 28 %; popularity knows no more than chance, and a model
    of item numbers knows nothing of the latter."""
    unmet = np.flatnonzero(cold.item_counts == 0)
    assert len(unmet) == 2 * len(COLOURS)
    met = np.setdiff1d(np.arange(N), unmet)
    popular = build("popularity").fit(cold, Run())
    assert recall(painter, cold, 10, met) >= 3 * recall(popular, cold, 10, met)
    assert recall(painter, cold, 3, unmet) >= 3 * 3 / len(unmet)
    numbers = build("sasrec", {"length": 8}, preset="tiny").fit(cold, Run(max_steps=60))
    assert recall(numbers, cold, 3, unmet) < 2 * 3 / len(unmet)


def watch(patch: pytest.MonkeyPatch, system: HLLM) -> tuple[list[list[str]], list[int]]:
    """Texts that are tokenised, and how many are hashed; weights must rest."""
    read: list[list[str]] = []
    hashed: list[int] = []
    framed = system.item_model.framed

    def reading(texts: list[str], *more: Any) -> Any:
        read.append(list(texts))
        return framed(texts, *more)

    def hashing(texts: list[str]) -> Any:
        hashed.append(len(texts))
        return keys_of(texts)

    patch.setattr(system.item_model, "framed", reading)
    patch.setattr(item_side, "keys_of", hashing)
    patch.setattr(hllm, "digest", lambda _: pytest.fail("all weights were digested"))
    return read, hashed


def test_what_learns_and_what_it_is_held_against_count(cold: Dataset) -> None:
    """At equal steps: both models learning find more than the User LLM alone; a large pool teaches more than a small
    one."""
    met = np.flatnonzero(cold.item_counts)
    both, frozen, few = (
        recall(fitted(settings, 30, cold), cold, 10, met) for settings in ({}, {"learns": "user"}, {"negatives": 4})
    )
    assert both > frozen + 0.5
    assert both > few + 0.1


def test_an_item_given_by_its_text_alone_is_answered_at_once(
    painter: HLLM, cold: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added without training: the right readers find it, the saved system knows it, and retired it is gone."""
    painter.save(tmp_path / "before")
    system = store.load(tmp_path / "before")
    new = pl.DataFrame({"item": ["new"], "title": ["teal vase 5"]})
    grown = replace(cold, items=pl.concat([cold.items, new], how="diagonal"))
    before = {name: tensor.clone() for name, tensor in system.fitted().state_dict().items()}
    with monkeypatch.context() as patch:
        read, hashed = watch(patch, system)
        system.add_items(grown)
        system.add_items(grown)
        newer = pl.DataFrame({"item": ["newer", "newest"], "title": ["teal vase 6", "teal vase 7"]})
        system.add_items(replace(grown, items=pl.concat([grown.items, newer], how="diagonal")))
    assert read == [["teal vase 5"], ["teal vase 6", "teal vase 7"]], "what is new, and no other text"
    assert hashed == [N + 1, 0, 2], "a catalogue that was hashed is not hashed again"
    system.retire_items(np.array([N + 1, N + 2]))
    assert all(torch.equal(before[name], tensor) for name, tensor in system.fitted().state_dict().items())
    navy, teal = (COLOURS.index(colour) for colour in ("navy", "teal"))
    histories = Requests.of([[EACH * navy], [EACH * teal], []])
    scores = np.concatenate(list(system.score_blocks(histories)))
    assert (scores[0, N] > scores[0, :N]).mean() > 0.9, "who met navy last"
    assert (scores[1, N] > scores[1, :N]).mean() < 0.9, "who met teal last waits for ochre"
    assert scores[2, N] == np.nanmin(scores[2]), "a newcomer is shown what people meet"
    system.save(tmp_path / "after")
    again = store.load(tmp_path / "after")
    np.testing.assert_array_equal(np.concatenate(list(again.score_blocks(histories))), scores)
    again.retire_items(np.array([N]))
    assert not (again.recommend(histories, 20).item_rows == N).any()
    again.retire_items(np.array([N]), back=True)
    assert (again.recommend(histories, 20).item_rows[0] == N).any()


def test_cached_vectors_answer_as_fresh_ones_and_a_changed_text_is_one_row(painter: HLLM, cold: Dataset) -> None:
    requests = Requests.for_users(cold, np.arange(30))
    held = painter.items.held
    assert held is not None
    try:
        kept = painter.recommend(requests, 10)
        painter.items.held = None
        painter.add_items(cold)
        fresh = painter.recommend(requests, 10)
        np.testing.assert_array_equal(kept.item_rows, fresh.item_rows)
        other = pl.when(pl.col("item") == "i005").then(pl.lit("?")).otherwise("title")
        renamed = cold.items.with_columns(other.alias("title"))
        before = painter.items.held
        painter.add_items(replace(cold, items=renamed))
        changed = (painter.items.held.vectors != before.vectors).any(1)  # type: ignore[union-attr]
        assert np.flatnonzero(changed).tolist() == [5]
    finally:
        painter.items.held = held


def test_vectors_of_other_weights_prefix_or_length_are_never_read(painter: HLLM, tmp_path: Path) -> None:
    version, slot = painter.version, painter.fitted().tower.slot
    assert slot is not None
    begun = slot.detach().clone()
    with torch.no_grad():
        slot[0] += 1
    try:
        assert painter.version != version
        painter.save(tmp_path / "mixed")
    finally:
        with torch.no_grad():
            slot.copy_(begun)
    with pytest.raises(StoreError, match="made by other weights"):
        store.load(tmp_path / "mixed")
    for setting, value in (("max_tokens", 20), ("cut", "middle"), ("pooling", "mean")):
        own = painter.config
        painter.config = own.model_copy(update={setting: value})
        assert painter.version != version, setting
        painter.config = own
    assert painter.version == version
    other, same = (made({"prefix": prefix}).fit(rainbow(10), Run(max_steps=1)) for prefix in ("a thing: ", ""))
    assert (other.items.held.keys != same.items.held.keys).all()  # type: ignore[union-attr]


# -- side features -----------------------------------------------------------------------------------------------------


def test_the_time_of_day_decides_what_comes_next_and_only_timestamps_tell() -> None:
    """After each of four hours of the day comes a colour of its own, which texts do not foretell: 8 of the 32 items
    that are met. With the hours nearly every target is among the first ten, without them no more than by lot (0.31)."""
    rng = np.random.default_rng(0)
    hours = rng.integers(0, 4, (200, 8))
    items = rng.integers(0, EACH, hours.shape) + EACH * rng.integers(0, 4, hours.shape)
    items[:, 1:] = items[:, 1:] % EACH + EACH * hours[:, :-1]
    times = (np.arange(8) * 24 + 4 * hours + 1) * HOUR
    data = log_of(items, times)
    requests = replace(Requests.for_users(data, np.arange(200)), times=times[:, -1] + HOUR)
    targets = rng.integers(0, EACH, 200) + EACH * hours[:, -1]
    found = {}
    for parts in (0, 4):
        system = fitted({"time_parts": parts, "time_width": 64}, data=data, steps=80)
        scores = np.concatenate([block.copy() for block in system.score_blocks(requests)])
        found[parts] = float((ranks([scores], targets) <= 10).mean())
    assert found[4] > 0.9
    assert found[0] < 0.4


def test_times_that_nobody_knows_are_refused() -> None:
    data = replace(rainbow(5), clock="day")
    with pytest.raises(ConfigError, match=r"'rainbow' knows 3 of year, .* time_parts cannot be 4"):
        fitted({"time_parts": 4}, data=data, steps=1)
    fitted({"time_parts": 3, "time_width": 8}, data=data, steps=1)


def test_item_numbers_are_read_and_never_predicted() -> None:
    """Two items of one text: their vectors and scores stay alike, what follows after them differs."""
    rng = np.random.default_rng(0)
    twins = rng.integers(0, 2, 120)
    items = np.stack([twins, np.where(twins == 0, 20, 90), np.where(twins == 0, 40, 130)], 1)
    data = log_of(items)
    titles = data.items["title"].to_list()
    titles[1] = titles[0]
    data = replace(data, items=data.items.with_columns(pl.Series("title", titles)))
    scores = {}
    for ids in (False, True):
        system = fitted({"item_ids": ids, "training.rates": {"tower": 0.05}}, data=data, steps=150)
        scores[ids] = np.concatenate(list(system.score_blocks(Requests.of([[0], [1]]))))
        np.testing.assert_array_equal(scores[ids][:, 0], scores[ids][:, 1])
    np.testing.assert_array_equal(scores[False][0], scores[False][1])
    assert scores[True][0].argmax() == 20
    assert scores[True][1].argmax() == 90


# -- the cached lesson, fusion, checkpoints ----------------------------------------------------------------------------


def test_a_second_lesson_on_cached_vectors_moves_the_user_model_alone() -> None:
    data = rainbow(30)
    once = made({"training.epochs": 2}).fit(data, Run())
    twice = made({"training.epochs": 2, "cached_epochs": 3, "cached_length": 20}).fit(data, Run())
    np.testing.assert_array_equal(once.items.held.vectors, twice.items.held.vectors)  # type: ignore[union-attr]
    assert twice.reads == 20
    assert twice.facts["training after that"][0]["epochs"] == 3
    moved = {
        name.split(".")[0]
        for (name, a), b in zip(once.fitted().named_parameters(), twice.fitted().parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert moved == {"user"}
    assert all(p.requires_grad for p in twice.fitted().tower.parameters())


@pytest.fixture(scope="module", params=["early", "late"])
def judge_of_pairs(request: pytest.FixtureRequest) -> HLLM:
    return fitted({"objective": request.param, "contrast": 20, "head_width": 32}, steps=200, data=rainbow(600))


def test_heads_learn_and_batches_of_targets_are_single_targets(judge_of_pairs: HLLM) -> None:
    """All items at once are each item alone; fusion finds the next colour."""
    data = rainbow()
    assert recall(judge_of_pairs, data, 10) >= 3 * 10 / N
    head, items = judge_of_pairs.fitted().head, judge_of_pairs.tables.read
    assert head is not None
    packing = Packing(torch.tensor([4, 2, 1]))
    read = items[:7]
    with torch.no_grad():
        whole = head.all_logits(judge_of_pairs.user_model, read, packing, items)
        alone = torch.cat(
            [head(judge_of_pairs.user_model, read, packing, item.expand(3, 1, -1))[1] for item in items[:30]], 1
        )
    torch.testing.assert_close(whole[:, :30], alone, atol=1e-4, rtol=0)


def test_early_fusion_reads_the_target_and_late_fusion_does_not(
    judge_of_pairs: HLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many targets in one reading are each of them read alone; a user vector of late fusion is made without any."""
    items, decoder = judge_of_pairs.tables.read, judge_of_pairs.user_model
    packing, head = Packing(torch.tensor([4, 2, 1])), judge_of_pairs.fitted().head
    assert head is not None
    users: list[Tensor] = []
    if isinstance(head, Late):
        original = Late.users

        def watched(*asked: Any) -> Any:
            states, found = original(*asked)
            users.append(found)
            return states, found

        monkeypatch.setattr(Late, "users", watched)
    with torch.no_grad():
        states = [head(decoder, items[:7], packing, items[target].expand(3, 1, -1)) for target in (5, 100)]
        assert torch.equal(states[0][0], states[1][0]), "no target is seen from the history"
        assert not torch.allclose(states[0][1], states[1][1])
        if users:
            assert torch.equal(*users), "the user vector knows no target"
            return
        fast = head(decoder, items[:7], packing, items[3:9].expand(3, -1, -1))
        monkeypatch.setattr(type(decoder), "packs", False)
        slow = head(decoder, items[:7], packing, items[3:9].expand(3, -1, -1))
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def loss_of(system: HLLM, batch: SequenceBatch, **settings: Any) -> float:
    system.config = system.config.model_copy(update=settings)
    with seeded(Run()):
        return float(system.loss(batch).detach())


@pytest.mark.parametrize("objective", ["early", "late"])
def test_a_target_is_never_told_apart_from_itself(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every draw of a history is its own target, only the target is left to learn from. The generative loss
    stands beside it, weighted."""
    data = rainbow(20)
    system = fitted({"objective": objective, "negatives_from": "catalogue"}, data=data, steps=1)
    batch, kind = first_batch(system, data), type(system.fitted().head)
    alone, one, three = (loss_of(system, batch, auxiliary=weight) for weight in (0.0, 1.0, 3.0))
    assert one > alone
    assert three - alone == pytest.approx(3 * (one - alone), rel=1e-4)
    logits: list[Tensor] = []
    original = kind.forward

    def watched(*arguments: Any) -> Any:
        states, found = original(*arguments)
        logits.append(found)
        return states, found

    assert batch.targets is not None
    own = batch.targets[Packing(batch.lengths).last]
    monkeypatch.setattr(kind, "forward", watched)
    monkeypatch.setattr(torch, "randint", lambda _, shape, **__: own[:, None].expand(shape))
    loss = loss_of(system, batch, auxiliary=0.0)
    assert loss == pytest.approx(float(torch.nn.functional.softplus(-logits[0][:, 0].detach()).mean()), rel=1e-5)


def test_settings_that_leave_nothing_to_learn_or_to_answer_from() -> None:
    with pytest.raises(ConfigError, match="learns=item leaves cached_epochs nothing to teach"):
        made({"learns": "item", "cached_epochs": 1})
    with pytest.raises(ConfigError, match="hold no head for objective=late"):
        made({"objective": "late"}).take_released(Path("hllm.safetensors"), rainbow(2))


def test_two_towers_stand_behind_every_score(painter: HLLM, cold: Dataset) -> None:
    """The products of its vectors are its scores, an index answers as it does and refuses after a change."""
    requests = Requests.for_users(cold, np.arange(40)).leaving_out_history()
    assert isinstance(painter, TwoTower)
    products = painter.user_vectors(requests) @ painter.item_vectors().T
    scores = np.concatenate([block.copy() for block in painter.score_blocks(requests)])
    np.testing.assert_allclose(products, scores, atol=1e-5)
    indexed = Indexed(painter)
    own, found = painter.recommend(requests, 5), indexed.recommend(requests, 5)
    np.testing.assert_allclose(own.scores, found.scores, atol=1e-5)
    assert (own.item_rows == found.item_rows).mean() > 0.95, "but for ties within rounding"
    assert np.isnan(painter.user_vectors(Requests.of([[]]))).all()
    held = painter.items.held
    try:
        painter.retire_items(np.array([3]))
        assert np.isnan(painter.item_vectors()[3]).all()
        with pytest.raises(StoreError, match="call refresh"):
            indexed.recommend(requests, 5)
    finally:
        painter.items.held = held
