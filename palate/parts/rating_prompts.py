"""Prompts about ratings as a language model reads them: rows of pieces → tokens → the state that the answer follows.

Shapes: b prompts, P pieces of a prompt, S tokens, D width, L ratings that can be said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.core.errors import ConfigError
from palate.core.protocols import LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.core.ratings import Stars
from palate.data.rating_prompts import FIXED, Pieces, spelled
from palate.parts.item_tower import attend_within
from palate.parts.packing import Packing

TOKENS_AT_ONCE = 16_384
"""Of one batch of prompts that are answered, padding included."""


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """The tokens of every piece; ``opening`` ``[o]`` stands before a prompt, ``closing`` ``[0 or 1]`` after it."""

    pieces: Ragged
    opening: IntArray
    closing: IntArray

    @classmethod
    def of(cls, lm: LanguageModel, pieces: Pieces, text_tokens: int) -> PromptTokens:
        """Read once; of an item's text the first ``text_tokens``."""
        written, fixed = pieces.written, len(FIXED) + len(pieces.levels)
        some = [lm.read(written[:fixed]), lm.read(written[fixed:], text_tokens)]
        tokens = Ragged.from_lengths(
            np.concatenate([part.flat().astype(np.int64) for part in some]),
            np.concatenate([part.lengths for part in some]),
        )
        return cls(tokens, lm.opening, closing(lm))

    def prompts(self, rows: IntArray, after: int | None = None, room: int | None = None) -> Ragged:
        """The tokens of each row of pieces ``[b, P]`` (-1 = none), then the token ``after``.

        Of a prompt that is longer than ``room`` tokens the first events of its histories are left out, the oldest.
        Raises ``ConfigError`` where the rest is too long as well.
        """
        if room is not None:
            around = len(self.opening) + len(self.closing) + (after is not None)
            rows = self.within(rows, room - around)
        there = rows >= 0
        chosen = self.pieces[rows[there]]
        of_piece = np.zeros(rows.shape, dtype=np.int64)
        of_piece[there] = chosen.lengths
        whole = Ragged.from_lengths(chosen.flat(), of_piece.sum(1))
        return framed(whole, self.opening, np.concatenate([[] if after is None else [after], self.closing]))

    def within(self, rows: IntArray, room: int) -> IntArray:
        """``[b, P]`` rows of pieces that hold at most ``room`` tokens: without as many events as needed, from the left.
        An event is three pieces: the line's beginning, the item, the rating."""
        sizes = np.where(rows >= 0, self.pieces.lengths[rows], 0)
        over = sizes.sum(1) - room
        if not (over > 0).any():
            return rows
        begins = rows == FIXED.index("line")
        of_event = np.where(begins, sizes + np.roll(sizes, -1, 1) + np.roll(sizes, -2, 1), 0)
        gone = begins & (np.cumsum(of_event, 1) - of_event < over[:, None])
        left = over - np.where(gone, of_event, 0).sum(1)
        if (left > 0).any():
            worst = int(room + left.max())
            raise ConfigError(
                f"a prompt of {worst} tokens without any history does not fit into the {room} that this language model "
                "can read: lower text_tokens, shots or answer_tokens"
            )
        return np.where(gone | np.roll(gone, 1, 1) | np.roll(gone, 2, 1), -1, rows)


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
        order = np.argsort(-prompts.lengths, kind="stable")
        packing = Packing(torch.from_numpy(prompts.lengths[order].astype(np.int64)), lm.model.device)
        ids = torch.from_numpy(prompts[order].flat().astype(np.int64)).to(lm.model.device)
        states = lm.packed_states(lm.embed(ids), packing, attend_within(packing))
        return states[packing.last][torch.from_numpy(np.argsort(order)).to(states.device)]
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


@dataclass(frozen=True, eq=False)
class RatingWords:
    """Ratings ``levels`` ``[L]`` of one token each, ``ids`` ``[L]``, and the token that must stand before, or None."""

    levels: Stars
    ids: IntArray
    before: int | None


def rating_words(lm: LanguageModel, levels: Stars, *, add: bool) -> RatingWords:
    """How a model says each rating in one token: with the space before it, or bare behind a token of the space.

    With ``add`` every level gets a word, a new token where the model has none; else those that have one are taken.
    Raises ``ConfigError`` where fewer than two can be said.
    """
    names = [spelled(float(level)) for level in levels]
    single, ids, before = in_one_token(lm, names)
    if len(single) < len(names) and add:
        return RatingWords(levels, lm.add_tokens([f"<{name}>" for name in names]), None)
    if len(single) < 2:
        raise ConfigError("this language model has no single token for any two of the ratings; let it write text")
    return RatingWords(levels[single], ids, before)


def in_one_token(lm: LanguageModel, names: Sequence[str]) -> tuple[list[int], IntArray, int | None]:
    """Which of the names a model says in one token, the tokens, and the token that must stand before them, or None:
    with the space before it, or bare behind a token of the space, whichever says more of them."""
    found: list[tuple[list[int], IntArray, int | None]] = []
    space = lm.read([" "])
    bare = int(space.values[0]) if space.lengths[0] == 1 else None
    for lead, before in ((" ", None), ("", bare)):
        if lead or before is not None:
            said = lm.read([f"{lead}{name}" for name in names])
            single = np.flatnonzero(said.lengths == 1)
            found.append((single.tolist(), said.values[said.starts[single]].astype(np.int64), before))
    return max(found, key=lambda one: len(one[0]))
