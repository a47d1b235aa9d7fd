"""Prompts of any kind as a language model reads them: what stands around them, how long they may be, the state that
the answer follows, what is written after it.

Shapes: b prompts, S tokens of a padded one, P packed tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from palate.core.errors import ConfigError
from palate.core.protocols import LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.parts.item_tower import attend_within
from palate.parts.t5 import packed

TOKENS_AT_ONCE = 16_384
"""Of one batch of prompts that are answered, padding included."""


def check_decodes(lm: LanguageModel, system: str) -> None:
    """Raise ``ConfigError`` where a model does not go on with what it has read."""
    if lm.kind != "causal":
        raise ConfigError(f"{system} needs a decoder-only language model; this one is of kind {lm.kind}")


def places_of(lm: LanguageModel) -> int | None:
    """The longest prompt that a model was made for; None where places are told by distances alone (T5)."""
    found = getattr(lm.model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def closing(lm: LanguageModel) -> IntArray:
    """What stands after all of a prompt: the end for an encoder of a seq2seq model; the place that a model which reads
    both ways fills in; nothing for one that goes on."""
    ends = {"seq2seq": lm.tokenizer.end, "encoder": lm.tokenizer.mask, "causal": None}
    end = ends[lm.kind]
    return np.array([] if end is None else [end], dtype=np.int64)


def framed(prompts: Ragged, opening: IntArray, closing: IntArray) -> Ragged:
    """Each prompt between these tokens."""
    before, after = (
        Ragged.from_lengths(np.tile(part.astype(np.int64), len(prompts)), np.full(len(prompts), len(part)))
        for part in (opening, closing)
    )
    return before.joined(prompts).joined(after)


def last_states(lm: LanguageModel, prompts: Ragged) -> Tensor:
    """``[b, D]`` the state that the answer to each prompt follows from: that of its last token, or the first of a
    decoder beside an encoder."""
    if lm.kind == "causal":
        packed_states, begun = read_packed(lm, prompts, lm.model.device)
        return packed_states[torch.from_numpy(begun + prompts.lengths - 1).to(packed_states.device)]
    if lm.kind == "encoder":
        ids, mask = lm.padded(prompts, "left")
        return lm.states(lm.embed(ids), mask)[:, -1]
    ids, mask = lm.padded(prompts)
    states = lm.states(lm.embed(ids), mask)
    first = torch.full((len(prompts), 1), lm.model.config.decoder_start_token_id, device=ids.device)
    decoder = lm.model.get_decoder()
    return decoder(
        input_ids=first, encoder_hidden_states=states, encoder_attention_mask=mask.long(), use_cache=False
    ).last_hidden_state[:, 0]


def written(lm: LanguageModel, prompts: Ragged, longest: int) -> list[str]:
    """What the model writes after each prompt, the likeliest token every time."""
    ids, mask = lm.padded(prompts, "left" if lm.kind == "causal" else "right")
    with torch.no_grad():
        out = lm.model.generate(
            ids, attention_mask=mask.long(), max_new_tokens=longest, do_sample=False, pad_token_id=lm.tokenizer.pad
        )
    begin = ids.shape[1] if lm.kind == "causal" else 1
    return lm.spell(Ragged.of(out[:, begin:].tolist()))


def by_length(prompts: Ragged, most: int = TOKENS_AT_ONCE) -> Iterator[IntArray]:
    """Rows of prompts of like length, so that little is padded; each batch at most ``most`` tokens, at least a row."""
    order = np.argsort(-prompts.lengths, kind="stable")
    start = 0
    while start < len(order):
        n = max(1, int(most // max(int(prompts.lengths[order[start]]), 1)))
        yield order[start : start + n]
        start += n


def read_packed(lm: LanguageModel, prompts: Ragged, device: torch.device | str) -> tuple[Tensor, IntArray]:
    """The states ``[P, D]`` after every token of ``prompts``, packed without padding, and where in them the first
    token of each prompt lies ``[b]``."""
    order = np.argsort(-prompts.lengths, kind="stable")
    rows = prompts[order]
    packing = packed(torch.from_numpy(rows.lengths.astype(np.int64)), device)
    ids = torch.from_numpy(rows.flat().astype(np.int64)).to(device)
    states = lm.packed_states(lm.embed(ids), packing, attend_within(packing))
    first = np.empty(len(order), dtype=np.int64)
    first[order] = rows.offsets()[:-1]
    return states, first


def in_one_token(lm: LanguageModel, names: Sequence[str]) -> tuple[list[int], IntArray, int | None]:
    """Which of the names a model says in one token, the tokens, and the token that must stand before them, or None:
    with the space before it, or bare behind a token of the space, whichever says more of them."""
    found: list[tuple[list[int], IntArray, int | None]] = []
    space = lm.read([" "], inside=True)
    bare = int(space.values[0]) if space.lengths[0] == 1 else None
    for lead, before in ((" ", None), ("", bare)):
        if lead or before is not None:
            said = lm.read([f"{lead}{name}" for name in names], inside=True)
            single = np.flatnonzero(said.lengths == 1)
            found.append((single.tolist(), said.values[said.starts[single]].astype(np.int64), before))
    return max(found, key=lambda one: len(one[0]))
