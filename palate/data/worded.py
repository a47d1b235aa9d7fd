"""Examples with words: a history, a sentence that says what is wished, and the item that came next.

What Mender (Paischer et al. 2025, arXiv 2412.08604) learns from: every event with the sentence written after the event
before it that is nearest to the item; and, where asked for, pairs that steer and complaints with their opposites.
Shapes: n examples, b of a batch, P packed events, N items, S sentences, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.protocols import Discerner, FloatArray, Sentiment
from palate.core.ragged import IntArray, Ragged
from palate.data.preferences import Preferences, complaints, negative_reviews, steering, write


@dataclass(frozen=True, eq=False)
class Examples:
    """histories  item rows, oldest first
    words      ``[n]`` rows of the sentences, -1 = none
    targets    ``[n]`` item rows
    against    ``[n]`` True where the words ask to be spared the target
    """

    histories: Ragged
    words: IntArray
    targets: IntArray
    against: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What is taught with words: ``main`` are the events of the train part, ``others`` stand beside them with their
    share; ``vectors`` ``[S, D]`` are those of the sentences."""

    preferences: Preferences
    vectors: FloatArray
    main: Examples
    others: tuple[tuple[Examples, float], ...]


def lessons(
    train: Dataset,
    annotator: Discerner,
    sentiment: Sentiment,
    encode: Callable[[Sequence[str]], FloatArray],
    *,
    items: FloatArray,
    wanted: FloatArray,
    steered: float = 0.0,
    complained: float = 0.0,
    shuffled: bool = False,
    seed: int = 0,
) -> Lessons:
    """Written from ``train`` alone. ``items`` ``[N, D]`` are unit vectors of the items, ``wanted`` those that
    sentences are matched with; ``encode`` gives unit vectors of texts. ``shuffled`` is a control: each example gets the
    sentence of another of its kind, so that words say nothing."""
    preferences = write(train, annotator, sentiment, every=complained > 0)
    texts = preferences.texts
    vectors = encode(texts) if texts else np.zeros((0, items.shape[1]), np.float32)
    main = of_events(train, preferences, vectors, wanted)
    others: list[tuple[Examples, float]] = []
    if steered:
        others.append((that_steer(main, preferences, items, vectors, seed), steered))
    if complained:
        events, said = negative_reviews(train, np.arange(train.n_interactions), sentiment)
        heard = encode(said) if said else np.zeros((0, items.shape[1]), np.float32)
        others.append((of_complaints(train, preferences, vectors, events, heard), complained))
    if shuffled:
        main, others = _shuffled(main, seed), [(_shuffled(some, seed), share) for some, share in others]
    return Lessons(preferences, vectors, main, tuple(others))


def _shuffled(examples: Examples, seed: int) -> Examples:
    """Each example that has words with those of another."""
    known, words = np.flatnonzero(examples.words >= 0), examples.words.copy()
    words[known] = np.random.default_rng([seed, 11]).permutation(words[known])
    return replace(examples, words=words)


def of_events(train: Dataset, preferences: Preferences, sentences: FloatArray, wanted: FloatArray) -> Examples:
    """An example an event, those of a user's first event without words and history. ``wanted`` ``[N, D]`` are the
    vectors of the items that sentences are matched with; nothing that comes after the event is read."""
    events = np.arange(train.n_interactions)
    first = train.histories.starts[train.user_rows]
    rows = np.where(events > first, preferences.written_after(np.maximum(events - 1, 0)), -1)
    words = preferences.matched(rows, sentences, wanted[train.item_rows])
    nobody = np.zeros(len(events), dtype=bool)
    return Examples(Ragged(train.item_rows, first, events), words, train.item_rows.astype(np.int64), nobody)


def that_steer(
    examples: Examples, preferences: Preferences, items: FloatArray, sentences: FloatArray, seed: int
) -> Examples:
    """Fine and coarse pairs of the train part, each with the positive sentence nearest to its item; the benchmark
    takes the second and the third of its own."""
    cases = np.flatnonzero(examples.histories.lengths > 0)
    pool = np.unique(preferences.eligible.flat()).astype(np.int64)
    targets, histories = examples.targets[cases], examples.histories[cases]
    pairs = [
        steering(targets, histories, items, sentences[pool], farthest=far, places=(0, 0), seed=seed)
        for far in (False, True)
    ]
    chosen = np.concatenate([pair.cases for pair in pairs])
    wanted = np.concatenate([pair.targets for pair in pairs])
    said = np.concatenate([pair.sentences for pair in pairs])
    return Examples(histories[chosen], pool[said] if len(said) else said, wanted, np.zeros(len(wanted), dtype=bool))


def of_complaints(
    train: Dataset, preferences: Preferences, sentences: FloatArray, events: IntArray, said: FloatArray
) -> Examples:
    """Each refusal that a review caused, against its item, and the refusal turned round, for it; without a history.
    ``events`` and ``said`` are the negative reviews and their vectors."""
    found = complaints(train, events, preferences, sentences, said)
    words = np.concatenate([found.refusals, found.wishes])
    targets = np.tile(train.item_rows[found.events].astype(np.int64), 2)
    return Examples(Ragged.empty(len(words)), words, targets, np.arange(len(words)) < len(found.events))


@dataclass(frozen=True, eq=False)
class WordedBatch:
    """items ``[P]`` packed histories, lengths ``[b]``, words ``[b]`` (-1 = none), targets ``[b]``, against ``[b]``."""

    items: Tensor
    lengths: Tensor
    words: Tensor
    targets: Tensor
    against: Tensor


class WordedBatches:
    """Shuffled batches, a pure function of (seed, epoch); those of a batch are of like length.

    An epoch holds every example of ``main``, or with ``prefixes="one"`` one of each of ``users`` ``[n]``, drawn anew;
    of these a share ``blank`` is asked without words and, of the others, a share ``alone`` without a history. Beside
    them stand so many of each of ``others`` as their share of that number says.
    """

    def __init__(
        self,
        main: Examples,
        users: IntArray,
        others: Sequence[tuple[Examples, float]],
        *,
        length: int,
        batch_size: int,
        seed: int,
        prefixes: Literal["all", "one"],
        blank: float,
        alone: float,
        shuffle: int = 20,
    ) -> None:
        self.main, self.length, self.batch_size, self.seed = main, length, batch_size, seed
        self.blank, self.alone, self.shuffle = blank, alone, shuffle
        self.offsets = None
        if prefixes == "one":
            self.offsets = np.append(np.flatnonzero(np.diff(users, prepend=-1)), len(users))
        n = len(main) if self.offsets is None else len(self.offsets) - 1
        self.others = [(some, max(1, round(share * n))) for some, share in others if share and len(some)]
        self.n = n + sum(count for _, count in self.others)

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[WordedBatch]:
        rng = np.random.default_rng((self.seed, epoch))
        drawn = self._drawn(rng)
        order = rng.permutation(len(drawn))
        pool = np.arange(len(order)) // (self.shuffle * self.batch_size)
        order = order[np.lexsort((-drawn.histories.lengths[order], pool))]
        for batch in rng.permutation(len(self))[skip:]:
            yield self._batch(drawn, order[batch * self.batch_size : (batch + 1) * self.batch_size])

    def _drawn(self, rng: np.random.Generator) -> Examples:
        """The examples of an epoch."""
        main = self.main
        rows = np.arange(len(main))
        if self.offsets is not None:
            sizes = np.diff(self.offsets)
            rows = self.offsets[:-1] + (rng.random(len(sizes)) * sizes).astype(np.int64)
        histories = main.histories[rows].last(self.length)
        lot = rng.random(len(rows))
        words = np.where(lot < self.blank, -1, main.words[rows])
        alone = (words >= 0) & (lot < self.blank + self.alone * (1 - self.blank))
        parts = [Examples(
            Ragged(histories.values, np.where(alone, histories.stops, histories.starts), histories.stops),
            words, main.targets[rows], main.against[rows],
        )]  # fmt: skip
        for some, count in self.others:
            chosen = rng.integers(len(some), size=count)
            parts.append(
                Examples(some.histories[chosen].last(self.length), some.words[chosen], some.targets[chosen],
                         some.against[chosen])
            )  # fmt: skip
        if len(parts) == 1:
            return parts[0]
        histories = Ragged.from_lengths(
            np.concatenate([part.histories.flat() for part in parts]),
            np.concatenate([part.histories.lengths for part in parts]),
        )
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("words", "targets", "against"))
        return Examples(histories, *columns)

    def _batch(self, drawn: Examples, rows: IntArray) -> WordedBatch:
        histories = drawn.histories[rows]
        return WordedBatch(
            items=torch.from_numpy(histories.flat().astype(np.int64)),
            lengths=torch.from_numpy(histories.lengths.astype(np.int64)),
            words=torch.from_numpy(drawn.words[rows].astype(np.int64)),
            targets=torch.from_numpy(drawn.targets[rows].astype(np.int64)),
            against=torch.from_numpy(drawn.against[rows]),
        )
