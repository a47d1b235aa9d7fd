"""What a server was told: events, added items and retired ones, in one SQLite file that survives ``kill -9``.

Every write is on disk before it is acknowledged (write-ahead log, ``synchronous=FULL``). An event carries a key of
whoever sent it: the same key with the same event is the same event, however often it is sent. Rows name the data set
that they belong to, so runs fitted on one data set share them, and a run that replaces another finds them.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import PalateError, StoreError
from palate.questions import Later

VERSION = 1
LATER_EVENTS = 1000
"""At most so many newest events of a user are read for a question."""
BUSY_MS = 5000
"""How long a write waits for another process that writes."""

_TABLES = f"""
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, data TEXT NOT NULL, key TEXT NOT NULL, user TEXT NOT NULL, item TEXT NOT NULL,
  time INTEGER NOT NULL, kind TEXT, rating REAL, received INTEGER NOT NULL, UNIQUE (data, key)
);
CREATE INDEX events_of_user ON events (data, user, time, seq);
CREATE TABLE items (
  seq INTEGER PRIMARY KEY, data TEXT NOT NULL, item TEXT NOT NULL, content TEXT NOT NULL,
  received INTEGER NOT NULL, UNIQUE (data, item)
);
CREATE TABLE retired (data TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (data, item));
PRAGMA user_version = {VERSION};
"""


class FullDiskError(StoreError):
    """Nothing more can be written; what was acknowledged is there."""


class ConflictError(PalateError):
    """A key or an id that was used before, with other content."""


@dataclass(frozen=True)
class Event:
    """``key`` is the sender's, unique in the data set; without a ``time`` it happened when it arrived."""

    key: str
    user: str
    item: str
    time: int | None = None
    kind: str | None = None
    rating: float | None = None


@dataclass(frozen=True)
class Written:
    """Whether this was new, or known by its key; ``time`` is the event's, in milliseconds."""

    key: str
    new: bool
    time: int


class Ledger:
    """The file at ``path``, for any thread: writes follow one another, reads wait for nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading, self._writing = threading.local(), threading.Lock()
        self._opened: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            (mode,) = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
            self._writer.execute("PRAGMA synchronous = FULL")
            self._prepare(str(mode))
        except sqlite3.Error as failure:
            raise StoreError(f"{path} cannot hold events: {failure}") from None

    def _prepare(self, mode: str) -> None:
        if mode != "wal":
            raise StoreError(f"{self.path}: this place allows no write-ahead log; choose another --store")
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._writer.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")
        elif version != VERSION:
            raise StoreError(f"{self.path} was written by another Palate (version {version}); choose another --store")

    # -- events ------------------------------------------------------------------------------------------------------

    def append(self, data: str, batches: Sequence[Sequence[Event]]) -> list[list[Written] | PalateError]:
        """Write batches in one transaction; each is written whole or, where a key conflicts, not at all.

        When this comes back, what it says was written is on disk. Raises ``FullDiskError`` or ``StoreError`` otherwise.
        """
        answers: list[list[Written] | PalateError] = []
        with self._transaction() as cursor:
            for batch in batches:
                cursor.execute("SAVEPOINT batch")
                try:
                    answers.append([self._append(cursor, data, event) for event in batch])
                except ConflictError as conflict:
                    cursor.execute("ROLLBACK TO batch")
                    answers.append(conflict)
                cursor.execute("RELEASE batch")
        return answers

    def _append(self, cursor: sqlite3.Cursor, data: str, event: Event) -> Written:
        now = _now()
        cursor.execute(
            "SELECT user, item, time, kind, rating FROM events WHERE data = ? AND key = ?", (data, event.key)
        )
        known = cursor.fetchone()
        if known is None:
            at = now if event.time is None else event.time
            cursor.execute(
                "INSERT INTO events (data, key, user, item, time, kind, rating, received) VALUES (?,?,?,?,?,?,?,?)",
                (data, event.key, event.user, event.item, at, event.kind, event.rating, now),
            )
            return Written(event.key, True, at)
        at = known[2] if event.time is None else event.time
        if known != (event.user, event.item, at, event.kind, event.rating):
            raise ConflictError(
                f"the key '{event.key}' was used before for another event; give each event a key of its own"
            )
        return Written(event.key, False, at)

    def later(self, data: str, user: str) -> list[Later]:
        """The newest events of a user, oldest first."""
        rows = self._reader.execute(
            "SELECT item, time, kind, rating FROM events WHERE data = ? AND user = ? "
            "ORDER BY time DESC, seq DESC LIMIT ?",
            (data, user, LATER_EVENTS),
        ).fetchall()
        return [Later(*row) for row in reversed(rows)]

    def n_events(self, data: str) -> int:
        return int(self._reader.execute("SELECT count(*) FROM events WHERE data = ?", (data,)).fetchone()[0])

    # -- items -------------------------------------------------------------------------------------------------------

    def add_item(self, data: str, item: str, content: Mapping[str, Any]) -> bool:
        """Write a new item; False when it is there. Raises ``ConflictError`` when it is there and reads otherwise."""
        written = json.dumps(content, ensure_ascii=False, sort_keys=True)
        with self._transaction() as cursor:
            known = cursor.execute("SELECT content FROM items WHERE data = ? AND item = ?", (data, item)).fetchone()
            if known is None:
                cursor.execute(
                    "INSERT INTO items (data, item, content, received) VALUES (?,?,?,?)", (data, item, written, _now())
                )
            elif known[0] != written:
                raise ConflictError(f"item '{item}' was added before and reads otherwise; give a new item a new id")
        return known is None

    def forget_item(self, data: str, item: str) -> None:
        """Take back an item that could not be added after all."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM items WHERE data = ? AND item = ?", (data, item))

    def retire(self, data: str, items: Sequence[str], *, back: bool = False) -> None:
        """Write down that these items are retired, or that they are not."""
        said = "INSERT OR IGNORE INTO retired VALUES (?,?)"
        if back:
            said = "DELETE FROM retired WHERE data = ? AND item = ?"
        with self._transaction() as cursor:
            cursor.executemany(said, [(data, item) for item in items])

    def items(self, data: str) -> list[dict[str, Any]]:
        """The items that were added, oldest first."""
        rows = self._reader.execute("SELECT content FROM items WHERE data = ? ORDER BY seq", (data,)).fetchall()
        return [json.loads(content) for (content,) in rows]

    def retired(self, data: str) -> list[str]:
        """The items that are retired."""
        rows = self._reader.execute("SELECT item FROM retired WHERE data = ? ORDER BY item", (data,)).fetchall()
        return [item for (item,) in rows]

    # -- the file ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises ``StoreError`` where the file cannot be read."""
        try:
            self._reader.execute("SELECT count(*) FROM retired").fetchone()
        except sqlite3.Error as failure:
            raise StoreError(f"{self.path} cannot be read: {failure}") from None

    def close(self) -> None:
        for connection in self._opened:
            with suppress(sqlite3.Error):
                connection.close()

    @property
    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection: readers wait for nobody."""
        if not hasattr(self._reading, "connection"):
            self._reading.connection = self._connect()
            self._reading.connection.execute("PRAGMA query_only = ON")
        connection: sqlite3.Connection = self._reading.connection
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )  # fmt: skip
        self._opened.append(connection)
        return connection

    def _transaction(self) -> _Transaction:
        return _Transaction(self._writer, self._writing, self.path)


class _Transaction:
    """Everything inside is written when it ends well, nothing otherwise; SQLite's errors become ours."""

    def __init__(self, connection: sqlite3.Connection, alone: threading.Lock, path: Path) -> None:
        self._connection, self._alone, self._path = connection, alone, path

    def __enter__(self) -> sqlite3.Cursor:
        self._alone.acquire()
        try:
            return self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as failure:
            self._alone.release()
            raise self._ours(failure) from None

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        try:
            if problem is None:
                self._connection.execute("COMMIT")
        except sqlite3.Error as failure:
            problem = failure
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            self._alone.release()
        if isinstance(problem, sqlite3.Error):
            raise self._ours(problem) from None

    def _ours(self, failure: sqlite3.Error) -> StoreError:
        if getattr(failure, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return FullDiskError(f"the disk of {self._path.name} is full; nothing of this was written, reading goes on")
        return StoreError(f"{self._path.name} cannot be written: {failure}")


def _now() -> int:
    return time.time_ns() // 1_000_000
