"""Training's costly half: the items of a batch through a text model, forward and back, against the naive way.

The naive way reads every occurrence of an item, padded to the longest text of the batch, by the transformers library's
own padded call. Ours reads each distinct item once, packed. A second line gives both the distinct items, so that it
shows packing alone. Equal results first: the same vectors to 1e-5, and the same gradient of every weight to 1e-5 of the
largest number in it. Texts are 5 to 257 tokens long, 40 on average; popularity is skewed; a batch is 32 windows of 11
events and as many uniform negatives, out of 1,000 items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Result, compare, must
from palate.backbones.text_model import TextModel, TuneConfig, build_network
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.parts.item_tower import ItemTokens, ItemTower

ITEMS, WINDOWS, EVENTS, VOCABULARY = 1_000, 32, 11, 2_048
TOLERANCE = 1e-5


class Drawn(TextModel[TuneConfig]):
    """A Llama-shaped model with weights as drawn; its tokens are given."""

    config_type = TuneConfig
    pretrained = "no"
    hidden, layers, forward_width = 128, 2, 344

    def prepare(self, texts: object, run: Run, optimise: object = None, *, fitted_on: str = "") -> Drawn:
        torch.manual_seed(0)
        self._model = build_network(
            {
                "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": self.hidden,
                "intermediate_size": self.forward_width, "num_hidden_layers": self.layers, "num_attention_heads": 4,
                "num_key_value_heads": 4, "max_position_embeddings": 512, "tie_word_embeddings": True,
            }
        )  # fmt: skip
        return self


def run(quick: bool = False) -> list[Result]:
    items, windows = (60, 4) if quick else (ITEMS, WINDOWS)
    rng = np.random.default_rng(0)
    tokens = texts(items, rng)
    share = 1 / np.arange(1, items + 1)
    met = rng.choice(items, windows * EVENTS, p=share / share.sum())
    occurrences = torch.from_numpy(np.concatenate([met, rng.integers(0, items, windows * EVENTS)]))
    distinct, where = torch.unique(occurrences, return_inverse=True)
    model = Drawn().prepare([], Run())
    tower = ItemTower(model.model, model.width, "mean", chunk_tokens=10**9)
    weight = torch.randn(len(occurrences), model.width)

    ours = learner(tower, weight, lambda: tower(model, tokens, distinct)[where])
    naive = learner(tower, weight, lambda: padded(model, tokens, occurrences))
    once = learner(tower, weight, lambda: padded(model, tokens, distinct)[where])
    agree(ours(), naive())
    repeats = 1 if quick else 3
    said = f"every one of {len(occurrences):,} occurrences, padded"
    alone = f"the {len(distinct):,} distinct items, padded"
    return [
        compare("item-encoding", ours, {said: naive}, repeats=repeats),
        compare("item-encoding, packing alone", ours, {alone: once}, repeats=repeats),
    ]


def texts(items: int, rng: np.random.Generator) -> ItemTokens:
    """Token ids of so many items, of skewed lengths."""
    lengths = np.clip(rng.lognormal(3.4, 0.75, items), 5, 257).astype(np.int64)
    return ItemTokens.of(Ragged.from_lengths(rng.integers(0, VOCABULARY, lengths.sum()), lengths))


def learner(tower: ItemTower, weight: Tensor, vectors: Callable[[], Tensor]) -> Callable[[], Any]:
    """One step without the optimiser: vectors, a loss that reads each number of them, all gradients."""

    def learn() -> tuple[Tensor, dict[str, Tensor]]:
        tower.zero_grad(set_to_none=True)
        found = vectors()
        (found * weight).sum().backward()
        return found.detach(), {name: p.grad for name, p in tower.named_parameters() if p.grad is not None}

    return learn


def padded(model: Drawn, tokens: ItemTokens, rows: Tensor) -> Tensor:
    """``[n, D]`` as the library's documentation pads: all to the longest, with a mask."""
    lengths = tokens.lengths(rows)
    places = torch.arange(int(lengths.max()))
    mask = places < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long)
    ids[mask] = tokens.packed(rows)[0]
    states = model.model.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False).last_hidden_state
    return (states * mask[..., None]).sum(1) / lengths[:, None]


def agree(ours: tuple[Tensor, dict[str, Tensor]], naive: tuple[Tensor, dict[str, Tensor]]) -> None:
    must(torch.allclose(ours[0], naive[0], atol=TOLERANCE, rtol=0), "the vectors of packed and padded texts differ")
    must(ours[1].keys() == naive[1].keys(), "other weights receive gradients")
    for name, gradient in ours[1].items():
        reach = TOLERANCE * float(naive[1][name].abs().max())
        must(torch.allclose(gradient, naive[1][name], atol=reach, rtol=0), f"the gradients of {name} differ")
