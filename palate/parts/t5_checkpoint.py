"""A published T5 as ours: sizes from its ``config.json``, weights under the names of the transformers library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from palate.core.errors import TrainingError
from palate.parts.t5 import T5, T5Config

OUTSIDE = {
    "shared": "tokens", "lm_head": "out", "encoder.final_layer_norm": "encoder_norm",
    "decoder.final_layer_norm": "decoder_norm",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "encoder_distances",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "decoder_distances",
}  # fmt: skip
INSIDE = {
    "SelfAttention.q": "attention.query", "SelfAttention.k": "attention.key", "SelfAttention.v": "attention.value",
    "SelfAttention.o": "attention.out", "EncDecAttention.q": "cross.query", "EncDecAttention.k": "cross.key",
    "EncDecAttention.v": "cross.value", "EncDecAttention.o": "cross.out", "DenseReluDense.wi": "forward_.first",
    "DenseReluDense.wi_0": "forward_.first", "DenseReluDense.wi_1": "forward_.gate",
    "DenseReluDense.wo": "forward_.second",
}  # fmt: skip
NORMS = {"encoder": ("norm", "forward_.norm"), "decoder": ("norm", "cross_norm", "forward_.norm")}
"""How the transformers library names the weights of a T5, and what they are here."""
UNUSED = ("embed_tokens", "EncDecAttention.relative_attention_bias")
"""Parts of names of weights that published checkpoints hold and no T5 reads: copies of the token table, and
distances between decoder and encoder, which the transformers library leaves aside as well."""


def described(settings: Mapping[str, Any]) -> T5Config:
    """The sizes in the ``config.json`` of a T5 of the transformers library. Raises ``TrainingError`` where they are of
    another kind of network."""
    kind, activation = settings.get("model_type"), settings.get("feed_forward_proj", "relu")
    layers, tied = settings.get("num_layers"), settings.get("tie_word_embeddings", True)
    even = settings.get("num_decoder_layers", layers) == layers and settings.get("scale_decoder_outputs", tied) == tied
    if kind != "t5" or activation not in ("relu", "gated-gelu") or not even:
        raise TrainingError(
            f"this checkpoint is no T5 that can be read here: a '{kind}' with '{activation}' layers; it must have as "
            "many layers in its decoder as in its encoder, and divide its output exactly where tables are tied"
        )
    return T5Config(
        width=settings["d_model"], layers=settings["num_layers"], heads=settings["num_heads"],
        head_width=settings["d_kv"], forward_width=settings["d_ff"], gated=activation == "gated-gelu",
        dropout=settings.get("dropout_rate", 0.1), tied=tied,
        buckets=settings.get("relative_attention_num_buckets", 32),
        farthest=settings.get("relative_attention_max_distance", 128),
    )  # fmt: skip


def read_hub(model: T5, weights: Mapping[str, Tensor]) -> T5:
    """Fill ``model`` with weights named as the transformers library names T5's; further rows of our token table keep
    their drawn weights. Raises ``TrainingError`` naming the first weight that does not fit."""
    own, fitting = model.state_dict(), {}
    ours = {_ours(name): tensor for name, tensor in weights.items() if not any(part in name for part in UNUSED)}
    if model.out is None:
        ours.pop("out.weight", None)
    for name in sorted(set(own) | set(ours)):
        fits = name in own and name in ours and own[name].shape[1:] == ours[name].shape[1:]
        if not fits or (own[name].shape != ours[name].shape and name not in ("tokens.weight", "out.weight")):
            raise TrainingError(f"this checkpoint does not fit a T5 of these sizes: '{name}' differs")
        rows = min(len(own[name]), len(ours[name]))  # a checkpoint may hold more rows than its tokenizer has tokens
        fitting[name] = torch.cat([ours[name][:rows], own[name][rows:]])
    model.load_state_dict(fitting)
    return model


def _ours(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    found = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.layer\.([012])\.(.+)", stem)
    if found is None or int(found[3]) >= len(NORMS[found[1]]):
        return name
    side, layer, place, part = found.groups()
    inner = NORMS[side][int(place)] if part == "layer_norm" else INSIDE.get(part, stem)
    return f"{side}.{layer}.{inner}.weight"
