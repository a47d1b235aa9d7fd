"""Ranks of 20,000 targets among 20,000 items of width 64 with 50 left out each, against matmul + strict-greater count.

Random floats do not tie, so the expected rank must equal the count exactly, request by request. Requests whose target
is itself left out are compared with the last place instead, which is what such a target gets. A product may round
differently in a block of another shape; that may move a rank by one where two scores are within a rounding error,
which is allowed for one request in two thousand.
"""

from __future__ import annotations

import numpy as np

from benchmarks.harness import REPEATS, Result, compare, must
from benchmarks.references import count_ranks_numpy, count_ranks_torch
from palate.core.ragged import Ragged
from palate.core.ranks import ranks
from palate.core.search import dot_blocks

WIDTH = 64
LEFT_OUT = 50


def run(quick: bool = False) -> list[Result]:
    n = 1_000 if quick else 20_000
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((n, WIDTH), dtype=np.float32)
    items = rng.standard_normal((n, WIDTH), dtype=np.float32)
    targets = rng.integers(0, n, n)
    left_out = rng.integers(0, n, (n, LEFT_OUT))
    ragged = Ragged.from_lengths(left_out.reshape(-1), np.full(n, LEFT_OUT))

    def ours() -> np.ndarray:
        return ranks(dot_blocks(queries, items), targets, leave_out=ragged)

    references = {
        "numpy matmul + count": lambda: count_ranks_numpy(queries, items, targets, left_out),
        "torch matmul + count": lambda: count_ranks_torch(queries, items, targets, left_out),
    }
    found = ours()
    lost = (left_out == targets[:, None]).any(axis=1)
    distinct = ragged.distinct(n).lengths
    must((found[lost] == n - distinct[lost] + 1).all(), "a target that is left out must stand last")
    for name, call in references.items():
        apart = np.abs(found - call())[~lost]
        must(apart.max() <= 1, f"ranks differ by {apart.max()} from {name}")
        must(np.count_nonzero(apart) <= n / 1000, f"{np.count_nonzero(apart)} ranks differ from {name}")
    return [
        compare("evaluate", ours, references, repeats=3 if quick else REPEATS, gflop=2 * n * n * WIDTH / 1e9),
    ]
