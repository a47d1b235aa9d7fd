"""How fast and how many at once: requests of one process to one server, spaced in time and limited in number."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Threads that ask the same server share one.

    per_minute  requests that may begin in a minute, evenly spaced; None = no limit
    parallel    requests under way at once
    """

    def __init__(self, per_minute: float | None, parallel: int) -> None:
        self._gap = 0.0 if per_minute is None else 60.0 / per_minute
        self._free = threading.Semaphore(parallel)
        self._lock = threading.Lock()
        self._next = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until a request may begin, and counts it as under way inside the block."""
        with self._free:
            self._wait()
            yield

    def hold(self, seconds: float) -> None:
        """Nobody begins for so long: the server asked for a pause."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def _wait(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._gap
                    return
                pause = self._next - now
            time.sleep(pause)
