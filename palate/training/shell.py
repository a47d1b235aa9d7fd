"""What the shells of gradient systems share: saving a network, growing its tables, turning states into score blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import FloatArray
from palate.core.requests import Requests
from palate.data.batches import SequenceBatch, asked_sequences

BLOCK_BYTES = 32 * 2**20
"""Scores alive at once while a catalogue is scored."""
READ_AT_ONCE = 512
"""Histories that a network reads in one batch."""


N = TypeVar("N", bound=nn.Module)


class NetworkSystem(Protocol):
    """A fitted gradient system, as ``save_network`` needs it."""

    @property
    def config(self) -> Config: ...

    @property
    def network(self) -> Any: ...

    @property
    def facts(self) -> dict[str, Any]: ...


def fitted(system: NetworkSystem) -> Any:
    """The network of a fitted system, else one clear sentence."""
    if system.network is None:
        raise TrainingError(f"{type(system).__name__} was not fitted yet: call fit or load first")
    return system.network


def identity(config: Config, train: Dataset) -> dict[str, object]:
    """What tells this fit from others; ``optimise`` refuses to resume another's checkpoint."""
    return {"data": train.fingerprint, "settings": config.model_dump(mode="json", exclude={"training"})}


def sequence_blocks(
    requests: Requests,
    *,
    read: Callable[[SequenceBatch], Tensor],
    table: Tensor,
    newcomer: Tensor,
    length: int,
    bias: Tensor | None = None,
) -> Iterator[FloatArray]:
    """Score blocks ``[b, N]`` of a system that compares one state a history with an item table.

    ``read(batch)`` gives ``[b', D]``, the states of the non-empty histories, longest first; ``table`` is ``[N, D]``.
    """
    n_items = len(table)
    rows = max(1, min(READ_AT_ONCE, BLOCK_BYTES // (4 * n_items)))
    for batch in asked_sequences(requests, length=length, n_items=n_items, batch_size=READ_AT_ONCE):
        states = _states(batch, read, table)
        silent = batch.order[len(batch.lengths[batch.lengths > 0]) :]
        for start in range(0, len(states), rows):
            scores = _scores(states[start : start + rows], table, bias)
            here = silent[(silent >= start) & (silent < start + rows)] - start
            if len(here):
                scores[here.to(table.device)] = newcomer
            yield scores.cpu().numpy()


# Gradients are off inside these two and never across a yield: there, the caller's own setting would be changed.


@torch.no_grad()
def _states(batch: SequenceBatch, read: Callable[[SequenceBatch], Tensor], table: Tensor) -> Tensor:
    """``[b, D]`` in the order of the questions; zeros for an empty history."""
    known = int((batch.lengths > 0).sum())
    states = table.new_zeros((len(batch.lengths), table.shape[1]))
    if known:
        states[batch.order[:known].to(table.device)] = read(batch.to(table.device)).to(table.dtype)
    return states


@torch.no_grad()
def _scores(states: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
    return states @ table.T if bias is None else torch.addmm(bias, states, table.T)


def save_network(folder: Path, system: NetworkSystem) -> None:
    """Settings, facts and weights of a fitted system, in the layout of ``core.store``."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in fitted(system).state_dict().items()}
    store.save(
        folder, system, config=system.config, arrays=arrays, facts=system.facts, fitted_on=system.facts["fitted_on"]
    )


def fill_network(network: nn.Module, stored: store.Stored) -> None:
    """Put saved weights into ``network``, ready to answer."""
    fill(network, {name: torch.from_numpy(array) for name, array in stored.arrays().items()}, stored.folder)
    network.eval()


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise TrainingError(f"{source}: the weights '{wrong[0]}' do not fit these settings; fit the system again")
    network.load_state_dict(dict(weights))


def grow(new: N, old: nn.Module) -> N:
    """``new`` with the weights of ``old``; a table that has more rows in ``new`` keeps its fresh last rows."""
    learnt = old.state_dict()
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            known = learnt[name]
            if tensor.shape[1:] != known.shape[1:] or (tensor.dim() and len(tensor) < len(known)):
                raise TrainingError(f"cannot continue: '{name}' was {tuple(known.shape)}, is {tuple(tensor.shape)}")
            if tensor.dim():
                tensor[: len(known)] = known
            else:
                tensor.copy_(known)
    return new
