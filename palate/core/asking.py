"""Many questions at once: a thread pool at the door, so that everything inside stays plain code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


def each(questions: Iterable[Q], ask: Callable[[Q], A], parallel: int) -> Iterator[tuple[Q, A]]:
    """Each question with its answer, in the order in which they are done, at most ``parallel`` under way.

    Questions are taken one by one as threads get free, so a generator decides late whether there is another. The first
    error ends the work: what is under way is waited for, what it answered in time is still given, then it is raised.
    """
    waiting = iter(questions)
    pool = ThreadPoolExecutor(parallel)
    under_way: dict[Future[A], Q] = {}
    failure: BaseException | None = None
    try:
        while True:
            while failure is None and len(under_way) < parallel:
                try:
                    question = next(waiting)
                except StopIteration:
                    break
                except BaseException as problem:
                    failure = problem
                    break
                under_way[pool.submit(ask, question)] = question
            if not under_way:
                break
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                question = under_way.pop(future)
                problem_of = future.exception()
                if problem_of is None:
                    yield question, future.result()
                elif failure is None:
                    failure = problem_of
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure
