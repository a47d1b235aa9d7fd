"""Packed reading gives the states of one text at a time, for models of the hub and for decoders over vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palate.backbones import packed
from palate.backbones.encoder_model import HubEncoderModel, HubEncoderModelConfig
from palate.backbones.hub import Hub, HubConfig
from palate.backbones.text_model import TextModel
from palate.backbones.vector_model import HubDecoder, HubDecoderConfig, Llama, LlamaConfig
from palate.core import store
from palate.core.errors import ConfigError
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.parts.item_tower import ItemTokens, ItemTower, attend_within
from palate.parts.packing import Packing
from tests.backbones.checkpoints import bert, causal, seq2seq

LONG = "old books about ships , moons . wolves who read them at night 0 1 2 3 4 5 6 7 8 9"
TEXTS = ["red sea", "a", LONG, "wolves of the sea"]
KINDS = ("llama", "qwen2", "gpt2", "t5", "bert")
"""With shared heads of keys, with biases, with learnt places, with relative places (padded groups), an encoder."""


def model_of(kind: str, folder: Path, places: int = 64) -> TextModel[Any]:
    if kind == "bert":
        bert(folder, places)
        return HubEncoderModel(HubEncoderModelConfig(model=str(folder))).prepare([], Run())
    seq2seq(folder) if kind == "t5" else causal(folder, kind, places=places)
    return Hub(HubConfig(model=str(folder))).prepare([], Run())


def tower_of(model: TextModel[Any], pooling: str, chunk_tokens: int = 10_000) -> ItemTower:
    torch.manual_seed(1)
    return ItemTower(model.model, model.width, pooling, chunk_tokens)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_is_one_by_one(kind: str, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path)
    tokens = ItemTokens.of(model.framed(TEXTS, 20))
    for pooling in ("mean", "slot"):
        tower = tower_of(model, pooling)
        with torch.no_grad():
            whole = tower(model, tokens, torch.arange(4))
            alone = torch.cat([tower(model, tokens, torch.tensor([row])) for row in range(4)])
            other_order = tower(model, tokens, torch.tensor([2, 0, 3, 1]))
        torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(other_order, whole[[2, 0, 3, 1]], atol=1e-5, rtol=0)
        assert torch.cdist(whole, whole).fill_diagonal_(1).min() > 1e-3, "four texts, four vectors"


def lively(model: TextModel[Any]) -> TextModel[Any]:
    """With weights large enough that attention looks at some tokens more than at others."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


@pytest.mark.parametrize("pooling", ["mean", "slot"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_and_the_longest_texts_share_a_pack(kind: str, pooling: str, tmp_path: Path) -> None:
    """Items of 1, 2 and 257 tokens: packed as one by one, in half precision nearly as in single."""
    model = lively(model_of(kind, tmp_path, places=512))
    rng = np.random.default_rng(0)
    lengths = [2, 257, 1, 257, 1, 40]
    tokens = ItemTokens.of(Ragged.of([rng.integers(5, model.tokenizer.size, length) for length in lengths]))
    tower, rows = tower_of(model, pooling), torch.arange(len(lengths))

    def read(asked: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return torch.cat([tower(model, tokens, some) for some in asked]).float()

    packed_, alone = read([rows]), read(list(rows[:, None]))
    torch.testing.assert_close(packed_, alone, atol=1e-5, rtol=0)
    assert torch.cdist(alone, alone).fill_diagonal_(1).min() > 1e-2, "six items, six vectors"
    model.model.to(torch.bfloat16)
    half, half_alone = read([rows]), read(list(rows[:, None]))
    assert not torch.equal(half, packed_)
    for other in (half_alone, alone):
        assert torch.cosine_similarity(half, other, dim=-1).min() > 0.999


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_packed_gradients_are_those_of_padded_groups(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fallback: the library's own attention, its own masks."""
    model = model_of(kind, tmp_path)
    tokens = ItemTokens.of(model.framed(TEXTS, 20))
    tower = tower_of(model, "slot")

    def gradients() -> tuple[Tensor, dict[str, Tensor]]:
        tower.zero_grad()
        vectors = tower(model, tokens, torch.arange(4))
        (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
        return vectors.detach(), {n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None}

    own, own_gradients = gradients()
    assert packed.can_pack(model.model.base_model)
    monkeypatch.setattr("palate.backbones.text_model.can_pack", lambda model: False)
    padded, padded_gradients = gradients()
    torch.testing.assert_close(own, padded, atol=1e-5, rtol=0)
    assert own_gradients.keys() == padded_gradients.keys()
    assert {"slot", *(n for n, _ in tower.named_parameters() if "layer" in n)} <= own_gradients.keys()
    for name, gradient in own_gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[name], atol=1e-5, rtol=0, msg=name)


def test_chunks_give_the_gradient_of_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk is read twice and no two are held at once; the slot learns too. In double precision: this loss is
    nearly constant behind a norm, so in single precision its gradient is mostly rounding."""
    model = model_of("llama", tmp_path)
    model.model.double()
    tokens = ItemTokens.of(model.framed(TEXTS, 20))
    found = {}
    for chunk_tokens in (10_000, 9):
        tower = tower_of(model, "slot", chunk_tokens).double()
        read: list[list[int]] = []
        encode = ItemTower.encode

        def counted(
            self: ItemTower, reader: Any, tokens: Any, rows: Tensor, read: Any = read, encode: Any = encode
        ) -> Tensor:
            read.append(rows.tolist())
            return encode(self, reader, tokens, rows)

        monkeypatch.setattr(ItemTower, "encode", counted)
        model.model.zero_grad()
        vectors = tower(model, tokens, torch.arange(4))
        vectors.square().sum().backward()
        monkeypatch.setattr(ItemTower, "encode", encode)
        found[chunk_tokens] = (
            vectors.detach(),
            {n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None},
        )
        assert len(read) == (1 if chunk_tokens > 9 else 2 * 3), "the first alone is too long for nine"
    (whole, gradients), (parts, in_parts) = found.values()
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_parts[name], gradient, atol=1e-5, rtol=0, msg=name)


def contrast(vectors: Tensor) -> Tensor:
    """Which item of the pool each of a few drawn states means, by cosine: every item matters to every state."""
    states = torch.randn(6, vectors.shape[1], generator=torch.Generator().manual_seed(3))
    logits = torch.nn.functional.normalize(states, dim=-1) @ torch.nn.functional.normalize(vectors, dim=-1).T
    return torch.nn.functional.cross_entropy(logits / 0.07, torch.arange(6) % len(vectors))


@pytest.mark.parametrize("pooling", ["mean", "slot"])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_pool_in_chunks_and_distinct_items_have_the_gradient_of_all_at_once_in_single_precision(
    kind: str, pooling: str, tmp_path: Path
) -> None:
    """Of a contrastive loss: a pool read in chunks, and each item read once, against one batch of every occurrence."""
    model = lively(model_of(kind, tmp_path))
    tokens = ItemTokens.of(model.framed(TEXTS, 20))
    met = torch.tensor([0, 2, 0, 1, 3, 2, 0])
    distinct, where = torch.unique(met, return_inverse=True)

    def gradients(read: Callable[[ItemTower], Tensor], chunk_tokens: int = 10_000) -> dict[str, Tensor]:
        tower = tower_of(model, pooling, chunk_tokens)
        tower.zero_grad()
        contrast(read(tower)).backward()
        return {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}

    every = gradients(lambda tower: torch.cat([tower(model, tokens, row[None]) for row in met]))
    once = gradients(lambda tower: tower(model, tokens, distinct)[where])
    chunked = gradients(lambda tower: tower(model, tokens, distinct)[where], chunk_tokens=9)
    assert {p.dtype for p in model.model.parameters()} == {torch.float32}
    assert max(float(gradient.abs().max()) for gradient in every.values()) > 0.1, "and is no rounding"
    for found in (once, chunked):
        assert found.keys() == every.keys()
        for name, gradient in every.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=0, msg=name)


def test_a_frame_stands_around_what_is_left_of_a_text(tmp_path: Path) -> None:
    model = model_of("bert", tmp_path)
    text = "red sea white sand old books"
    whole = model.framed([text], 20).row(0)
    np_ends = whole[[0, -1]].tolist()
    assert np_ends == [2, 3]
    assert model.framed([text], 6).row(0).tolist() == [2, *whole[1:5].tolist(), 3]
    assert model.framed([text], 6, "middle").row(0).tolist() == [2, *whole[[1, 2, 5, 6]].tolist(), 3]
    assert model.framed([""], 6).row(0).tolist() == [2, 3]
    with pytest.raises(ConfigError, match="2 tokens leave no room for text"):
        model.framed([text], 2)


def test_encoders_learn_are_saved_and_can_begin_with_nothing(tmp_path: Path) -> None:
    bert(tmp_path / "hub")
    known = HubEncoderModel(HubEncoderModelConfig(model=str(tmp_path / "hub"))).prepare([], Run())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        blank = HubEncoderModel(HubEncoderModelConfig(model=str(tmp_path / "hub"), scratch=True)).prepare([], Run())
    assert (known.pretrained, blank.pretrained) == ("encoder", "no")
    first = next(iter(known.model.encoder.layer[0].parameters()))
    assert not torch.equal(first, next(iter(blank.model.encoder.layer[0].parameters())))
    assert known.version != blank.version
    with torch.no_grad():
        first.add_(1)
    known.save(tmp_path / "saved")
    again = store.load(tmp_path / "saved")
    for name, tensor in known.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.framed(TEXTS, 9).flat().tolist() == known.framed(TEXTS, 9).flat().tolist()
    with pytest.raises(ConfigError, match="only reads texts"):
        known.logits(torch.zeros(1, 32))


@pytest.mark.parametrize("kind", ["llama", "hub"])
def test_decoders_over_vectors_look_back_only(kind: str, tmp_path: Path) -> None:
    """Later vectors change nothing before them, to the bit; each sequence is on its own; saved is loaded."""
    if kind == "hub":
        causal(tmp_path / "hub")
        decoder: Any = HubDecoder(HubDecoderConfig(model=str(tmp_path / "hub")))
    else:
        decoder = Llama(LlamaConfig(layers=2))
    decoder.prepare(32, Run())
    decoder.model.eval()
    assert decoder.model.get_input_embeddings().num_embeddings == 1, "words are not kept"
    packing = Packing(torch.tensor([5, 3]))
    vectors = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    changed = vectors.clone()
    changed[3:5] += 1
    with torch.no_grad():
        states, other = (decoder.packed_states(x, packing, attend_within(packing)) for x in (vectors, changed))
        short = Packing(torch.tensor([3]))
        alone = decoder.packed_states(vectors[5:], short, attend_within(short))
    assert torch.equal(states[:3], other[:3])
    assert not torch.allclose(states[3:5], other[3:5], atol=1e-2)
    torch.testing.assert_close(states[5:], alone, atol=1e-5, rtol=0)
    decoder.save(tmp_path / "saved")
    again = store.load(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again.packed_states(vectors, packing, attend_within(packing)), states)


def test_vectors_cannot_be_shared_by_heads_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a width of 30 cannot be shared by 4 heads"):
        Llama().prepare(30, Run())
    seq2seq(tmp_path)
    with pytest.raises(ConfigError, match="vectors are read by a decoder alone"):
        HubDecoder(HubDecoderConfig(model=str(tmp_path))).prepare(32, Run())


def test_a_llama_from_nothing_may_begin_with_the_mean_of_what_it_read() -> None:
    """Before anything is learnt its last state looks at the last vector, or also at those before."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 64, generator=rng)
    packing = Packing(torch.tensor([40]))
    near = {}
    for begin in ("drawn", "average"):
        torch.manual_seed(0)
        decoder = Llama(LlamaConfig(begin=begin, layers=1)).prepare(64, Run())  # type: ignore[arg-type]
        with torch.no_grad():
            last = decoder.packed_states(vectors, packing, attend_within(packing))[-1]
        near[begin] = [float(torch.cosine_similarity(last, other, 0)) for other in (vectors[-1], vectors[:-1].mean(0))]
    assert near["drawn"][0] > 0.9
    assert near["average"][1] > near["drawn"][1] + 0.1
