"""A desk: questions wait in a bounded queue, and one thread answers those that wait together in one go.

While the thread is busy the next questions gather, so batches grow with the load and a lone question never waits for
company. Whatever is not safe for several threads, a model or a file, belongs to one desk.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from palate.core.errors import PalateError

Q = TypeVar("Q")
A = TypeVar("A")

Work = Callable[[Hashable, list[Q]], Sequence[A | PalateError]]
"""Answers questions of one kind, each with its answer or with what is wrong with it."""

LONGEST_WAIT = 60
"""Seconds: nobody is told to come back later than that."""
MEMORY = 0.2
"""Weight of the last batch in the running mean of what a question takes."""


class BusyError(PalateError):
    """The queue is full. ``seconds`` is when it is worth asking again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many questions are waiting; ask again in {seconds} s")
        self.seconds = seconds


class ClosedError(PalateError):
    """The desk takes no more questions."""

    def __init__(self) -> None:
        super().__init__("this server is shutting down; ask again when it is back")


@dataclass(eq=False)
class Waiting(Generic[Q, A]):
    """Questions that came together and get their answers together."""

    kind: Hashable
    questions: list[Q]
    answers: Future[list[A]] = field(default_factory=Future)


class Desk(Generic[Q, A]):
    """``at_once`` questions at most make a batch; at most ``waiting`` wait, further ones raise ``BusyError``.

    ``seen(questions, seconds)`` is told of every batch.
    """

    def __init__(
        self,
        work: Work[Q, A],
        *,
        at_once: int = 64,
        waiting: int = 1024,
        seen: Callable[[int, float], None] | None = None,
        name: str = "desk",
    ) -> None:
        self._work, self._at_once, self._most, self._seen = work, at_once, waiting, seen
        self._queue: deque[Waiting[Q, A]] = deque()
        self._n_waiting = 0
        self._seconds_each = 0.0
        self._closed = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Questions in the queue."""
        return self._n_waiting

    @property
    def open(self) -> bool:
        """Whether it takes questions and somebody answers them."""
        return not self._closed and self._thread.is_alive()

    def ask(self, kind: Hashable, questions: Sequence[Q]) -> Future[list[A]]:
        """Put questions into the queue. The future fails with the first thing that is wrong with one of them.

        Raises ``BusyError`` or ``ClosedError`` at once. A future that is cancelled while it waits costs no work.
        """
        one: Waiting[Q, A] = Waiting(kind, list(questions))
        with self._news:
            if self._closed:
                raise ClosedError
            if self._n_waiting + len(one.questions) > self._most:
                raise BusyError(self._wait_seconds())
            self._queue.append(one)
            self._n_waiting += len(one.questions)
            self._news.notify()
        return one.answers

    def close(self, seconds: float | None = None) -> None:
        """Take nothing more, answer what waits, and come back when that is done or after ``seconds``."""
        with self._news:
            self._closed = True
            self._news.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _wait_seconds(self) -> int:
        return max(1, min(LONGEST_WAIT, math.ceil(self._n_waiting * self._seconds_each)))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while batch := self._take():
            wanted = [one for one in batch if one.answers.set_running_or_notify_cancel()]
            if not wanted:
                continue
            started, n = time.perf_counter(), sum(len(one.questions) for one in wanted)
            self._answer(wanted)
            seconds = time.perf_counter() - started
            self._seconds_each += MEMORY * (seconds / max(n, 1) - self._seconds_each)
            if self._seen is not None:
                self._seen(n, seconds)

    def _take(self) -> list[Waiting[Q, A]]:
        """The oldest, and what waits of its kind, as much as a batch holds; nothing once closed and empty."""
        with self._news:
            while not self._queue and not self._closed:
                self._news.wait()
            batch: list[Waiting[Q, A]] = []
            others: deque[Waiting[Q, A]] = deque()
            n = 0
            while self._queue and (not batch or n < self._at_once):
                one = self._queue.popleft()
                if batch and (one.kind != batch[0].kind or n + len(one.questions) > self._at_once):
                    others.append(one)
                    continue
                batch.append(one)
                n += len(one.questions)
            self._queue.extendleft(reversed(others))
            self._n_waiting -= n
            return batch

    def _answer(self, batch: list[Waiting[Q, A]]) -> None:
        """Answer a batch; where it fails as a whole each of its parts is tried alone, so that none spoils another."""
        questions = [question for one in batch for question in one.questions]
        try:
            answers = list(self._work(batch[0].kind, questions))
        except Exception as problem:
            if len(batch) == 1:
                batch[0].answers.set_exception(problem)
                return
            for one in batch:
                self._answer([one])
            return
        start = 0
        for one in batch:
            mine = answers[start : start + len(one.questions)]
            start += len(one.questions)
            _settle(one.answers, mine)


def _settle(future: Future[list[A]], answers: Sequence[A | PalateError]) -> None:
    wrong = next((answer for answer in answers if isinstance(answer, PalateError)), None)
    if wrong is not None:
        future.set_exception(wrong)
    else:
        future.set_result([answer for answer in answers if not isinstance(answer, PalateError)])
