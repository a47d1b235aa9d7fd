"""The items of a two-tower system at work: texts, tokens, and vectors of the present weights with their version.

While such a system learns, vectors of a batch's items come out of the tower with gradients, or out of what was pooled
before where the Item LLM rests. When it answers, all vectors lie ready, and belong to the weights that read them.
Shapes: N items, n asked items, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from palate.core.item_vectors import ItemVectors, keys_of
from palate.core.protocols import FloatArray
from palate.core.ragged import Ragged
from palate.parts.item_tower import ItemTokens, ItemTower, Reads


class ItemReader(Reads, Protocol):
    """A text model with its tokenizer."""

    def framed(self, texts: Sequence[str], max_tokens: int, cut: Literal["end", "middle"]) -> Ragged: ...


class ItemNetwork(Protocol):
    """A network with a tower; ``projected`` ``[n, D of the Item LLM]`` → ``[n, D]``."""

    tower: ItemTower
    training: bool

    def projected(self, pooled: Tensor) -> Tensor: ...

    def train(self, mode: bool = True) -> Any: ...


class ItemSide:
    """``held`` are the vectors that answers are made from; None until ``settle``."""

    def __init__(self, reader: ItemReader, max_tokens: int, cut: Literal["end", "middle"]) -> None:
        self.reader, self.max_tokens, self.cut = reader, max_tokens, cut
        self.held: ItemVectors | None = None
        self._texts: Sequence[str] = ()
        self._keys = keys_of(())
        self._tokens: ItemTokens | None = None
        self._pooled: Tensor | None = None
        self._tables: tuple[ItemVectors, ItemTables] | None = None

    def read(self, texts: Sequence[str]) -> None:
        """The catalogue reads so from now on. Tokens are made of what is asked for: all while it learns, later of what
        is new."""
        texts, known = tuple(texts), len(self._texts)
        grown = texts[:known] == self._texts
        self._keys = np.concatenate([self._keys, keys_of(texts[known:])]) if grown else keys_of(texts)
        self._texts, self._pooled, self._tokens = texts, None, None

    def freeze(self, network: ItemNetwork) -> None:
        """From now on, and until texts are read again, the Item LLM's own vectors are those of its present weights."""
        self._pooled = None
        self._pooled = self._pool(network, np.arange(len(self._texts)))

    def thaw(self) -> None:
        self._pooled = None

    def vectors(self, network: ItemNetwork, rows: Tensor) -> Tensor:
        """``[n, D]`` of distinct items, with gradients."""
        if self._pooled is not None:
            return network.projected(self._pooled[rows])
        return network.projected(network.tower(self.reader, self._all_tokens(), rows.cpu()))

    def _all_tokens(self) -> ItemTokens:
        if self._tokens is None:
            self._tokens = self._read(self._texts)
        return self._tokens

    def _read(self, texts: Sequence[str]) -> ItemTokens:
        return ItemTokens.of(self.reader.framed(texts, self.max_tokens, self.cut))

    @torch.no_grad()
    def _pool(self, network: ItemNetwork, rows: npt.NDArray[np.integer]) -> Tensor:
        """``[n, D of the Item LLM]``."""
        if self._pooled is not None:
            return self._pooled[torch.from_numpy(rows)]
        if self._tokens is None and len(rows) < len(self._texts):
            tokens, rows = self._read([self._texts[row] for row in rows]), np.arange(len(rows))
        else:
            tokens = self._all_tokens()
        learning = network.training
        network.train(False)
        try:
            return network.tower(self.reader, tokens, torch.from_numpy(rows.astype(np.int64)))
        finally:
            network.train(learning)

    @torch.no_grad()
    def encoded(self, network: ItemNetwork, texts: Sequence[str]) -> Tensor:
        """``[n, D]`` vectors of texts that no item need have; none is held."""
        learning = network.training
        network.train(False)
        try:
            pooled = network.tower(self.reader, self._read(texts), torch.arange(len(texts)))
            return network.projected(pooled).float()
        finally:
            network.train(learning)

    @torch.no_grad()
    def settle(self, network: ItemNetwork, version: str) -> None:
        """Hold the vectors of ``network``, whose item half is ``version``; only what is stale is encoded."""

        def encode(rows: npt.NDArray[np.integer]) -> FloatArray:
            return network.projected(self._pool(network, rows)).float().cpu().numpy()

        if self.held is None:
            self.held = ItemVectors.of(version, self._keys, encode)
        else:
            self.held = self.held.refreshed(version, self._keys, encode)

    def tables(self, log_share: Tensor) -> ItemTables:
        """Made anew when the vectors held, or their device, have changed."""
        assert self.held is not None
        if self._tables is None or self._tables[0] is not self.held or self._tables[1].read.device != log_share.device:
            self._tables = self.held, ItemTables(self.held, log_share)
        return self._tables[1]


class ItemTables:
    """Item vectors as questions are answered from them.

    read      ``[N, D]`` what the User LLM reads
    compared  ``[N, D]`` of unit length
    offsets   ``[N]`` added to the scores: 0, NaN for an item that was retired
    newcomer  ``[N]`` the answer for an empty history: what people meet most, new items last
    """

    def __init__(self, held: ItemVectors, log_share: Tensor) -> None:
        device, n = log_share.device, len(held)
        self.read = torch.from_numpy(held.vectors).to(device)
        self.compared = F.normalize(self.read, dim=-1)
        live = torch.from_numpy(held.live).to(device)
        self.offsets = torch.zeros(n, device=device).masked_fill_(~live, torch.nan)
        rarest = log_share.min() if len(log_share) else torch.zeros((), device=device)
        self.newcomer = torch.cat([log_share, rarest.expand(max(n - len(log_share), 0))])[:n] + self.offsets
