"""Published weights of two language models in one file: the layout of the HLLM repository (bytedance/HLLM).

One flat mapping: ``item_llm.…`` and ``user_llm.…`` as the library names the weights of a decoder with its head,
``item_emb_tokens`` ``[1, 1, D]`` the slot, ``logit_scale`` the log of what cosines are multiplied by. Only safetensors
are read; a published ``.bin`` becomes one by ``save_file(torch.load(path, weights_only=True), path)`` of that library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from palate.core.errors import StoreError

WORDS = ("embed_tokens.", "lm_head.")
"""Weights of a decoder that vectors do not need."""


@dataclass(frozen=True, eq=False)
class Released:
    """What one file holds; names of weights without the part that says which model's they are."""

    path: Path
    item: dict[str, Tensor]
    user: dict[str, Tensor]
    slot: Tensor | None
    log_scale: Tensor

    def fill(self, network: Any, item_model: Any, user_model: Any) -> None:
        """Into both models, and the slot and the scale of the ``network`` that joins them. Raises ``StoreError`` where
        they are of another kind."""
        slot = network.tower.slot
        if (self.slot is None) != (slot is None):
            raise StoreError(f"{self.path}: the weights and pooling={network.tower.pooling} do not go together")
        self.fill_item_model(item_model)
        self.fill_user_model(user_model)
        with torch.no_grad():
            network.scale.log.copy_(self.log_scale)
            if slot is not None:
                slot.copy_(self.slot)

    def fill_item_model(self, model: Any) -> None:
        """Into a decoder with its head. Raises ``StoreError`` where the weights are of another architecture."""
        self._fill(model, self.item, "item_llm.")

    def fill_user_model(self, model: Any) -> None:
        """Into a decoder over vectors, without words and head."""
        bare = {name.removeprefix("model."): tensor for name, tensor in self.user.items()}
        self._fill(model, {name: tensor for name, tensor in bare.items() if not name.startswith(WORDS)}, "user_llm.")

    def _fill(self, model: Any, weights: Mapping[str, Tensor], which: str) -> None:
        own = dict(model.state_dict())
        wanted = {name for name in own if which == "item_llm." or not name.startswith(WORDS)}
        if getattr(model.config, "tie_word_embeddings", False):
            wanted.discard("lm_head.weight")
        wrong = sorted(wanted - set(weights)) or sorted(set(weights) - set(own))
        wrong = wrong or [name for name in weights if own[name].shape != weights[name].shape]
        if wrong:
            raise StoreError(f"{self.path}: the weights '{which}{wrong[0]}' do not fit the model of the settings")
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].copy_(tensor)


def read_released(path: Path) -> Released:
    """Raises ``StoreError`` in one sentence where the file is not of that layout."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise StoreError(f"{path}: published weights are read as .safetensors only; convert the file first")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as failure:
        raise StoreError(f"{path} cannot be read: {failure}") from None
    parts: dict[str, dict[str, Tensor]] = {"item_llm": {}, "user_llm": {}}
    single: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        which, _, rest = name.partition(".")
        if not rest:
            single[name] = tensor
        elif which in parts and not rest.endswith("rotary_emb.inv_freq"):  # computed, not learnt
            parts[which][rest] = tensor
    missing = [name for name, part in parts.items() if not part]
    missing += [name for name in ("logit_scale",) if name not in single]
    if missing:
        raise StoreError(f"{path} holds no '{missing[0]}' and is no released HLLM")
    slot = single.get("item_emb_tokens")
    return Released(
        path, parts["item_llm"], parts["user_llm"], None if slot is None else slot.reshape(-1), single["logit_scale"]
    )
