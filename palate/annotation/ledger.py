"""The ledger: every record a chat model wrote, by what was asked, and every call that was paid for. One SQLite file.

Records that somebody else wrote are taken in beside them (``take``), with that as their provenance and without a call.

A record's key is the hash of model, prompt and filled prompt, so the same question is asked once, whoever asks again.
A call is booked with the most that it can cost before it is made; a call that would not fit into the budget together
with all that are booked is not made. When the answer comes, record and real cost are written in one transaction. After
``kill -9`` the calls that were under way are found open: they are charged with all that was booked, and counted.

Write-ahead logging with ``synchronous=NORMAL``: nothing committed is lost with the process; with the power the last
commits may be, and the file stays whole. One process writes at a time.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from palate.core.chat import NOTHING_USED, Usage
from palate.core.errors import BudgetError, StoreError

SCHEMA = "palate.ledger/1"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (schema TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY, record TEXT, problem TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
    time TEXT NOT NULL, tokens_read INTEGER NOT NULL, tokens_written INTEGER NOT NULL, money REAL NOT NULL,
    tries INTEGER NOT NULL, step TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL,
    tokens_read INTEGER NOT NULL, tokens_written INTEGER NOT NULL, money REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS open_calls ON calls (state) WHERE state = 'open';
"""


@dataclass(frozen=True)
class Entry:
    """A record as it was kept, with where it comes from. ``record`` is None where the model wrote none that could be
    read; ``problem`` says why. ``model`` is the model's version, ``prompt`` that of the task, ``time`` ISO in UTC."""

    key: str
    record: Mapping[str, Any] | None
    problem: str
    model: str
    prompt: str
    time: str
    usage: Usage
    tries: int
    step: str


@dataclass(frozen=True)
class Budget:
    """What all calls of a ledger together may cost, those before a kill included; None = no limit."""

    tokens: int | None = None
    money: float | None = None

    def refuses(self, total: Usage) -> str:
        """The limit that ``total`` would break, in words; "" where none."""
        if self.tokens is not None and total.tokens > self.tokens:
            return f"{self.tokens:,} tokens"
        if self.money is not None and total.money > self.money * (1 + 1e-12):
            return f"{self.money:g} of money"
        return ""


class Ledger:
    """An open ledger; a context manager. Threads share it. Raises ``StoreError`` where another process has it."""

    def __init__(self, path: str | Path, budget: Budget | None = None) -> None:
        self.path, self.budget = Path(path), budget or Budget()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._file = self.path.with_name(f"{self.path.name}.lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise StoreError(f"{self.path} is in use by another process; wait for it, or name another ledger") from None
        try:
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)
            self._check()
        except sqlite3.DatabaseError as failure:
            self._file.close()
            raise StoreError(f"{self.path} is no ledger that can be read ({failure}); name another file") from None
        # Nobody else has the ledger, so what is open was left by a process that is no more.
        self.repeats = self._db.execute("UPDATE calls SET state = 'lost' WHERE state = 'open'").rowcount
        """Calls that an earlier process left under way: charged, and perhaps made again."""
        self._spent = self._sum("state != 'open'")
        self._booked = NOTHING_USED

    def _check(self) -> None:
        row = self._db.execute("SELECT schema FROM about").fetchone()
        if row is None:
            self._db.execute("INSERT INTO about VALUES (?)", (SCHEMA,))
        elif row[0] != SCHEMA:
            raise StoreError(f"{self.path}: schema {row[0]!r} is not {SCHEMA!r}; name another file")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._file.close()

    # -- records -----------------------------------------------------------------------------------------------------

    def kept(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Those of ``keys`` that are there."""
        found: dict[str, Entry] = {}
        with self._lock:
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ", ".join("?" * len(some))
                for row in self._db.execute(f"SELECT * FROM records WHERE key IN ({marks})", some):
                    record = None if row[1] is None else json.loads(row[1])
                    found[row[0]] = Entry(
                        row[0], record, row[2], row[3], row[4], row[5], Usage(row[6], row[7], row[8]), row[9], row[10]
                    )
        return found

    def knows(self, model: str) -> bool:
        """Whether this version of a model has written any record."""
        with self._lock:
            row = self._db.execute("SELECT 1 FROM records WHERE model = ? AND record IS NOT NULL LIMIT 1", (model,))
            return row.fetchone() is not None

    def take(self, entries: Iterable[Entry]) -> int:
        """Keep records that no call has written, all or none; one whose key is there stays as it is. Returns how many
        are new."""
        with self._lock:
            before = self._db.total_changes
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(f"INSERT OR IGNORE INTO records VALUES ({_PLACES})", map(_written, entries))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            return self._db.total_changes - before

    def forget_failures(self) -> int:
        """Records that could not be read are asked for again; what they cost stays spent. Returns how many."""
        with self._lock:
            return self._db.execute("DELETE FROM records WHERE record IS NULL").rowcount

    # -- calls -------------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> Usage:
        """Of all calls that are over, those that were lost included."""
        with self._lock:
            return self._spent

    def book(self, key: str, largest: Usage) -> int:
        """Book a call that is about to be made; its number. Raises ``BudgetError`` where it may cost too much."""
        with self._lock:
            total = self._spent + self._booked + largest
            refused = self.budget.refuses(total)
            if refused:
                left = f"{self._spent.tokens:,} tokens and {self._spent.money:.4g} of money are spent"
                raise BudgetError(
                    f"the budget of {refused} could be exceeded by the next call ({left}); everything written is kept: "
                    "raise the budget to go on"
                )
            made = self._db.execute(
                "INSERT INTO calls (key, state, tokens_read, tokens_written, money) VALUES (?, 'open', ?, ?, ?)",
                (key, largest.read, largest.written, largest.money),
            )
            self._booked = self._booked + largest
            assert made.lastrowid is not None
            return made.lastrowid

    def settle(self, call: int, largest: Usage, used: Usage, entry: Entry | None) -> None:
        """The call is over: its real cost, and the record where there is one, at once or not at all."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if entry is not None:
                    self._db.execute(f"INSERT OR REPLACE INTO records VALUES ({_PLACES})", _written(entry))
                self._db.execute(
                    "UPDATE calls SET state = ?, tokens_read = ?, tokens_written = ?, money = ? WHERE id = ?",
                    ("failed" if entry is None else "done", used.read, used.written, used.money, call),
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._spent = self._spent + used
            self._booked = self._booked + largest.times(-1)

    def counts(self) -> dict[str, int]:
        """How many calls are done, failed, lost and open."""
        with self._lock:
            return dict(self._db.execute("SELECT state, COUNT(*) FROM calls GROUP BY state").fetchall())

    def _sum(self, where: str) -> Usage:
        row = self._db.execute(
            "SELECT COALESCE(SUM(tokens_read), 0), COALESCE(SUM(tokens_written), 0), COALESCE(SUM(money), 0) "
            f"FROM calls WHERE {where}"
        ).fetchone()
        return Usage(*row)


_PLACES = ", ".join("?" * 11)


def _written(entry: Entry) -> tuple[Any, ...]:
    """The row of an entry."""
    return (
        entry.key, None if entry.record is None else json.dumps(entry.record, ensure_ascii=False), entry.problem,
        entry.model, entry.prompt, entry.time, entry.usage.read, entry.usage.written, entry.usage.money, entry.tries,
        entry.step,
    )  # fmt: skip


def now() -> str:
    """ISO in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
