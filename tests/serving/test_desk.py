"""The queue: batches grow with the load, memory and waiting are bounded, one question never spoils another."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import CancelledError

import pytest

from palate.core.errors import MisuseError, PalateError
from palate.serving.batching import BusyError, ClosedError, Desk


class Slow:
    """Work that begins when the test lets it, and remembers its batches."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[tuple[Hashable, list[int]]] = []

    def __call__(self, kind: Hashable, questions: list[int]) -> list[int | PalateError]:
        self.begun.set()
        assert self.go.wait(10)
        self.batches.append((kind, list(questions)))
        if kind == "fragile" and 13 in questions:
            raise ZeroDivisionError
        return [MisuseError("odd") if question % 2 else 10 * question for question in questions]


def test_what_waits_together_is_answered_together_and_kinds_stay_apart() -> None:
    work = Slow()
    desk = Desk(work, at_once=4)
    first = desk.ask("a", [0])
    assert work.begun.wait(5)
    later = [
        desk.ask(kind, [number]) for kind, number in [("a", 2), ("b", 4), ("a", 6), ("a", 8), ("a", 10), ("a", 12)]
    ]
    assert desk.waiting == 6
    work.go.set()
    assert [future.result(5) for future in [first, *later]] == [[0], [20], [40], [60], [80], [100], [120]]
    assert work.batches == [("a", [0]), ("a", [2, 6, 8, 10]), ("b", [4]), ("a", [12])]
    desk.close(5)


def test_a_wrong_question_fails_alone() -> None:
    work = Slow()
    desk = Desk(work)
    desk.ask("a", [0])
    assert work.begun.wait(5)
    good, odd, fragile, neighbour = (
        desk.ask(*one) for one in [("a", [2, 4]), ("a", [4, 3]), ("fragile", [13]), ("fragile", [2])]
    )
    work.go.set()
    assert good.result(5) == [20, 40]
    with pytest.raises(MisuseError, match="odd"):
        odd.result(5)
    with pytest.raises(ZeroDivisionError):
        fragile.result(5)
    assert neighbour.result(5) == [20]
    desk.close(5)


def test_a_full_queue_says_when_to_come_back_and_a_cancelled_question_costs_nothing() -> None:
    work = Slow()
    desk = Desk(work, waiting=3)
    desk.ask("a", [0])
    assert work.begun.wait(5)
    kept, given_up = desk.ask("a", [2]), desk.ask("b", [4, 6])
    with pytest.raises(BusyError, match="ask again in 1 s") as busy:
        desk.ask("a", [8])
    assert busy.value.seconds == 1
    assert given_up.cancel()
    work.go.set()
    assert kept.result(5) == [20]
    desk.close(5)
    assert ("b", [4, 6]) not in work.batches
    with pytest.raises(CancelledError):
        given_up.result(0)


def test_closing_answers_what_waits_and_takes_nothing_more() -> None:
    work = Slow()
    desk = Desk(work, at_once=1)
    futures = [desk.ask("a", [2 * number]) for number in range(5)]
    closing = threading.Thread(target=desk.close)
    closing.start()
    while desk.open:
        pass
    with pytest.raises(ClosedError):
        desk.ask("a", [2])
    work.go.set()
    closing.join(5)
    assert [future.result(0) for future in futures] == [[0], [20], [40], [60], [80]]
