"""A trie of item names as flat arrays, so that all beams of all requests look up their next tokens in one gather.

Nodes are numbered level by level, within a level by parent and then token. So the children of a node are neighbours,
and their token and their own number need no pointers. Shapes: N items, T tokens of the longest name, M nodes, V tokens
of the vocabulary, B requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.errors import DataError
from palate.core.ragged import Ragged

ROOT = 0


@dataclass(frozen=True, eq=False)
class Trie:
    """Names of items, none the beginning of another.

    starts   ``[M + 1]`` the children of node n are the nodes ``starts[n]`` to ``starts[n + 1] - 1``
    tokens   ``[M]`` the token that leads to a node; -1 for the root
    items    ``[M]`` the item whose name ends at a node, else -1
    n_below  ``[M]`` how many live items lie at or below a node; a retired item is not reached
    paths    ``[N, T]`` the nodes that an item's name passes; its last node again after the end of a shorter name
    keys     ``[M - 1]`` parent * V + token of every node but the root, ascending
    """

    starts: Tensor
    tokens: Tensor
    items: Tensor
    n_below: Tensor
    paths: Tensor
    keys: Tensor
    vocabulary: int

    @classmethod
    def of(
        cls,
        names: npt.NDArray[np.integer],
        vocabulary: int,
        live: npt.NDArray[np.bool_] | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        """The trie of ``names`` ``[N, T]``, -1 after the end of a shorter one; ``live`` ``[N]``, None = all.

        Raises ``DataError`` when two names are equal or one begins with another: end names with a token of their own.
        """
        names = np.asarray(names, dtype=np.int64)
        n, depth = names.shape
        order = np.lexsort(names.T[::-1]) if n else np.zeros(0, dtype=np.int64)
        ranked = names[order]
        fresh = np.zeros((n, depth), dtype=bool)  # where, in sorted order, a name leaves the one before it
        fresh[:1] = True
        fresh[1:] = np.logical_or.accumulate(ranked[1:] != ranked[:-1], axis=1)
        present = ranked >= 0
        if not present[:, :1].all():
            raise DataError("an item's name is empty")
        parents, tokens, item_of, paths = [np.zeros(0, np.int64)], [np.array([-1])], [np.array([-1])], []
        above = np.zeros(n, dtype=np.int64)
        first = 1
        for level in range(depth):
            new, here = fresh[:, level] & present[:, level], present[:, level]
            nodes = first + np.cumsum(new) - 1
            parents.append(above[new])
            tokens.append(ranked[new, level])
            ends = here & (~present[:, level + 1] if level + 1 < depth else True)
            item = np.full(int(new.sum()), -1, dtype=np.int64)
            item[nodes[ends] - first] = order[ends]
            item_of.append(item)
            above = np.where(here, nodes, above)
            paths.append(above)
            first += len(item)
        flat_items, flat_parents = np.concatenate(item_of), np.concatenate(parents)
        if (flat_items >= 0).sum() != n or (flat_items[flat_parents] >= 0).any():
            raise DataError("an item's name is the beginning of another's, or equal to it")
        path = np.zeros((n, depth), dtype=np.int64)
        if n:
            path[order] = np.stack(paths, axis=1)
        starts = 1 + np.concatenate([[0], np.cumsum(np.bincount(flat_parents, minlength=first))])
        kept = np.ones(n, dtype=bool) if live is None else live
        flat_tokens = np.concatenate(tokens)
        arrays = (
            starts, flat_tokens, flat_items, _count(path, kept, first), path,
            flat_parents * vocabulary + flat_tokens[1:],
        )  # fmt: skip
        a, b, c, d, e, f = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        return cls(a, b, c, d, e, f, vocabulary).to(device)

    @property
    def depth(self) -> int:
        """Tokens of the longest name."""
        return self.paths.shape[1]

    @property
    def n_nodes(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> Self:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        return replace(
            self, starts=moved(self.starts), tokens=moved(self.tokens), items=moved(self.items),
            n_below=moved(self.n_below), paths=moved(self.paths), keys=moved(self.keys),
        )  # fmt: skip

    def walk(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """The child of each node by that token, -1 where there is none; any shape, -1 stays -1."""
        if not len(self.keys):
            return torch.full_like(nodes, -1)
        wanted = nodes.clamp(min=0) * self.vocabulary + tokens
        place = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        found = (self.keys[place] == wanted) & (nodes >= 0) & (tokens >= 0)
        return torch.where(found, place + 1, -1)

    def children(self, nodes: Tensor) -> Tensor:
        """``[..., C]`` the live children of ``nodes`` ``[...]``, -1 elsewhere; where a name has ended, the node alone.

        C is the most that one of these nodes has.
        """
        start, stop = self.starts[nodes], self.starts[nodes + 1]
        count = stop - start
        ended = count == 0
        step = torch.arange(max(int(count.max()), 1), device=nodes.device)
        rows = torch.where(ended, nodes, start)[..., None] + step
        inside = step < torch.where(ended, 1, count)[..., None]
        rows = torch.where(inside, rows, ROOT)
        return torch.where(inside & (self.n_below[rows] > 0), rows, -1)

    def gate(self, leave_out: Ragged | None, candidates: Ragged | None) -> Gate | None:
        """What each request may reach; None = all live items. Rows that name no item are ignored.

        leave_out   items that must not be reached
        candidates  the only items that may be reached
        """
        n = len(self.paths)
        if candidates is not None:
            wanted = candidates.distinct(n)
            return Gate(self._nodes(wanted if leave_out is None else wanted.without(leave_out))[0], self.n_nodes, True)
        if leave_out is None:
            return None
        keys, counts = self._nodes(leave_out.distinct(n))
        return Gate(keys[counts == self.n_below[keys % self.n_nodes]], self.n_nodes, False)

    def _nodes(self, items: Ragged) -> tuple[Tensor, Tensor]:
        """The nodes on the way to each request's live ``items`` as sorted keys ``request * M + node``, and how many of
        the items lie below each."""
        device = self.paths.device
        request = torch.from_numpy(items.row_numbers()).to(device)
        item = torch.from_numpy(items.flat().astype(np.int64)).to(device)
        live = self.n_below[self.paths[item, -1]] > 0
        request, path = request[live], self.paths[item[live]]
        once = torch.ones_like(path, dtype=torch.bool)  # a short name's last node stands several times
        once[:, 1:] = path[:, 1:] != path[:, :-1]
        keys, counts = torch.unique((request[:, None] * self.n_nodes + path)[once], return_counts=True)
        return keys, counts


@dataclass(frozen=True, eq=False)
class Gate:
    """Which nodes a request may pass: ``keys`` ``request * M + node``, ascending, are the open ones or the closed."""

    keys: Tensor
    n_nodes: int
    opens: bool

    def passes(self, request: Tensor, nodes: Tensor) -> Tensor:
        """Whether each node is open to its request; -1 is open to nobody."""
        if not len(self.keys):
            return (nodes >= 0) & (not self.opens)
        asked = request * self.n_nodes + nodes
        place = torch.searchsorted(self.keys, asked).clamp_(max=len(self.keys) - 1)
        return ((self.keys[place] == asked) == self.opens) & (nodes >= 0)


def _count(paths: npt.NDArray[np.int64], live: npt.NDArray[np.bool_], n_nodes: int) -> npt.NDArray[np.int64]:
    """``[M]`` live items at or below each node."""
    once = np.ones(paths.shape, dtype=bool)
    once[:, 1:] = paths[:, 1:] != paths[:, :-1]
    counts = np.bincount(paths[once & live[:, None]], minlength=n_nodes)
    counts[ROOT] = live.sum()
    return counts
