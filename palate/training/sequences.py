"""The shell of networks that read a history event by event and compare its last state with a table of items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.protocols import FloatArray, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.version import Version
from palate.data.batches import SequenceBatch, SequenceBatches, asked_sequences
from palate.training.shell import GradientSystem, Lesson

BLOCK_BYTES = 32 * 2**20
"""Scores alive at once while a catalogue is scored."""
TOLD_AT_ONCE = 64
"""Histories about which a system that needs more than a product for each item is asked in one batch."""
READ_AT_ONCE = 512
"""Histories that a network reads in one batch."""


class Newcomers(Protocol):
    """Knows how often each item occurs, and ``log_share`` ``[N]``, the answer for an empty history."""

    log_share: Tensor

    def count(self, item_counts: np.ndarray) -> None: ...


class SequenceNetwork(nn.Module, ABC):
    """What ``SequenceSystem`` asks of a network."""

    items: nn.Embedding
    popularity: Newcomers

    @property
    def table(self) -> Tensor:
        """``[N, D]`` what states are compared with."""
        return self.items.weight

    @property
    def offsets(self) -> Tensor | None:
        """``[N]`` what is added to the items' scores."""
        return None

    @abstractmethod
    def read(self, batch: SequenceBatch) -> Tensor:
        """``[b, D]`` the state after each history, of which none is empty; ``batch`` is on the network's device."""


C = TypeVar("C", bound=Config)
N = TypeVar("N", bound=SequenceNetwork)


class SequenceSystem(GradientSystem[C, N], ScoresAll):
    """Adds to the shell how such networks learn and answer. Settings have ``length``, ``batch_size``, ``windows``."""

    @property
    def length(self) -> int:
        """Events of a history that are read."""
        return self.config.length  # type: ignore[attr-defined]

    @abstractmethod
    def loss(self, network: N, batch: SequenceBatch) -> Tensor:
        """Mean over the positions of ``batch``, which is on the network's device and has targets."""

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        network.popularity.count(train.item_counts)
        batches = SequenceBatches(
            train, length=self.length, batch_size=config.batch_size, seed=run.seed, windows=config.windows  # type: ignore[attr-defined]
        )  # fmt: skip
        return Lesson(batches, lambda batch: self.loss(network, batch.to(run.device)))

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        network = self.fitted()
        return sequence_blocks(
            requests, read=network.read, table=network.table, bias=network.offsets,
            newcomer=network.popularity.log_share, length=self.length,
        )  # fmt: skip

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]`` the state after each history, NaN for an empty one; where items have offsets, one more column."""
        network = self.fitted()
        states = sequence_states(requests, read=network.read, table=network.table, length=self.length)
        return states if network.offsets is None else with_ones(states)

    def item_vectors(self) -> FloatArray:
        """``[N, D]`` what states are compared with; offsets stand in one more column."""
        network = self.fitted()
        with torch.no_grad():
            table, offsets = network.table, network.offsets
            whole = table if offsets is None else torch.cat([table, offsets[:, None]], dim=1)
            return whole.float().cpu().numpy().copy()

    @property
    def vectors_version(self) -> str:
        """Of all weights of the last fit."""
        weights = self.fitted().state_dict().values()
        return self._version.of((self.facts,), lambda: [one.cpu().numpy() for one in weights])

    @cached_property
    def _version(self) -> Version:
        return Version()


def sequence_blocks(
    requests: Requests,
    *,
    read: Callable[[SequenceBatch], Tensor],
    table: Tensor,
    newcomer: Tensor,
    length: int,
    bias: Tensor | None = None,
    known: int | None = None,
) -> Iterator[FloatArray]:
    """Score blocks ``[b, N]`` of a system that compares one state a history with an item table.

    ``read(batch)`` gives ``[b', D]``, the states of the non-empty histories, longest first; ``table`` is ``[N, D]``.
    Histories hold the same items, or some of another catalogue with so many ``known`` ones.
    """
    n_items = len(table)
    rows = max(1, min(READ_AT_ONCE, BLOCK_BYTES // (4 * n_items)))
    for batch in asked_sequences(requests, length=length, n_items=known or n_items, batch_size=READ_AT_ONCE):
        states = _states(batch, read, table)
        silent = batch.order[int((batch.lengths > 0).sum()) :]
        for start in range(0, len(states), rows):
            scores = _scores(states[start : start + rows], table, bias)
            here = silent[(silent >= start) & (silent < start + rows)] - start
            if len(here):
                scores[here.to(table.device)] = newcomer
            yield scores.cpu().numpy()


def sequence_states(
    requests: Requests, *, read: Callable[[SequenceBatch], Tensor], table: Tensor, length: int
) -> FloatArray:
    """``[B, D]`` what ``sequence_blocks`` compares with ``table``; NaN for an empty history."""
    found = []
    for batch in asked_sequences(requests, length=length, n_items=len(table), batch_size=READ_AT_ONCE):
        states = _states(batch, read, table)
        states[batch.order[int((batch.lengths > 0).sum()) :].to(states.device)] = torch.nan
        found.append(states.float().cpu().numpy())
    return np.concatenate(found) if found else np.zeros((0, table.shape[1]), dtype=np.float32)


def with_ones(states: FloatArray) -> FloatArray:
    """``[B, D]`` → ``[B, D + 1]``: the column that meets the offsets of items; NaN in a row of NaN."""
    ones = np.where(np.isnan(states[:, :1]), np.float32(np.nan), np.float32(1))
    return np.concatenate([states, ones], axis=1)


def told_blocks(
    requests: Requests,
    *,
    tell: Callable[[SequenceBatch], Tensor],
    bias: Tensor,
    newcomer: Tensor,
    length: int,
    known: int | None = None,
) -> Iterator[FloatArray]:
    """Score blocks ``[b, N]`` of a system that scores the catalogue by itself: ``tell(batch)`` gives ``[b', N]`` of the
    non-empty histories, longest first, and ``bias`` ``[N]`` is added; ``known`` as for ``sequence_blocks``."""
    n_items = len(bias)
    rows = max(1, min(TOLD_AT_ONCE, BLOCK_BYTES // (4 * n_items)))
    for batch in asked_sequences(requests, length=length, n_items=known or n_items, batch_size=rows):
        speaking = batch.speaking()
        scores = newcomer.repeat(len(batch.lengths), 1)
        if len(speaking.lengths):
            scores[speaking.order.to(bias.device)] = tell(speaking.to(bias.device)).to(bias.dtype) + bias
        yield scores.cpu().numpy()


# Gradients are off inside these two and never across a yield: there, the caller's own setting would be changed.


@torch.no_grad()
def _states(batch: SequenceBatch, read: Callable[[SequenceBatch], Tensor], table: Tensor) -> Tensor:
    """``[b, D]`` in the order of the questions; zeros for an empty history."""
    speaking = batch.speaking()
    states = table.new_zeros((len(batch.lengths), table.shape[1]))
    if len(speaking.lengths):
        states[speaking.order.to(table.device)] = read(speaking.to(table.device)).to(table.dtype)
    return states


@torch.no_grad()
def _scores(states: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
    return states @ table.T if bias is None else torch.addmm(bias, states, table.T)
