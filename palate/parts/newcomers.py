"""One of whom nothing is known is shown what people meet most, also by systems that search for their answers.

Nothing tells such questions apart, so the counts are the best that a network could learn for them, and it knows them
before it has learnt anything. Shapes: B requests, C candidates, N items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from palate.core.protocols import FloatArray
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings, pick, rank
from palate.core.requests import Requests

Flags = npt.NDArray[np.bool_]
AT_ONCE = 64
"""Score rows held at once."""


def silent_ones(requests: Requests, n_items: int, known_users: Flags) -> Flags:
    """``[B]`` whose history holds no known item and who are no known user, ``known_users`` ``[U]``."""
    unread = requests.known(n_items).histories.lengths == 0
    if requests.user_rows is None:
        return unread
    rows = np.asarray(requests.user_rows)
    inside = (rows >= 0) & (rows < len(known_users))
    return unread & ~np.append(known_users, False)[np.where(inside, rows, len(known_users))]


def recommend(
    requests: Requests, k: int, search: Callable[[Requests, int], Rankings], silent: Flags, shares: FloatArray
) -> Rankings:
    """The ``silent`` ``[B]`` are answered with the best of ``shares`` ``[N]`` (NaN = never), others by ``search``."""
    if not silent.any():
        return search(requests, k)
    found, asked = search(requests[np.flatnonzero(~silent)], k), requests[np.flatnonzero(silent)]
    counted = rank(_blocks(len(asked), shares), k, leave_out=asked.leave_out, candidates=asked.candidates)
    items, scores = np.empty((len(requests), k), dtype=np.int64), np.empty((len(requests), k), dtype=np.float32)
    for rows, answer in ((~silent, found), (silent, counted)):
        items[rows], scores[rows] = answer.item_rows, answer.scores
    return Rankings(items, scores, found.exact and counted.exact)


def score(
    requests: Requests,
    candidates: Ragged,
    search: Callable[[Requests, Ragged], FloatArray],
    silent: Flags,
    shares: FloatArray,
) -> FloatArray:
    """``[sum of C]`` scores of the candidates, flat; see ``recommend``."""
    if not silent.any():
        return search(requests, candidates)
    loud, quiet = np.flatnonzero(~silent), np.flatnonzero(silent)
    of_silent = silent[candidates.row_numbers()]
    flat = np.empty(len(of_silent), dtype=np.float32)
    flat[~of_silent] = search(requests[loud], candidates[loud])
    flat[of_silent] = pick(_blocks(len(quiet), shares), candidates[quiet])
    return flat


def _blocks(n: int, shares: FloatArray) -> Iterator[FloatArray]:
    """``[b, N]`` the same row for each of n requests."""
    for start in range(0, n, AT_ONCE):
        yield np.repeat(shares[None], min(AT_ONCE, n - start), axis=0)
