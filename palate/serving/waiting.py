"""Waiting for an answer no longer than somebody would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from palate.core.errors import PalateError

T = TypeVar("T")


class LateError(PalateError):
    """The answer did not come in time."""


async def in_time(work: Future[T] | Awaitable[T], seconds: float) -> T:
    """The result, or ``LateError``; questions that still wait then are dropped from the queue."""
    waited = asyncio.wrap_future(work) if isinstance(work, Future) else work
    try:
        return await asyncio.wait_for(waited, seconds)
    except TimeoutError:
        raise LateError(f"no answer within {seconds:g} s; ask again") from None


async def aside(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work`` done in a thread of its own, so that nobody else waits for it."""
    return await in_time(asyncio.to_thread(work), seconds)
