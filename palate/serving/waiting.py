"""Waiting for an answer no longer than somebody would, and work aside of the desks that is never too much at once."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
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


class Arrivals:
    """Brings to an event loop what threads have finished. Those that finish together, as a batch does, wake it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._come: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._rung = False

    def of(self, work: Future[T]) -> asyncio.Future[T]:
        """What is done when ``work`` is; for the thread of the loop."""
        here: asyncio.Future[T] = self.loop.create_future()
        work.add_done_callback(partial(self._came, here))
        return here

    def _came(self, here: asyncio.Future[Any], work: Future[Any]) -> None:
        self._come.append((here, work))
        if not self._rung and not self.loop.is_closed():
            self._rung = True
            self.loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._rung = False  # first: whoever comes from now on rings again
        while self._come:
            here, work = self._come.popleft()
            if here.done():  # nobody waits for it any more
                continue
            try:
                _settle(here, work)
            except TypeError:  # a StopIteration, which no task can be told
                here.set_exception(RuntimeError(repr(work.exception())))


def _settle(here: asyncio.Future[Any], work: Future[Any]) -> None:
    if work.cancelled():
        here.set_exception(ClosedError())
    elif (problem := work.exception()) is not None:
        here.set_exception(problem)
    else:
        here.set_result(work.result())


class _OfThread(threading.local):
    """A thread runs one loop at a time."""

    arrivals: Arrivals | None = None


_HERE = _OfThread()


async def in_time(work: Future[T], seconds: float) -> T:
    """The result, or ``LateError``; questions that still wait then are dropped from the queue."""
    loop, arrivals = asyncio.get_running_loop(), _HERE.arrivals
    if arrivals is None or arrivals.loop is not loop:
        arrivals = _HERE.arrivals = Arrivals(loop)
    here = arrivals.of(work)
    late = loop.call_later(seconds, _give_up, here, seconds)
    try:
        return await here
    finally:
        late.cancel()
        work.cancel()  # nothing where it is done


def _give_up(here: asyncio.Future[Any], seconds: float) -> None:
    if not here.done():
        here.set_exception(LateError(f"no answer within {round(seconds, 1):g} s; ask again"))
