"""From items' names to answers: what every system shares that recommends by saying names token by token.

Shapes: N items, T tokens of the longest name, B requests, K the beam width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from palate.core.codes import Codes
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.parts.decode import LOGITS, Speaker, beam_search
from palate.parts.trie import Trie

Speak = Callable[[Requests], Speaker]
"""A model that has read some requests and is about to answer each of them."""

AT_ONCE = 64
"""Requests that are read together."""
NAMES_AT_ONCE = 4096
"""Beams, or names, of all these requests together."""


class Naming:
    """The catalogue as a model says it.

    tokens  ``[N, T]`` every item's name in the model's vocabulary, -1 after its end. With ``end`` each name ends with
            that token, so that none is the beginning of another
    trie    of the live ones
    """

    def __init__(
        self,
        names: npt.NDArray[np.integer],
        vocabulary: int,
        live: npt.NDArray[np.bool_],
        *,
        end: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """``names`` ``[N, K]`` in the model's vocabulary, -1 after the end of a shorter one."""
        names = np.asarray(names, dtype=np.int64)
        if end is not None:
            lengths = (names >= 0).sum(1)
            names = np.pad(names, ((0, 0), (0, 1)), constant_values=-1)
            names[np.arange(len(names)), lengths] = end
        self.tokens = torch.from_numpy(names).to(device)
        self.trie = Trie.of(names, vocabulary, live, device)

    @property
    def n_items(self) -> int:
        return len(self.tokens)

    def recommend(self, requests: Requests, k: int, speak: Speak, *, beam: int) -> Rankings:
        """The best ``k`` that a beam of at least ``k`` finds; ``exact`` where that is proven for every request."""
        order = np.argsort(-requests.histories.lengths, kind="stable")
        items = np.full((len(requests), k), -1, dtype=np.int64)
        scores = np.full((len(requests), k), np.nan, dtype=np.float32)
        exact, beam = True, max(beam, k)
        at_once = max(1, min(AT_ONCE, NAMES_AT_ONCE // beam, LOGITS // (beam * self.trie.vocabulary)))
        for start in range(0, len(order) if k else 0, at_once):
            rows = order[start : start + at_once]
            some = requests[rows]
            gate = self.trie.gate(some.leave_out, some.candidates)
            found = beam_search(speak(some), self.trie, len(rows), beam=beam, k=k, gate=gate)
            width = found.items.shape[1]
            items[rows, :width] = found.items.cpu().numpy()
            scores[rows, :width] = found.scores.masked_fill(found.items < 0, torch.nan).cpu().numpy()
            exact = exact and bool(found.exact.all())
        return Rankings(items, scores, exact)

    @torch.no_grad()
    def score(
        self, requests: Requests, candidates: Ragged, speak: Speak, live: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """``[sum of C]`` the log-probability of each candidate's name; NaN where ``live`` ``[N]`` says so or there is
        no name. Each name is said as given: nothing is searched."""
        said = np.full(int(candidates.lengths.sum()), np.nan, dtype=np.float32)
        offsets, device = candidates.offsets(), self.tokens.device
        for start in range(0, len(requests), AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, len(requests)))
            asked, speaker = candidates[rows], speak(requests[rows])
            widest = int(asked.lengths.max(initial=0))
            step = max(1, NAMES_AT_ONCE // len(rows))
            for first in range(0, widest, step):
                slot = first + np.arange(min(step, widest - first))
                there = slot < asked.lengths[:, None]
                place = np.where(there, offsets[rows][:, None] + slot, 0)
                item = np.where(there, candidates.flat()[place], -1)
                named = there & (item >= 0) & (item < self.n_items)
                named[named] = live[item[named]]
                names = self.tokens[torch.from_numpy(np.where(named, item, 0)).to(device)]
                scores = speaker.say(names).cpu().numpy()
                said[place[named]] = scores[named]
        return said


def needs_end(codes: Codes) -> bool:
    """Whether names must end with a token of their own, so that none is the beginning of another: where they differ in
    length, and where they are plain text, since a catalogue that grows has longer numbers and titles. Of names in new
    words none that is added begins like another: their last word stands nowhere else in a name."""
    return not codes.atomic or len(np.unique(codes.lengths)) > 1


def read_before(names: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
    """``[P + b]`` how many tokens of a history's names stand before each of its items and after the last; ``items``
    ``[P]`` packed, ``lengths`` ``[b]`` of them in each history."""
    total = F.pad((names[items] >= 0).sum(1).cumsum(0), (1, 0))
    starts = (torch.cumsum(lengths, 0) - lengths).to(total.device)
    history = torch.repeat_interleave(torch.arange(len(lengths)), lengths + 1).to(total.device)
    place = torch.arange(len(history), device=total.device) - history  # each history has one place more than items
    return total[place] - total[starts][history]


def spelled(names: Tensor, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Packed items as packed tokens: ``[P]`` rows of ``names`` ``[N, T]`` and ``[b]`` items of each sequence → ``[P']``
    tokens and ``[b]`` how many belong to each."""
    rows = names[items]
    real = rows >= 0
    ends = torch.cumsum(lengths, 0)
    counted = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(real.sum(1).cpu(), 0)])
    return rows[real], counted[ends] - counted[ends - lengths]
