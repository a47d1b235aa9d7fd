"""The k best of each row of a score block, exactly and with stable ties, without sorting what cannot win.

Columns are dealt into groups. The k-th largest group maximum is reached by at least k columns, so it is a floor under
the k-th best score, and one comparison leaves little more than k candidates a row. Each candidate becomes one integer
(score falling, then column rising), and sorting those integers is the stable order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]

NOTHING = np.uint64(2**64 - 1)
"""The key of no candidate at all; sorts last."""

_PIECE_BYTES = 1 << 21
"""Rows are worked on in pieces of about this size, so that the second look at a score finds it in the cache."""

_SIGN = np.uint32(0x80000000)
_HALF = np.uint64(32)
_COLUMN_BITS = np.uint64(0xFFFFFFFF)


def top_k(scores: FloatArray, k: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Columns and scores ``[b, k]`` of the k largest of each row, best first, ties to the lower column, NaN never.

    Where a row has fewer than k numbers, -1 and NaN fill the end. Infinities are numbers like any other.
    """
    return decoded(best_keys(scores, k))


def best_keys(scores: FloatArray, k: int, first_column: int = 0) -> Keys:
    """``[b, k]`` ascending keys of the k best of each row; columns count from ``first_column``."""
    scores = np.asarray(scores, dtype=np.float32)
    b, n = scores.shape
    best = np.full((b, k), NOTHING)
    width = min(k, n)
    if width == 0:
        return best
    n_groups = max(256, 1 << (4 * k - 1).bit_length())
    step = max(1, _PIECE_BYTES // (4 * n))
    for start in range(0, b, step):
        piece = scores[start : start + step]
        into = best[start : start + step]
        if n < 4 * n_groups:
            into[:, :width] = _sorted_whole(piece, width, first_column)
        else:
            _sift(piece, k, n_groups, first_column, into)
    return best


def decoded(keys: Keys) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Columns and scores of keys; -1 and NaN for ``NOTHING``."""
    missing = keys == NOTHING
    columns = (keys & _COLUMN_BITS).astype(np.int64)
    columns[missing] = -1
    return columns, scores_of(keys)


def scores_of(keys: Keys) -> FloatArray:
    """The scores inside keys; NaN for ``NOTHING``."""
    rising = ~(keys >> _HALF).astype(np.uint32)
    bits = np.where(rising >= _SIGN, rising ^ _SIGN, ~rising)
    scores = bits.view(np.float32)
    scores[keys == NOTHING] = np.nan
    return scores


def keys_of(scores: FloatArray, columns: IntArray) -> Keys:
    """One integer a score: smaller is better, and the lower column among equals. NaN becomes ``NOTHING``."""
    # Adding zero turns -0.0 into 0.0, which must tie with it. Floats of one sign order like their bits.
    bits = (scores + np.float32(0)).view(np.uint32)
    falling = np.where(bits >= _SIGN, bits, bits ^ ~_SIGN)
    keys = (falling.astype(np.uint64) << _HALF) | columns.astype(np.uint64)
    keys[np.isnan(scores)] = NOTHING
    return keys


def padded(keys: Keys, rows: IntArray, n_rows: int) -> Keys:
    """Flat keys with ascending row numbers → ``[n_rows, most keys of a row]``, filled with ``NOTHING``."""
    if n_rows == 1:
        return keys[None]
    counts = np.bincount(rows, minlength=n_rows)
    table = np.full((n_rows, int(counts.max(initial=0))), NOTHING)
    table[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = keys
    return table


def true_positions(flags: BoolArray) -> tuple[IntArray, IntArray]:
    """Rows and columns of the few True in a C-contiguous ``[b, n]`` whose n is a multiple of 8, in row order."""
    if len(flags) == 1:
        columns = np.flatnonzero(flags)
        return np.zeros_like(columns), columns
    words = np.flatnonzero(flags.view(np.uint64).reshape(-1) != 0)
    word, byte = np.nonzero(flags.reshape(-1, 8)[words])
    return np.divmod(words[word] * 8 + byte, flags.shape[1])


def eights(n: int) -> int:
    """``n`` rounded up to whole 8-byte words of flags."""
    return (n + 7) // 8 * 8


def _sorted_whole(scores: FloatArray, width: int, first_column: int) -> Keys:
    keys = keys_of(scores, np.arange(first_column, first_column + scores.shape[1], dtype=np.uint64))
    if width < scores.shape[1]:
        keys = np.partition(keys, width - 1, axis=1)[:, :width]
    return np.sort(keys, axis=1)


def _sift(scores: FloatArray, k: int, n_groups: int, first_column: int, best: Keys) -> None:
    """Write the k best keys of each row of a wide piece into ``best``."""
    b, n = scores.shape
    floor = _floor(scores, k, n_groups)
    flags = np.zeros((b, eights(n)), dtype=bool)
    np.greater_equal(scores, floor, out=flags[:, :n])
    if np.count_nonzero(flags) > 2 * b * k:
        crowded = np.flatnonzero(np.count_nonzero(flags, axis=1) > 4 * k)
        for row in crowded:
            columns = _crowded(scores[row], floor[row, 0], k)
            found = np.sort(keys_of(scores[row, columns], columns + first_column))[:k]
            best[row, : len(found)] = found
        flags[crowded] = False
    rows, columns = true_positions(flags)
    found = padded(keys_of(scores[rows, columns], columns + first_column), rows, b)
    found.sort(axis=1)
    plain = np.bincount(rows, minlength=b) > 0
    width = min(k, found.shape[1])
    best[plain, :width] = found[plain, :width]


def _floor(scores: FloatArray, k: int, n_groups: int) -> FloatArray:
    """``[b, 1]`` a score that at least k columns of a row reach; -inf where the row may hold fewer numbers.

    Column c is in group c mod ``n_groups``, so neighbours, which often score alike, fall into different groups.
    """
    b, n = scores.shape
    deep = n // n_groups
    whole = deep * n_groups
    highest = np.fmax.reduce(scores[:, :whole].reshape(b, deep, n_groups), axis=1)
    rest = highest[:, : n - whole]
    np.fmax(rest, scores[:, whole:], out=rest)
    highest[np.isnan(highest)] = -np.inf
    return np.partition(highest, n_groups - k, axis=1)[:, n_groups - k, None]


def _crowded(scores: FloatArray, floor: np.float32, k: int) -> IntArray:
    """Columns that hold the k best of one row in which very many reach the floor, most of them level with it."""
    above = np.flatnonzero(scores > floor)
    missing = k - len(above)
    level = above[:0]
    reach = 8 * k
    while missing > len(level):
        level = np.flatnonzero(scores[:reach] == floor)[:missing]
        if reach >= len(scores):
            break
        reach *= 8
    return np.concatenate([above, level])
