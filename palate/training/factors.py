"""How systems answer that hold a vector for each user and each item.

A user's vector is an own part, learnt under the user's name, plus what the history says: the sum of a message from
each distinct item met, divided by a power of their number. So a known user whose history has not changed has the
trained vector, a longer history moves it, and a person without a known name is the history alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from palate.core.protocols import ScoresAll
from palate.core.requests import Requests
from palate.core.version import Version
from palate.data.matrices import in_blocks, request_items

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Factors:
    """What answers need.

    users        ``[U, D]`` the vector of each user as trained; answers a name that comes without a history
    own          ``[U, D]`` the part of it that the history does not explain
    messages     ``[N, D]`` what having met an item adds
    power        the sum over a history of n distinct items is divided by ``n ** power``
    items        ``[N, D]`` what user vectors are compared with
    bias         ``[N]`` added to every score
    user_counts  ``[U]`` distinct training items of each user; a name with none is an unknown name
    item_counts  ``[N]`` training users of each item: the answer for a newcomer; an item with none scores NaN
    """

    users: FloatArray
    own: FloatArray
    messages: FloatArray
    power: float
    items: FloatArray
    bias: FloatArray
    user_counts: FloatArray
    item_counts: FloatArray

    @classmethod
    def of(cls, *, bias: Tensor | None, power: float, **tensors: Tensor) -> Factors:
        """The same from a network's tensors; no ``bias`` is a bias of 0."""
        arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
        zeros = np.zeros(len(arrays["items"]), dtype=np.float32)
        return cls(**arrays, power=power, bias=zeros if bias is None else bias.detach().float().cpu().numpy())

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        """Scores ``[b, N]`` of consecutive requests."""
        popularity = self.item_counts / max(self.item_counts.max(initial=0), 1)
        for part in in_blocks(requests, len(self.items)):
            vectors, newcomers = self._vectors(part)
            scores = vectors @ self.items.T
            scores += self.bias
            scores[newcomers] = popularity
            scores[:, self.item_counts == 0] = np.nan
            yield scores

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]`` the vector of each request, NaN for a newcomer; with biases one more column, of ones."""
        found = []
        for part in in_blocks(requests, len(self.items)):
            vectors, newcomers = self._vectors(part)
            vectors = self._beside(vectors, np.ones(len(vectors), dtype=np.float32))
            vectors[newcomers] = np.nan
            found.append(vectors)
        return np.concatenate(found) if found else self._beside(self.items[:0], self.bias[:0])

    def item_vectors(self) -> FloatArray:
        """``[N, D]`` what user vectors are multiplied with, NaN for an item that was never met; with biases one more
        column, which holds them."""
        vectors = self._beside(self.items, self.bias)
        return np.where(self.item_counts[:, None] > 0, vectors, np.float32(np.nan))

    def _beside(self, vectors: FloatArray, column: FloatArray) -> FloatArray:
        return np.concatenate([vectors, column[:, None]], axis=1) if self.bias.any() else vectors.copy()

    def _vectors(self, requests: Requests) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """``[b, D]`` the vector of each request, and who has neither a known name nor a readable history."""
        met = request_items(requests, len(self.items))
        met.data[:] = self.item_counts[met.indices] > 0  # an item that nobody met in training has nothing to say
        n_met = met.sum(axis=1)
        vectors = said(met, self.messages, self.power)
        rows = np.full(len(requests), -1) if requests.user_rows is None else np.asarray(requests.user_rows)
        known = (rows >= 0) & (rows < len(self.users))
        known[known] = self.user_counts[rows[known]] > 0
        speaking, mute = np.flatnonzero(known & (n_met > 0)), np.flatnonzero(known & (n_met == 0))
        vectors[speaking] += self.own[rows[speaking]]
        vectors[mute] = self.users[rows[mute]]
        return vectors, ~known & (n_met == 0)


class AnswersByFactors(ScoresAll):
    """Answers and the two towers of a system whose network can say its factors."""

    facts: dict[str, Any]

    @abstractmethod
    def factors(self) -> Factors:
        """Those of the fitted network."""

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        return self.factors().score_blocks(requests)

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]``; NaN for somebody of whom nothing is known."""
        return self.factors().user_vectors(requests)

    def item_vectors(self) -> FloatArray:
        """``[N, D]``; NaN for an item that was never met in training."""
        return self.factors().item_vectors()

    @property
    def vectors_version(self) -> str:
        """Of the vectors of the last fit."""
        factors = self.factors()
        return self._version.of((self.facts,), lambda: (factors.items, factors.bias, factors.messages, factors.own))

    @cached_property
    def _version(self) -> Version:
        return Version()


def said(met: Any, messages: npt.NDArray[np.floating], power: float) -> FloatArray:
    """``[B, D]`` what the histories ``met`` (sparse ``[B, N]`` of ones) say: messages summed, over ``n ** power``."""
    n_met = np.maximum(met.sum(axis=1), 1)
    return (met @ messages / n_met[:, None] ** power).astype(np.float32)


def fold_in(
    users: npt.NDArray[np.float64], items: npt.NDArray[np.float64], met: Any, *, reg: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Split user vectors ``[U, D]`` into what histories explain and a rest: (own ``[U, D]``, messages ``[N, D]``).

    A ``D x D`` matrix W is fitted by ridge regression, of weight ``reg`` in users, from the mean item vector of each
    history to the user's vector. An item's message is its vector times W, and a history of n says the sum over n.
    """
    taught = np.diff(met.indptr) > 0
    means = said(met, items, 1.0)[taught].astype(np.float64)
    gram = means.T @ means + reg * (items.var() + 1e-12) * np.eye(items.shape[1])
    messages = items @ np.linalg.solve(gram, means.T @ users[taught])
    return users - said(met, messages, 1.0), messages
