"""Waiting for an answer no longer than somebody would, and work aside of the desks that is never too much at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from palate.core.errors import PalateError
from palate.serving.batching import BusyError, ClosedError

S = TypeVar("S")
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

    def finish(self) -> None:
        """Take nothing more, and come back when what waits is done."""
        self._threads.shutdown(wait=True)

    def close(self) -> None:
        """Take nothing more and drop what waits."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def then(first: Future[S], put: Callable[[S], Future[T]]) -> Future[T]:
    """The result of what ``put`` begins with the result of ``first``. Cancelled, it cancels whichever still waits."""
    answer: Future[T] = Future()
    last: list[Future[Any]] = [first]

    def go_on(done: Future[S]) -> None:
        try:
            following = put(done.result())
        except CancelledError:
            _fail(answer, ClosedError())
        except Exception as problem:
            _fail(answer, problem)
        else:
            last.append(following)
            if answer.cancelled():
                following.cancel()
            following.add_done_callback(settle)

    def settle(done: Future[T]) -> None:
        if done.cancelled():
            _fail(answer, ClosedError())
        elif (problem := done.exception()) is not None:
            _fail(answer, problem)
        elif answer.set_running_or_notify_cancel():
            answer.set_result(done.result())

    answer.add_done_callback(lambda done: done.cancelled() and last[-1].cancel())
    first.add_done_callback(go_on)
    return answer


def _fail(answer: Future[Any], problem: BaseException) -> None:
    if answer.set_running_or_notify_cancel():
        answer.set_exception(problem)


async def in_time(work: Future[T] | Awaitable[T], seconds: float) -> T:
    """The result, or ``LateError``; questions that still wait then are dropped from the queue."""
    waited = asyncio.wrap_future(work) if isinstance(work, Future) else work
    try:
        return await asyncio.wait_for(waited, seconds)
    except TimeoutError:
        raise LateError(f"no answer within {round(seconds, 1):g} s; ask again") from None
