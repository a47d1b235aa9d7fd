"""Prompts put together from phrases that were tokenized once: a batch of prompts is one gather, without text.

A prompt is a template whose places are filled with a user and the items of a history. Every piece of a template, every
user and every item is a phrase: a row of a table of token ids. Shapes: M phrases, b prompts, P packed tokens of all of
them, P' packed history items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.ragged import IntArray, Ragged
from palate.data.batches import PrefixBatches, TogetherBatches

USER, HISTORY = -1, -2
"""Places of a template, beside the numbers of the phrases that it says itself."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """b prompts, packed one after another, longest first.

    tokens   ``[P]`` token ids
    words    ``[P]`` which word of its prompt each token belongs to, from 0
    lengths  ``[b]`` tokens of each prompt
    order    ``[b]`` which of the questions each prompt is
    """

    tokens: Tensor
    words: Tensor
    lengths: Tensor
    order: Tensor


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Prompts and what came next, in the order of the prompts.

    targets  ``[R]`` items
    counts   ``[b]`` how many of them belong to each prompt
    read     ``[R]`` how many tokens of its prompt each of them comes after
    """

    prompts: Prompts
    targets: Tensor
    counts: Tensor
    read: Tensor


@dataclass(frozen=True, eq=False)
class Phrases:
    """M rows of token ids, and for each token which word of its phrase it belongs to, from 0."""

    tokens: Ragged
    words: Ragged

    @classmethod
    def of(cls, tokens: Ragged, words: Ragged | None = None) -> Self:
        """``words`` may begin at any number in each phrase; without them each phrase is one word."""
        flat = np.zeros(int(tokens.lengths.sum()), dtype=np.int64) if words is None else words.flat().astype(np.int64)
        first = flat[np.minimum(tokens.offsets()[:-1], max(len(flat) - 1, 0))] if len(flat) else flat[:0]
        return cls(tokens, Ragged.from_lengths(flat - np.repeat(first, tokens.lengths), tokens.lengths))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The phrases of all parts, one after another."""

        def rows(part: Sequence[Ragged]) -> Ragged:
            values = np.concatenate([one.flat().astype(np.int64) for one in part])
            return Ragged.from_lengths(values, np.concatenate([one.lengths for one in part]))

        return cls(rows([part.tokens for part in parts]), rows([part.words for part in parts]))

    def up_to(self, n: int, read: Callable[[range], Self]) -> Self:
        """These and, behind them, what ``read`` makes of the rows below ``n`` that are missing."""
        return self if n <= len(self) else type(self).joined([self, read(range(len(self), n))])

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def n_words(self) -> IntArray:
        """``[M]``; the last token of a phrase belongs to its last word."""
        return np.where(self.words.lengths > 0, self.words.values[self.words.stops - 1] + 1, 0)

    def prompts(self, said: Ragged) -> Prompts:
        """The prompts that say these phrases, none of them empty; words are numbered on from phrase to phrase."""
        order = np.argsort(-self._lengths(said), kind="stable")
        said = said[order]
        phrases = said.flat()
        firsts = said.offsets()[:-1]
        counts = self.n_words[phrases]
        before = np.cumsum(counts) - counts
        before -= np.repeat(before[firsts], said.lengths)
        lengths = self.tokens.lengths[phrases]
        words = self.words[phrases].flat() + np.repeat(before, lengths)
        of_prompt = self._lengths(said)
        return Prompts(*(torch.from_numpy(part) for part in (self.tokens[phrases].flat(), words, of_prompt, order)))

    def read_by(self, said: Ragged, n_phrases: Ragged) -> IntArray:
        """``[R]`` how many tokens the first ``n_phrases`` (several numbers a prompt) phrases of each prompt have."""
        ends = np.concatenate([[0], np.cumsum(self.tokens.lengths[said.flat()])])
        first = said.offsets()[:-1][n_phrases.row_numbers()]
        return ends[first + n_phrases.flat()] - ends[first]

    def _lengths(self, said: Ragged) -> IntArray:
        """``[b]`` tokens of each prompt."""
        ends = np.concatenate([[0], np.cumsum(self.tokens.lengths[said.flat()])])
        offsets = said.offsets()
        return ends[offsets[1:]] - ends[offsets[:-1]]


@dataclass(frozen=True, eq=False)
class Templates:
    """Ways to ask, as phrase numbers with ``USER`` and ``HISTORY`` where something is filled in.

    slots   a row a template
    silent  how many of them, counted from the first, read no history; where there are such, one who has met nothing
            yet is asked about by them alone
    """

    slots: Ragged
    silent: int

    @classmethod
    def of(cls, texts: Sequence[str], said: Sequence[str], *, last: int | None) -> Self:
        """From texts with ``{user}`` and ``{history}``, those without a history first. ``said`` are phrases 0, 1, …,
        all of ``pieces(texts)`` among them; phrase ``last``, if any, ends each prompt."""
        number = {"{user}": USER, "{history}": HISTORY} | {piece: row for row, piece in enumerate(said)}
        end = [] if last is None else [last]
        slots = [[*(number[part] for part in _parts(text)), *end] for text in texts]
        return cls(Ragged.of(slots), sum("{history}" not in text for text in texts))

    def drawn(self, rng: np.random.Generator, empty: npt.NDArray[np.bool_]) -> IntArray:
        """``[b]`` a template for each prompt; ``empty`` ``[b]`` says whose history is."""
        among = np.where(empty & (self.silent > 0), self.silent, len(self.slots))
        return (rng.random(len(empty)) * among).astype(np.int64)

    def asked(self, empty: npt.NDArray[np.bool_]) -> IntArray:
        """``[b]`` the one template that questions are asked with: the first that reads a history, else the first."""
        reads = self.silent if self.silent < len(self.slots) else 0
        return np.where(empty & (self.silent > 0), 0, reads)

    def places(self, chosen: IntArray, lengths: IntArray) -> Ragged:
        """How many phrases of each prompt are read before each of its items and after the last, ``lengths + 1`` numbers
        a prompt; where no history is read, the whole prompt each time."""
        counts = lengths + 1
        row = np.repeat(np.arange(len(chosen)), counts)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        silent = (chosen < self.silent)[row]
        return Ragged.from_lengths(
            np.where(silent, self.slots.lengths[chosen][row], self._before[chosen][row] + nth), counts
        )

    @cached_property
    def _before(self) -> IntArray:
        """``[K]`` phrases of each template before the history."""
        return np.array([row.tolist().index(HISTORY) if HISTORY in row else 0 for row in self.slots], dtype=np.int64)

    def filled(self, chosen: IntArray, users: IntArray, items: IntArray, lengths: IntArray) -> Ragged:
        """Phrase numbers of b prompts: template ``chosen`` ``[b]`` with the user's phrase ``users`` ``[b]`` and the
        history's, ``items`` ``[P']``, of which ``lengths`` ``[b]`` belong to each."""
        slots = self.slots[chosen]
        flat, row = slots.flat(), slots.row_numbers()
        stops = np.cumsum(lengths)
        values = np.concatenate([items, users, flat])
        own = len(items) + len(users) + np.arange(len(flat))
        start = np.where(flat == HISTORY, (stops - lengths)[row], np.where(flat == USER, len(items) + row, own))
        parts = Ragged(values, start, start + np.where(flat == HISTORY, lengths[row], 1))
        ends = np.concatenate([[0], np.cumsum(parts.lengths)])[slots.offsets()]
        return Ragged.from_offsets(parts.flat(), ends)


def pieces(templates: Iterable[str]) -> list[str]:
    """What templates say themselves, between their places; each once."""
    parts = (part for template in templates for part in _parts(template))
    return list(dict.fromkeys(part for part in parts if not _PLACES.fullmatch(part)))


def up_to_history(templates: Iterable[str]) -> list[str]:
    """What a network that reads forward is asked with: nothing after the history, of which it would know nothing there,
    and something before it."""
    cut = (template.partition("{history}") for template in templates)
    return list(dict.fromkeys(before + history for before, history, _ in cut if before))


_PLACES = re.compile(r"(\{user\}|\{history\})")


def _parts(template: str) -> list[str]:
    """Its pieces and places, in order."""
    return [part.strip() for part in _PLACES.split(template) if part.strip()]


@dataclass(frozen=True, eq=False)
class Asking:
    """Users and items as phrases of a table, and the templates that ask about them.

    Row ``first_user + u`` of ``phrases`` is user row u, the row after the last user is nobody in particular; row
    ``first_item + i`` is item row i.
    """

    phrases: Phrases
    templates: Templates
    first_user: int
    first_item: int

    def user(self, user_rows: IntArray, known: npt.NDArray[np.bool_]) -> IntArray:
        """Phrase numbers; nobody's for a row below 0, at or beyond ``known`` ``[U]``, or not known there."""
        inside = (user_rows >= 0) & (user_rows < len(known))
        named = inside & np.append(known, False)[np.where(inside, user_rows, len(known))]
        return self.first_user + np.where(named, user_rows, len(known))

    def prompts(self, chosen: IntArray, users: IntArray, items: IntArray, lengths: IntArray) -> Prompts:
        """``users`` are phrases, ``items`` item rows; see ``Templates.filled``."""
        return self.phrases.prompts(self._said(chosen, users, items, lengths))

    def read_before(self, chosen: IntArray, users: IntArray, items: IntArray, lengths: IntArray) -> Ragged:
        """How many tokens of each of these prompts are read before each item of its history and after the last."""
        places = self.templates.places(chosen, lengths)
        said = self._said(chosen, users, items, lengths)
        return Ragged.from_lengths(self.phrases.read_by(said, places), places.lengths)

    def _said(self, chosen: IntArray, users: IntArray, items: IntArray, lengths: IntArray) -> Ragged:
        return self.templates.filled(chosen, users, self.first_item + items, lengths)


class PromptBatches:
    """The batches of ``prefixes`` as prompts, each with a template of its own; a pure function of (seed, epoch).

    nameless  a share of prompts that speak of nobody in particular, so that strangers can be asked about
    """

    def __init__(
        self,
        prefixes: PrefixBatches | TogetherBatches,
        asking: Asking,
        known: npt.NDArray[np.bool_],
        *,
        nameless: float,
        seed: int,
    ) -> None:
        self.prefixes, self.asking, self.known = prefixes, asking, known
        self.nameless, self.seed = nameless, seed

    def __len__(self) -> int:
        return len(self.prefixes)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[PromptBatch]:
        for place, batch in enumerate(self.prefixes.epoch(epoch, skip), start=skip):
            rng = np.random.default_rng((self.seed, epoch, place))
            lengths = batch.lengths.numpy()
            users = np.where(rng.random(len(lengths)) < self.nameless, -1, batch.users.numpy())
            chosen = self.asking.templates.drawn(rng, lengths == 0)
            asked = chosen, self.asking.user(users, self.known), batch.items.numpy(), lengths
            prompts = self.asking.prompts(*asked)
            if not batch.together:
                yield PromptBatch(
                    prompts, batch.targets[prompts.order], torch.ones_like(prompts.lengths), prompts.lengths
                )  # fmt: skip
                continue
            order = prompts.order.numpy()
            targets = Ragged.from_lengths(batch.targets.numpy(), batch.counts.numpy())[order]
            read = self.asking.read_before(*asked)[order]
            yield PromptBatch(
                prompts, *(torch.from_numpy(part) for part in (targets.flat(), targets.lengths, read.flat()))
            )  # fmt: skip
