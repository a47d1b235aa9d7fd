"""Prompts about ratings as a language model reads them: rows of pieces → tokens → the state that the answer follows.

Shapes: b prompts, P pieces of a prompt, S tokens, D width, L ratings that can be said.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """The tokens of every piece; ``start`` and ``end`` stand around a prompt, -1 = nothing does."""

    pieces: Ragged
    start: int
    end: int

    @classmethod
    def of(cls, lm: LanguageModel, pieces: Pieces, text_tokens: int) -> PromptTokens:
        """Read once; of an item's text the first ``text_tokens``."""
        written, fixed = pieces.written, len(FIXED) + len(pieces.levels)
        some = [lm.read(written[:fixed]), lm.read(written[fixed:], text_tokens)]
        tokens = Ragged.from_lengths(
            np.concatenate([part.flat().astype(np.int64) for part in some]),
            np.concatenate([part.lengths for part in some]),
        )
        start, end = lm.tokenizer.start, lm.tokenizer.end
        if lm.kind == "seq2seq":
            return cls(tokens, -1, -1 if end is None else end)
        return cls(tokens, -1 if start is None else start, -1)

    def prompts(self, rows: IntArray, after: int | None = None, room: int | None = None) -> Ragged:
        """The tokens of each row of pieces ``[b, P]`` (-1 = none), then the token ``after``.

        Of a prompt that is longer than ``room`` tokens the first events of its histories are left out, the oldest.
        Raises ``ConfigError`` where the rest is too long as well.
        """
        if room is not None:
            around = (self.start >= 0) + sum(token is not None and token >= 0 for token in (after, self.end))
            rows = self.within(rows, room - around)
        there = rows >= 0
        chosen = self.pieces[rows[there]]
        of_piece = np.zeros(rows.shape, dtype=np.int64)
        of_piece[there] = chosen.lengths
        whole = Ragged.from_lengths(chosen.flat(), of_piece.sum(1))
        if self.start >= 0:
            whole = _each(self.start, len(rows)).joined(whole)
        for token in (after, self.end):
            if token is not None and token >= 0:
                whole = whole.joined(_each(token, len(rows)))
        return whole

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


def _each(token: int, n: int) -> Ragged:
    return Ragged.from_lengths(np.full(n, token, dtype=np.int64), np.ones(n, dtype=np.int64))


def last_states(lm: LanguageModel, prompts: Ragged) -> Tensor:
    """``[b, D]`` the state after each prompt: a decoder's last one, or the first of a decoder beside an encoder."""
    if lm.kind == "causal":
        order = np.argsort(-prompts.lengths, kind="stable")
        packing = Packing(torch.from_numpy(prompts.lengths[order].astype(np.int64)), lm.model.device)
        ids = torch.from_numpy(prompts[order].flat().astype(np.int64)).to(lm.model.device)
        states = lm.packed_states(lm.embed(ids), packing, attend_within(packing))
        return states[packing.last][torch.from_numpy(np.argsort(order)).to(states.device)]
    ids, mask = lm.padded(prompts)
    states = lm.states(lm.embed(ids), mask)
    first = torch.full((len(prompts), 1), lm.model.config.decoder_start_token_id, device=ids.device)
    decoder = lm.model.get_decoder()
    return decoder(
        input_ids=first, encoder_hidden_states=states, encoder_attention_mask=mask.long(), use_cache=False
    ).last_hidden_state[:, 0]


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
    found: list[tuple[list[int], list[int], int | None]] = []
    space = lm.read([" "])
    for lead, before in ((" ", None), ("", int(space.values[0]) if space.lengths[0] == 1 else -1)):
        said = lm.read([f"{lead}{name}" for name in names])
        single = [row for row in range(len(names)) if said.lengths[row] == 1]
        if before != -1:
            found.append((single, [int(said.row(row)[0]) for row in single], before))
    whole = [one for one in found if len(one[0]) == len(names)]
    if not whole and add:
        return RatingWords(levels, lm.add_tokens([f"<{name}>" for name in names]), None)
    single, ids, before = whole[0] if whole else max(found, key=lambda one: len(one[0]))
    if len(single) < 2:
        raise ConfigError("this language model has no single token for any two of the ratings; let it write text")
    return RatingWords(levels[single], np.array(ids, dtype=np.int64), before)
