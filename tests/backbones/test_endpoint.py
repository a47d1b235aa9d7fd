"""An embedding server over real HTTP that is slow, busy, broken, wrong, or well."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openai")

from palate.backbones.endpoint import Endpoint, EndpointConfig
from palate.backbones.vectors import text_vectors
from palate.core import store
from palate.core.errors import EndpointError, MissingExtraError
from palate.core.protocols import Encoder

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count("a")), 1.0]


def well(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    rows = [{"object": "embedding", "index": i, "embedding": vector(text)} for i, text in enumerate(asked["input"])]
    random.Random(0).shuffle(rows)  # the index counts, not the order
    send(handler, 200, {"object": "list", "data": rows, "model": asked["model"], "usage": {}})


def send(handler: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def fails(status: int, **headers: str) -> Reply:
    return lambda handler, asked: send(handler, status, {"error": {"message": f"no, {status}"}}, **headers)


def hangs_up(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    handler.connection.close()


def sleeps(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    time.sleep(1.0)
    well(handler, asked)


def no_json(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    send(handler, 200, b"<html>gateway</html>")


def answers(embeddings: list[Any], numbered: bool = True) -> Reply:
    def reply(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        rows = [
            {"object": "embedding", "index": i if numbered else 0, "embedding": e} for i, e in enumerate(embeddings)
        ]
        send(handler, 200, {"object": "list", "data": rows, "model": "m", "usage": {}})

    return reply


class Server:
    """Follows ``script``, one reply a request; then it is well."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(asked)
                    outer.keys.append(self.headers["Authorization"])
                    reply = outer.script.pop(0) if outer.script else well
                assert self.path == "/v1/embeddings"
                reply(self, asked)

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def encoder(self, **settings: Any) -> Endpoint:
        usual = {"model": "m", "wait_seconds": 0.01, "timeout_seconds": 5.0, "normalise": False, "tries": 3}
        return Endpoint(EndpointConfig(url=self.url, **usual | settings))


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


def test_batches_come_back_in_order(server: Server) -> None:
    texts = [f"{'a' * (i % 7)}b{i}" for i in range(23)]
    found = server.encoder(batch_size=4).encode(texts)
    np.testing.assert_array_equal(found, np.array([vector(text) for text in texts], dtype=np.float32))
    assert found.dtype == np.float32
    assert sorted(len(asked["input"]) for asked in server.asked) == [3, 4, 4, 4, 4, 4]
    assert server.encoder().encode([]).shape[0] == 0


def test_settings_reach_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    found = server.encoder(prefix="passage: ", dimensions=3, key_variable="MY_KEY", normalise=True).encode(["ab"])
    assert server.asked == [{"input": ["passage: ab"], "model": "m", "dimensions": 3, "encoding_format": "float"}]
    assert server.keys == ["Bearer secret-1"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    monkeypatch.delenv("MY_KEY")
    server.encoder(key_variable="MY_KEY").encode(["ab"])
    assert server.keys[1] == "Bearer none"


@pytest.mark.parametrize(
    "trouble",
    [
        [fails(429)], [fails(503), fails(500)], [hangs_up], [no_json], [hangs_up, fails(429)],
        [answers([[1.0, 2.0, 3.0]])], [answers([[1.0], [1.0, 2.0]])], [answers([[], []])],
        [answers([[1.0], [2.0]], numbered=False)], [answers([[float("nan")], [1.0]])], [answers(["AAAA", "AAAA"])],
        [answers([[None], [1.0]])],
    ],
)  # fmt: skip
def test_a_server_that_recovers_is_asked_again(server: Server, trouble: list[Reply]) -> None:
    server.script = list(trouble)
    found = server.encoder().encode(["aa", "b"])
    np.testing.assert_array_equal(found, [vector("aa"), vector("b")])
    assert len(server.asked) == len(trouble) + 1


def test_a_slow_server_is_asked_again(server: Server) -> None:
    server.script = [sleeps]
    found = server.encoder(timeout_seconds=0.3).encode(["aa"])
    np.testing.assert_array_equal(found, [vector("aa")])
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (fails(503), r"\(m\) answered 503: .*no, 503.*, after 3 tries"),
        (hangs_up, r"cannot be reached or understood: .*, after 3 tries"),
        (no_json, r"after 3 tries"),
        (answers([[1.0]]), r"gave a wrong answer: 1 vectors for 2 texts, after 3 tries"),
    ],
)
def test_a_server_that_stays_broken_is_one_sentence(server: Server, trouble: Reply, message: str) -> None:
    server.script = [trouble] * 9
    with pytest.raises(EndpointError, match=message):
        server.encoder().encode(["aa", "b"])
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_final(server: Server, status: int) -> None:
    server.script = [fails(status)] * 5
    with pytest.raises(EndpointError, match=f"answered {status}") as failure:
        server.encoder(key_variable="MY_KEY").encode(["aa"])
    assert ("environment variable MY_KEY" in str(failure.value)) == (status == 401)
    assert len(server.asked) == 1


def test_pauses_grow_and_follow_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    holds: list[float] = []
    monkeypatch.setattr("palate.backbones.pace.Pace.hold", lambda _, seconds: holds.append(seconds))
    server.script = [fails(500), fails(500), fails(429, Retry_After="7"), fails(429, Retry_After="900")]
    state = random.getstate()
    server.encoder(tries=5, wait_seconds=1.0).encode(["aa"])
    assert random.getstate() == state
    for pause, least in zip(pauses, [1, 2, 7, 60], strict=True):
        assert least <= pause <= 1.25 * least
    assert holds == [0, 0, 7, 60], "the pause that a server asks for is everybody's"


def test_nobody_there(server: Server) -> None:
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9/v1 .* cannot be reached"):
        Endpoint(EndpointConfig(url="http://127.0.0.1:9/v1", model="m", tries=1)).encode(["a"])


def test_finished_blocks_outlive_a_failure(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.backbones.vectors.BLOCK_ROWS", 2)
    encoder = server.encoder(parallel=1)
    server.script = [well, fails(400)]
    with pytest.raises(EndpointError):
        text_vectors(["a", "aa", "aaa"], encoder)
    np.testing.assert_array_equal(text_vectors(["a", "aa", "aaa"], encoder)[:, 0], [1, 2, 3])
    assert [asked["input"] for asked in server.asked] == [["a", "aa"], ["aaa"], ["aaa"]]


def test_saved_is_loaded_without_the_key(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    encoder = server.encoder()
    encoder.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    assert isinstance(loaded, Encoder)
    assert loaded.version == encoder.version
    np.testing.assert_array_equal(loaded.encode(["a"]), encoder.encode(["a"]))
    assert not any(b"secret-2" in path.read_bytes() for path in (tmp_path / "saved").iterdir())
    assert "secret-2" not in encoder.version
    assert server.encoder(model="other").version != encoder.version


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'palate\[llm\]'"):
        Endpoint().encode(["a"])
