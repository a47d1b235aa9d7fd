"""Batches of instructions and responses for a language model that reads from left to right.

Many questions about one history differ in where the history stops. Told one by one they read it again and again. Told
as branches of one row they read it once: each question is a branch that sees the row up to where its history stops, and
itself. Positions and what is seen are those of the question alone, so the loss is the same. Shapes: n examples, b rows
of a batch, S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged
from palate.data.instructions import Examples, Phrasebook
from palate.data.mixing import quotas


@dataclass(frozen=True, eq=False)
class Alone:
    """b instructions with their responses, padded on the right.

    tokens  ``[b, S]``
    real    ``[b, S]`` what is no padding
    taught  ``[b, S]`` the tokens of the responses
    """

    tokens: Tensor
    real: Tensor
    taught: Tensor

    @classmethod
    def of(cls, asked: Ragged, answered: Ragged, pad: int) -> Self:
        """Each instruction followed by its response."""
        whole = asked.joined(answered)
        tokens, real = _padded(whole, pad)
        places = torch.arange(tokens.shape[1])
        return cls(tokens, real, real & (places >= torch.from_numpy(asked.lengths.astype(np.int64))[:, None]))


@dataclass(frozen=True, eq=False)
class Branched:
    """b histories, each with the questions about it: a row is a trunk of ``trunk`` tokens and M branches of equal
    depth, all padded at their ends (``parts.branching``).

    tokens  ``[b, S]``
    taught  ``[b, S]`` the tokens of the responses
    places  ``[b, S]`` how many tokens of its question stand before a token
    read    ``[b, M]`` how many tokens of the trunk a question begins with; 1 where a row has fewer questions
    """

    tokens: Tensor
    taught: Tensor
    places: Tensor
    read: Tensor
    trunk: int

    @classmethod
    def of(cls, opened: Ragged, ends: Ragged, ended: Ragged, answered: Ragged, pad: int) -> Self:
        """Openings, after how many of their tokens questions branch off, and of each question, one history after
        another, the end of its instruction and its response."""
        trunks, _ = _padded(opened, pad)
        read, there = _padded(ends, 1)
        own = Alone.of(ended, answered, pad)
        shape = (*read.shape, own.tokens.shape[1])
        branches, taught = torch.full(shape, pad), torch.zeros(shape, dtype=torch.bool)
        branches[there], taught[there] = own.tokens, own.taught
        places = torch.arange(trunks.shape[1]).expand_as(trunks)
        after = (read[..., None] + torch.arange(shape[2])).flatten(1)
        return cls(
            torch.cat([trunks, branches.flatten(1)], 1),
            torch.cat([torch.zeros_like(trunks, dtype=torch.bool), taught.flatten(1)], 1),
            torch.cat([places, after], 1), read, trunks.shape[1],
        )  # fmt: skip


def _padded(rows: Ragged, filler: int) -> tuple[Tensor, Tensor]:
    """``[b, S]`` filled up on the right, and which of it is real."""
    lengths = torch.from_numpy(np.asarray(rows.lengths, dtype=np.int64))
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.full(real.shape, filler)
    padded[real] = torch.from_numpy(rows.flat().astype(np.int64))
    return padded, real


@dataclass(frozen=True, eq=False)
class InstructionBatch:
    """Questions that stand alone, questions that branch, or both."""

    alone: Alone | None
    branched: Branched | None

    def to(self, device: torch.device | str) -> InstructionBatch:
        one, many = self.alone, self.branched
        return InstructionBatch(
            one and Alone(one.tokens.to(device), one.real.to(device), one.taught.to(device)),
            many and Branched(
                many.tokens.to(device), many.taught.to(device), many.places.to(device), many.read.to(device), many.trunk
            ),
        )  # fmt: skip


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

    def weight(self, most: int) -> int:
        """The same, where an example counts for ``most`` questions at most."""
        if not self.together:
            return len(self)
        return int(np.minimum(self.examples.stop - self.examples.start, most).sum())

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

    def taken(self, rng: np.random.Generator, n: int, most: int) -> Examples:
        """Examples that weigh ``n`` in all: the pool as often as that takes; the last may be cut short."""
        rounds: list[Examples] = []
        while n > 0:
            some = self.drawn(rng)
            weigh = np.minimum(some.stop - some.start, most) if self.together else np.ones(len(some), dtype=np.int64)
            ends = np.cumsum(weigh)
            last = int(np.searchsorted(ends, n))
            some = some[np.arange(min(last + 1, len(some)))]
            over = int(ends[len(some) - 1]) - n
            if self.together and over > 0:  # a shorter history is asked about after fewer of its items
                stop = some.stop.copy()
                stop[-1] = some.start[-1] + weigh[len(some) - 1] - over
                some = replace(some, stop=stop)
            rounds.append(some)
            n -= int(ends[len(some) - 1]) - max(over, 0)
        return Examples.joined(rounds) if rounds else self.examples[np.arange(0)]


class InstructionBatches:
    """Shuffled batches of all pools together; a pure function of (seed, epoch).

    With ``mix`` an epoch has as many questions as without it, of each task its share of them.

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
        mix: Mapping[int, float] | None = None,
    ) -> None:
        self.events = train.item_rows.astype(np.int64)
        self.book, self.pools = book, pools
        self.batch_size, self.seed, self.pad, self.shuffle = batch_size, seed, pad, shuffle
        self.values = book.values(self.events)
        self.sizes = np.array([pool.weight(batch_size) for pool in pools], dtype=np.float64)
        self.parts = None if mix is None else self._parts(mix)

    def _parts(self, mix: Mapping[int, float]) -> npt.NDArray[np.float64]:
        """The share of each pool; pools of one task share by their sizes."""
        task = np.array([pool.task for pool in self.pools], dtype=np.int64)
        of_task = np.bincount(task, self.sizes)[task]
        return np.array([mix.get(int(one), 0.0) for one in task]) * self.sizes / np.maximum(of_task, 1)

    @property
    def counts(self) -> IntArray:
        """How many questions of each pool an epoch has, but for one more or less."""
        whole = np.array([len(pool) for pool in self.pools], dtype=np.int64)
        return whole if self.parts is None else quotas(self.parts, int(self.sizes.sum()))

    def __len__(self) -> int:
        return -(-sum(pool.weight(self.batch_size) for pool in self.pools) // self.batch_size)

    def examples(self, epoch: int) -> tuple[Examples, IntArray, IntArray]:
        """The examples of an epoch, the template of each and how many questions it is, before they are shuffled; 0 =
        one that stands alone."""
        rng = np.random.default_rng((self.seed, epoch))
        if self.parts is None:
            parts = [pool.drawn(rng) for pool in self.pools]
        else:
            wanted = zip(self.pools, quotas(self.parts, int(self.sizes.sum()), rng.random()).tolist(), strict=True)
            parts = [pool.taken(rng, n, self.batch_size) for pool, n in wanted]
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
        alone = branched = None
        said = self.values, len(self.events)
        single, together = np.flatnonzero(asked == 0), np.flatnonzero(asked)
        if len(single):
            one = chosen[single], examples[single], *said
            alone = Alone.of(self.book.asked(*one), self.book.answered(*one), self.pad)
        if len(together):
            history, counts = examples[together], asked[together]
            opened, ends = self.book.opened(chosen[together], history, *said)
            nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            targets = self.events[np.repeat(history.start, counts) + nth + 1]
            one = np.repeat(chosen[together], counts), Examples.about(targets), *said
            branched = Branched.of(opened, ends, self.book.ended(*one), self.book.answered(*one), self.pad)
        return InstructionBatch(alone, branched)
