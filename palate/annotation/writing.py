"""Rows → records, through the ledger: what is there is taken, what is missing is asked for, within the budget.

Calls go out a few at a time. A worker that has an answer writes it into the ledger before it takes the next question,
so a kill costs at most as many answers as calls go out at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from palate.annotation.ledger import Entry, Ledger, now
from palate.annotation.structured import Structured
from palate.annotation.tasks import Row, Task, Words
from palate.core.asking import each
from palate.core.chat import NOTHING_USED, Usage
from palate.core.errors import DataError, EndpointError
from palate.core.protocols import ChatModel
from palate.core.run import Progress, Silent

REFUSALS = 10
"""Of a model that has never answered, so many refused rows end the work."""


@dataclass(frozen=True)
class Estimate:
    """Before anything is asked: ``missing`` records of ``rows``, what they may cost at most and probably will."""

    rows: int
    missing: int
    most: Usage
    likely: Usage


def key_of(model: ChatModel, task: Task, row: Row) -> str:
    """What a record is kept under: everything that it follows from."""
    content = "\0".join([model.version, task.prompt, task.request(row).hash])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def estimate(task: Task, rows: Sequence[Row], model: ChatModel, ledger: Ledger) -> Estimate:
    """Nothing is asked. A token of plain text is taken to be four bytes; an answer as long as the task's usual one."""
    missing = _missing(task, rows, model, ledger)
    asker, most, likely = Structured(model), NOTHING_USED, NOTHING_USED
    for row in missing.values():
        request = task.request(row)
        most = most + asker.largest(request, task.record)
        once = model.largest(request)
        price = once.money / max(once.tokens, 1)
        read = request.n_bytes // 4
        likely = likely + Usage(read, task.typical_tokens, price * (read + task.typical_tokens))
    return Estimate(len(rows), len(missing), most, likely)


def write(
    task: Task,
    rows: Sequence[Row],
    model: ChatModel,
    ledger: Ledger,
    *,
    parallel: int = 4,
    offline: bool = False,
    progress: Progress | None = None,
) -> list[Entry]:
    """One entry a row, in their order; rows that read alike share one. An entry whose record is None could not be
    read, or its question was refused in every form; it stays so until ``Ledger.forget_failures``.

    Raises ``BudgetError`` before a call that may cost more than is left, ``EndpointError`` when the model gives no
    reply and that is not about one row, ``DataError`` when a record is missing and ``offline`` forbids to ask. What was
    written is kept.
    """
    progress = progress or Silent()
    missing = _missing(task, rows, model, ledger)
    if missing and offline:
        raise DataError(f"{len(missing):,} of {len(rows):,} records are not in {ledger.path}, and nobody may be asked")
    asker, doubt = Structured(model), _Doubt(ledger, model.version)
    progress.start(f"writing {task.name}", len(missing))
    try:
        before, asked = ledger.spent, each(
            _booked(task, missing, asker, ledger), lambda booked: _ask(booked, task, asker, ledger, doubt), parallel
        )  # fmt: skip
        for done, _ in enumerate(asked, 1):
            spent = ledger.spent
            a_row = (spent.tokens - before.tokens) / done, (spent.money - before.money) / done
            left = len(missing) - done
            progress.advance(1, money=spent.money, money_left=a_row[1] * left, tokens_left=a_row[0] * left)
        doubt.end()
    finally:
        progress.finish()
    keys = [key_of(model, task, row) for row in rows]
    found = ledger.kept(list(dict.fromkeys(keys)))
    return [found[key] for key in keys]


@dataclass(frozen=True)
class _Booked:
    key: str
    row: Row
    call: int
    largest: Usage


def _missing(task: Task, rows: Sequence[Row], model: ChatModel, ledger: Ledger) -> dict[str, Row]:
    """Key → the first row of that key, where there is no record."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(key_of(model, task, row), row)
    kept = ledger.kept(list(first))
    return {key: row for key, row in first.items() if key not in kept}


def _booked(task: Task, missing: dict[str, Row], asker: Structured, ledger: Ledger) -> Iterator[_Booked]:
    """Each question when its call is booked."""
    for key, row in missing.items():
        largest = asker.largest(task.request(row), task.record)
        yield _Booked(key, row, ledger.book(key, largest), largest)


def _ask(booked: _Booked, task: Task, asker: Structured, ledger: Ledger, doubt: _Doubt) -> None:
    """Ask, and write what came into the ledger."""
    try:
        answer = asker.ask(task.request(booked.row), task.record)
    except EndpointError as failure:
        lost = booked.largest if failure.lost is None else failure.lost
        ledger.settle(booked.call, booked.largest, lost, None)
        raise
    except BaseException:
        ledger.settle(booked.call, booked.largest, booked.largest, None)
        raise
    value: Words | None = answer.value
    entry = Entry(
        booked.key, None if value is None else value.model_dump(), answer.problem, asker.model.version, task.prompt,
        now(), answer.usage, sum(reply.tries for reply in answer.replies), f"{answer.form} {answer.step}",
    )  # fmt: skip
    if answer.step == "refused" and not doubt.answered:
        ledger.settle(booked.call, booked.largest, answer.usage, None)
        doubt.refused(entry)
        return
    ledger.settle(booked.call, booked.largest, answer.usage, entry)
    if answer.replies:
        doubt.end_well()


class _Doubt:
    """Whether a refusal is about its row. A model that answers other rows refuses this one; one that has never answered
    may refuse everything, such as a setting that it does not know, and then no row is to blame. Threads share it."""

    def __init__(self, ledger: Ledger, version: str) -> None:
        self._ledger, self._version = ledger, version
        self._lock = threading.Lock()
        self._held: list[Entry] = []
        self.answered = ledger.knows(version)

    def refused(self, entry: Entry) -> None:
        """Hold what says that a row was refused. Raises ``EndpointError`` where that happens to the first so many."""
        with self._lock:
            self._held.append(entry)
            if self.answered:
                self._keep()
            elif len(self._held) >= REFUSALS:
                self._stop()

    def end_well(self) -> None:
        """A row was answered: those that were refused are to blame."""
        with self._lock:
            self.answered = True
            self._keep()

    def end(self) -> None:
        """Every row was asked. Raises ``EndpointError`` where none was answered."""
        if self._held:
            self._stop()

    def _keep(self) -> None:
        if self._held:
            self._ledger.take(self._held)
            self._held.clear()

    def _stop(self) -> None:
        raise EndpointError(
            f"{self._held[-1].problem}; so were all {len(self._held)} questions to this model, none was ever answered: "
            "look at its settings"
        )
