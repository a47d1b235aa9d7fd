"""Waiting for an answer no longer than somebody would, and work aside of the desks that is never too much at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from palate.core.errors import PalateError
from palate.serving.batching import BusyError, ClosedError

T = TypeVar("T")

BACK_SECONDS = 2
"""Whoever found a room full is told to come back then."""


class LateError(PalateError):
    """The answer did not come in time."""


class Room:
    """``threads`` that do work beside the desks; at most ``waiting`` further pieces wait, then ``BusyError``."""

    def __init__(self, threads: int, waiting: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._free = threading.BoundedSemaphore(threads + waiting)

    def do(self, work: Callable[[], T]) -> Future[T]:
        """The result of ``work`` to come. One that is cancelled while it waits costs no work."""
        if not self._free.acquire(blocking=False):
            raise BusyError(BACK_SECONDS)
        try:
            future = self._threads.submit(work)
        except RuntimeError:  # closed
            self._free.release()
            raise ClosedError from None
        future.add_done_callback(lambda _: self._free.release())
        return future

    def close(self) -> None:
        """Take nothing more and drop what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def in_time(work: Future[T] | Awaitable[T], seconds: float) -> T:
    """The result, or ``LateError``; questions that still wait then are dropped from the queue."""
    waited = asyncio.wrap_future(work) if isinstance(work, Future) else work
    try:
        return await asyncio.wait_for(waited, seconds)
    except TimeoutError:
        raise LateError(f"no answer within {round(seconds, 1):g} s; ask again") from None
