"""The hub door on small checkpoints saved to disk: the same numbers as the library, growth, tuning, saving."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from checkpoints import causal, seq2seq

from palate.backbones import text_model
from palate.backbones.hub import Hub, HubConfig
from palate.backbones.text_model import padded
from palate.core import store
from palate.core.config import Part
from palate.core.errors import ConfigError, StoreError, TrainingError
from palate.core.protocols import LanguageModel
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.parts.branching import Branching
from palate.systems import component
from palate.training.loop import optimise, seeded

TEXTS = ["a red sea", "books about the old wolves who read them at night", "moons"]
NEW = ["<a_1>", "<b_2>", "<c_3>"]
FAMILIES = ["llama", "llama tied", "gpt2", "gpt2 tied", "qwen2", "t5", "t5 untied"]


def checkpoint(folder: Path, family: str) -> Any:
    name, _, tie = family.partition(" ")
    return seq2seq(folder, tie != "untied") if name == "t5" else causal(folder, name, tie == "tied")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {family: tmp_path_factory.mktemp("model") for family in FAMILIES}
    for family, folder in found.items():
        checkpoint(folder, family)
    return found


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("family", [family for family in FAMILIES if "t5" not in family])
def test_a_branch_reads_as_if_it_stood_alone(
    folders: dict[str, Path], family: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With our attention, and with a mask for models that take none of ours."""
    lm = door(folders[family])
    assert text_model.can_pack(lm.model.base_model)
    monkeypatch.setattr(text_model, "can_pack", lambda reader: ours)
    tokens = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    branching = Branching(4, torch.tensor([[2, 4]]))
    places = torch.tensor([[0, 1, 2, 3, 2, 3, 4, 5]])
    with torch.no_grad():
        states = lm.branched_states(lm.embed(tokens), places, branching)
        for here in ([0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 2, 3, 6, 7]):
            alone = lm.embed(tokens[:, here])
            expected = lm.states(alone, torch.ones(alone.shape[:2], dtype=torch.bool))
            torch.testing.assert_close(states[:, here], expected, atol=1e-5, rtol=1e-4)


def test_what_is_computed_twice_has_the_gradients_of_what_is_kept(folders: dict[str, Path]) -> None:
    """With our attention, too: by the time of the gradients the model's attention is its own again."""
    found = []
    for recompute in (False, True):
        lm = door(folders["llama"], recompute=recompute)
        lm.model.train()
        tokens, places = torch.tensor([[5, 6, 7, 8, 9, 10]]), torch.tensor([[0, 1, 2, 3, 1, 2]])
        states = lm.branched_states(lm.embed(tokens), places, Branching(2, torch.tensor([[2, 1]])))
        states.square().sum().backward()
        found.append([p.grad for p in lm.model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(kept, again)


def door(folder: Path, **settings: Any) -> Hub:
    with seeded(Run(seed=1)):
        return Hub(HubConfig(model=str(folder), **settings)).prepare(TEXTS, Run())


def library(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if "t5" in (folder / "config.json").read_text() else AutoModelForCausalLM
    return kind.from_pretrained(folder).eval()


def whole(lm: Hub, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits as the library computes them, of the door's network or of its own."""
    more = {"decoder_input_ids": ids} if lm.kind == "seq2seq" else {}
    return model(input_ids=ids, attention_mask=mask.long(), **more).logits


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_it_is_the_checkpoint(folders: dict[str, Path], family: str) -> None:
    lm = door(folders[family])
    assert isinstance(lm, LanguageModel)
    assert (lm.kind, lm.pretrained, lm.width) == ("seq2seq" if "t5" in family else "causal", "LM", 32)
    ids, mask = lm.padded(lm.read(TEXTS))
    expected = library(folders[family])
    torch.testing.assert_close(whole(lm, lm.model, ids, mask), whole(lm, expected, ids, mask))
    if lm.kind == "causal":
        found = lm.logits(lm.states(lm.embed(ids), mask))
        torch.testing.assert_close(found[mask], whole(lm, expected, ids, mask)[mask])
        left, left_mask = lm.padded(lm.read(TEXTS), "left")
        shifted = lm.logits(lm.states(lm.embed(left), left_mask))
        torch.testing.assert_close(shifted[left_mask], found[mask], atol=1e-5, rtol=1e-4)
    else:
        states = expected.get_encoder()(ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(lm.states(lm.embed(ids), mask)[mask], states[mask])
        read = expected.decoder(ids, encoder_hidden_states=states, encoder_attention_mask=mask.long())
        torch.testing.assert_close(lm.logits(read.last_hidden_state), whole(lm, expected, ids, mask))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_added_rows_are_the_resized_table(folders: dict[str, Path], family: str) -> None:
    lm = door(folders[family])
    size = lm.tokenizer.size
    assert lm.add_tokens(NEW[:2]).tolist() == [size, size + 1]
    assert lm.add_tokens(NEW).tolist() == [size, size + 1, size + 2]  # in two steps
    expected = library(folders[family])
    expected.resize_token_embeddings(size + 3, mean_resizing=False)
    expected.get_input_embeddings().weight[size:] = lm.model.get_input_embeddings().rows
    expected.get_output_embeddings().weight[size:] = lm.model.get_output_embeddings().rows
    tokens = lm.read(["a red <a_1><b_2> sea", "<c_3>"])
    assert tokens.row(0).tolist()[2:4] == [size, size + 1]
    ids, mask = lm.padded(tokens)
    logits = whole(lm, lm.model, ids, mask)
    assert logits.shape[-1] == size + 3 == lm.model.config.vocab_size
    torch.testing.assert_close(logits, whole(lm, expected, ids, mask))
    if lm.kind == "causal":
        some = torch.tensor([size + 2, 0, 7, size])
        states = lm.states(lm.embed(ids), mask)
        torch.testing.assert_close(lm.logits(states, some), lm.logits(states)[..., some])
    tied = lm.model.get_input_embeddings().rows is lm.model.get_output_embeddings().rows
    first = library(folders[family])
    assert tied == (first.get_input_embeddings().weight is first.get_output_embeddings().weight)


def test_the_rest_of_the_vocabulary_keeps_its_logits_and_new_rows_look_like_words(folders: dict[str, Path]) -> None:
    lm, before = door(folders["llama"]), door(folders["llama"])
    size = before.tokenizer.size
    lm.add_tokens([f"<x_{number}>" for number in range(400)])
    ids, mask = lm.padded(lm.read(TEXTS))
    with torch.no_grad():
        old = before.logits(before.states(before.embed(ids), mask))
        torch.testing.assert_close(lm.logits(lm.states(lm.embed(ids), mask))[..., :size], old)
    rows, table = lm.model.get_input_embeddings().rows, lm.model.get_input_embeddings().table.weight
    torch.testing.assert_close(rows.mean(0), table.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(rows.std(0), table.std(0), atol=0, rtol=0.15)
    assert len(torch.unique(rows, dim=0)) == 400


class Prompts:
    """One batch, again and again."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[torch.Tensor]:
        yield from [self.ids][skip:]


def tune(lm: Hub, steps: int = 8) -> list[float]:
    """Teach it to say the new words; the losses."""
    ids, mask = lm.padded(lm.read(["a red <a_1><b_2>", "old moons <c_3><a_1>"]))
    losses: list[float] = []

    def loss(batch: torch.Tensor) -> torch.Tensor:
        logits = whole(lm, lm.model, batch, mask)[:, :-1]
        value = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        losses.append(float(value.detach()))
        return value

    with seeded(Run(seed=3)):
        optimise(lm.model, Prompts(ids), loss, Run(), TrainingConfig(epochs=steps, learning_rate=0.02))
    return losses


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["lora", "new-rows", "full"])
def test_tuning_moves_what_it_may_and_nothing_else(folders: dict[str, Path], family: str, how: str) -> None:
    lm = door(folders[family], tune=how)
    with seeded(Run(seed=2)):
        lm.add_tokens(NEW)
    names = [name for name, parameter in lm.model.named_parameters() if parameter.requires_grad]
    if how != "full":
        assert all(".lora_" in name or name.endswith(".rows") for name in names)
        assert any(".lora_" in name for name in names) == (how == "lora")
    assert any(name.endswith(".rows") for name in names)
    before = {name: parameter.detach().clone() for name, parameter in lm.model.named_parameters()}
    losses = tune(lm)
    assert losses[-1] < losses[0]
    moved = {n for n, p in lm.model.named_parameters() if not torch.equal(p.detach(), before[n])}
    assert moved <= set(names)
    if how == "full":
        assert len(moved) > 0.9 * len(before)
    else:
        assert moved == set(names)


def test_adapters_add_nothing_before_they_learn_and_spare_the_head(folders: dict[str, Path]) -> None:
    plain, lm = door(folders["llama"]), door(folders["llama"], tune="lora", lora_rank=3)
    ids, mask = lm.padded(lm.read(TEXTS))
    with torch.no_grad():
        torch.testing.assert_close(whole(lm, lm.model, ids, mask), whole(plain, plain.model, ids, mask))
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, _ in lm.model.named_parameters() if ".lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(3 in p.shape for n, p in lm.model.named_parameters() if ".lora_" in n)
    assert not lm.model.training


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_answer_as_they_did_and_need_no_base(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What learnt is in the weights of the checkpoint's own layers, which are saved whole; not even the library of
    adapters is needed to read them."""
    checkpoint(tmp_path / "base", family)
    lm, base = door(tmp_path / "base", tune="lora"), door(tmp_path / "base")
    for one in (lm, base):
        with seeded(Run(seed=2)):
            one.add_tokens(NEW)
    tune(lm)
    lm.model.eval()
    ids, mask = lm.padded(lm.read(["a red <a_1><b_2>", "old <c_3>"]))
    with torch.no_grad():
        before, untaught = whole(lm, lm.model, ids, mask), whole(base, base.model, ids, mask)
        assert lm.merge() is lm
        merged = whole(lm, lm.model, ids, mask)
    assert (before - untaught).abs().max() > 0.1, "there is something to merge"
    torch.testing.assert_close(merged, before, atol=1e-4, rtol=1e-4)
    assert set(lm.model.state_dict()) == set(base.model.state_dict()), "nothing of an adapter is left"
    lm.save(tmp_path / "merged")
    shutil.rmtree(tmp_path / "base")
    monkeypatch.setitem(sys.modules, "peft", None)
    again = store.load(tmp_path / "merged")
    with torch.no_grad():
        assert torch.equal(whole(again, again.model, ids, mask), merged)
    assert all(parameter.requires_grad for parameter in again.model.parameters())
    with pytest.raises(ConfigError, match="there are no adapters to merge: this model is tuned with tune=full"):
        again.merge()


def test_adapters_merge_into_half_precision_up_to_its_rounding(folders: dict[str, Path]) -> None:
    lm = door(folders["llama"], tune="lora", precision="bf16")
    with seeded(Run(seed=2)):
        lm.add_tokens(NEW)
    tune(lm)
    lm.model.eval()
    ids, mask = lm.padded(lm.read(["a red <a_1><b_2>", "old <c_3>"]))
    with torch.no_grad():
        before = lm.states(lm.embed(ids), mask)[mask].float()
        after = lm.merge().states(lm.embed(ids), mask)[mask].float()
    assert {p.dtype for n, p in lm.model.named_parameters() if not n.endswith("rows")} == {torch.bfloat16}
    assert torch.cosine_similarity(before, after, dim=-1).min() > 0.999


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"tune": "lora"}, {"tune": "new-rows"}, {"tune": "lora", "keep_base": True},
     {"tune": "new-rows", "precision": "bf16"}, {"tune": "lora", "precision": "bf16"}],
    ids=str,
)  # fmt: skip
def test_saved_is_loaded(folders: dict[str, Path], tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    lm = door(folders[family], **settings)
    with seeded(Run(seed=2)):
        lm.add_tokens(NEW)
    tune(lm, 2)
    lm.model.eval()
    lm.save(tmp_path / "saved")
    state = torch.get_rng_state()
    loaded = store.load(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(loaded, Hub)
    assert (loaded.version, loaded.tokenizer.size) == (lm.version, lm.tokenizer.size)
    ids, mask = loaded.padded(loaded.read(["a red <a_1><b_2>", "old <c_3>"]))
    with torch.no_grad():
        assert torch.equal(whole(loaded, loaded.model, ids, mask), whole(lm, lm.model, ids, mask))
    assert {n for n, p in loaded.model.named_parameters() if p.requires_grad} == {
        n for n, p in lm.model.named_parameters() if p.requires_grad
    }
    kept = set(store.open_folder(tmp_path / "saved").arrays())
    frozen = settings.get("tune", "full") != "full"
    assert any(name.endswith("rows") for name in kept)
    assert (len(kept) < len(list(lm.model.parameters()))) == (frozen and "keep_base" not in settings)
    assert loaded.add_tokens(["<d_4>"]).tolist() == [lm.tokenizer.size]


def test_a_whole_model_needs_nothing_else_and_a_tuned_part_its_base(tmp_path: Path) -> None:
    causal(tmp_path / "model")
    door(tmp_path / "model").save(tmp_path / "whole")
    door(tmp_path / "model", tune="lora").save(tmp_path / "part")
    door(tmp_path / "model", tune="lora", keep_base=True).save(tmp_path / "kept")
    causal(tmp_path / "other", tied=True)
    shutil.rmtree(tmp_path / "model")
    for name in ("whole", "kept"):
        assert store.load(tmp_path / name).spell(Ragged.of([[6, 7]])) == ["red sea"]
    with pytest.raises(ConfigError, match="there is no folder"):
        store.load(tmp_path / "part")
    shutil.move(tmp_path / "other", tmp_path / "model")
    with pytest.raises(StoreError, match="another model than the one whose tuned part was saved"):
        store.load(tmp_path / "part")


def test_weights_that_do_not_fit_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    lm = door(folders["llama"])
    lm.save(tmp_path / "saved")
    stored = store.open_folder(tmp_path / "saved")
    arrays = stored.arrays()
    arrays.pop("lm_head.weight")
    store.save(tmp_path / "less", lm, config=lm.config, arrays=arrays, facts=stored.facts)
    with pytest.raises(StoreError, match=r"the weights 'lm_head\.weight' do not fit"):
        store.load(tmp_path / "less")


def test_preparing_again_forgets(folders: dict[str, Path]) -> None:
    lm, fresh = door(folders["llama"]), door(folders["llama"])
    lm.add_tokens(NEW)
    tune(lm)
    lm.prepare(TEXTS, Run())
    assert lm.tokenizer.size == fresh.tokenizer.size
    for (name, one), (_, other) in zip(lm.model.named_parameters(), fresh.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_table_with_spare_rows_gives_new_words_new_rows(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = causal(tmp_path)
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 5, mean_resizing=False)
    model.save_pretrained(tmp_path)
    lm = door(tmp_path, tune="new-rows")
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == size + 5
    assert lm.add_tokens(NEW).tolist() == [size + 5, size + 6, size + 7]
    assert lm.model.get_input_embeddings().rows.shape == (3, 32)


def test_generation_knows_added_words(folders: dict[str, Path]) -> None:
    lm = door(folders["llama"])
    lm.add_tokens(NEW)
    ids, mask = lm.padded(lm.read(TEXTS), "left")
    said = lm.model.generate(ids, attention_mask=mask.long(), max_new_tokens=4, num_beams=2, do_sample=False)
    assert said.shape[1] <= ids.shape[1] + 4
    assert int(said.max()) < lm.tokenizer.size


def test_activations_may_be_computed_again(folders: dict[str, Path]) -> None:
    one, other = door(folders["llama"], tune="lora"), door(folders["llama"], tune="lora", recompute=True)
    for lm in (one, other):
        with seeded(Run(seed=2)):
            lm.add_tokens(NEW)
    np.testing.assert_allclose(tune(other), tune(one), rtol=1e-4)


def test_the_tokenizer_is_the_one_in_the_folder_whatever_the_kind_of_model(folders: dict[str, Path]) -> None:
    rows = [door(folders[family]).read(TEXTS) for family in ("llama", "qwen2", "t5")]
    for other in rows[1:]:
        np.testing.assert_array_equal(other.flat(), rows[0].flat())


def test_padding_by_hand() -> None:
    rows = Ragged.of([[5, 6], [], [7, 8, 9]])
    ids, mask = padded(rows, 1, "right")
    assert ids.tolist() == [[5, 6, 1], [1, 1, 1], [7, 8, 9]]
    assert mask.sum(1).tolist() == [2, 0, 3]
    ids, mask = padded(rows, 1, "left")
    assert ids.tolist() == [[1, 5, 6], [1, 1, 1], [7, 8, 9]]
    assert mask.tolist() == [[False, True, True], [False] * 3, [True] * 3]
    assert padded(Ragged.of([]), 0, "left")[0].shape == (0, 0)


def test_what_is_no_language_model_is_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    from checkpoints import bert

    with pytest.raises(TrainingError, match="Hub is not ready yet: call prepare or load first"):
        Hub(HubConfig(model=str(folders["llama"]))).read(["a"])
    bert(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"lacks the weights|cannot be read as a language model"):
        door(tmp_path / "bert")
    assert isinstance(component("backbone", Part(name="hub", settings={"model": "x", "tune": "lora"})), Hub)
