"""Prompts with lettered candidates as a language model reads them: phrases tokenized once → rows of tokens.

The re-ranking prompt of ULMRec (Shao et al. 2024, arXiv 2412.05543), after LlamaRec: an instruction, who the user is,
the history as numbered titles, the candidates as lettered titles. Scores are the logits of the letters after the
prompt: one forward, no generation. The wording is our own. A history that does not fit loses its oldest items; nothing
else is ever cut. Shapes: b prompts, C candidates, N items, S tokens, P packed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.core.errors import ConfigError
from palate.core.protocols import LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.data.ranking_prompts import LETTERS
from palate.parts.prompting import places_of

UNKNOWN = " unknown"
"""The index of somebody of whom nothing is known."""

ASK = (
    "A user is known by an index and by a history, oldest first. Choose from the candidates the item that comes next "
    "and answer with its letter.\nUser index:"
)
HISTORY, CANDIDATES, ANSWER = "\nHistory:", "\nCandidates:", "\nAnswer: ("
PREFER, PREFERENCE = "Say what the user with this index likes.\nUser index:", "\nPreference:"
NAME, INDEX = "Say the index of the user with this history.\nHistory:", "\nUser index:"
RECALL, RECALLED = "Say the history of the user with this index.\nUser index:", "\nHistory:"
FIXED = (ASK, HISTORY, CANDIDATES, ANSWER, PREFER, PREFERENCE, NAME, INDEX, RECALL, RECALLED)


def written(length: int, titles: Sequence[str]) -> list[str]:
    """Everything prompts say beside indexes and preferences: what a model that learns its words must have seen."""
    return [*FIXED, UNKNOWN, *(f" ({number})" for number in range(1, length + 1)), *(f" {title}" for title in titles)]


def letters_of(lm: LanguageModel, n: int) -> IntArray:
    """``[n]`` the token of each letter as it stands after an opening bracket. Raises ``ConfigError`` where a letter is
    more than one token there: then its logit would be another's."""
    bracket = lm.read(["("], inside=True).row(0)
    read = lm.read([f"({letter}" for letter in LETTERS[:n]], inside=True)
    for letter, tokens in zip(LETTERS, read, strict=False):
        if len(tokens) != len(bracket) + 1 or not np.array_equal(tokens[:-1], bracket):
            raise ConfigError(f"this language model does not read the letter {letter} of '({letter}' as one token")
    return np.array([int(tokens[-1]) for tokens in read], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Script:
    """phrases  M rows of token ids: ``FIXED``, the end, " (1)" …, " (A)" …, then each item's title
    letters  ``[C]`` the tokens that answer
    """

    phrases: Ragged
    letters: IntArray
    length: int
    max_tokens: int

    @classmethod
    def of(
        cls, lm: LanguageModel, titles: Sequence[str], *, candidates: int, length: int, title_tokens: int,
        index_tokens: int, max_tokens: int,
    ) -> Script:  # fmt: skip
        """Raises ``ConfigError`` where ``max_tokens`` might not hold the candidates, an index of ``index_tokens`` and
        one item of a history, or are more than the language model was made for."""
        places = places_of(lm)
        if places is not None and max_tokens > places:
            raise ConfigError(
                f"max_tokens={max_tokens} is more than the {places} that this language model can read: lower it"
            )
        end, pad = lm.tokenizer.end, lm.tokenizer.pad
        opening, inside = (ASK, PREFER, NAME, RECALL), lm.read(FIXED, inside=True)
        opened = dict(zip(opening, lm.read(opening), strict=True))
        fixed = [np.concatenate([lm.opening, opened[text]]) if text in opened else row
                 for text, row in zip(FIXED, inside, strict=True)]  # fmt: skip
        letters = letters_of(lm, candidates)
        before, after = lm.read([" (", ")"], inside=True)
        marks = [np.concatenate([before, [letter], after]) for letter in letters]  # the token that will answer
        numbers = lm.read([f" ({number})" for number in range(1, length + 1)], inside=True)
        named = lm.read([f" {title}" for title in titles], title_tokens, inside=True)
        phrases = Ragged.of([*fixed, [pad if end is None else end], *numbers, *marks, *named])
        script = cls(phrases, letters, length, max_tokens)
        most = script.most(candidates, title_tokens) + index_tokens
        if most > max_tokens:
            raise ConfigError(
                f"max_tokens={max_tokens} does not hold {candidates} candidates and an item of the history: they may "
                f"take {most}; raise it, or lower title_tokens or candidates"
            )
        return script

    def most(self, candidates: int, title_tokens: int) -> int:
        """Tokens that a prompt may take with ``candidates`` and a history of one item, its index apart."""
        sizes = self.phrases.lengths
        marks = sizes[self._first_letter : self._first_letter + candidates].sum()
        number = sizes[self._first_number : self._first_letter].max()
        return int(sizes[:4].sum() + marks + number + (candidates + 1) * title_tokens)

    @property
    def _first_number(self) -> int:
        return len(FIXED) + 1

    @property
    def _first_letter(self) -> int:
        return self._first_number + self.length

    @property
    def _first_title(self) -> int:
        return self._first_letter + len(self.letters)

    @property
    def n_items(self) -> int:
        return len(self.phrases) - self._first_title

    # -- prompts -------------------------------------------------------------------------------------------------------

    def asked(self, indexes: Ragged, histories: Ragged, candidates: Ragged) -> Ragged:
        """The tokens of each question: ``indexes`` hold those of the user's index, the others item rows."""
        places = np.arange(int(candidates.lengths.sum())) - np.repeat(candidates.offsets()[:-1], candidates.lengths)
        offered = _paired(self._first_letter + places, self._first_title + candidates.flat(), candidates.lengths)
        tail = self._said(_each(2, len(indexes)).joined(offered).joined(_each(3, len(indexes))))
        room = self.max_tokens - indexes.lengths - tail.lengths - self.phrases.lengths[:2].sum()
        told = self._history(histories, room)
        opening = self._said(_each(0, len(indexes))).joined(indexes)
        return opening.joined(self._said(_each(1, len(indexes)).joined(told))).joined(tail)

    def preferred(self, indexes: Ragged, preferences: Ragged) -> tuple[Ragged, Ragged]:
        """Index → preference: instructions and responses."""
        n = len(indexes)
        asked = self._said(_each(4, n)).joined(indexes).joined(self._said(_each(5, n)))
        return asked, preferences.joined(self._said(_each(len(FIXED), n)))

    def named(self, indexes: Ragged, histories: Ragged) -> tuple[Ragged, Ragged]:
        """History → index: instructions and responses."""
        n = len(indexes)
        told = self._history(
            histories, self.max_tokens - indexes.lengths - self.phrases.lengths[[6, 7, len(FIXED)]].sum()
        )
        asked = self._said(_each(6, n).joined(told).joined(_each(7, n)))
        return asked, indexes.joined(self._said(_each(len(FIXED), n)))

    def recalled(self, indexes: Ragged, histories: Ragged) -> tuple[Ragged, Ragged]:
        """Index → history: instructions and responses."""
        n = len(indexes)
        told = self._history(
            histories, self.max_tokens - indexes.lengths - self.phrases.lengths[8 : len(FIXED) + 1].sum()
        )
        asked = self._said(_each(8, n)).joined(indexes).joined(self._said(_each(9, n)))
        return asked, self._said(told.joined(_each(len(FIXED), n)))

    def _history(self, histories: Ragged, room: IntArray) -> Ragged:
        """Phrases of each history: numbers and titles of its newest items, as many as ``room`` ``[b]`` tokens hold."""
        histories = histories.last(self.length)
        items, owner = histories.flat().astype(np.int64), histories.row_numbers()
        number = int(self.phrases.lengths[self._first_number : self._first_letter].max(initial=0))
        sizes = self.phrases.lengths[self._first_title + items] + number
        total = np.concatenate([[0], np.cumsum(sizes)])
        behind = total[histories.offsets()[1:]][owner] - total[:-1]  # its own tokens and those of newer items
        kept = histories.where(behind <= room[owner])
        places = np.arange(int(kept.lengths.sum())) - np.repeat(kept.offsets()[:-1], kept.lengths)
        return _paired(self._first_number + places, self._first_title + kept.flat(), kept.lengths)

    def _said(self, rows: Ragged) -> Ragged:
        tokens = self.phrases[rows.flat()]
        return Ragged.from_offsets(tokens.flat(), tokens.offsets()[rows.offsets()])


def _each(phrase: int, n: int) -> Ragged:
    return Ragged.from_lengths(np.full(n, phrase, dtype=np.int64), np.ones(n, dtype=np.int64))


def _paired(first: IntArray, second: IntArray, lengths: IntArray) -> Ragged:
    """Rows of ``lengths`` pairs, both halves of each one after another."""
    both = np.stack([first, second.astype(np.int64)], 1).ravel() if len(first) else np.zeros(0, dtype=np.int64)
    return Ragged.from_lengths(both, 2 * lengths)


def of_letters(logits: Tensor, counts: IntArray) -> Tensor:
    """``[b, C]`` log-probabilities of the letters, of which each prompt has ``counts`` ``[b]``; -inf beyond."""
    there = torch.arange(logits.shape[1], device=logits.device) < torch.from_numpy(counts).to(logits.device)[:, None]
    return logits.float().masked_fill(~there, -torch.inf).log_softmax(1)
