"""A real PostgreSQL server for the tests: its own data folder, its own socket, no port, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

BESIDE_ROOT = "nobody"
"""Who runs the server where the tests run as root, as whom it refuses to run."""
PATIENCE = 120
"""Seconds; a server that was killed under load reads its log first, and the machine may be busy."""


def binaries() -> Path | None:
    """Where ``initdb`` and ``postgres`` lie: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").is_file()), None)


class Database:
    """``url()`` is a fresh, empty database of the server; ``kill`` and ``start`` are what happens to servers."""

    def __init__(self, folder: Path, place: Path) -> None:
        self._folder, self._place, self._names = folder, place, count(1)
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": BESIDE_ROOT, "extra_groups": []}
            shutil.chown(folder, BESIDE_ROOT)
        self._run("initdb", "-D", "data", "-U", "palate", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._place / program, *arguments], cwd=self._folder, check=True, capture_output=True, **self._user
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        quiet = ["-c", "listen_addresses=", "-c", "autovacuum=off", "-c", "shared_buffers=16MB"]
        log = self._folder / "log"  # a file: a pipe that nobody reads would stop it
        with log.open("w") as said:
            self._server = subprocess.Popen(
                [self._place / "postgres", "-D", "data", "-k", str(self._folder), *quiet],
                cwd=self._folder, stderr=said, start_new_session=True, **self._user,
            )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._server.poll() is None:
            try:
                return self.say("SELECT 1")
            except Exception:
                time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the PostgreSQL server of the tests does not answer: {log.read_text()[-2000:]}")

    def kill(self) -> None:
        """``kill -9`` of the server and of everything it started."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def url(self) -> str:
        name = f"test{next(self._names)}"
        self.say(f"CREATE DATABASE {name}")
        return self.of(name)

    def of(self, name: str) -> str:
        return f"postgresql://palate@/{name}?host={self._folder}"

    def say(self, statement: Any, url: str | None = None) -> Any:
        """What a statement answers; nothing waits for a transaction."""
        import psycopg

        with psycopg.connect(url or self.of("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None


@contextmanager
def postgres() -> Iterator[Database]:
    """A running server; skips the test where there can be none."""
    place = binaries()
    if place is None:
        pytest.skip("the PostgreSQL tests need its server: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="a PostgreSQL store needs pip install 'palate[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="palate-pg-", dir="/tmp"))
    database = None
    try:
        database = Database(folder, place)
        yield database
    finally:
        if database is not None:
            database.kill()
        shutil.rmtree(folder, ignore_errors=True)
