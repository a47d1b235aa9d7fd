"""The plain code that Palate is measured against: what a good engineer would write first, in a few lines each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Top = tuple[Ints, Floats]
Call = Callable[[], Top]


def count_ranks_numpy(queries: Floats, items: Floats, targets: Ints, left_out: Ints, chunk: int = 512) -> Ints:
    """Ranks ``[B]`` by matmul and strict-greater count; ``left_out`` is ``[B, L]`` item rows."""
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ items.T
        each = np.arange(len(scores))
        own = scores[each, targets[start : start + chunk]]
        scores[each[:, None], left_out[start : start + chunk]] = -np.inf
        ranks[start : start + chunk] = 1 + np.count_nonzero(scores > own[:, None], axis=1)
    return ranks


def count_ranks_torch(queries: Floats, items: Floats, targets: Ints, left_out: Ints, chunk: int = 512) -> Ints:
    """The same with torch."""
    import torch

    all_queries, all_items = torch.from_numpy(queries), torch.from_numpy(items)
    own_rows, left_rows = torch.from_numpy(targets), torch.from_numpy(left_out)
    ranks = []
    for start in range(0, len(queries), chunk):
        scores = all_queries[start : start + chunk] @ all_items.T
        own = scores.gather(1, own_rows[start : start + chunk, None])
        scores.scatter_(1, left_rows[start : start + chunk], -torch.inf)
        ranks.append(1 + (scores > own).sum(dim=1))
    return torch.cat(ranks).numpy()


def top_k_numpy(queries: Floats, items: Floats, k: int) -> Top:
    """Matmul, ``argpartition``, sort of the k."""
    scores = queries @ items.T
    found = np.argpartition(scores, -k, axis=1)[:, -k:]
    best = np.take_along_axis(scores, found, axis=1)
    order = np.argsort(-best, axis=1)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(best, order, axis=1)


def top_k_torch(queries: Floats, items: Floats, k: int) -> Top:
    """Matmul, ``topk``."""
    import torch

    best, found = torch.topk(torch.from_numpy(queries) @ torch.from_numpy(items).T, k)
    return found.numpy(), best.numpy()


def top_k_stable(queries: Floats, items: Floats, k: int) -> Top:
    """Matmul and a stable sort of everything: slow, and the definition of the right answer."""
    scores = queries @ items.T
    found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return found, np.take_along_axis(scores, found, axis=1)


def search_calls(queries: Floats, items: Floats, k: int) -> dict[str, Call]:
    """Every way to search exactly that is timed, ready to call; FAISS only where it is installed."""
    calls: dict[str, Call] = {
        "numpy matmul + argpartition": lambda: top_k_numpy(queries, items, k),
        "torch matmul + topk": lambda: top_k_torch(queries, items, k),
    }
    try:
        import faiss
    except ImportError:
        return calls
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)

    def search() -> Top:
        best, found = index.search(queries, k)
        return found, best

    return {**calls, "FAISS IndexFlatIP": search}


def sasrec_matmuls(
    lengths: list[int], width: int, layers: int, heads: int, n_items: int, *, chunk: int
) -> Callable[[], object]:
    """Every matrix product of one SASRec step and nothing else: forward, and the two of backward.

    Six linear layers of ``[P, D] · [D, D]`` a block, attention over true lengths (equal lengths in one batched
    product), logits ``[chunk, N]`` at a time. Inputs are drawn once; results are thrown away.
    """
    import torch

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    events = sum(lengths)
    x, table, weights = drawn(events, width), drawn(n_items, width), drawn(width, width)
    attended = [
        (
            drawn(heads * lengths.count(length), length, width // heads),
            drawn(heads * lengths.count(length), length, length),
        )
        for length in sorted(set(lengths))
    ]
    room = torch.empty(min(chunk, events), n_items)

    @torch.inference_mode()
    def multiply() -> None:
        for _ in range(layers):
            for _ in range(6):
                x @ weights, x @ weights.T, x.T @ x
            for values, pairs in attended:
                values @ values.mT, pairs @ values  # scores and their mix of the values
                values @ values.mT, pairs.mT @ values  # gradients of the weights and of the values
                pairs @ values, pairs.mT @ values  # gradients of the queries and of the keys
        for start in range(0, events, chunk):
            rows = x[start : start + chunk]
            logits = torch.mm(rows, table.T, out=room[: len(rows)])
            logits @ table, logits.T @ rows

    return multiply


def forward_and_top_k(network: Any, items: Any, lengths: Any, k: int) -> Callable[[], Top]:
    """A sequence network called by hand on packed histories: states, one matmul with the item table, ``topk``."""
    import torch

    from palate.parts.packing import Packing

    @torch.inference_mode()
    def answer() -> Top:
        packing = Packing(lengths)
        best, found = torch.topk(network(items, packing)[packing.last] @ network.table.T, k)
        return found.numpy(), best.numpy()

    return answer
