"""Who may do what, and what happens under load, at the end, and in the log."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palate.core.errors import ConfigError, MisuseError
from palate.serving.auth import Tokens, check_address, read_tokens
from palate.serving.served import Limits
from tests.serving.conftest import client
from tests.serving.running import running

READ, WRITE = "read-token-0123456789", "write-token-0123456789"
ASK = {"history": ["b001"], "k": 3}
TELL = {"events": [{"key": "k", "user": "u", "item": "b001"}]}


def test_tokens_have_scopes(runs: Path, tmp_path: Path) -> None:
    tokens = Tokens.of({READ: "read", WRITE: "write"})
    with running([runs / "item-knn"], tmp_path / "s.sqlite", tokens=tokens) as (_, address):
        expected = {None: (401, 401), "a-wrong-token-0123456789": (401, 401), READ: (200, 403), WRITE: (200, 200)}
        for token, (reads, writes) in expected.items():
            with client(address, token) as asked:
                assert asked.post("/v1/recommend", json=ASK).status_code == reads
                assert asked.get("/metrics").status_code == reads
                assert asked.post("/v1/events", json=TELL).status_code == writes
                assert asked.post("/v1/reload").status_code == writes
                assert asked.get("/health").status_code == 200
        with client(address) as asked:
            assert asked.post("/v1/recommend", json=ASK).headers["www-authenticate"] == "Bearer"


def test_tokens_are_read_from_a_file_and_compared_as_hashes(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# of the shop\nread {READ}\n")
    tokens = read_tokens(path, {"PALATE_WRITE_TOKEN": WRITE})
    assert (tokens.scope_of(READ), tokens.scope_of(WRITE)) == ("read", "write")
    assert tokens.scope_of("") is None
    assert tokens.scope_of("\ud800") is None
    assert READ not in repr(tokens)
    path.write_text("admin token-0123456789abc\n")
    with pytest.raises(ConfigError, match="line 1: write 'read TOKEN'"):
        read_tokens(path, {})
    with pytest.raises(ConfigError, match="at least 16"):
        Tokens.of({"short": "read"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_any_address_but_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(MisuseError, match="give API tokens"):
        check_address(host, Tokens())
    check_address(host, Tokens.of({WRITE: "write"}))
    for own in ("127.0.0.1", "::1", "localhost"):
        check_address(own, Tokens())


def test_the_command_refuses_in_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from palate.cli.main import main

    for arguments, code, said in [
        (["serve", str(runs / "item-knn"), "--host", "0.0.0.0"], 2, "give API tokens"),
        (["serve", str(tmp_path)], 1, "not a finished run"),
        (["serve", str(runs / "item-knn"), str(runs / "item-knn")], 2, "two runs are called 'item-knn'"),
    ]:
        with pytest.raises(SystemExit, match=str(code)):
            main(arguments)
        written = capsys.readouterr().err
        assert said in written
        assert written.count("\n") == 1


def test_headers_are_safe_and_requests_have_names(server: Any) -> None:
    answer = server.get("/health", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-request-id"] == "mine-1"
    assert "server" not in answer.headers
    assert server.get("/health", headers={"X-Request-ID": "not <mine>"}).headers["x-request-id"] != "not <mine>"


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


class Held:
    """Takes the place of a run's ``answers``: waits until the test lets it go on."""

    def __init__(self, service: Any) -> None:
        self.asker = service.find(None).asker
        self.real, self.n_asked = self.asker.answers, 0
        self.go, self.begun = threading.Event(), threading.Event()
        self.asker.answers = self

    def __call__(self, asked: Any, k: int, *, why: bool = False) -> Any:
        self.n_asked += len(asked)
        self.begun.set()
        assert self.go.wait(20)
        return self.real(asked, k, why=why)


def test_a_connection_too_many_is_429_and_one_that_ends_makes_room(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palate.serving.parsing.CONNECTIONS", 4)
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address):
        host, port = address.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(4)]
        eventually(lambda: len(service.server.server_state.connections) == 4)
        with client(address) as asked:
            refused = asked.post("/v1/recommend", json=ASK)
        assert (refused.status_code, refused.json()["code"]) == (429, "busy")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        assert refused.headers["x-content-type-options"] == "nosniff"
        idle += [socket.create_connection((host, int(port))) for _ in range(6)]
        eventually(lambda: len(service.server.server_state.connections) == 8)
        gone = [one for one in idle[4:] if _hung_up(one)]
        assert len(gone) == 2, "twice as many are heard, no more"
        for one in idle:
            one.close()
        eventually(lambda: not service.server.server_state.connections)
        with client(address) as asked:
            assert asked.post("/v1/recommend", json=ASK).status_code == 200


def _hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_every_number_of_this_machine_is_local(server: Any) -> None:
    for host, status in (("127.0.0.2:80", 200), ("[::1]:80", 200), ("10.0.0.1", 421), ("localhost.example", 421)):
        assert server.get("/health", headers={"Host": host}).status_code == status, host


def test_a_full_queue_is_429_and_those_who_wait_are_answered(runs: Path, tmp_path: Path) -> None:
    limits = Limits(waiting=3, seconds=20)
    with running([runs / "item-knn"], tmp_path / "s.sqlite", limits=limits) as (service, address):
        held, found = Held(service), []

        def ask() -> None:
            with client(address) as asked:
                found.append(asked.post("/v1/recommend", json=ASK))

        threads = [threading.Thread(target=ask) for _ in range(10)]
        threads[0].start()
        assert held.begun.wait(5)
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: len(found) == 6)
        assert {answer.status_code for answer in found} == {429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in found)
        with client(address) as asked:
            assert "palate_waiting_questions" in asked.get("/metrics").text
        held.go.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in found) == [200] * 4 + [429] * 6
        with client(address) as asked:
            figures = asked.get("/metrics").text
            assert 'palate_requests_total{method="POST",route="/v1/recommend",status="429"} 6.0' in figures
            assert 'palate_batch_questions_count{run="item-knn"} 2.0' in figures, "three that waited were one batch"


def test_an_answer_that_takes_too_long_is_503_and_the_next_is_answered(runs: Path, tmp_path: Path) -> None:
    with running([runs / "item-knn"], tmp_path / "s.sqlite", limits=Limits(seconds=0.3)) as (service, address):
        held = Held(service)
        with client(address) as asked:
            late = asked.post("/v1/recommend", json=ASK)
            assert (late.status_code, late.json()["error"]) == (503, "no answer within 0.3 s; ask again")
            held.go.set()
            assert asked.post("/v1/recommend", json=ASK).status_code == 200


def test_a_full_disk_is_507_and_reading_goes_on(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        (pages,) = service.ledger._store._writer.execute("PRAGMA page_count").fetchone()
        service.ledger._store._writer.execute(f"PRAGMA max_page_count = {pages}")
        events = [{"key": f"{number}", "user": "u" * 100, "item": "b001"} for number in range(1000)]
        full = asked.post("/v1/events", json={"events": events})
        assert (full.status_code, full.json()["code"]) == (507, "full-disk")
        assert asked.post("/v1/recommend", json=ASK).status_code == 200
        service.ledger._store._writer.execute("PRAGMA max_page_count = 100000")
        assert asked.post("/v1/events", json={"events": events}).status_code == 200


def test_a_server_that_is_told_to_stop_answers_what_it_began(runs: Path, tmp_path: Path) -> None:
    found: list[int] = []
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address):
        held = Held(service)

        def ask() -> None:
            with client(address) as asked:
                found.append(asked.post("/v1/recommend", json=ASK).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert held.begun.wait(5)
        eventually(lambda: held.n_asked + service.find(None).desk.waiting == 3)
        service.server.should_exit = True  # type: ignore[attr-defined]
        time.sleep(0.3)
        assert found == []
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])))
        held.go.set()
        for thread in threads:
            thread.join()
    assert found == [200, 200, 200]
    assert service.ready() == "this server is shutting down"


def test_the_log_is_json_without_what_was_asked(runs: Path, tmp_path: Path) -> None:
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        asked.post("/v1/recommend", json={"user": "r0001", "k": 2})
        asked.post("/v1/events", json={"events": [{"key": "secret-key", "user": "secret-user", "item": "b001"}]})
        asked.get("/no/such/secret-path")
        service.find(None).asker.answers = lambda *_, **__: 1 / 0  # type: ignore[method-assign, assignment]
        bug = asked.post("/v1/recommend", json=ASK)
        assert (bug.status_code, bug.json()["code"]) == (500, "bug")
        eventually(lambda: service.written.getvalue().count('"event": "request"') == 4)  # type: ignore[attr-defined]
        written = service.written.getvalue()  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in written.splitlines()]
    requests = [(line["route"], line["status"]) for line in lines if line["event"] == "request"]
    assert requests == [("/v1/recommend", 200), ("/v1/events", 200), ("unmatched", 404), ("/v1/recommend", 500)]
    assert any("ZeroDivisionError" in line.get("exception", "") for line in lines)
    assert "secret" not in written
    assert "r0001" not in written
