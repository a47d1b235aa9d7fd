"""``kill -9`` under write load: what was acknowledged is there once, and a server outlives its database."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from palate.core.errors import StoreError
from palate.serving.ledger import Event, Ledger, Written
from palate.serving.waiting import Room
from tests.serving.chaos import chaos
from tests.serving.conftest import client
from tests.serving.database import Database
from tests.serving.running import running

T = TypeVar("T")

ROUNDS = [2, pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_acknowledged_is_lost_or_doubled(
    kind: str, rounds: int, runs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database: Database | None = request.getfixturevalue("database") if kind == "postgresql" else None
    store = tmp_path / "s.sqlite" if database is None else database.url()
    outcome = chaos(runs / "text-cosine", store, rounds, seed=rounds, database=database)
    print(f"\n{kind}: {outcome}")
    assert (outcome.lost, outcome.doubled) == (0, 0)
    assert outcome.failures >= rounds // 2, "nobody was cut off: nothing was tried"
    if rounds > 2:
        assert outcome.held > 0, "no event was sent again that was there: nothing of keys was tried"


def test_without_its_database_a_server_stays_up_and_says_so(runs: Path, database: Database) -> None:
    sent = {"events": [{"key": "k", "user": "r0001", "item": "b001", "time": 1}]}
    with running([runs / "item-knn"], database.url()) as (service, address), client(address) as asked:
        assert asked.post("/v1/events", json=sent).status_code == 200
        before = asked.post("/v1/recommend", json={"user": "r0001"}).json()
        database.kill()
        try:
            for path, body in (("/v1/events", sent), ("/v1/recommend", {"user": "r0001"})):
                refused: Any = asked.post(path, json=body)
                assert (refused.status_code, refused.json()["code"]) == (503, "store")
                assert refused.json()["error"] == "the database of events does not answer; ask again soon"
            assert asked.get("/ready").status_code == 503
            assert asked.post("/v1/recommend", json={"history": ["b001"]}).status_code == 200
            assert asked.get("/v1/items", params={"q": "the"}).status_code == 200
            assert "Connection refused" in service.written.getvalue()  # type: ignore[attr-defined]
        finally:
            database.start()
        service.ledger._store._down_until = 0.0  # type: ignore[attr-defined]
        assert asked.post("/v1/events", json=sent).json() == [{"key": "k", "new": False, "time": 1}]
        assert asked.post("/v1/recommend", json={"user": "r0001"}).json() == before


def test_a_database_that_hangs_keeps_only_those_waiting_who_need_it(runs: Path, database: Database) -> None:
    with running([runs / "item-knn"], database.url()) as (service, address), client(address) as asked:
        sent = {"events": [{"key": "k", "user": "new", "item": "b001"}]}
        assert asked.post("/v1/events", json=sent).status_code == 200
        assert asked.post("/v1/recommend", json={"user": "new"}).status_code == 200, "known by that event alone"
        assert asked.post("/v1/explain", json={"user": "new", "items": ["b002"]}).status_code == 200
        store: Any = service.ledger._store
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            place, hanging = store._place, {"host": "127.0.0.1", "port": deaf.getsockname()[1], "connect_timeout": 2}
            store._place = {**place, **hanging}
            store._readers.drop()
            waiting = Room(1, 0, "test").do(lambda: asked.post("/v1/recommend", json={"user": "new"}))
            connection, _ = deaf.accept()
            with connection:
                for _ in range(3):
                    assert asked.post("/v1/recommend", json={"history": ["b001"]}).status_code == 200
                assert not waiting.done()
                assert (waiting.result(20).status_code, waiting.result().json()["code"]) == (503, "store")
        store._place, store._down_until = place, 0.0
        assert asked.post("/v1/recommend", json={"user": "new"}).status_code == 200
        service.find(None).close()
        assert asked.post("/v1/recommend", json={"user": "new"}).json()["code"] == "closing"


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work``; fails where it does not come, and leaves it to its thread."""
    done: Future[T] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as problem:
            done.set_exception(problem)

    threading.Thread(target=do, daemon=True).start()
    return done.result(seconds)


@contextmanager
def stopped(*processes: int) -> Iterator[None]:
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@pytest.fixture
def ledger(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Its database has little time for each statement."""
    monkeypatch.setattr("palate.serving.postgres.STILL_SECONDS", 0.5)
    ledger = Ledger(database.url())
    try:
        ledger.append("data", [[Event("k", "u", "i", 1)]])
        yield ledger
    finally:
        within(60, ledger.close)


def test_a_database_that_stands_still_in_mid_connection_holds_nobody_for_ever(ledger: Ledger) -> None:
    """SIGSTOP of the processes behind two open connections: their machine says that they live, they say nothing."""
    store: Any = ledger._store
    assert ledger.later("data", "u")
    (reader,) = store._readers._free
    with stopped(reader.info.backend_pid, store._writer.info.backend_pid):
        found = within(60, lambda: ledger.later("data", "u"))
        assert [event.item for event in found] == ["i"], "asked again over another connection"
        written = within(60, lambda: ledger.append("data", [[Event("k2", "u", "j", 2)]]))
        assert written == [[Written("k2", True, 2)]]


def test_a_ledger_whose_database_stands_still_in_mid_write_can_be_closed(ledger: Ledger) -> None:
    store: Any = ledger._store
    with stopped(store._writer.info.backend_pid):
        write = Room(1, 0, "test").do(lambda: ledger.append("data", [[Event("k2", "u", "j", 2)]]))
        while not store._patience._waiting:
            assert not write.done()
            time.sleep(0.01)
        within(60, ledger.close)
        assert write.result(60) == [[Written("k2", True, 2)]], "what is under way ends first"
    until = time.monotonic() + 60
    while store._patience._watched and time.monotonic() < until:
        time.sleep(0.01)
    assert not store._patience._watched


def test_a_ledger_that_cannot_be_opened_leaves_nothing_behind(database: Database) -> None:
    url = database.url()
    ledger = Ledger(url)
    with ledger._store.writing() as cursor:
        cursor.execute("UPDATE about SET version = 99")
    ledger.close()
    with pytest.raises(StoreError, match="another Palate"):
        Ledger(url)
    until = time.monotonic() + 60
    while "patience with the database" in (names := [thread.name for thread in threading.enumerate()]):
        assert time.monotonic() < until, names
        time.sleep(0.05)
