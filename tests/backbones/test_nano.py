"""nano: taught on the data's own text, kept by content, the same whatever was random around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from palate.backbones.item_text import texts_of
from palate.backbones.nano import Blocks, MaskedBlocks, Nano, NanoConfig, ended, next_token_loss
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core import store
from palate.core.config import Part, configure
from palate.core.errors import ConfigError, TrainingError
from palate.core.protocols import LanguageModel
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.data.sources import load
from palate.systems import component
from palate.training.loop import optimise

TEXTS = texts_of(load("world-test"))
SMALL = NanoConfig(width=32, heads=2, layers=1, forward_width=64, vocabulary=400, steps=25, block=64, batch_size=4)


class Calls:
    """The loop, counted."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, *given: Any) -> object:
        self.n += 1
        return optimise(*given)


def weights(lm: Nano) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}


def same(one: Nano, other: Nano) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_it_learns_the_text() -> None:
    longer = SMALL.model_copy(
        update={"steps": 100, "pretraining": SMALL.pretraining.model_copy(update={"learning_rate": 5e-3})}
    )
    taught = Nano(longer).prepare(TEXTS, Run(), optimise)
    drawn = Nano(SMALL.model_copy(update={"steps": 0})).prepare(TEXTS, Run())
    ids, _ = taught.padded(taught.read(TEXTS[:8], 40))
    with torch.no_grad():
        after, before = (float(next_token_loss(lm.model, ids)) for lm in (taught, drawn))
    counts = np.bincount(taught.read(TEXTS).flat(), minlength=taught.tokenizer.size) + 1
    unigram = -np.log(counts / counts.sum())[ids[:, 1:].numpy()].mean()
    assert before > np.log(400) - 0.5
    assert after < unigram < before
    assert isinstance(taught, LanguageModel)
    assert (taught.kind, taught.pretrained) == ("causal", "no")


def test_it_is_taught_once_and_kept_by_content(own_cache: Path) -> None:
    calls = Calls()
    first = Nano(SMALL).prepare(TEXTS, Run(), calls)
    again = Nano(SMALL).prepare([*TEXTS[::-1], TEXTS[0], ""], Run(seed=5, budget_seconds=0.001), calls)
    assert calls.n == 1
    assert same(first, again)
    assert first.version == again.version
    assert len(list((own_cache / "language-models").iterdir())) == 1
    for settings, texts in (
        (SMALL, [*TEXTS, "one more"]), (SMALL.model_copy(update={"seed": 1}), TEXTS),
        (SMALL.model_copy(update={"width": 36}), TEXTS),
    ):  # fmt: skip
        before = calls.n
        other = Nano(settings).prepare(texts, Run(), calls)
        assert calls.n == before + 1
        assert other.version != first.version
    Nano(SMALL.model_copy(update={"tune": "lora"})).prepare(TEXTS, Run(), calls)  # how it is tuned later is no matter
    Nano(SMALL).prepare(TEXTS, Run(max_steps=2), calls)  # but a shorter lesson is another model
    assert calls.n == 5


def test_neither_a_runs_seed_nor_its_budget_nor_what_was_random_before_matters(tmp_path: Path) -> None:
    first = Nano(SMALL, tmp_path / "one").prepare(TEXTS, Run(), optimise)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        other = Nano(SMALL, tmp_path / "two").prepare(TEXTS, Run(seed=5, budget_seconds=1e-9), optimise)
    assert same(first, other)
    seeded = Nano(SMALL.model_copy(update={"seed": 1}), tmp_path / "one").prepare(TEXTS, Run(), optimise)
    assert not same(first, seeded)


def test_fresh_or_kept_nothing_after_it_changes(tmp_path: Path) -> None:
    def walk(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(7)
        lm = Nano(SMALL, folder=folder).prepare(TEXTS, Run(seed=7), optimise)
        lm.add_tokens(["<a_1>"])
        return lm.model.get_input_embeddings().rows.detach(), torch.rand(3)

    with torch.random.fork_rng():
        fresh, kept, elsewhere = walk(tmp_path / "one"), walk(tmp_path / "one"), walk(tmp_path / "two")
    for one in (kept, elsewhere):
        assert torch.equal(fresh[0], one[0])
        assert torch.equal(fresh[1], one[1])


def test_what_is_kept_stays_as_it_was_taught() -> None:
    lm = Nano(SMALL).prepare(TEXTS, Run(), optimise)
    before = weights(lm)
    lm.add_tokens(["<a_1>"])
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(1)
    again = Nano(SMALL).prepare(TEXTS, Run())
    assert all(torch.equal(value, before[name]) for name, value in weights(again).items())
    assert again.tokenizer.size == lm.tokenizer.size - 1


def test_damage_in_the_cache_is_taught_again(own_cache: Path) -> None:
    first = Nano(SMALL).prepare(TEXTS, Run(), optimise)
    (folder,) = (own_cache / "language-models").iterdir()
    (folder / "arrays.safetensors").write_bytes(b"nothing")
    calls = Calls()
    assert same(Nano(SMALL).prepare(TEXTS, Run(), calls), first)
    assert calls.n == 1


def test_saved_is_loaded_and_says_what_it_saw(tmp_path: Path) -> None:
    lm = Nano(SMALL).prepare(TEXTS, Run(), optimise, fitted_on="abc")
    lm.add_tokens(["<a_1>", "<a_2>"])
    lm.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    assert isinstance(loaded, Nano)
    assert same(loaded, lm)
    assert store.open_folder(tmp_path / "saved").fitted_on == "abc"
    assert loaded.spell(loaded.read([TEXTS[0] + "<a_2>"])) == [TEXTS[0] + "<a_2>"]
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (tmp_path / "saved").rglob("*"))


@pytest.mark.parametrize("tune", ["lora", "new-rows", "prompt"])
def test_it_is_tuned_as_any_other(tune: str) -> None:
    lm = Nano(SMALL.model_copy(update={"tune": tune})).prepare(TEXTS, Run(), optimise)
    lm.add_tokens(["<a_1>"])
    learns = {name for name, parameter in lm.model.named_parameters() if parameter.requires_grad}
    assert learns
    assert all(".lora_" in name or name.endswith((".rows", ".prompt")) for name in learns)
    assert any(name.endswith(".prompt") for name in learns) == (tune == "prompt")
    assert any(".lora_" in name for name in learns) == (tune == "lora")


def test_the_default_has_the_size_that_is_said() -> None:
    lm = Nano(NanoConfig(steps=0)).prepare([f"{text} {number}" for number, text in enumerate(TEXTS * 9)], Run())
    assert 1.9e6 < sum(parameter.numel() for parameter in lm.model.parameters()) < 1e7
    assert NanoConfig(vocabulary=4096).width % NanoConfig().heads == 0


def test_blocks_hold_every_text_in_an_order_of_their_own() -> None:
    texts = Ragged.of([[10 * row + place for place in range(row % 5 + 1)] for row in range(1, 40)])
    blocks = Blocks(texts, 8, 3, seed=0)
    total = int(texts.lengths.sum())
    assert len(blocks) == -(-(total // 8) // 3)
    epochs = [list(blocks.epoch(epoch)) for epoch in (0, 1)]
    assert [tuple(batch.shape) for batch in epochs[0]][:-1] == [(3, 8)] * (len(blocks) - 1)
    flat = [torch.cat([batch.flatten() for batch in epoch]).tolist() for epoch in epochs]
    assert flat[0] != flat[1]
    assert len(set(flat[0])) == total // 8 * 8
    assert set(flat[0]) <= set(texts.flat().tolist())
    skipped = list(blocks.epoch(0, skip=2))
    assert all(torch.equal(one, other) for one, other in zip(skipped, epochs[0][2:], strict=True))
    assert [tuple(b.shape) for b in Blocks(Ragged.of([[1, 2], [3]]), 8, 3, 0).epoch(0)] == [(1, 3)]


def test_every_text_ends() -> None:
    tokenizer = TextTokenizer.taught(["a b"], 300)
    rows = ended(tokenizer, ["a", "", "b a"])
    assert [row.tolist()[-1] for row in rows] == [tokenizer.end] * 3
    assert rows.lengths.tolist() == (tokenizer.read(["a", "", "b a"]).lengths + 1).tolist()


def test_heads_that_cannot_turn_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="heads of an even width, not 33"):
        configure(NanoConfig, {"width": 66, "heads": 2})


def test_without_a_loop_it_says_so() -> None:
    with pytest.raises(TrainingError, match="nano must be taught first: call prepare with the training loop"):
        Nano(SMALL).prepare(TEXTS, Run())
    with pytest.raises(TrainingError, match="not ready yet"):
        Nano(SMALL).add_tokens(["<a>"])
    assert isinstance(component("backbone", Part(name="nano", settings={"width": 64})), Nano)


MASKED = SMALL.model_copy(update={"objective": "masked"})


def test_what_is_hidden_is_asked_for_and_nothing_else() -> None:
    """By hand: kept ids are never asked for, what is asked for is the token itself, the rest is read as it is."""
    blocks = Blocks(Ragged.of([[9, 8, 7, 2], [6, 5, 2], [4, 4, 4, 4, 2]] * 50), 8, 4, seed=0)
    masked = MaskedBlocks(blocks, share=0.15, mask=3, kept=[0, 1, 2, 3], words=np.arange(4, 10))
    for plain, (read, asked) in zip(blocks.epoch(3), masked.epoch(3), strict=True):
        hidden = asked >= 0
        assert (asked[hidden] == plain[hidden]).all()
        assert (read[~hidden] == plain[~hidden]).all()
        assert not (hidden & (plain == 2)).any()
        assert hidden.any(1).all()
    assert all(torch.equal(a, b) for one, other in zip(masked.epoch(3, 2), [*masked.epoch(3)][2:], strict=True)
               for a, b in zip(one, other, strict=True))  # fmt: skip
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 1000, (400, 100))
    read, asked = MaskedBlocks(blocks, share=0.15, mask=3, kept=[3], words=np.arange(1000, 2000)).hide(ids, rng)
    chosen = asked >= 0
    assert chosen.mean() == pytest.approx(0.15, abs=0.01)
    assert (read[chosen] == 3).mean() == pytest.approx(0.8, abs=0.02)
    assert (read[chosen] >= 1000).mean() == pytest.approx(0.1, abs=0.02)


def test_a_masked_model_fills_in_from_both_sides() -> None:
    """Of a pair of words that always stand together it tells either by the other; a drawn one does not."""
    pairs = [("red", "sea"), ("white", "sand"), ("old", "moons"), ("dark", "wolves")]
    texts = [f"{one} {other}" for one, other in pairs]
    longer = MASKED.model_copy(
        update={"steps": 300, "block": 8, "pretraining": SMALL.pretraining.model_copy(update={"learning_rate": 1e-2})}
    )
    lm = Nano(longer).prepare(texts, Run(), optimise)
    assert (lm.kind, lm.pretrained) == ("encoder", "no")
    ids, mask = lm.padded(ended(lm.tokenizer, texts))
    right = 0
    for place in (0, 1):
        read = ids.clone()
        read[:, place] = lm.tokenizer.mask
        with torch.no_grad():
            right += int((lm.logits(lm.states(lm.embed(read), mask)).argmax(-1)[:, place] == ids[:, place]).sum())
    assert lm.read(texts).lengths.tolist() == [2] * len(texts)
    assert right >= 6, "of eight, where chance gives two"
    assert Nano(MASKED).prepare(TEXTS, Run(), optimise).version != Nano(SMALL).prepare(TEXTS, Run(), optimise).version
