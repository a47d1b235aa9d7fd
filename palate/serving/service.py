"""Everything one process serves: some runs, one ledger. Runs are replaced while it goes on; no request is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from palate.core.errors import MisuseError, PalateError, UnknownIdError, nearest
from palate.serving.batching import BusyError, ClosedError, Desk
from palate.serving.board import Board, Leaderboard
from palate.serving.fits import FitCard, Fits
from palate.serving.indexing import Indexing
from palate.serving.ledger import ConflictError, Event, Ledger, Written
from palate.serving.logs import Log, make_log
from palate.serving.metrics import Metrics
from palate.serving.served import Limits, RunCard, Served, stamp_of
from palate.serving.waiting import LateError, Room, in_time

T = TypeVar("T")

BATCHES_AT_ONCE = 256
"""Requests that write events and share one flush to disk."""
BATCHES_WAITING = 128
READY_SECONDS, PROBES_WAITING = 2.0, 32
"""A ledger that does not answer so soon is not ready, and so many who ask that may wait."""
LOOKS, LOOKS_WAITING, LONG_LOOKS_WAITING, CHANGES_WAITING = 4, 256, 16, 64
"""Threads that look around, and how many looks and changes may wait; more are told to come back."""
FROM_NOW_ON = "recommended from now on"


class CannotGrowError(PalateError):
    """No run that is served can take a new item."""


@dataclass(frozen=True)
class Added:
    """What became of a new item, run by run. ``new`` is False where it had been added before."""

    item: str
    new: bool
    runs: dict[str, str]


@dataclass(frozen=True)
class Reloaded:
    """What became of each run: ``kept``, ``replaced``, or why not."""

    runs: dict[str, str]


class Service:
    """Opens the runs at once, so that mistakes show before anybody connects. Threads may share it.

    ``store`` is where the ledger lies. ``fits`` is the folder whose fits are shown, by default that of the first run.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        store: Path | str,
        *,
        fits: Path | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        log: Log | None = None,
    ) -> None:
        self.limits, self.metrics, self.log = limits or Limits(), metrics or Metrics(), log or make_log()
        names = [folder.absolute().name for folder in folders]
        for name in names:
            if names.count(name) > 1:
                raise MisuseError(f"two runs are called '{name}'; rename or link one of them")
        self.fits, self._board = Fits(fits or folders[0].absolute().parent), Board()
        self.ledger = Ledger(store)
        self._runs: dict[str, Served] = {}
        for name, folder in zip(names, folders, strict=True):
            self._runs[name] = self._open(name, folder)
        self._problems: dict[str, str] = {}
        self._changing = threading.Lock()
        self._stop, self._look = threading.Event(), threading.Event()
        self._watcher: threading.Thread | None = None
        # Rooms of their own, so that a slow look at a catalogue never keeps a change or a quick look waiting.
        self._looks, self._long_looks = Room(LOOKS, LOOKS_WAITING, "look"), Room(1, LONG_LOOKS_WAITING, "long look")
        self._indexing = Indexing(self.log)
        self._changes, self._probes = Room(2, CHANGES_WAITING, "change"), Room(1, PROBES_WAITING, "probe")
        self._writing: Desk[tuple[Event, ...], list[Written]] = Desk(
            lambda data, batches: self.ledger.append(str(data), batches),
            at_once=BATCHES_AT_ONCE, waiting=BATCHES_WAITING, name="desk of the ledger",
        )  # fmt: skip

    def _open(self, name: str, folder: Path) -> Served:
        beside = [other.run for other in self._runs.values()]
        served = Served(name, folder, self.ledger, self.limits, self.metrics.seen(name), beside)
        self.metrics.waiting.labels(name).set_function(lambda: served.desk.waiting)
        if served.skipped:
            self.log.warning("items skipped", run=name, items=len(served.skipped), first=served.skipped[0])
        if served.asker.recall is not None:
            self.log.info("index built", run=name, said=str(served.asker.recall))
        return served

    # -- beside the desks --------------------------------------------------------------------------------------------

    async def aside(self, work: Callable[[], T], *, long: bool = False) -> T:
        """The result of work that only looks around, ``long`` where it may take seconds. Raises ``BusyError``."""
        return await in_time((self._long_looks if long else self._looks).do(work), self.limits.slow_seconds)

    async def change(self, work: Callable[[], T]) -> T:
        """The result of work that changes what is served. Raises ``BusyError``."""
        return await in_time(self._changes.do(work), self.limits.slow_seconds)

    # -- asking ------------------------------------------------------------------------------------------------------

    def find(self, name: str | None) -> Served:
        """The run of that name, or the only one. Raises ``UnknownIdError`` or ``MisuseError``."""
        if name is None:
            if len(self._runs) > 1:
                raise MisuseError(f"say which run is asked: {', '.join(sorted(self._runs))}")
            return next(iter(self._runs.values()))
        if name not in self._runs:
            raise UnknownIdError(f"no run '{name[:80]}' is served here{nearest(name, self._runs)}")
        return self._runs[name]

    def ask(self, run: str | None, put: Callable[[Served], Future[T]]) -> Future[T]:
        """Put a question to a run; where it is being replaced just now, to the new one."""
        for _ in range(3):
            served = self.find(run)
            try:
                return put(served)
            except ClosedError:
                if self._runs.get(served.name) is served:
                    raise
        raise ClosedError

    def cards(self) -> list[RunCard]:
        return [served.card(self._problems.get(name)) for name, served in self._runs.items()]

    def leaderboard(self) -> Leaderboard:
        """What was measured of the runs, side by side; seconds where it is asked for the first time."""
        return self._board.leaderboard(list(self._runs.values()))

    def fit_cards(self) -> list[FitCard]:
        """The fits of the folder that is watched for them, by default the first run's."""
        return self.fits.cards({served.folder.resolve() for served in self._runs.values()})

    async def readiness(self) -> str | None:
        """What ``ready`` says, asked aside, so that a ledger that hangs keeps nobody else waiting."""
        try:
            return await in_time(self._probes.do(self.ready), READY_SECONDS)
        except (BusyError, LateError):
            return f"the ledger does not answer within {READY_SECONDS:g} s"

    def ready(self) -> str | None:
        """Why this server cannot do its work, None when it can; as long as the ledger takes."""
        if self._stop.is_set():
            return "this server is shutting down"
        idle = [name for name, served in self._runs.items() if not served.desk.open]
        if idle or not self._writing.open:
            return f"nobody answers for {', '.join(idle) or 'the ledger'}"
        try:
            self.ledger.check()
        except PalateError as problem:
            return str(problem)
        return None

    # -- telling -----------------------------------------------------------------------------------------------------

    def append(self, run: str | None, events: Sequence[Event]) -> Future[list[list[Written]]]:
        """Write events of one data set; all of them or none. Once the future is done they are on disk."""
        data = self.find(run).data
        shared = self._sharing(data)
        for event in events:
            if not any(event.item in served.asker.row_of for served in shared):
                raise UnknownIdError(f"no item '{event.item}' in the catalogue of '{data}'")
        future = self._writing.ask(data, [tuple(events)])
        future.add_done_callback(lambda done: self._count(data, done))
        return future

    def _count(self, data: str, done: Future[list[list[Written]]]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.metrics.events.labels(data).inc(sum(one.new for one in done.result()[0]))

    def add_item(self, run: str | None, content: Mapping[str, Any]) -> Added:
        """Write a new item down and let every run of its data that can recommend it. Raises ``CannotGrowError``,
        ``ConflictError`` or what the runs say where none could take it; then nothing stays written."""
        item = str(content["item"])
        with self._changing:
            shared = self._sharing(self.find(run).data)
            able = [served for served in shared if served.asker.grows]
            if not able:
                raise CannotGrowError(
                    f"{', '.join(served.name for served in shared)} can recommend only what was there at the fit; "
                    "fit again with the new item, or serve a system that reads items' texts"
                )
            data = able[0].data
            if any(item in served.asker.row_of for served in shared) and not self._was_added(data, item):
                raise ConflictError(f"item '{item}' is in the catalogue already; give a new item a new id")
            new = self.ledger.add_item(data, item, content)
            said: dict[str, str] = {served.name: "knows only the items it was fitted on" for served in shared}
            problems: list[PalateError] = []
            for served in able:
                try:
                    if item not in served.asker.row_of:
                        self._change(served, _adding(served, content))
                    said[served.name] = FROM_NOW_ON
                except PalateError as problem:
                    problems.append(problem)
                    said[served.name] = str(problem)
            if len(problems) == len(able):
                if new:
                    self.ledger.forget_item(data, item)
                raise problems[0]
        self.log.info("item added", data=data, new=new)
        return Added(item, new, said)

    def retire(self, run: str | None, items: Sequence[str], *, back: bool = False) -> list[str]:
        """Never answer these items again, in any run of the data, or answer them again. Returns their ids."""
        with self._changing:
            shared = self._sharing(self.find(run).data)
            ids = [self._id_of(shared, item) for item in items]
            self.ledger.retire(shared[0].data, ids, back=back)
            for served in shared:
                self._change(served, _retiring(served, ids, back))
        self.log.info("items retired", data=shared[0].data, items=len(ids), back=back)
        return ids

    def _change(self, served: Served, job: Callable[[], None]) -> None:
        """Change a run's catalogue at its desk, and let its index follow."""

        def changed() -> bool:
            job()
            return served.asker.stale_index is not None

        (stale,) = served.do(changed).result()
        if stale:
            self._indexing.want(served)

    def _sharing(self, data: str) -> list[Served]:
        """The runs that were fitted on the same data."""
        return [served for served in self._runs.values() if served.data == data]

    def _was_added(self, data: str, item: str) -> bool:
        return any(content["item"] == item for content in self.ledger.items(data))

    def _id_of(self, shared: Sequence[Served], name: str) -> str:
        for served in shared[:-1]:
            if name in served.asker.row_of:
                return name
        asker = shared[-1].asker
        return asker.item_ids[asker.item_row(name)]

    # -- replacing runs ----------------------------------------------------------------------------------------------

    def reload(self) -> Reloaded:
        """Open anew what lies under the folders where it is another run than the one served.

        The earlier run answers until the new one is warm, then answers what waits. A run that cannot be opened
        leaves the earlier one in place.
        """
        said = {}
        with self._changing:
            for name, old in list(self._runs.items()):
                said[name] = self._reload(name, old)
        return Reloaded(said)

    def _reload(self, name: str, old: Served) -> str:
        try:
            if stamp_of(old.folder) == old.stamp:
                return "kept"
            self._runs[name] = self._open(name, old.folder)
        except Exception as problem:
            said = str(problem) if isinstance(problem, PalateError) else f"a bug: {problem!r}"
            if self._problems.get(name) != said:
                self.log.error("run not replaced", run=name, problem=said)
                self.metrics.reloads.labels(name, "failed").inc()
            self._problems[name] = said
            return said
        self._problems.pop(name, None)
        self.metrics.reloads.labels(name, "replaced").inc()
        self.log.info("run replaced", run=name)
        old.close()
        return "replaced"

    def watch(self, seconds: float) -> None:
        """Look every so many seconds whether a run was replaced, in a thread of its own; with 0 only when told to."""

        def look() -> None:
            while True:
                self._look.wait(seconds or None)
                self._look.clear()
                if self._stop.is_set():
                    return
                self.reload()

        self._watcher = threading.Thread(target=look, name="watcher of runs", daemon=True)
        self._watcher.start()

    def look_soon(self) -> None:
        """Let the watching thread look now."""
        self._look.set()

    def close(self) -> None:
        """Answer what waits, then let go of everything."""
        self._stop.set()
        self._look.set()
        if self._watcher is not None:
            self._watcher.join(self.limits.slow_seconds)
        self._indexing.close()
        for room in (self._looks, self._long_looks, self._changes, self._probes):
            room.close()
        for served in self._runs.values():
            served.close(self.limits.seconds)
        self._writing.close(self.limits.seconds)
        self.ledger.close()


def _adding(served: Served, content: Mapping[str, Any]) -> Callable[[], None]:
    return lambda: served.add(content)


def _retiring(served: Served, ids: Sequence[str], back: bool) -> Callable[[], None]:
    return lambda: served.asker.retire_items([item for item in ids if item in served.asker.row_of], back=back)
