"""Tables → tensors: the one file where data becomes what a network reads. Sequences travel packed, without padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.requests import Requests


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """b histories of P events in all, packed one after another, longest first.

    items       ``[P]`` item rows, oldest first within a history
    lengths     ``[b]`` how many of them belong to each history
    times       ``[P]`` int64 ms, or None where the data has no times
    targets     ``[P]`` the item that came next, or None when nothing is to be learned
    next_times  ``[P]`` when that next event happened (at serving: when the question is asked), or None
    order       ``[b]`` which question each history is: histories are sorted by length
    """

    items: Tensor
    lengths: Tensor
    times: Tensor | None
    targets: Tensor | None
    next_times: Tensor | None
    order: Tensor

    def speaking(self) -> SequenceBatch:
        """Without the empty histories, which stand last."""
        b = int((self.lengths > 0).sum())
        return replace(self, lengths=self.lengths[:b], order=self.order[:b])

    def to(self, device: torch.device | str) -> SequenceBatch:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return SequenceBatch(
            self.items.to(device), self.lengths, move(self.times), move(self.targets), move(self.next_times), self.order
        )


class SequenceBatches:
    """Shuffled batches of training windows; a pure function of (seed, epoch), so a run can resume at any step.

    A history of n events teaches its last n - 1 events, each from those before it. With ``windows="last"`` only the
    last ``length`` of them; with ``"all"`` a longer history is cut, from its end, into windows of that length.
    """

    def __init__(
        self, train: Dataset, *, length: int, batch_size: int, seed: int, windows: Literal["last", "all"] = "last"
    ) -> None:
        self.items = torch.from_numpy(train.item_rows.astype(np.int64))
        self.times = None if train.times is None else torch.from_numpy(train.times.astype(np.int64))
        self.windows, _ = windows_of(train.histories, length, windows)
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[SequenceBatch]:
        """The batches of one epoch without the first ``skip``, in an order that depends on (seed, epoch) alone."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.windows))
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, rows: np.ndarray) -> SequenceBatch:
        rows = rows[np.argsort(-self.windows.lengths[rows], kind="stable")]
        chosen = self.windows[rows]
        here = torch.from_numpy(chosen.flat_positions())
        return SequenceBatch(
            items=self.items[here],
            lengths=torch.from_numpy(chosen.lengths.astype(np.int64)),
            times=None if self.times is None else self.times[here],
            targets=self.items[here + 1],
            next_times=None if self.times is None else self.times[here + 1],
            order=torch.from_numpy(rows.astype(np.int64)),
        )


def windows_of(histories: Ragged, length: int, which: Literal["last", "all"]) -> tuple[Ragged, np.ndarray]:
    """What is read of each history when every event but the last is followed by one, and whose each window is."""
    taught = np.maximum(histories.lengths - 1, 0)
    counts = np.minimum(taught, 1) if which == "last" else -(-taught // length)
    user = np.repeat(np.arange(len(histories)), counts)
    nth = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    stops = histories.stops[user] - 1 - nth * length
    starts = np.maximum(histories.starts[user], stops - length)
    return Ragged(histories.values, starts, stops), user


@dataclass(frozen=True, eq=False)
class PrefixBatch:
    """b histories as they stood before some event, and that event. Packed, longest first.

    items     ``[P]`` item rows, oldest first within a history
    lengths   ``[b]`` how many belong to each; 0 before a user's first event
    targets   ``[b]`` the item that came next; with ``together`` ``[P + b]``: of each history what came after none,
              after one, … and after all of its items
    users     ``[b]`` user rows
    together  whether each history is asked about at every place
    """

    items: Tensor
    lengths: Tensor
    targets: Tensor
    users: Tensor
    together: bool = False

    @property
    def counts(self) -> Tensor:
        """``[b]`` targets of each history."""
        return self.lengths + 1 if self.together else torch.ones_like(self.lengths)

    def to(self, device: torch.device | str) -> PrefixBatch:
        return replace(
            self, items=self.items.to(device), targets=self.targets.to(device), users=self.users.to(device)
        )  # fmt: skip


def prefix_batches(
    train: Dataset, *, length: int, batch_size: int, seed: int, prefixes: Literal["all", "one"], forward: bool
) -> PrefixBatches | TogetherBatches:
    """Batches of ``batch_size`` readings of at most ``length`` events; a network that reads ``forward`` is asked about
    all events of a window at once."""
    if forward and prefixes == "all":
        return TogetherBatches(train, length=length, batch_size=batch_size, seed=seed)
    return PrefixBatches(train, length=length, batch_size=batch_size, seed=seed, prefixes=prefixes)


class PrefixBatches:
    """Each event after all (at most ``length``) before it; for networks that read a history once for each target.

    A pure function of (seed, epoch). With ``prefixes="all"`` every event of every user is a target once an epoch, with
    ``"one"`` one of each user, drawn anew. An epoch's examples are shuffled, and those of a batch are of like length
    (drawn from ``shuffle`` batches at a time), so that little is padded.
    """

    def __init__(
        self,
        train: Dataset,
        *,
        length: int,
        batch_size: int,
        seed: int,
        prefixes: Literal["all", "one"] = "all",
        shuffle: int = 20,
    ) -> None:
        self.items = torch.from_numpy(train.item_rows.astype(np.int64))
        self.user_of = train.user_rows.astype(np.int64)
        histories = train.histories
        self.first = histories.starts[self.user_of]
        self.taught = np.flatnonzero(histories.lengths)
        self.histories, self.length, self.batch_size = histories, length, batch_size
        self.seed, self.prefixes, self.shuffle = seed, prefixes, shuffle

    def __len__(self) -> int:
        n = len(self.items) if self.prefixes == "all" else len(self.taught)
        return -(-n // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[PrefixBatch]:
        rng = np.random.default_rng((self.seed, epoch))
        if self.prefixes == "all":
            targets = rng.permutation(len(self.items))
        else:
            users = rng.permutation(self.taught)
            lengths = self.histories.lengths[users]
            targets = self.histories.starts[users] + (rng.random(len(users)) * lengths).astype(np.int64)
        long = np.minimum(targets - self.first[targets], self.length)
        pool = np.arange(len(targets)) // (self.shuffle * self.batch_size)
        targets = targets[np.lexsort((-long, pool))]
        batches = rng.permutation(len(self))
        for batch in batches[skip:]:
            yield self._batch(targets[batch * self.batch_size : (batch + 1) * self.batch_size])

    def _batch(self, targets: np.ndarray) -> PrefixBatch:
        starts = np.maximum(self.first[targets], targets - self.length)
        order = np.argsort(starts - targets, kind="stable")
        read = Ragged(self.histories.values, starts[order], targets[order])
        return PrefixBatch(
            items=self.items[torch.from_numpy(read.flat_positions())],
            lengths=torch.from_numpy(read.lengths.astype(np.int64)),
            targets=self.items[torch.from_numpy(targets[order])],
            users=torch.from_numpy(self.user_of[targets[order]]),
        )


class TogetherBatches:
    """Windows of histories, each read once and asked about at every place; for networks that read forward.

    A history is cut, from its end, into windows of ``length`` events, each with the event after it. The first item of a
    window is a target after nothing at all. A pure function of (seed, epoch).
    """

    def __init__(self, train: Dataset, *, length: int, batch_size: int, seed: int) -> None:
        windows, users = windows_of(train.histories, length, "all")
        single = np.flatnonzero(train.histories.lengths == 1)  # nothing is read before their only event
        starts = train.histories.starts[single]
        self.windows = Ragged(
            windows.values, np.concatenate([windows.starts, starts]), np.concatenate([windows.stops, starts])
        )
        self.user_of = np.concatenate([users, single])
        self.batch_size, self.seed = batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.windows) // self.batch_size)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[PrefixBatch]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.windows))
        for start in range(skip * self.batch_size, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, rows: np.ndarray) -> PrefixBatch:
        rows = rows[np.argsort(-self.windows.lengths[rows], kind="stable")]
        read = self.windows[rows]
        asked = Ragged(read.values, read.starts, read.stops + 1)
        return PrefixBatch(
            items=torch.from_numpy(read.flat().astype(np.int64)),
            lengths=torch.from_numpy(read.lengths.astype(np.int64)),
            targets=torch.from_numpy(asked.flat().astype(np.int64)),
            users=torch.from_numpy(self.user_of[rows].astype(np.int64)),
            together=True,
        )


def asked_sequences(requests: Requests, *, length: int, n_items: int, batch_size: int) -> Iterator[SequenceBatch]:
    """The histories of ``requests`` as batches to read, not to learn from; at most the last ``length`` events.

    ``order`` gives the place of each history inside its batch, so that answers can be put back. The time of the
    question stands after the last event; where it is unknown, the time of the last event does.
    """
    requests = requests.known(n_items)
    for start in range(0, len(requests), batch_size):
        asked = requests[start : start + batch_size]
        recent = asked.histories.last(length)
        order = np.argsort(-recent.lengths, kind="stable")
        recent = recent[order]
        lengths = recent.lengths
        times = next_times = None
        if asked.history_times is not None:
            flat = asked.history_times[recent.flat_positions()].astype(np.int64)
            after = np.concatenate([flat[1:], flat[-1:]])
            ends = np.cumsum(lengths)[lengths > 0] - 1
            after[ends] = flat[ends] if asked.times is None else asked.times[order][lengths > 0]
            times, next_times = torch.from_numpy(flat), torch.from_numpy(after.astype(np.int64))
        yield SequenceBatch(
            items=torch.from_numpy(recent.flat().astype(np.int64)),
            lengths=torch.from_numpy(lengths.astype(np.int64)),
            times=times,
            targets=None,
            next_times=next_times,
            order=torch.from_numpy(order.astype(np.int64)),
        )
