"""A hand-made list of what should never come, and what comes anyway: each is a clear 4xx, and the server goes on."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress
from typing import Any

import pytest

HUGE = "x" * 600_000
DEEP = "[" * 100_000 + "]" * 100_000
INJECTIONS = (
    "'; DROP TABLE events; --", '" OR 1=1 --', "${jndi:ldap://x}", "{{7*7}}", "<script>alert(1)</script>", "%s%n",
    "../../../../etc/passwd", "..\\..\\windows", "/etc/passwd", "file:///etc/passwd", "b001; ls", "$(id)", "`id`",
)  # fmt: skip
UNREADABLE = ("\x00", "b001\x00", "a\nb", "\x1b[31m", "\ud800", "", "x" * 501)
NOT_TEXT: tuple[Any, ...] = (0, 1.5, True, [], {}, ["b001"], {"$ne": ""})
NOT_LISTS: tuple[Any, ...] = ("b001", 1, {}, True, {"0": "b001"})
NOT_COUNTS: tuple[Any, ...] = (0, -1, 201, 10**30, 1.5, "10", None, True, [], {}, 1e308)
HISTORY = {"run": "item-knn", "history": ["b001"]}
EVENT = {"key": "bad", "user": "bad", "item": "b001"}
ITEM = {"run": "text-cosine", "item": "bad-item"}


def recommend() -> list[Any]:
    bodies: list[Any] = [None, 1, "text", [], [HISTORY], {}, {"run": "item-knn"}, {**HISTORY, "user": "r0001"}]
    bodies += [{**HISTORY, "k": wrong} for wrong in NOT_COUNTS]
    bodies += [{"run": "item-knn", "user": wrong} for wrong in (*NOT_TEXT, *UNREADABLE, *INJECTIONS)]
    bodies += [{"run": "item-knn", "history": [wrong]} for wrong in (*NOT_TEXT, *UNREADABLE, *INJECTIONS, None)]
    bodies += [{"run": "item-knn", "history": wrong} for wrong in (*NOT_LISTS, ["b001"] * 1001, [["b001"]], [DEEP])]
    bodies += [{**HISTORY, "run": wrong} for wrong in (*NOT_TEXT, *UNREADABLE, *INJECTIONS, "item_knn")]
    bodies += [{**HISTORY, "candidates": wrong} for wrong in (*NOT_LISTS, ["nothing"], [1], ["b001"] * 1001)]
    bodies += [{**HISTORY, "leave_out": wrong} for wrong in (*NOT_LISTS, None, ["nothing"], [None])]
    bodies += [{**HISTORY, "words": wrong} for wrong in (*NOT_TEXT, None, "a\x00", "w" * 1001, "no words for item-knn")]
    bodies += [{**HISTORY, "why": wrong} for wrong in (1, "yes", None, [])]
    bodies += [{**HISTORY, wrong: 1} for wrong in ("kk", "__proto__", "", "run ", "$where")]
    return bodies


CASES: list[tuple[str, Any]] = [
    *(("/v1/recommend", body) for body in recommend()),
    *(("/v1/recommend/batch", {"run": "item-knn", "questions": wrong}) for wrong in (
        None, [], {}, "all", [1], [{}], [{"history": ["b001"]}] * 257, [{"history": ["b001"], "k": 3}],
        [{"history": ["b001"]}, {"history": ["nothing"]}], [{"user": "nobody"}],
    )),
    *(("/v1/similar", {"run": "item-knn", "item": wrong}) for wrong in (*NOT_TEXT, *UNREADABLE, *INJECTIONS, None)),
    *(("/v1/explain", {**HISTORY, "items": wrong}) for wrong in (*NOT_LISTS, None, [], ["b001"] * 21, ["nothing"])),
    *(("/v1/events", {"run": "item-knn", "events": wrong}) for wrong in (
        *NOT_LISTS, None, [], [EVENT] * 1001, [{}], [None],
        *([{**EVENT, field: wrong}] for field in ("key", "user", "item") for wrong in (1, None, "", "a\x00", [])),
        *([{**EVENT, "time": wrong}] for wrong in (-1, 1.5, "now", 10**20, True)),
        *([{**EVENT, "rating": wrong}] for wrong in ("5", [], True)),
        [{**EVENT, "item": "nothing"}], [{**EVENT, "more": 1}],
    )),
    *(("/v1/items", {**ITEM, **wrong}) for wrong in (
        {"item": "b001"}, {"item": "a\nb"}, {"item": 1}, {"title": 1}, {"title": "t" * 501}, {"text": HUGE},
        {"category": "one"}, {"category": [1]}, {"category": ["c"] * 51}, {"attributes": []}, {"path": "/etc/passwd"},
        {"attributes": {"nothing": 1}}, {"attributes": {"year": {}}}, {"attributes": {"year": "long ago"}},
        {"attributes": {"year": 10**30}}, {"attributes": {f"a{i}": 1 for i in range(51)}},
    )),
    *(("/v1/items/retire", {"run": "item-knn", "items": wrong}) for wrong in (*NOT_LISTS, None, [], ["nothing"], [1])),
]  # fmt: skip


LOOKS: list[tuple[str, dict[str, Any]]] = [
    *(("/v1/items", {"run": "item-knn", **wrong}) for wrong in (
        {"limit": 0}, {"limit": 101}, {"limit": "ten"}, {"limit": 1e30}, {"start": -1}, {"start": 10**30},
        {"q": "q" * 201},
        {"filter": "year"}, {"filter": "year=x..y"}, {"filter": "nothing=1..2"}, {"filter": "year=nan..inf"},
        {"filter": "f" * 501}, {"filter": ["year=1..2"] * 21}, {"item": "nothing"}, {"item": ["b001"] * 101},
        {"item": "b001", "q": "the"}, {"run": "nothing"},
    )),
    *(("/v1/items/one", {"run": "item-knn", "item": wrong}) for wrong in (*INJECTIONS, "\x00", "", "x" * 501)),
    *(("/v1/items/near", {"run": "item-knn", **wrong}) for wrong in (
        {}, {"item": "b001"}, {"item": "b001", "space": "nothing"}, {"item": "b001", "space": "text", "k": 0},
    )),
    *(("/v1/users/one", {"run": "item-knn", "user": wrong}) for wrong in (*INJECTIONS, "\x00", "", "x" * 201)),
    *(("/v1/fits/log", {"fit": wrong}) for wrong in (*INJECTIONS, "..", ".", "", "item-knn/../sasrec", "x" * 101)),
    *(("/v1/fits/log", {"fit": "item-knn", **wrong}) for wrong in ({"seed": -1}, {"seed": "a"}, {"after": -1})),
]  # fmt: skip


def test_each_bad_look_is_a_clear_refusal(server: Any) -> None:
    for path, asked in LOOKS:
        answer = server.get(path, params=asked)
        assert 400 <= answer.status_code < 500, f"{path} {ascii(asked)[:200]}: {answer.status_code}"
        problem = answer.json()
        assert set(problem) == {"error", "code"}
        assert 5 < len(problem["error"]) < 400
        assert "Traceback" not in problem["error"]


def test_each_bad_body_is_a_clear_refusal(server: Any) -> None:
    assert len(CASES) >= 200
    for path, body in CASES:
        said = f"{path} {ascii(body)[:200]}"
        answer = server.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, said
        problem = answer.json()
        assert set(problem) == {"error", "code"}, said
        assert 5 < len(problem["error"]) < 400, said
        assert "\n" not in problem["error"], said
        assert "Traceback" not in problem["error"], said
    assert server.post("/v1/recommend", json=HISTORY).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**HISTORY, "k": 201}, "'k' cannot be 201: Input should be less than or equal to 200"),
        ({**HISTORY, "kk": 3}, "there is no field 'kk' here"),
        ({"run": "item-knn"}, "say who is asked: either a user or a history"),
        ({"history": ["b001"]}, "say which run is asked: item-knn, sasrec"),
        ({**HISTORY, "run": "sasrek"}, "did you mean 'sasrec'"),
        ({"run": "item-knn", "user": "nobody"}, "no user 'nobody' in this dataset"),
        ({"run": "item-knn", "history": ["Pride and Prejudize"]}, "did you mean 'Pride and Prejudice'"),
        ({**HISTORY, "words": "light"}, "item-knn, which reads no words"),
    ],
)
def test_a_refusal_says_what_to_do(server: Any, body: dict[str, Any], said: str) -> None:
    assert said in server.post("/v1/recommend", json=body).json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b'{"run": "\xff"}', "application/json", 400),
        (DEEP.encode(), "application/json", 400),
        (b'{"run": "item-knn", "history": ["b001"], "k": NaN}', "application/json", 422),
        (b'{"run": "item-knn", "history": ["b001"], "k": ' + b"9" * 10_000 + b"}", "application/json", 400),
        (json.dumps(HISTORY).encode(), "text/plain", 422),
        (b'{"history": ["' + b"x" * (1 << 20) + b'"]}', "application/json", 413),
        (b"", "application/json", 422),
    ],
    ids=["cut", "no text", "deep", "nan", "long number", "plain text", "too large", "empty"],
)
def test_bytes_that_are_no_request(server: Any, content: bytes, kind: str, status: int) -> None:
    answer = server.post("/v1/recommend", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert 5 < len(answer.json()["error"]) < 400


def test_a_body_that_grows_while_it_is_sent_is_cut_off(server: Any) -> None:
    def pieces() -> Any:
        yield from (b"x" * 65_536 for _ in range(40))

    answer = server.post("/v1/recommend", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/recommend", 405),
        ("DELETE", "/v1/items", 405),
        ("GET", "/v1/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/runs/..%2f..", 404),
        ("GET", "/assets/..%2f..%2f..%2fpyproject.toml", 404),
        ("TRACE", "/v1/runs", 405),
    ],
)
def test_addresses_that_lead_nowhere(server: Any, method: str, path: str, status: int) -> None:
    answer = server.request(method, path)
    assert answer.status_code == status
    assert "error" in answer.json()


def test_names_that_a_web_page_made_up_for_this_machine_are_refused(server: Any) -> None:
    """DNS rebinding: the browser believes that evil.example is this server."""
    for host, status in (
        ("evil.example", 421),
        ("127.0.0.1.evil.example:80", 421),
        ("localhost:9", 200),
        ("[::1]", 200),
    ):
        assert server.get("/health", headers={"Host": host}).status_code == status


def test_bytes_that_are_no_http_close_the_connection(server: Any) -> None:
    host, port = server.base_url.host, server.base_url.port
    head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\n"
    for sent in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000,  # never ends
        head + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"y" * 600_000,
        head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"y" * 600_000,
        head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection((host, port), timeout=10) as raw:
            try:
                raw.sendall(sent)
                said = raw.recv(100)
            except ConnectionError:  # refused while it was still being sent
                continue
            assert said.startswith(b"HTTP/1.1 4"), sent[:80]
    assert server.get("/health").status_code == 200


def everything(raw: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    while more := raw.recv(65536):
        said += more
    return said


def test_a_body_is_never_taken_for_a_request(server: Any) -> None:
    """Whoever offers another protocol with a body is refused; without one the offer is ignored."""
    offer = b" HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    body = b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    length = b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n"
    for head in (b"POST /v1/recommend" + offer + length, b"GET /health" + offer + length):
        with socket.create_connection((server.base_url.host, server.base_url.port), timeout=10) as raw:
            raw.sendall(head)
            said = raw.recv(1000)
            with suppress(ConnectionError):  # closed already
                raw.sendall(body)
                said += everything(raw)
            assert said.startswith(b"HTTP/1.1 400")
            assert len(re.findall(rb"HTTP/1\.1 \d", said)) == 1, "the body was answered"
            assert said.endswith(b"send no Upgrade with a body.")
    with socket.create_connection((server.base_url.host, server.base_url.port), timeout=10) as raw:
        raw.sendall(b"GET /health" + offer + b"\r\n")
        said = everything(raw)
        assert said.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in said


def test_headers_that_two_readers_could_read_differently_come_once(server: Any) -> None:
    own = b"Host: localhost\r\nContent-Length: 2\r\nConnection: close\r\nX-Any: 1\r\nX-Any: 2\r\n"
    for added, status in (
        (b"hOST: evil.example\r\nContent-Type: application/json\r\n", 400),
        (b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Type: application/json\r\n", 400),
        (b"Content-Type: application/json\r\nContent-Type: text/plain\r\n", 400),
        (b"Content-Type: application/json\r\n", 422),
    ):
        with socket.create_connection((server.base_url.host, server.base_url.port), timeout=10) as raw:
            raw.sendall(b"POST /v1/recommend HTTP/1.1\r\n" + own + added + b"\r\n{}")
            said = everything(raw)
        assert said.startswith(b"HTTP/1.1 %d" % status), added
        assert (b'"repeated"' in said) == (status == 400)
