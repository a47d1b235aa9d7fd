"""Where a ledger lies. The statements are the same everywhere: ``?`` stands for a value, and values are always bound.

A SQLite file of one's own is the default; ``palate.serving.postgres`` is a database that several servers may share.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from palate.core.errors import StoreError

VERSION = 1
BUSY_SECONDS = 5
"""How long a write waits for another process that writes."""


class FullDiskError(StoreError):
    """Nothing more can be written; what was acknowledged is there."""


class Cursor(Protocol):
    """What a transaction writes by: as much of Python's database API as is needed."""

    @property
    def rowcount(self) -> int: ...
    def execute(self, statement: str, values: Sequence[object] = (), /) -> Any: ...
    def fetchone(self) -> Any: ...


class Store(Protocol):
    """For any thread: writes follow one another, reads wait for nobody. Raises ``StoreError`` and ``FullDiskError``."""

    def read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a question."""

    def writing(self) -> AbstractContextManager[Cursor]:
        """A transaction: on disk when it ended well, otherwise nothing of it was written."""

    def close(self) -> None:
        """Let go of all connections."""


class Connection(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)


class Idle(Generic[C]):
    """Connections that nobody uses now; who takes one has it alone. There are as many as were needed at once."""

    def __init__(self, connect: Callable[[], C]) -> None:
        self._connect = connect
        self._free: list[C] = []
        self._closed = False
        self._changing = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[C]:
        """A connection, given back when all went well and closed otherwise."""
        with self._changing:
            connection = self._free.pop() if self._free else None
        connection = connection or self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        with self._changing:
            if not self._closed:
                self._free.append(connection)
                return
        connection.close()

    def drop(self) -> None:
        """Close those that nobody uses."""
        with self._changing:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def close(self) -> None:
        """Close them all, those under way when they come back."""
        self._closed = True
        self.drop()


class SqliteStore:
    """One file, written ahead (WAL) and flushed before a write is acknowledged (``synchronous=FULL``)."""

    def __init__(self, path: Path, tables: str) -> None:
        self._path = path
        self._alone = threading.Lock()
        self._readers = Idle(self._reader)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            (mode,) = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()
            self._writer.execute("PRAGMA synchronous = FULL")
            self._prepare(str(mode), tables)
        except (sqlite3.Error, OSError) as failure:
            raise StoreError(f"{path} cannot hold events: {failure}") from None

    def _prepare(self, mode: str, tables: str) -> None:
        if mode != "wal":
            raise StoreError(f"{self._path}: this place allows no write-ahead log; choose another --store")
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == 0:
            numbered = tables.replace("NUMBERED", "INTEGER PRIMARY KEY")
            self._writer.executescript(f"BEGIN IMMEDIATE;{numbered}PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise StoreError(f"{self._path} was written by another Palate (version {version}); choose another --store")

    def read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._readers.one() as reader:
                return reader.execute(statement, values).fetchall()
        except sqlite3.Error as failure:
            raise StoreError(f"{self._path.name} cannot be read: {failure}") from failure

    @contextmanager
    def writing(self) -> Iterator[Cursor]:
        with self._alone:
            try:
                cursor = self._writer.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
            except BaseException as problem:
                if self._writer.in_transaction:
                    with suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                if isinstance(problem, sqlite3.Error):
                    raise self._said(problem) from problem
                raise

    def close(self) -> None:
        self._readers.close()
        with self._alone:
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _said(self, failure: sqlite3.Error) -> StoreError:
        if getattr(failure, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            name = self._path.name
            return FullDiskError(f"the disk of {name} is full; nothing of this was written, reading goes on")
        return StoreError(f"{self._path.name} cannot be written: {failure}")
