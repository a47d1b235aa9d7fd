"""Answering one request and 1,024 with SASRec over 12,000 items, against the same network called by hand.

The reference is handed packed tensors and does the forward pass, one matmul with the item table and ``torch.topk``;
ours begins at ``Requests`` and ends at ``Rankings``. Equal results first: the same items in the same order wherever
two scores differ by more than rounding.
"""

from __future__ import annotations

import numpy as np

from benchmarks.harness import REPEATS, Result, compare
from benchmarks.references import forward_and_top_k
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.batches import asked_sequences
from palate.models.sequential.sasrec import Network, SASRec
from palate.training.loop import seeded

ITEMS = 12_000
MANY = 1_024
K = 10
ROUNDING = 1e-4


def run(quick: bool = False) -> list[Result]:
    n_items, many = (500, 32) if quick else (ITEMS, MANY)
    system = SASRec()
    with seeded(Run()):
        system.network = Network(system.config, n_items).eval()
    return [
        _measured(system, 1, n_items, calls=1 if quick else 50, repeats=3 if quick else 3 * REPEATS),
        _measured(system, many, n_items, calls=1, repeats=3 if quick else REPEATS),
    ]


def _measured(system: SASRec, n: int, n_items: int, *, calls: int, repeats: int) -> Result:
    """``calls`` answers are one measurement: a single one is too short for the clock and for a shared machine."""
    requests, length = _requests(n, n_items), system.config.length
    (batch,) = asked_sequences(requests, length=length, n_items=n_items, batch_size=n)
    bare = forward_and_top_k(system.network, batch.items, batch.lengths, K)
    _assert_equal(system, requests, bare(), batch.order.numpy())

    def ours() -> None:
        for _ in range(calls):
            system.recommend(requests, K)

    def reference() -> None:
        for _ in range(calls):
            bare()

    name = f"recommend, {n:,} request{'s' if n > 1 else ''}"
    said = "forward + matmul + torch.topk" + (f", {calls} times" if calls > 1 else "")
    return compare(name, ours, {said: reference}, repeats=repeats)


def _requests(n: int, n_items: int) -> Requests:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.0, 1.0, n).astype(np.int64), 1, 200)
    return Requests(Ragged.from_lengths(rng.integers(0, n_items, lengths.sum()), lengths))


def _assert_equal(
    system: SASRec, requests: Requests, expected: tuple[np.ndarray, np.ndarray], order: np.ndarray
) -> None:
    found = system.recommend(requests, K)
    rows, best = expected
    np.testing.assert_allclose(found.scores[order], best, rtol=ROUNDING, atol=ROUNDING)
    near = np.abs(np.diff(best, axis=1)) <= ROUNDING
    tied = np.pad(near, ((0, 0), (1, 0))) | np.pad(near, ((0, 0), (0, 1)), constant_values=True)
    assert ((found.item_rows[order] == rows) | tied).all(), "the items differ from those of the bare network"
