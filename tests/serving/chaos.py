"""Kill a server under write load, again and again, while clients send until each event is acknowledged."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.serving.ledger import LATER_EVENTS, Ledger
from tests.serving.conftest import client, process
from tests.serving.database import Database

CLIENTS = 4
EVENTS_A_ROUND = 40
"""So many are acknowledged before the next kill."""
PATIENCE = 120
"""Seconds; a round that takes longer has failed."""
SEA = "The captain and the crew of a whaling ship hunt a white whale across the ocean; storms, sails, islands"


@dataclass
class Clients:
    """What all clients know and saw: where the server is now, what it acknowledged, what it had already held."""

    address: str = ""
    stop: bool = False
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: int = 0
    """Acknowledged as known: the event was written, but its first acknowledgement never arrived."""
    failures: int = 0
    refusals: set[int] = field(default_factory=set)

    def write(self, number: int) -> None:
        """Events of one user, one after another, each sent with its key until it is acknowledged."""
        place = 0
        while not self.stop:
            with suppress(Exception), client(self.address) as asked:  # killed: connect to the next one
                while not self.stop:
                    place = self._send(asked, number, place)
            self.failures += 1
            time.sleep(0.02)

    def _send(self, asked: Any, number: int, place: int) -> int:
        """The place of the event to send next."""
        sent = {"key": f"{number}-{place}", "user": f"u{number}", "item": "b001", "time": place}
        answer = asked.post("/v1/events", json={"events": [sent]})
        if answer.status_code != 200:
            self.refusals.add(answer.status_code)
            time.sleep(0.05)
            return place
        self.held += not answer.json()[0]["new"]
        self.acknowledged[sent["key"]] = sent
        return place + 1


@dataclass(frozen=True)
class Outcome:
    """``lost`` and ``doubled``, what answers about users count beyond what was sent, must be 0; ``held`` counts retries
    that found their event written."""

    rounds: int
    acknowledged: int
    lost: int
    doubled: int
    held: int
    failures: int
    refusals: tuple[int, ...]


def chaos(run: Path, store: Path | str, rounds: int, seed: int, database: Database | None = None) -> Outcome:
    """``kill -9`` of ``palate serve`` ``rounds`` times, with ``database`` of that server in turn with ours."""
    clients, rng = Clients(), random.Random(seed)
    threads = [threading.Thread(target=clients.write, args=(number,)) for number in range(CLIENTS)]
    try:
        with ExitStack() as living:
            server = _start(living, run, store, clients)
            _tell_items(clients.address)
            for thread in threads:
                thread.start()
            for round_number in range(rounds):
                _wait_for_more(clients)
                time.sleep(rng.uniform(0, 0.2))
                if database is not None and round_number % 2:
                    database.kill()
                    database.start()
                    continue
                os.kill(server.pid, signal.SIGKILL)
                living.close()
                server = _start(living, run, store, clients)
            _wait_for_more(clients)
            _check_items(clients.address)
            clients.stop = True
            for thread in threads:
                thread.join()
            told = _told_of_users(clients.address)
            server.terminate()
            assert server.wait(PATIENCE) == 0, "told to stop, a server ends well"
    finally:
        clients.stop = True
        for thread in threads:
            thread.join()
    return _outcome(clients, store, rounds, told)


def _start(living: ExitStack, run: Path, store: Path | str, clients: Clients) -> Any:
    server, clients.address = living.enter_context(process(run, "--store", store))
    return server


def _tell_items(address: str) -> None:
    with client(address) as asked:
        added = {"item": "whale", "title": "The White Whale", "text": SEA}
        assert asked.post("/v1/items", json=added).json()["new"]
        assert asked.post("/v1/items/retire", json={"items": ["b002"]}).status_code == 200


def _check_items(address: str) -> None:
    with client(address) as asked:
        found = asked.post("/v1/recommend", json={"history": [], "words": "a white whale", "k": 200}).json()
        items = [one["item"] for one in found["recommended"]]
        assert items[0] == "whale"
        assert "b002" not in items


def _told_of_users(address: str) -> int:
    """Events that the server's own answers about the users count."""
    with client(address) as asked:
        pages = [asked.get("/v1/users/one", params={"user": f"u{number}"}).json() for number in range(CLIENTS)]
    assert all(page["total"] < LATER_EVENTS for page in pages), "more than are read of a user: lower the rounds"
    return sum(page["total"] for page in pages)


def _wait_for_more(clients: Clients) -> None:
    wanted, until = len(clients.acknowledged) + EVENTS_A_ROUND, time.monotonic() + PATIENCE
    while len(clients.acknowledged) < wanted:
        assert time.monotonic() < until, f"nothing is acknowledged any more; answers were {clients.refusals or 'none'}"
        time.sleep(0.01)


def _outcome(clients: Clients, store: Path | str, rounds: int, told: int) -> Outcome:
    ledger = Ledger(store)
    rows: Sequence[Any] = ledger._store.read('SELECT key, "user", item, time FROM events')
    ledger.close()
    written = {key: {"key": key, "user": user, "item": item, "time": at} for key, user, item, at in rows}
    lost = sum(written.get(key) != event for key, event in clients.acknowledged.items())
    unasked = len(written.keys() - clients.acknowledged.keys())
    assert unasked <= CLIENTS, "at most one event a client was under way at the end"
    doubled = told - len({(user, at) for _, user, _, at in rows})
    return Outcome(
        rounds, len(clients.acknowledged), lost, doubled, clients.held, clients.failures,
        tuple(sorted(clients.refusals)),
    )  # fmt: skip
