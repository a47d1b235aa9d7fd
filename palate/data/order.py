"""The order of histories: by user, then time, then file order, in far less time than a general sort needs.

Two steps. A counting sort brings the events of consecutive users together in buckets small enough for the cache. Then
each bucket is sorted by one 64-bit key an event (user inside the bucket | time | place inside the bucket), for which
numpy has vector instructions. The last bits make every key distinct, so the result is exactly the stable one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray

PLACE_BITS = 15
"""Events a bucket, as a power of two: its keys, positions and times stay in a core's second-level cache."""

MOST_TIME_BITS = 41
"""Milliseconds of seventy years. A wider span of times is replaced by ranks, which need no more bits than events."""

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class HistoryOrder:
    """positions ``[E]``: the events in history order. offsets ``[users + 1]``: where each user's history begins.

    along: the columns that were brought into this order on the way.
    """

    positions: IntArray
    offsets: IntArray
    along: tuple[AnyArray, ...] = ()

    @property
    def user_rows(self) -> npt.NDArray[np.int32]:
        """``[E]`` the user of each ordered event."""
        counts = np.diff(self.offsets)
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def history_order(
    user_rows: npt.NDArray[np.integer],
    times: IntArray | None,
    n_users: int,
    *,
    known: npt.NDArray[np.bool_] | None = None,
    along: Sequence[AnyArray] = (),
    threads: int | None = None,
) -> HistoryOrder:
    """Events by user, then time, then place in the input; an unknown time comes before every known one.

    user_rows ``[E]`` in ``[0, n_users)``; times ``[E]`` int64 of any unit and sign, or None = keep the input's order;
    known ``[E]`` False where the time is unknown; along: columns ``[E]`` to bring into this order as well. Equal to a
    stable sort by ``(user, time)``, ties included, at any number of threads.
    """
    offsets = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(np.bincount(user_rows, minlength=n_users), out=offsets[1:])
    clock = _Clock.of(times, known)
    buckets = _buckets(offsets, PLACE_BITS, user_bits=64 - clock.bits - PLACE_BITS)
    positions, keys = _group(user_rows, clock, buckets)
    brought = tuple(np.empty(len(column), dtype=column.dtype) for column in along)

    def sort(bucket: int) -> None:
        begin, end = int(offsets[buckets[bucket]]), int(offsets[buckets[bucket + 1]])
        # Fancy indexing copies, so writing back over the same stretch is safe.
        here = positions[begin:end][_local_order(keys[begin:end])]
        positions[begin:end] = here
        for column, target in zip(along, brought, strict=True):
            target[begin:end] = column[here]

    _in_threads(sort, len(buckets) - 1, threads)
    return HistoryOrder(positions, offsets, brought)


@dataclass(frozen=True)
class _Clock:
    """Times as small unsigned numbers. values None: all equal. low: what is subtracted; unknown becomes 0."""

    values: IntArray | None
    low: int
    bits: int
    known: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, times: IntArray | None, known: npt.NDArray[np.bool_] | None) -> _Clock:
        if times is None or not len(times) or (known is not None and not known.any()):
            return cls(None, 0, 0, None)
        if known is not None and known.all():
            known = None
        span = times if known is None else times[known]
        low, high = int(span.min()), int(span.max())
        if (high - low + 1).bit_length() > MOST_TIME_BITS:
            _, ranks = np.unique(times, return_inverse=True)
            return cls.of(ranks.reshape(-1).astype(np.int64), known)
        low -= known is not None
        return cls(times, low, (high - low).bit_length(), known)

    def offsets(self, events: slice) -> npt.NDArray[np.uint64] | None:
        """Of some events: how long after the earliest time; None where all are equal."""
        if self.values is None:
            return None
        # In two's complement the difference is right as an unsigned number, whatever the signs.
        since = self.values[events].view(np.uint64) - np.uint64(self.low % (1 << 64))
        if self.known is not None:
            since[~self.known[events]] = 0
        return since


def _buckets(offsets: IntArray, place_bits: int, user_bits: int) -> IntArray:
    """First users of consecutive buckets and the end: at most ``2^user_bits`` users and ``2^place_bits`` events each.

    A user with more events than that is a bucket alone.
    """
    firsts, n_users = [0], len(offsets) - 1
    while firsts[-1] < n_users:
        first = firsts[-1]
        stop = int(np.searchsorted(offsets, offsets[first] + (1 << place_bits), side="right")) - 1
        firsts.append(min(max(stop, first + 1), first + (1 << user_bits), n_users))
    return np.array(firsts)


def _group(user_rows: AnyArray, clock: _Clock, buckets: IntArray) -> tuple[IntArray, npt.NDArray[np.uint64]]:
    """Counting sort into buckets: positions ``[E]``, and the key ``user inside the bucket | time`` of each.

    An event is one column of a sparse matrix, so its change from columns to rows is exactly a stable counting sort.
    """
    from scipy import sparse

    n_events, n_buckets = len(user_rows), len(buckets) - 1
    index = np.int32 if n_events < np.iinfo(np.int32).max else np.int64
    sizes = np.diff(buckets)
    bucket_of = np.repeat(np.arange(n_buckets, dtype=index), sizes)
    inside = np.arange(len(bucket_of)) - np.repeat(buckets[:-1], sizes)
    key_of = inside.astype(np.uint64) << np.uint64(clock.bits)
    rows, keys = np.empty(n_events, dtype=index), np.empty(n_events, dtype=np.uint64)

    def fill(part: int) -> None:
        events = slice(part * _STRETCH, min((part + 1) * _STRETCH, n_events))
        users = user_rows[events]
        rows[events] = bucket_of[users]
        found = key_of[users]
        since = clock.offsets(events)
        if since is not None:
            found |= since
        keys[events] = found

    _in_threads(fill, -(-n_events // _STRETCH), None)
    columns = sparse.csc_array((keys, rows, np.arange(n_events + 1, dtype=index)), shape=(n_buckets, n_events))
    grouped = columns.tocsr()
    return grouped.indices, grouped.data


_STRETCH = 1 << 18


def _local_order(keys: npt.NDArray[np.uint64]) -> IntArray:
    """The stable order of one bucket's keys ``user | time``; their upper bits are free for the shift by places."""
    bits = (len(keys) - 1).bit_length() if len(keys) else 0
    if len(keys) and int(keys.max()).bit_length() + bits > 64:
        return np.argsort(keys, kind="stable")
    packed = keys << np.uint64(bits)
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    packed &= np.uint64((1 << bits) - 1)
    return packed.view(np.int64)


def _in_threads(work: Callable[[int], None], n_parts: int, threads: int | None) -> None:
    """Call ``work`` with every part. Parts touch different memory, so the result does not depend on the threads."""
    count = min(threads or min(4, os.cpu_count() or 1), max(n_parts, 1))
    if count == 1:
        for part in range(n_parts):
            work(part)
        return
    with ThreadPoolExecutor(max_workers=count) as pool:
        for _ in pool.map(work, range(n_parts)):
            pass
