"""Top-100 of 100,000 items of width 64 at batch 1, 32 and 256, against the fastest of torch, NumPy and FAISS Flat.

Equal results first, twice. On small whole numbers every product is exact and ties abound: rows must be those of a
stable sort of everything, to the last place. On the random floats that are timed, scores must agree within 1e-4
(rounding of a sum of 64 products) and rows wherever the score differs from its neighbours by more than that.
"""

from __future__ import annotations

import numpy as np

from benchmarks.harness import REPEATS, Result, compare, must
from benchmarks.references import Call, Top, search_calls, top_k_stable
from palate.core.search import exact_top_k

WIDTH = 64
K = 100
ROUNDING = 1e-4


def run(quick: bool = False) -> list[Result]:
    n = 5_000 if quick else 100_000
    rng = np.random.default_rng(0)
    items = rng.standard_normal((n, WIDTH), dtype=np.float32)
    lines = []
    for batch in (1, 32, 256):
        _assert_stable(rng, batch, n)
        queries = rng.standard_normal((batch, WIDTH), dtype=np.float32)
        references = search_calls(queries, items, K)
        found = exact_top_k(queries, items, K)
        for name, call in references.items():
            _assert_close((found.item_rows, found.scores), call(), name)
        lines.append(
            compare(
                f"exact-search, batch {batch}",
                _ours(queries, items),
                references,
                repeats=3 if quick else REPEATS,
                gflop=2 * batch * n * WIDTH / 1e9,
            )
        )
    return lines


def _ours(queries: np.ndarray, items: np.ndarray) -> Call:
    return lambda: exact_top_k(queries, items, K)


def _assert_stable(rng: np.random.Generator, batch: int, n: int) -> None:
    queries = rng.integers(-2, 3, (batch, WIDTH)).astype(np.float32)
    items = rng.integers(-2, 3, (n, WIDTH)).astype(np.float32)
    found = exact_top_k(queries, items, K)
    rows, scores = top_k_stable(queries, items, K)
    must((found.item_rows == rows).all(), "ties must go to the lower item row")
    must((found.scores == scores).all(), "scores differ from those of a stable sort")


def _assert_close(ours: Top, other: Top, name: str) -> None:
    (rows, scores), (other_rows, other_scores) = ours, other
    must(np.abs(scores - other_scores).max() < ROUNDING, f"scores differ from {name}")
    steps = np.pad(-np.diff(scores, axis=1), ((0, 0), (1, 1)), constant_values=np.inf)
    steps[:, -1] = 0  # the place after the last is not known
    alone = (steps[:, :-1] > 2 * ROUNDING) & (steps[:, 1:] > 2 * ROUNDING)
    must((rows == other_rows)[alone].all(), f"items differ from {name}")
