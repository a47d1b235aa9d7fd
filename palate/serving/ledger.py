"""What a server was told: events, added items and retired ones, in a SQLite file or a PostgreSQL database.

Every write is on disk before it is acknowledged, so it is there after ``kill -9``. An event carries a key of whoever
sent it: the same key with the same event is the same event, however often it is sent. Rows name the data set that they
belong to, so runs fitted on one data set share them, and a run that replaces another finds them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from palate.core.errors import ConfigError, MissingExtraError, PalateError
from palate.questions import Later
from palate.serving.stores import Cursor, SqliteStore, Store

LATER_EVENTS = 1000
"""At most so many newest events of a user are read for a question."""
URLS = ("postgresql://", "postgres://")

_TABLES = """
CREATE TABLE events (
  seq NUMBERED, data TEXT NOT NULL, key TEXT NOT NULL, "user" TEXT NOT NULL, item TEXT NOT NULL,
  time BIGINT NOT NULL, kind TEXT, rating DOUBLE PRECISION, received BIGINT NOT NULL, UNIQUE (data, key)
);
CREATE INDEX events_of_user ON events (data, "user", time, seq);
CREATE TABLE items (
  seq NUMBERED, data TEXT NOT NULL, item TEXT NOT NULL, content TEXT NOT NULL,
  received BIGINT NOT NULL, UNIQUE (data, item)
);
CREATE TABLE retired (data TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (data, item));
"""
"""``NUMBERED`` is a store's own word for a column that counts up."""


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
    """The ledger at ``place``, a SQLite file or the URL of a PostgreSQL database, for any thread: writes follow one
    another, reads wait for nobody. Everything raises ``StoreError`` where the store cannot be read or written."""

    def __init__(self, place: Path | str) -> None:
        self._store = _open(place)
        self.away = not isinstance(self._store, SqliteStore)
        """Whether reading may take as long as a network does."""

    # -- events ------------------------------------------------------------------------------------------------------

    def append(self, data: str, batches: Sequence[Sequence[Event]]) -> list[list[Written] | PalateError]:
        """Write batches in one transaction; each is written whole or, where a key conflicts, not at all.

        When this comes back, what it says was written is on disk. Raises ``FullDiskError`` or ``StoreError`` otherwise.
        """
        answers: list[list[Written] | PalateError] = []
        with self._store.writing() as cursor:
            for batch in batches:
                cursor.execute("SAVEPOINT batch")
                try:
                    answers.append([self._append(cursor, data, event) for event in batch])
                except ConflictError as conflict:
                    cursor.execute("ROLLBACK TO batch")
                    answers.append(conflict)
                cursor.execute("RELEASE batch")
        return answers

    def _append(self, cursor: Cursor, data: str, event: Event) -> Written:
        now = _now()
        at = now if event.time is None else event.time
        cursor.execute(
            'INSERT INTO events (data, key, "user", item, time, kind, rating, received) VALUES (?,?,?,?,?,?,?,?) '
            "ON CONFLICT (data, key) DO NOTHING",
            (data, event.key, event.user, event.item, at, event.kind, event.rating, now),
        )
        if cursor.rowcount == 1:
            return Written(event.key, True, at)
        cursor.execute(
            'SELECT "user", item, time, kind, rating FROM events WHERE data = ? AND key = ?', (data, event.key)
        )
        known = cursor.fetchone()
        at = known[2] if event.time is None else event.time
        if known != (event.user, event.item, at, event.kind, event.rating):
            raise ConflictError(
                f"the key '{event.key}' was used before for another event; give each event a key of its own"
            )
        return Written(event.key, False, at)

    def later(self, data: str, user: str) -> list[Later]:
        """The newest events of a user, oldest first."""
        rows = self._store.read(
            'SELECT item, time, kind, rating FROM events WHERE data = ? AND "user" = ? '
            "ORDER BY time DESC, seq DESC LIMIT ?",
            (data, user, LATER_EVENTS),
        )
        return [Later(*row) for row in reversed(rows)]

    def n_events(self, data: str) -> int:
        ((count,),) = self._store.read("SELECT count(*) FROM events WHERE data = ?", (data,))
        return int(count)

    # -- items -------------------------------------------------------------------------------------------------------

    def add_item(self, data: str, item: str, content: Mapping[str, Any]) -> bool:
        """Write a new item; False when it is there. Raises ``ConflictError`` when it is there and reads otherwise."""
        written = json.dumps(content, ensure_ascii=False, sort_keys=True)
        with self._store.writing() as cursor:
            cursor.execute(
                "INSERT INTO items (data, item, content, received) VALUES (?,?,?,?) "
                "ON CONFLICT (data, item) DO NOTHING",
                (data, item, written, _now()),
            )
            if cursor.rowcount == 1:
                return True
            cursor.execute("SELECT content FROM items WHERE data = ? AND item = ?", (data, item))
            if cursor.fetchone()[0] != written:
                raise ConflictError(f"item '{item}' was added before and reads otherwise; give a new item a new id")
            return False

    def forget_item(self, data: str, item: str) -> None:
        """Take back an item that could not be added after all."""
        with self._store.writing() as cursor:
            cursor.execute("DELETE FROM items WHERE data = ? AND item = ?", (data, item))

    def retire(self, data: str, items: Sequence[str], *, back: bool = False) -> None:
        """Write down that these items are retired, or that they are not."""
        said = "INSERT INTO retired (data, item) VALUES (?,?) ON CONFLICT (data, item) DO NOTHING"
        if back:
            said = "DELETE FROM retired WHERE data = ? AND item = ?"
        with self._store.writing() as cursor:
            for item in items:
                cursor.execute(said, (data, item))

    def items(self, data: str) -> list[dict[str, Any]]:
        """The items that were added, oldest first."""
        rows = self._store.read("SELECT content FROM items WHERE data = ? ORDER BY seq", (data,))
        return [json.loads(content) for (content,) in rows]

    def retired(self, data: str) -> list[str]:
        """The items that are retired, in the order of their ids."""
        return sorted(item for (item,) in self._store.read("SELECT item FROM retired WHERE data = ?", (data,)))

    # -- the store ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises ``StoreError`` where the ledger cannot be read."""
        self._store.read("SELECT 1 FROM retired LIMIT 1")

    def close(self) -> None:
        self._store.close()


def _open(place: Path | str) -> Store:
    scheme, is_url, rest = str(place).partition("://")
    if not is_url:
        return SqliteStore(Path(place), _TABLES)
    url = f"{scheme.lower()}://{rest}"
    if not url.startswith(URLS):  # not repeated: it may hold a password
        raise ConfigError("--store is a file or postgresql://USER@HOST/NAME; it names another kind of address")
    if find_spec("psycopg") is None:
        raise MissingExtraError.needing("a PostgreSQL store", "postgres")
    from palate.serving.postgres import PostgresStore

    return PostgresStore(url, _TABLES)


def _now() -> int:
    return time.time_ns() // 1_000_000
