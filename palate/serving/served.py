"""One run that is served: who answers, at which desk, and what can be said of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import polars as pl

from palate.ask import Asker
from palate.core.errors import ConfigError, MisuseError, PalateError, StoreError
from palate.evaluation.reports import read_report
from palate.parts.retrieval import Kind, Recall
from palate.questions import MOST_CANDIDATES, Answer, Asked, Later, Question
from palate.runs import FittedRun
from palate.serving.batching import BusyError, Desk
from palate.serving.catalogue import Catalogue
from palate.serving.covers import Covers
from palate.serving.ledger import Ledger
from palate.serving.spaces import Space, Spaces
from palate.serving.waiting import Room, then

T = TypeVar("T")

READERS = 4
"""Threads that read the events of users from a ledger that is away."""
Stamp = tuple[str, int, int]
"""Which run lies in a folder: where it really is, and when and as which file its ``run.json`` was written."""


@dataclass(frozen=True)
class Limits:
    """at_once: questions of one batch. waiting: questions that may wait. seconds: how long one may take, all in all;
    ``slow_seconds`` for a new item, whose text must be read. index: how item vectors are searched, where a run holds
    some; ``index_settings`` are those of ``palate.parts.retrieval.Retriever``."""

    at_once: int = 64
    waiting: int = 1024
    seconds: float = 10.0
    slow_seconds: float = 60.0
    index: Kind = "exact"
    index_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asking:
    """Questions that can be answered in one go: as many items for each, and with or without reasons."""

    k: int
    why: bool = False


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; None where it has none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Figures:
    """What ``palate evaluate`` measured under one protocol, with the words that every figure must carry."""

    protocol: str
    marks: list[str]
    metrics: dict[str, Figure]


@dataclass(frozen=True)
class RunCard:
    """What is served under a name: ``covers`` whether items have pictures, ``spaces`` where neighbours may be asked,
    ``columns`` those of the catalogue. ``problem`` says why a newer run could not replace it."""

    name: str
    system: str
    title: str
    family: str
    paper: str
    pretrained: str
    data: str
    simulated: bool
    split: str
    seeds: list[int]
    users: int
    items: int
    items_added: int
    items_retired: int
    reads_words: bool
    takes_new_items: bool
    covers: bool
    spaces: list[Space]
    columns: list[str]
    cost: dict[str, float]
    figures: list[Figures]
    opened: str
    waiting: int
    problem: str | None = field(default=None)


class Served:
    """A run in ``folder`` under ``name``, with what the ledger holds of its data, warmed up by a first question.

    ``beside`` are runs whose data it takes, where they are its own, instead of reading them again.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        ledger: Ledger,
        limits: Limits,
        seen: Callable[[int, float], None] | None = None,
        beside: Sequence[FittedRun] = (),
    ) -> None:
        self.name, self.folder, self._ledger = name, folder, ledger
        self.stamp = stamp_of(folder)
        self.run = FittedRun.open(folder)
        for other in beside:
            self.run.share(other)
        self.asker = Asker(self.run, name)
        self.data = str(self.run.facts["data"]["name"])
        self.opened = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.figures = figures_of(self.run)
        self.skipped: list[str] = []
        """Items of the ledger that this run's catalogue could not take."""
        self.n_added = 0
        self.audience = threading.Lock()
        """Held while somebody asks about many users at once."""
        self.catalogue, self.spaces, self.covers = (
            Catalogue(self.asker),
            Spaces(self.asker, self._at_desk),
            Covers(self.run),
        )
        # A desk that waited for a network would keep those waiting, too, whose questions need no ledger.
        self._reading = Room(READERS, limits.waiting, f"reader of {name}") if ledger.away else None
        self._catch_up()
        with suppress(PalateError):  # without its data a run still answers histories
            self.asker.dataset  # noqa: B018  # read now, not while somebody waits
        with suppress(MisuseError):  # what holds no item vectors is asked as ever
            self.asker.use_index(limits.index, **limits.index_settings)
        self.asker.answers([self.asker.read(Question(history=[]))], 1)
        self.desk: Desk[Any, Any] = Desk(
            self._work, at_once=limits.at_once, waiting=limits.waiting, seen=seen, name=f"desk of {name}"
        )

    def _catch_up(self) -> None:
        """Add and retire what was added and retired before this run was opened."""
        asker, fresh = self.asker, []
        if asker.grows:
            for content in self._ledger.items(self.data):
                if content["item"] in asker.row_of:  # the run was fitted with it
                    continue
                try:
                    fresh.append(asker.table_of([content]))
                except PalateError as problem:
                    self.skipped.append(f"{content['item']}: {problem}")
        self._take_over(fresh)
        asker.retire_items([item for item in self._ledger.retired(self.data) if item in asker.row_of])

    def _take_over(self, items: Sequence[pl.DataFrame]) -> None:
        """All in one go, as whatever is held of the catalogue is made anew each time; where that is refused one by
        one, so that an item that cannot be taken keeps no other one out."""
        if not items:
            return
        try:
            self.asker.add_items(pl.concat(items))
            self.n_added += len(items)
        except PalateError as problem:
            if len(items) == 1:
                self.skipped.append(f"{items[0]['item'][0]}: {problem}")
                return
            for one in items:
                self._take_over([one])

    # -- at the desk -------------------------------------------------------------------------------------------------

    def recommend(self, questions: Sequence[Question], k: int, *, why: bool = False) -> Future[list[Answer]]:
        """Answers in the order of the questions, with the events that were sent of a user."""
        return self._reading_first(questions, lambda whole: self.desk.ask(Asking(k, why), whole))

    def do(self, job: Callable[[], Any]) -> Future[list[Any]]:
        """Anything else that must not happen while questions are answered; the future holds one result."""
        return self.desk.ask(object(), [job])

    def _at_desk(self, job: Callable[[], T]) -> T:
        """The result of a job at the desk; for threads that may wait."""
        (found,) = self.do(job).result()
        return cast("T", found)

    def explain(self, question: Question, items: Sequence[str]) -> Future[list[Any]]:
        """One answer: the score of each item, and what moved it."""

        def put(whole: Sequence[Question]) -> Future[list[Any]]:
            return self.do(lambda: self.asker.explained(self.asker.read(self._whole(whole[0])), items))

        return self._reading_first([question], put)

    def _reading_first(
        self, questions: Sequence[Question], put: Callable[[Sequence[Question]], Future[T]]
    ) -> Future[T]:
        """Put questions to the desk, with the events that were sent of their users where those are far to fetch."""
        if self._reading is None or all(question.user is None for question in questions):
            return put(questions)
        return then(self._reading.do(lambda: [self._with_later(question) for question in questions]), put)

    def _work(self, kind: Hashable, asked: list[Any]) -> list[Any]:
        if not isinstance(kind, Asking):
            return [job() for job in asked]
        answers: list[Any] = [None] * len(asked)
        read: dict[int, Asked] = {}
        n = 0
        for place, question in enumerate(asked):
            try:
                one = self.asker.read(self._whole(question))
            except PalateError as problem:
                answers[place] = problem
                continue
            n += 0 if one.candidates is None else len(one.candidates)
            if n > MOST_CANDIDATES:  # answered now, so that no more candidates than these are ever held
                self._answer(read, kind, answers)
                read, n = {}, 0
            read[place] = one
        self._answer(read, kind, answers)
        return answers

    def _answer(self, read: Mapping[int, Asked], kind: Asking, answers: list[Any]) -> None:
        given = self.asker.answers(list(read.values()), kind.k, why=kind.why)
        for place, answer in zip(read, given, strict=True):
            answers[place] = answer

    def _whole(self, question: Question) -> Question:
        return self._with_later(question) if self._reading is None else question

    def _with_later(self, question: Question) -> Question:
        if question.user is None:
            return question
        return replace(question, later=self.later(question.user))

    def later(self, user: str) -> list[Later]:
        """The events of a user that this server was sent."""
        return self._ledger.later(self.data, user)

    def add(self, content: Mapping[str, Any]) -> None:
        """Recommend a new item from now on; at the desk, or before it opens."""
        self.asker.add_items(self.asker.table_of([content]))
        self.n_added += 1

    def index_anew(self) -> Recall | None:
        """Build the index of the present vectors, in the calling thread, while the desk answers by looking at every
        item; None where there is nothing to build. Raises ``ConfigError`` where it would find too little: from then on
        every item is looked at for good."""
        indexed = self._patiently(lambda: self.asker.stale_index)
        if indexed is None:
            return None
        try:
            return indexed.refresh(self._patiently)
        except ConfigError:
            self._patiently(lambda: self.asker.use_index("exact"))
            raise

    def _patiently(self, job: Callable[[], T]) -> T:
        """The result of a job at the desk, as soon as it has room for one; for threads that nobody waits for."""
        while True:
            try:
                return self._at_desk(job)
            except BusyError as problem:
                time.sleep(problem.seconds)

    def close(self, seconds: float | None = None) -> None:
        """Take nothing more and answer what waits; given ``seconds``, for no longer and only what is at the desk."""
        if self._reading is not None:
            (self._reading.finish if seconds is None else self._reading.close)()
        self.desk.close(seconds)

    # -- what can be said of it --------------------------------------------------------------------------------------

    def card(self, problem: str | None = None) -> RunCard:
        facts, row, plan = self.run.facts, self.run.row, self.run.plan
        return RunCard(
            name=self.name, system=plan.system, title=row.title, family=row.family, paper=row.paper,
            pretrained=str(facts.get("pretrained", row.pretrained)), data=self.data,
            simulated=bool(facts["data"].get("simulated")), split=plan.split, seeds=list(plan.seeds),
            users=self.run.users.height, items=len(self.asker.item_ids), items_added=self.n_added,
            items_retired=len(self.asker.retired), reads_words=self.asker.reads_words, takes_new_items=self.asker.grows,
            covers=self.covers.any, spaces=self.spaces.known, columns=list(self.run.items.columns),
            cost={name: float(value) for name, value in facts.get("cost", {}).items()},
            figures=self.figures, opened=self.opened, waiting=self.desk.waiting, problem=problem,
        )  # fmt: skip


def stamp_of(folder: Path) -> Stamp:
    """Which run lies there. Raises ``StoreError`` where there is none."""
    try:
        found = (folder / "run.json").stat()
    except OSError:
        raise StoreError(f"{folder} is not a finished run: it has no run.json") from None
    return str(folder.resolve()), found.st_mtime_ns, found.st_ino


def figures_of(run: FittedRun) -> list[Figures]:
    """The reports that lie in a run's folder; damaged ones are left out."""
    found = []
    for folder in sorted((run.folder / "reports").glob("*/")):
        try:
            report = read_report(folder)
        except StoreError:
            continue
        metrics = {
            name: Figure(*(None if value != value else value for value in (span.value, span.low, span.high)))
            for name, span in report.metrics.items()
        }
        found.append(Figures(report.protocol, list(report.marks), metrics))
    return found
