"""A ledger in a PostgreSQL database, in a schema of its own; several servers may share it.

Writers follow one another by a lock of the database, as they do in a SQLite file: numbers of events then have the order
in which they were written, and no two servers wait for each other. A lost connection is opened anew by whoever needs
one next; no call waits long for a database that does not answer.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn

from palate.core.errors import StoreError
from palate.serving.stores import BUSY_SECONDS, VERSION, Cursor, FullDiskError, Idle

SCHEMA = "palate"
LOCK = 7_021_517_240_431
"""Held by whoever writes; any number that nobody else uses in this database."""
DOWN_SECONDS = 1.0
"""After a failed connection nobody tries again for so long: callers do not queue up behind its time limit."""
WAITING: dict[str, str | int] = {
    "connect_timeout": 3, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 1000 * BUSY_SECONDS, "application_name": "palate",
}  # fmt: skip
"""How a dead connection is found out; what the URL says itself comes first."""
SETTINGS = {
    "search_path": SCHEMA, "lock_timeout": f"{BUSY_SECONDS}s", "statement_timeout": f"{2 * BUSY_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{6 * BUSY_SECONDS}s",
}  # fmt: skip
"""The last one frees the lock where a server stands still in the middle of a write."""

STILL_SECONDS = 2 * BUSY_SECONDS + 2
"""A statement that takes longer stands still: the database ends others before. Its connection is given up."""

Row = tuple[Any, ...]


class Connection(psycopg.Connection[Row]):
    """``line`` is its socket under a number of its own: what a thread cuts by it is never somebody else's, whenever the
    library closes the other one."""

    def __init__(self, pgconn: PGconn, *options: Any) -> None:
        super().__init__(pgconn, *options)
        self.line = socket.fromfd(pgconn.socket, socket.AF_INET, socket.SOCK_STREAM)

    def close(self) -> None:
        super().close()
        self.line.close()


class Patience:
    """Cuts connections whose database keeps somebody waiting: what stands still keeps to no limit of its own, and its
    machine goes on saying that the connection lives. Whoever waits then hears that it is lost."""

    def __init__(self) -> None:
        self._waiting: dict[object, tuple[float, Connection]] = {}
        self._changing = threading.Condition()
        self._over = False
        self._watched = False

    @contextmanager
    def of(self, connection: Connection) -> Iterator[None]:
        """What is done meanwhile waits for ``STILL_SECONDS``, give or take one."""
        waiting = object()
        with self._changing:
            if not self._watched:
                threading.Thread(target=self._watch, name="patience with the database", daemon=True).start()
                self._watched = True
            self._waiting[waiting] = time.monotonic() + STILL_SECONDS, connection
        try:
            yield
        finally:
            with self._changing:
                del self._waiting[waiting]

    def close(self) -> None:
        """Watch no longer than somebody waits."""
        with self._changing:
            self._over = True
            self._changing.notify()

    def _watch(self) -> None:
        with self._changing:  # who waits cannot close its connection meanwhile
            while self._waiting or not self._over:
                self._changing.wait(1.0)
                now = time.monotonic()
                for until, connection in self._waiting.values():
                    if now > until:
                        with suppress(OSError):  # it is cut already
                            connection.line.shutdown(socket.SHUT_RDWR)  # to close it is for the thread that waits
            self._watched = False


class Marked(psycopg.Cursor[Row]):
    """Takes statements in which ``?`` stands for a value, as all of ours are written, and waits with ``patience``."""

    def __init__(self, connection: Connection, *, patience: Patience, **options: Any) -> None:
        super().__init__(connection, **options)
        self._over, self._patience = connection, patience

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        with self._patience.of(self._over):
            return super().execute(query.replace("?", "%s"), params, **options)


AWAY = "the database of events does not answer; ask again soon"


class LostError(Exception):
    """A connection that was open is not any more."""

    def __init__(self, failure: psycopg.Error) -> None:
        super().__init__(str(failure))
        self.failure = failure


class PostgresStore:
    """``url`` as libpq reads it (``postgresql://user@host/name``); what it leaves out libpq takes from ``PGPASSWORD``,
    ``~/.pgpass`` and the like. Raises ``StoreError`` where nobody answers there."""

    def __init__(self, url: str, tables: str) -> None:
        try:
            self._place = {**WAITING, **conninfo_to_dict(url)}
        except psycopg.ProgrammingError:  # its words could repeat the password
            raise StoreError("--store cannot be read; write postgresql://USER@HOST:PORT/NAME") from None
        self._down_until = 0.0
        self._alone = threading.Lock()
        self._patience = Patience()
        self._readers = Idle(self._connect)
        self._writer: Connection | None = None
        try:
            with self.writing() as cursor:
                self._prepare(cursor, tables)
        except BaseException as problem:
            self.close()
            if not isinstance(problem, StoreError):
                raise
            cause = problem.__cause__
            said = " ".join(str(cause).split()) if isinstance(cause, psycopg.Error) else str(problem)
            raise StoreError(f"the database of --store cannot hold events: {said}") from None

    def _prepare(self, cursor: Cursor, tables: str) -> None:
        cursor.execute("SHOW server_encoding")
        if (encoding := cursor.fetchone()[0]) != "UTF8":
            raise StoreError(f"its texts are {encoding}; create one with ENCODING 'UTF8'")
        cursor.execute("SELECT to_regclass(?)", (f"{SCHEMA}.about",))
        if cursor.fetchone()[0] is None:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            cursor.execute(tables.replace("NUMBERED", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"))
            cursor.execute("CREATE TABLE about (version INTEGER NOT NULL)")
            cursor.execute("INSERT INTO about VALUES (?)", (VERSION,))
        cursor.execute("SELECT version FROM about")
        if (version := cursor.fetchone()) != (VERSION,):
            raise StoreError(f"it was written by another Palate ({version}); choose another one")

    def read(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        try:
            try:
                return self._read(statement, values)
            except LostError:
                self._readers.drop()  # the database went away since they were used; perhaps it is back
                return self._read(statement, values)
        except LostError as lost:
            raise StoreError(AWAY) from lost.failure
        except psycopg.Error as failure:
            raise _said(failure) from failure

    def _read(self, statement: str, values: Sequence[object]) -> list[Row]:
        with self._readers.one() as reader:
            try:
                return reader.execute(statement, values).fetchall()
            except psycopg.Error as failure:
                if reader.closed:  # whatever the database called it: a restart, an idle session, a crash beside it
                    raise LostError(failure) from failure
                raise

    @contextmanager
    def writing(self) -> Iterator[Cursor]:
        with self._alone:
            try:
                cursor = self._begin()
                yield cursor
                cursor.execute("COMMIT")
            except BaseException as problem:
                if self._writer is not None:
                    with suppress(psycopg.Error):
                        self._writer.execute("ROLLBACK")
                if isinstance(problem, psycopg.Error):
                    raise _said(problem) from problem
                raise

    def _begin(self) -> Cursor:
        """A transaction that nobody else writes beside."""
        had_one = self._writer is not None and not self._writer.closed
        try:
            return self._begun()
        except psycopg.OperationalError:
            # The database went away since the last write and may be back; nothing was written yet.
            if not had_one or self._writer is None or not self._writer.closed:
                raise
            return self._begun()

    def _begun(self) -> Cursor:
        if self._writer is None or self._writer.closed:
            if self._writer is not None:
                self._writer.close()  # the library says closed of what is lost, too
            self._writer = self._connect()
        cursor = self._writer.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")  # whatever its default is
        cursor.execute("SELECT pg_advisory_xact_lock(?)", (LOCK,))
        return cursor

    def close(self) -> None:
        self._readers.close()
        with self._alone:  # patience lets go of a write under way
            if self._writer is not None:
                self._writer.close()
        self._patience.close()

    def _connect(self) -> Connection:
        if time.monotonic() < self._down_until:
            raise psycopg.OperationalError("the last attempt has just failed")
        try:
            marked: Any = partial(Marked, patience=self._patience)
            connection = Connection.connect(**self._place, autocommit=True, cursor_factory=marked)  # type: ignore[arg-type]
            for name, value in SETTINGS.items():
                connection.execute("SELECT set_config(?, ?, false)", (name, value))
            # What is acknowledged is on disk, whatever this database does by default; a stricter promise stays.
            connection.execute(
                "SELECT set_config(name, 'on', false) FROM pg_settings "
                "WHERE name = 'synchronous_commit' AND setting = 'off'"
            )
        except psycopg.OperationalError:
            self._down_until = time.monotonic() + DOWN_SECONDS
            raise
        except OSError as failure:  # this process has too many files open
            raise psycopg.OperationalError(str(failure)) from failure
        return connection


def _said(failure: psycopg.Error) -> StoreError:
    """A failure in words for whoever asked: nothing of hosts, users or rows."""
    if isinstance(failure, errors.DiskFull):
        return FullDiskError("the disk of the database is full; nothing of this was written, reading goes on")
    if failure.sqlstate is None:
        return StoreError(AWAY)
    return StoreError(f"the database of events refused this: {failure.diag.message_primary}")
