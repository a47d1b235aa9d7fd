"""One training step of SASRec as it is by default, against the bare matmuls of the same non-padded positions.

The step is forward, loss, backward, clipping and optimiser; the reference multiplies matrices of the same sizes and
does nothing else (``references.sasrec_matmuls``). Lengths are drawn like those of MovieLens-100K, about 40 % at the
longest. Results first: without dropout, the loss must be the textbook's on whole logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import REPEATS, Result, compare
from benchmarks.references import sasrec_matmuls
from palate.core.run import Run
from palate.data.batches import SequenceBatch
from palate.models.sequential.sasrec import Network, SASRec, SASRecConfig
from palate.parts.packing import Packing
from palate.training.loop import Loop, seeded

USERS = 128
ITEMS = 1_682


def run(quick: bool = False) -> list[Result]:
    return [
        _measured("sasrec-step", SASRecConfig(), quick),
        _measured("sasrec-step, no dropout", SASRecConfig(dropout=0.0), quick),
    ]


def _measured(name: str, config: SASRecConfig, quick: bool) -> Result:
    users, n_items = (16, 200) if quick else (USERS, ITEMS)
    batch = synthetic_batch(users, n_items, config.length)
    sizes = (batch.lengths.tolist(), config.width, config.layers, config.heads, n_items)
    references = {
        f"bare matmuls, logits {said}": sasrec_matmuls(*sizes, chunk=chunk)
        for said, chunk in (("in chunks", 256), ("whole", len(batch.items)))
    }
    with seeded(Run()):
        system = SASRec(config)
        network = system.network = Network(config, n_items)
        _assert_textbook_loss(system, network, batch)
        network.train()
        loop = Loop(network, _One(batch), partial(system.loss, network), Run(), config.training)
        repeats = 3 if quick else 3 * REPEATS
        gflop = matmul_gflop(batch.lengths.numpy(), config, n_items)
        return compare(name, lambda: loop.step(batch), references, repeats=repeats, gflop=gflop)


def synthetic_batch(users: int, n_items: int, length: int) -> SequenceBatch:
    """Seeded histories whose lengths are like those of MovieLens-100K, as one training batch."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.3, 1.0, users).astype(np.int64), 1, length)
    lengths = np.sort(lengths)[::-1].copy()
    items, targets = rng.integers(0, n_items, (2, lengths.sum()))
    return SequenceBatch(
        items=torch.from_numpy(items),
        lengths=torch.from_numpy(lengths),
        times=None,
        targets=torch.from_numpy(targets),
        next_times=None,
        order=torch.arange(users),
    )


def matmul_gflop(lengths: np.ndarray, config: SASRecConfig, n_items: int) -> float:
    """10⁹ operations of every product of a step: forward once, backward twice."""
    events, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    linear = 6 * 2 * events * config.width**2
    attended = 2 * 2 * pairs * config.width
    return 3 * (config.layers * (linear + attended) + 2 * events * config.width * n_items) / 1e9


class _One:
    """An epoch of one batch."""

    def __init__(self, batch: SequenceBatch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[SequenceBatch]:
        yield self.batch


def _assert_textbook_loss(system: SASRec, network: Network, batch: SequenceBatch) -> None:
    network.eval()
    with torch.no_grad():
        states = network(batch.items, Packing(batch.lengths))
        assert batch.targets is not None
        expected = F.cross_entropy(states @ network.table.T, batch.targets)
        torch.testing.assert_close(system.loss(network, batch), expected, rtol=1e-5, atol=1e-5)
