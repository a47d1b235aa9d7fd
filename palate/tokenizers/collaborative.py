"""Collaborative: items that the same people met share the beginning of their names.

The CID of Hua et al. 2023 (arXiv 2305.06569). The graph holds ``A[i, j]`` = users whose training history shows both
items, all pairs and not only neighbours. It is cut into ``clusters`` parts by spectral clustering (the smallest
eigenvectors of I - D^-1/2 A D^-1/2, labels by pivoted QR: Damle, Minden and Ying, "Simple, direct and efficient
multi-way spectral clustering", 2019, arXiv 1609.08251); every part of more than ``leaf`` items is cut again. A name is
the way from the root to the leaf, then a number within the leaf. Shapes: N items, n items of a part, c parts.

Where we depart, and why:
- A graph in pieces has no unique eigenvectors: its pieces are packed into parts of about equal size and only large
  pieces are cut. Where nothing separates items (no edge, or everything in one part) they are split equally, so the
  recursion always ends.
- Items without a training event, and new items, get one private token each. Nothing is known about them here.
- Numbers within a leaf follow a drawn order.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.naming import NamesItems, all_live, counted, padded
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run
from palate.data.matrices import user_items

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE = 400
"""Parts of at most so many items are decomposed whole; larger ones by Lanczos."""


class CollaborativeConfig(Config):
    clusters: int = Field(20, ge=2)
    """Parts that the graph, and again each part that is too large, is cut into."""
    leaf: int = Field(500, ge=1)
    """A part of at most so many items is not cut again."""
    names: Literal["path", "shared"] = "path"
    """Each part its own token, or (method 1 of the paper, as OpenP5 has it) parts numbered breadth-first and these
    numbers taken modulo ``leaf``, so that unrelated parts share tokens and there are at most ``leaf`` of them."""

    @model_validator(mode="after")
    def _sisters_differ(self) -> Self:
        if self.names == "shared" and self.leaf < self.clusters:
            raise ValueError(f"with names=shared, leaf ({self.leaf}) must be at least clusters ({self.clusters})")
        return self


class Collaborative(NamesItems[CollaborativeConfig]):
    """Names of different lengths: the way through the tree, then the place in the leaf."""

    config_type = CollaborativeConfig
    reads_interactions = True

    def name(self, train: Dataset, run: Run) -> Codes:
        seen = np.flatnonzero(train.item_counts > 0)
        graph = co_occurrence(train)[seen][:, seen]
        parts, parents = tree(graph, self.config.clusters, self.config.leaf, run.seed)
        words, ways = self._ways(parents)
        leaf_of = np.empty(len(seen), dtype=np.int64)
        for part, members in parts.items():
            leaf_of[members] = part
        place = counted(leaf_of, self.drawn(0).permutation(len(seen)))
        kind = "CI" if self.config.names == "shared" else "leaf"
        row_of = {word: row for row, word in enumerate(words)}
        last = [row_of.setdefault(f"<{kind}_{at}>", len(row_of)) for at in range(int(place.max(initial=-1)) + 1)]
        unseen = np.setdiff1d(np.arange(train.n_items), seen)
        private = [row_of.setdefault(f"<item_{row}>", len(row_of)) for row in unseen]
        names = [*([*ways[leaf], last[at]] for leaf, at in zip(leaf_of.tolist(), place.tolist(), strict=True)),
                 *([token] for token in private)]  # fmt: skip
        tokens = padded(Ragged.of(names))[np.argsort(np.concatenate([seen, unseen]))]
        return Codes(tokens, tuple(row_of), True, all_live(train.n_items))

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        start = len(self.codes.vocabulary)
        tokens = start + np.arange(len(item_rows), dtype=np.int32)
        return self.codes.grown(tokens[:, None], [f"<item_{row}>" for row in item_rows])

    def path_lengths(self) -> IntArray:
        return self.codes.lengths - 1

    def _ways(self, parents: IntArray) -> tuple[list[str], list[list[int]]]:
        """The vocabulary of parts, and for each part the tokens from the root's child down to it."""
        words: dict[str, int] = {}
        paths: list[str] = []
        ways: list[list[int]] = []
        for part, parent in enumerate(parents.tolist()):
            # Parts are numbered breadth-first, so a parent comes before its children.
            sister = part - int(np.searchsorted(parents, parent))
            paths.append(f"{sister}" if parent < 0 else f"{paths[parent]}.{sister}")
            shared = f"<CI_{part % self.config.leaf}>"
            word = shared if self.config.names == "shared" else f"<C_{paths[-1]}>"
            token = words.setdefault(word, len(words))
            ways.append([token] if parent < 0 else [*ways[parent], token])
        return list(words), ways


def co_occurrence(train: Dataset) -> csr_array:
    """``[N, N]`` users whose history shows both items; the diagonal is empty."""
    met = user_items(train)
    graph = (met.T @ met).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    return graph


def tree(graph: csr_array, clusters: int, leaf: int, seed: int) -> tuple[dict[int, IntArray], IntArray]:
    """The leaves: number of the part → its items; and for each part the number of its parent, -1 = the root.

    Parts are numbered breadth-first, so ``parents`` is ascending.
    """
    leaves: dict[int, IntArray] = {}
    parents: list[int] = []
    queue: deque[tuple[int, IntArray]] = deque([(-1, np.arange(graph.shape[0]))])
    while queue:
        number, items = queue.popleft()
        if number >= 0 and len(items) <= leaf:
            leaves[number] = items
            continue
        labels = cut(graph[items][:, items], clusters, seed)
        for label in range(int(labels.max(initial=-1)) + 1):
            queue.append((len(parents), items[labels == label]))
            parents.append(number)
    return leaves, np.array(parents, dtype=np.int64)


def cut(graph: csr_array, clusters: int, seed: int) -> IntArray:
    """``[n]`` the part of each item, 0 … c - 1, all used; c is ``clusters``, or n where there are fewer items."""
    n = graph.shape[0]
    if n <= clusters:
        return np.arange(n)
    labels = _cut_pieces(graph, clusters, seed) if graph.nnz else np.zeros(n, dtype=np.int64)
    used, labels = np.unique(labels, return_inverse=True)
    return labels if len(used) > 1 else np.arange(n) * clusters // n


def _cut_pieces(graph: csr_array, clusters: int, seed: int) -> IntArray:
    """Connected pieces packed into groups, and groups of one large piece cut; together at most ``clusters`` parts."""
    from scipy.sparse.csgraph import connected_components

    n_pieces, piece = connected_components(graph, directed=False)
    if n_pieces == 1:
        return spectral(graph, clusters, seed)
    group_of, sizes = _packed(np.bincount(piece), clusters)
    whole = np.bincount(group_of) == 1
    shares = np.ones(len(sizes), dtype=np.int64)
    for _ in range(clusters - len(sizes)):  # each further part goes to the piece whose parts are largest
        wish = np.where(whole & (shares < sizes), sizes / shares, 0)
        if not wish.any():
            break
        shares[wish.argmax()] += 1
    labels = np.empty(graph.shape[0], dtype=np.int64)
    start = 0
    for group, share in enumerate(shares.tolist()):
        members = np.flatnonzero(group_of[piece] == group)
        labels[members] = start + (spectral(graph[members][:, members], share, seed) if share > 1 else 0)
        start += share
    return labels


def _packed(sizes: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """A group for each piece, and the size of each group: the two smallest are joined while together they are no
    larger than an equal share, or while there are more than ``most``."""
    share = sizes.sum() / most
    heap = [(int(size), at) for at, size in enumerate(sizes)]
    heapify(heap)
    joined = list(range(len(sizes)))
    while len(heap) > 1:
        size, at = heappop(heap)
        other, to = heap[0]
        if size + other > share and len(heap) < most:
            heappush(heap, (size, at))
            break
        heappop(heap)
        joined[max(at, to)] = min(at, to)
        heappush(heap, (size + other, min(at, to)))
    group = np.array(joined)
    while (group[group] != group).any():
        group = group[group]
    _, group = np.unique(group, return_inverse=True)
    return group, np.bincount(group, weights=sizes).astype(np.int64)


def spectral(graph: csr_array, clusters: int, seed: int) -> IntArray:
    """``[n]`` the cluster of each item of a connected ``graph`` with n > clusters >= 2."""
    from scipy.linalg import polar, qr

    vectors = bottom_eigenvectors(graph, clusters, seed)
    _, _, pivots = qr(vectors.T, mode="economic", pivoting=True)
    turn, _ = polar(vectors[pivots[:clusters]].T)
    return np.abs(vectors @ turn).argmax(1)


def bottom_eigenvectors(graph: csr_array, count: int, seed: int) -> npt.NDArray[np.float64]:
    """``[n, count]`` of the normalised Laplacian, each entry divided by the root of the item's degree.

    They are the top ones of D^-1/2 A D^-1/2, which Lanczos finds from products with the sparse graph alone.
    """
    from scipy.linalg import eigh
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    n = graph.shape[0]
    root = np.sqrt(np.asarray(graph.sum(1), dtype=np.float64))
    scale = diags_array(1 / np.where(root > 0, root, 1))
    normalised = scale @ graph.astype(np.float64) @ scale
    if n <= max(DENSE, 2 * count + 2):
        _, vectors = eigh(normalised.toarray(), subset_by_index=[n - count, n - 1])
    else:
        start = np.random.default_rng(seed).uniform(-1, 1, n)
        _, vectors = eigsh(normalised, k=count, which="LA", v0=start)
    return vectors / root[:, None]
