"""From items' names to answers: what every system shares that recommends by saying names token by token.

Shapes: N items, T tokens of the longest name, B requests, K the beam width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.core.codes import Codes
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.parts.decode import Found, Speaker, beam_search
from palate.parts.trie import Trie

Speak = Callable[[Requests], Speaker]
"""A model that has read some requests and is about to answer each of them."""

AT_ONCE = 64
"""Requests that are read together."""
ROWS_AT_ONCE = 4096
"""Beams of all requests together while chosen items are scored."""


class Naming:
    """The catalogue as a model says it.

    tokens  ``[N, T]`` every item's name in the model's vocabulary, -1 after its end. Where names differ in length, or
            all are to be ``ended``, each ends with ``end``, so that none is the beginning of another
    trie    of the live ones
    """

    def __init__(
        self,
        names: npt.NDArray[np.integer],
        vocabulary: int,
        live: npt.NDArray[np.bool_],
        *,
        end: int,
        ended: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """``names`` ``[N, K]`` in the model's vocabulary, -1 after the end of a shorter one."""
        names = np.asarray(names, dtype=np.int64)
        lengths = (names >= 0).sum(1)
        if len(names) and (ended or lengths.min() < names.shape[1]):
            names = np.pad(names, ((0, 0), (0, 1)), constant_values=-1)
            names[np.arange(len(names)), lengths] = end
        self.tokens = torch.from_numpy(names).to(device)
        self.trie = Trie.of(names, vocabulary, live, device)

    @classmethod
    def of(cls, codes: Codes, *, first: int, vocabulary: int, end: int, device: torch.device | str = "cpu") -> Naming:
        """Names whose tokens are those of ``codes``, ``first`` being the model's row of the first of them."""
        names = np.where(codes.tokens >= 0, codes.tokens.astype(np.int64) + first, -1)
        return cls(names, vocabulary, codes.live, end=end, device=device)

    @property
    def n_items(self) -> int:
        return len(self.tokens)

    def recommend(self, requests: Requests, k: int, speak: Speak, *, beam: int) -> Rankings:
        """The best ``k`` that a beam of at least ``k`` finds; ``exact`` where that is proven for every request."""
        order = np.argsort(-requests.histories.lengths, kind="stable")
        items = np.full((len(requests), k), -1, dtype=np.int64)
        scores = np.full((len(requests), k), np.nan, dtype=np.float32)
        exact = True
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            some = requests[rows]
            found = self._search(some, speak, beam=max(beam, k), k=k)
            width = found.items.shape[1]
            items[rows, :width] = found.items.cpu().numpy()
            given = found.items >= 0
            scores[rows, :width] = found.scores.masked_fill(~given, torch.nan).cpu().numpy()
            exact = exact and bool(found.exact.all())
        return Rankings(items, scores, exact)

    def score(self, requests: Requests, candidates: Ragged, speak: Speak) -> npt.NDArray[np.float32]:
        """``[sum of C]`` the log-probability of each candidate's name; NaN for an item without a live name."""
        flat = candidates.flat()
        said = np.full(len(flat), np.nan, dtype=np.float32)
        offsets = candidates.offsets()
        row = 0
        while row < len(requests):
            widest, stop = 1, row
            while stop < len(requests) and stop - row < AT_ONCE:
                widest = max(widest, int(candidates.lengths[stop]))
                if stop > row and widest * (stop + 1 - row) > ROWS_AT_ONCE:
                    break
                stop += 1
            asked = candidates[np.arange(row, stop)]
            some = Requests(**{**vars(requests[row:stop]), "candidates": asked, "leave_out": None})
            found = self._search(some, speak, beam=widest, k=widest)
            said[offsets[row] : offsets[stop]] = _looked_up(found, asked, self.n_items)
            row = stop
        return said

    def _search(self, requests: Requests, speak: Speak, *, beam: int, k: int) -> Found:
        leave_out, candidates = (self._known(part) for part in (requests.leave_out, requests.candidates))
        closed = self.trie.closed(leave_out, candidates, len(requests))
        return beam_search(speak(requests), self.trie, len(requests), beam=beam, k=k, closed=closed)

    def _known(self, items: Ragged | None) -> Ragged | None:
        if items is None:
            return None
        flat = items.flat()
        return items.where((flat >= 0) & (flat < self.n_items))


def _looked_up(found: Found, asked: Ragged, n_items: int) -> npt.NDArray[np.float32]:
    """The scores of the asked items, flat; NaN where one was not found."""
    items, scores = found.items.cpu().numpy(), found.scores.cpu().numpy()
    keys = np.where(items >= 0, np.arange(len(items))[:, None] * n_items + items, -1).ravel()
    order = np.argsort(keys)
    flat = asked.flat()
    wanted = np.where((flat >= 0) & (flat < n_items), asked.row_numbers() * n_items + flat, -2)
    place = np.minimum(np.searchsorted(keys[order], wanted), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(flat), np.nan, dtype=np.float32)
    hit = keys[order][place] == wanted
    return np.where(hit, scores.ravel()[order][place], np.nan).astype(np.float32)


def spelled(names: Tensor, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Packed items as packed tokens: ``[P]`` rows of ``names`` ``[N, T]`` and ``[b]`` items of each sequence → ``[P']``
    tokens and ``[b]`` how many belong to each."""
    rows = names[items]
    real = rows >= 0
    ends = torch.cumsum(lengths, 0)
    counted = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(real.sum(1).cpu(), 0)])
    return rows[real], counted[ends] - counted[ends - lengths]
