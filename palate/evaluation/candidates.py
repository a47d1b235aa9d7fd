"""Drawn candidates: for each case a few items beside the target, the same whatever else is asked.

Item i of case c gets the key ``-log(u) / w_i`` where ``u`` is a hash of (c, i): the n smallest keys are a sample
without replacement in proportion to the weights (Efraimidis & Spirakis 2006, "Weighted random sampling with a
reservoir"). Keys instead of a generator make the draw independent of batches and order, and exact for any weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.split import Cases

_CELLS = 1 << 19
"""Keys made at a time: two megabytes."""


def draw(cases: Cases, *, n: int, n_items: int, seed: int, weights: npt.NDArray[np.float32] | None = None) -> Ragged:
    """Candidates of each case, ascending: its target and ``n`` items outside its history, or all there are if fewer.

    weights     ``[N]`` how readily each item is drawn, never at 0; None = all alike
    """
    case_keys = _case_keys(cases, seed)
    item_keys = _mixed(np.arange(n_items, dtype=np.uint32) * np.uint32(0x9E3779B9))
    with np.errstate(divide="ignore"):
        log_weights = None if weights is None else np.log(np.asarray(weights, dtype=np.float32))
    step = max(1, _CELLS // max(n_items, 1))
    drawn: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    lengths: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(cases), step):
        part = slice(start, start + step)
        keys = _keys(case_keys[part], item_keys, log_weights)
        each = np.arange(len(keys))
        met = cases.requests.histories[part].distinct(n_items)
        keys[met.row_numbers(), met.flat()] = np.inf
        keys[each, cases.targets[part]] = np.inf
        cells = np.sort(np.concatenate([_smallest(keys, n), each * n_items + cases.targets[part]]))
        lengths.append(np.bincount(cells // n_items, minlength=len(keys)))
        drawn.append(cells % n_items)
    return Ragged.from_lengths(np.concatenate(drawn), np.concatenate(lengths))


def _smallest(keys: npt.NDArray[np.float32], n: int) -> IntArray:
    """Flat positions of the ``n`` smallest finite keys of each row, or of all there are; of equal keys the left one."""
    b, width = keys.shape
    # A bound that a few rows show to hold a little more than n leaves hardly anything to sort; any bound is correct.
    reach = min(width - 1, n + 20 + int(10 * n**0.5))
    at = np.flatnonzero(keys <= np.partition(keys[:8], reach, axis=1)[:, reach].max())
    few = np.bincount(at // width, minlength=b) < n
    whole = np.flatnonzero(few)[:, None] * width + np.arange(width)
    at = np.concatenate([at[~few[at // width]], whole.ravel()])
    at = at[np.isfinite(keys.ravel()[at])]
    at = at[np.lexsort((at, keys.ravel()[at], at // width))]
    rows = at // width
    return at[np.arange(len(at)) - np.searchsorted(rows, np.arange(b))[rows] < n]


def _keys(
    case_keys: npt.NDArray[np.uint32], item_keys: npt.NDArray[np.uint32], log_weights: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """``[b, N]`` the logarithm of each key, which has the same order; infinite where the weight is 0."""
    bits = _mixed(case_keys[:, None] ^ item_keys[None, :]) >> np.uint32(9)
    # 23 bits and a half: strictly between 0 and 1 in single precision, so both logarithms are finite.
    uniform = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23)
    if log_weights is None:
        return uniform
    return np.log(-np.log(uniform)) - log_weights


def _case_keys(cases: Cases, seed: int) -> npt.NDArray[np.uint32]:
    """``[B]`` a hash of (seed, user, target, event): who is asked what, not where the case stands in a table."""
    key = np.full(len(cases), seed % 2**64, dtype=np.uint64)
    for column in (cases.user_rows, cases.targets, cases.events):
        key = _mixed_wide(key ^ np.asarray(column, dtype=np.int64).view(np.uint64))
    return (key >> np.uint64(32)).astype(np.uint32)


def _mixed(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Every bit depends on every bit: the 32-bit finaliser of MurmurHash3. Changes ``x`` in place."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return x


def _mixed_wide(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The 64-bit finaliser of SplitMix64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
