"""Vectors of what is written about users and items, gathered from texts of which some are empty.

Shapes: U users, N items, K attributes of an item, S width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from palate.core.protocols import FloatArray


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of texts, and whether there was one: items' texts ``[N, S]``, traits of users ``[U, S]``, attributes of
    items ``[K, N, S]``; flags without the last letter."""

    text: Tensor
    traits: Tensor
    attributes: Tensor
    text_known: Tensor
    traits_known: Tensor
    attributes_known: Tensor

    def to(self, device: torch.device | str) -> Features:
        return Features(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    @classmethod
    def of(
        cls,
        text: Sequence[str],
        attributes: Sequence[Sequence[str]],
        traits: Sequence[str],
        encode: Callable[[Sequence[str]], FloatArray],
    ) -> Features:
        """From texts of items ``[N]``, values of each attribute K × ``[N]``, texts of users ``[U]``; "" = unknown.
        ``encode`` is given those that are not empty, if there are any."""
        n, k = len(text), len(attributes)
        vectors, known = encoded([*text, *(value for column in attributes for value in column), *traits], encode)
        ends = (slice(0, n), slice((k + 1) * n, None), slice(n, (k + 1) * n))
        shape = (k, n, vectors.shape[1])
        return cls(
            vectors[ends[0]], vectors[ends[1]], vectors[ends[2]].view(shape),
            known[ends[0]], known[ends[1]], known[ends[2]].view(shape[:2]),
        )  # fmt: skip


def encoded(texts: Sequence[str], encode: Callable[[Sequence[str]], FloatArray]) -> tuple[Tensor, Tensor]:
    """``[n, S]`` the vector of each text, zeros for an empty one; ``[n]`` where there is one that says anything."""
    known = np.array([bool(text) for text in texts], dtype=bool)
    said = [text for text in texts if text]
    found = encode(said) if said else np.zeros((0, 1), np.float32)
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[known] = found
    known &= np.linalg.norm(vectors, axis=1) > 0  # a text without a word that the encoder knows says nothing
    return torch.from_numpy(vectors), torch.from_numpy(known)
