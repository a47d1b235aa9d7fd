"""Questions with lettered candidates: a history, a few items of which one came next, and where that one stands.

What a re-ranker such as ULMRec (Shao et al. 2024, arXiv 2412.05543) learns from. The other candidates are drawn evenly
from what the user never met, and all of them stand in a drawn order: a fixed place of the target would tell it.
Shapes: b questions, a other lessons, C candidates, E events, U users, N items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palate.core.dataset import Dataset
from palate.core.ragged import IntArray, Ragged
from palate.data.pairs import Unmet


@dataclass(frozen=True, eq=False)
class LetteredBatch:
    """histories   item rows before the event, oldest first
    users       ``[b]`` who is asked about
    candidates  item rows in the order of their letters, the target among them
    targets     ``[b]`` at which place of its candidates the target stands
    lessons     for each other task the users ``[a]`` whom it is about
    """

    histories: Ragged
    users: IntArray
    candidates: Ragged
    targets: IntArray
    lessons: tuple[IntArray, ...]


class LetteredBatches:
    """Shuffled batches; a pure function of (seed, epoch).

    An epoch asks about every event that has one before it, or about ``prefixes`` of each user, drawn anew. Beside the
    questions of a batch stand lessons about users, drawn from ``others``, one list of users a task, all tasks alike
    often: a share ``ratio`` of the whole batch.
    """

    def __init__(
        self,
        train: Dataset,
        others: Sequence[IntArray],
        *,
        candidates: int,
        length: int,
        batch_size: int,
        ratio: float,
        prefixes: int | None,
        seed: int,
    ) -> None:
        self.train, self.candidates, self.length, self.prefixes, self.seed = train, candidates, length, prefixes, seed
        self.events = np.flatnonzero(np.arange(train.n_interactions) > train.histories.starts[train.user_rows])
        self.others, self.unmet = list(others), Unmet(train)
        lessons = round(ratio * batch_size) if any(len(users) for users in others) else 0
        self.of_batch = batch_size - lessons, lessons

    @property
    def questions(self) -> int:
        """An epoch's."""
        if self.prefixes is None:
            return len(self.events)
        return int(np.minimum(np.bincount(self.train.user_rows[self.events]), self.prefixes).sum())

    def __len__(self) -> int:
        return -(-self.questions // self.of_batch[0])

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[LetteredBatch]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.events)
        if self.prefixes is not None:
            order = order[np.argsort(self.train.user_rows[order], kind="stable")]
            users = self.train.user_rows[order]
            order = rng.permutation(order[np.arange(len(order)) - np.searchsorted(users, users) < self.prefixes])
        for batch in range(skip, len(self)):
            rows = order[batch * self.of_batch[0] : (batch + 1) * self.of_batch[0]]
            yield self._batch(rows, np.random.default_rng((self.seed, epoch, batch)))

    def _batch(self, events: IntArray, rng: np.random.Generator) -> LetteredBatch:
        train, targets = self.train, self.train.item_rows[events].astype(np.int64)
        users = train.user_rows[events].astype(np.int64)
        histories = Ragged(train.item_rows, train.histories.starts[users], events).last(self.length)
        candidates, places = lettered(targets, users, self.unmet, self.candidates, rng)
        taught = [some for some in self.others if len(some)]
        shares = np.full(len(taught), 1 / max(len(taught), 1))
        of_task = rng.multinomial(self.of_batch[1], shares) if taught else np.zeros(0, dtype=np.int64)
        drawn = iter([rng.choice(some, size=n) for some, n in zip(taught, of_task, strict=True)])
        lessons = tuple(next(drawn) if len(some) else some for some in self.others)
        return LetteredBatch(histories, users, candidates, places, lessons)


def lettered(
    targets: IntArray, users: IntArray, unmet: Unmet, n: int, rng: np.random.Generator
) -> tuple[Ragged, IntArray]:
    """Each target, which its user met, among ``n`` candidates or as many as there are, the others drawn evenly from
    what the user never met, in a drawn order; and the place of the target ``[b]``."""
    chosen = np.concatenate([targets[:, None], unmet.distinct(users, n - 1, rng)], axis=1)
    order = np.argsort(np.where(chosen >= 0, rng.random(chosen.shape), np.inf), axis=1)
    chosen = np.take_along_axis(chosen, order, axis=1)
    return Ragged.from_lengths(chosen[chosen >= 0], (chosen >= 0).sum(1)), (order == 0).argmax(1)
