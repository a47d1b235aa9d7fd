"""Batches of instructions and responses for a language model that reads from left to right.

Many questions about one history differ in where the history stops. Told one by one they read it again and again. Told
as branches of one row they read it once: each question is a branch that sees the row up to where its history stops, and
itself. Positions and what is seen are those of the question alone, so the loss is the same. Shapes: n examples, b rows
of a batch, S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged
from palate.data.instructions import Examples, Phrasebook


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to be read from left to right, ragged.

    tokens  token ids
    taught  whether a token belongs to a response
    places  how many tokens of its question stand before a token
    branch  which question of its row a token belongs to, from 1 on; 0 = the beginning that all of them share
    read    how many tokens of that beginning a token sees
    """

    tokens: Ragged
    taught: Ragged
    places: Ragged
    branch: Ragged
    read: Ragged

    @classmethod
    def alone(cls, asked: Ragged, answered: Ragged) -> Rows:
        """Each instruction followed by its response."""
        whole = asked.joined(answered)
        places = _within(whole.lengths)
        taught = places >= np.repeat(asked.lengths, whole.lengths)
        return cls(*(_shaped(part, whole) for part in (whole.flat(), taught, places, 0 * places, places + 1)))

    @classmethod
    def branching(cls, opened: Ragged, ends: Ragged, ended: Ragged, answered: Ragged) -> Rows:
        """Each opening with a branch for each of its ``ends``: the end of the instruction and the response of one
        question, which sees so many tokens of the opening."""
        branches = Rows.alone(ended, answered)
        own = branches.tokens.lengths
        before = np.repeat(ends.flat(), own)
        nth = np.repeat(_within(ends.lengths) + 1, own)
        row = np.concatenate([opened.row_numbers(), np.repeat(ends.row_numbers(), own)])
        order, lengths = np.argsort(row, kind="stable"), np.bincount(row, minlength=len(opened))
        places = _within(opened.lengths)
        pairs = (
            (opened.flat(), branches.tokens.flat()), (0 * places, branches.taught.flat()),
            (places, before + branches.places.flat()), (0 * places, nth), (places + 1, before),
        )  # fmt: skip
        return cls(*(Ragged.from_lengths(np.concatenate(pair)[order], lengths) for pair in pairs))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, one after another."""

        def rows(name: str) -> Ragged:
            some: list[Ragged] = [getattr(part, name) for part in parts]
            return Ragged.from_lengths(
                np.concatenate([one.flat() for one in some]), np.concatenate([one.lengths for one in some])
            )

        return parts[0] if len(parts) == 1 else cls(*(rows(name) for name in cls.__dataclass_fields__))

    def batch(self, pad: int) -> InstructionBatch:
        lengths = torch.from_numpy(np.asarray(self.tokens.lengths, dtype=np.int64))
        real = torch.arange(int(lengths.max())) < lengths[:, None]

        def padded(part: Ragged, filler: int) -> Tensor:
            column = torch.full(real.shape, filler)
            column[real] = torch.from_numpy(part.flat().astype(np.int64))
            return column

        branch = padded(self.branch, 0)
        return InstructionBatch(
            padded(self.tokens, pad), real, padded(self.taught, 0).bool(), padded(self.places, 0),
            branch if bool(branch.any()) else None, padded(self.read, 1),
        )  # fmt: skip


def _shaped(flat: np.ndarray, like: Ragged) -> Ragged:
    return Ragged.from_lengths(flat, like.lengths)


def _within(lengths: IntArray) -> IntArray:
    """0, 1, … within each row."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True, eq=False)
class InstructionBatch:
    """b rows, padded on the right; the columns of ``Rows`` as ``[b, S]``, and ``real``, which of it is no padding.
    ``branch`` is None where nothing branches."""

    tokens: Tensor
    real: Tensor
    taught: Tensor
    places: Tensor
    branch: Tensor | None
    read: Tensor

    def to(self, device: torch.device | str) -> InstructionBatch:
        columns = (None if part is None else part.to(device, non_blocking=True) for part in vars(self).values())
        return InstructionBatch(*columns)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Pool:
    """Examples of one task, of which an epoch takes some.

    users    ``[n]`` of whom at most ``of_each`` are taken, or None
    at_most  so many are taken in all
    twofold  the wish and the preference of an example are each the first of two texts, either of which is taken
    together an example is a history that is asked about after each of its items; the event after it is the answer,
             ``item`` that of the last question
    """

    task: int
    examples: Examples
    users: IntArray | None = None
    of_each: int | None = None
    at_most: int | None = None
    twofold: bool = False
    together: bool = False

    def __len__(self) -> int:
        """How many questions an epoch takes."""
        if self.together:
            return int((self.examples.stop - self.examples.start).sum())
        n = len(self.examples)
        if self.of_each is not None and self.users is not None:
            n = int(np.minimum(np.unique(self.users, return_counts=True)[1], self.of_each).sum())
        return n if self.at_most is None else min(n, self.at_most)

    def drawn(self, rng: np.random.Generator) -> Examples:
        rows = rng.permutation(len(self.examples))
        if self.of_each is not None and self.users is not None:
            rows = rows[np.argsort(self.users[rows], kind="stable")]
            users = self.users[rows]
            first = np.searchsorted(users, users)
            rows = rng.permutation(rows[np.arange(len(rows)) - first < self.of_each])
        some = self.examples[rows[: self.at_most]]
        if not self.twofold:
            return some
        either = rng.integers(2, size=(2, len(some)))
        return replace(
            some, wish=np.where(some.wish >= 0, some.wish + either[0], -1),
            preference=np.where(some.preference >= 0, some.preference + either[1], -1),
        )  # fmt: skip


class InstructionBatches:
    """Shuffled batches of all pools together; a pure function of (seed, epoch).

    Each example is said with a template that is drawn anew every epoch. A batch has about ``batch_size`` questions, of
    like length (drawn from ``shuffle`` batches at a time), so that little is padded.
    """

    def __init__(
        self,
        train: Dataset,
        book: Phrasebook,
        pools: Sequence[Pool],
        *,
        batch_size: int,
        seed: int,
        pad: int,
        shuffle: int = 20,
    ) -> None:
        self.events = train.item_rows.astype(np.int64)
        self.book, self.pools = book, pools
        self.batch_size, self.seed, self.pad, self.shuffle = batch_size, seed, pad, shuffle
        self.values = book.values(self.events)

    def __len__(self) -> int:
        return -(-sum(len(pool) for pool in self.pools) // self.batch_size)

    def examples(self, epoch: int) -> tuple[Examples, IntArray, IntArray]:
        """The examples of an epoch, the template of each and how many questions it is, before they are shuffled; 0 =
        one that stands alone."""
        rng = np.random.default_rng((self.seed, epoch))
        parts = [pool.drawn(rng) for pool in self.pools]
        known = [self.book.known(part, self.events) for part in parts]
        chosen = [self.book.templates.drawn(rng, pool.task, some) for pool, some in zip(self.pools, known, strict=True)]
        asked = [
            part.stop - part.start if pool.together else np.zeros(len(part), dtype=np.int64)
            for pool, part in zip(self.pools, parts, strict=True)
        ]
        return Examples.joined(parts), np.concatenate(chosen), np.concatenate(asked)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[InstructionBatch]:
        if not len(self):
            return
        examples, chosen, asked = self.examples(epoch)
        rng = np.random.default_rng((self.seed, epoch, 1))
        order = rng.permutation(len(chosen))
        # A batch ends where its questions are enough: no example counts for more than a batch.
        weight = np.clip(asked, 1, self.batch_size)
        pool = (np.cumsum(weight[order]) - 1) // (self.shuffle * self.batch_size)
        long = self.book.lengths(chosen, examples, self.events)[order]
        order = order[np.lexsort((-long, asked[order] > 0, pool))]
        ends = np.searchsorted((np.cumsum(weight[order]) - 1) // self.batch_size, np.arange(len(self)), side="right")
        for batch in rng.permutation(len(self))[skip:]:
            rows = order[ends[batch - 1] if batch else 0 : ends[batch]]
            yield self._batch(chosen[rows], examples[rows], asked[rows])

    def _batch(self, chosen: IntArray, examples: Examples, asked: IntArray) -> InstructionBatch:
        parts = []
        said = self.values, len(self.events)
        alone, together = np.flatnonzero(asked == 0), np.flatnonzero(asked)
        if len(alone):
            one = chosen[alone], examples[alone], *said
            parts.append(Rows.alone(self.book.asked(*one), self.book.answered(*one)))
        if len(together):
            history = examples[together]
            opened, ends = self.book.opened(chosen[together], history, *said)
            event = np.repeat(history.start, asked[together]) + _within(asked[together]) + 1
            one = np.repeat(chosen[together], asked[together]), Examples.about(self.events[event]), *said
            parts.append(Rows.branching(opened, ends, self.book.ended(*one), self.book.answered(*one)))
        return Rows.joined(parts).batch(self.pad)
