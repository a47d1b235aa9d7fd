"""A chat model's server over real HTTP that is slow, busy, broken, cut off, wrong, or well."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from palate.backbones.scripted import Recorder, RecorderConfig
from palate.core.config import Part
from palate.core.protocols import ChatModel

Asked = dict[str, Any]
Reply = Callable[[BaseHTTPRequestHandler, Asked], None]


def completion(content: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """What a server answers in the form of chat completions."""
    said = {"role": "assistant", "content": content, **message}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }  # fmt: skip


def send(handler: BaseHTTPRequestHandler, status: int, content: Any, cut: int = 0, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body[: len(body) - cut])
    if cut:
        handler.wfile.flush()
        handler.connection.close()


def says(content: str | None, finish: str = "stop", **message: Any) -> Reply:
    return lambda handler, asked: send(handler, 200, completion(content, finish, **message))


def calls(arguments: str, name: str = "answer", content: str | None = None) -> Reply:
    call = {"id": "call-1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return says(content, "tool_calls", tool_calls=[call])


def fails(status: int, **headers: str) -> Reply:
    return lambda handler, asked: send(handler, status, {"error": {"message": f"no, {status}"}}, **headers)


def hangs_up(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    handler.connection.close()


def cut_off(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    send(handler, 200, completion("half of it"), cut=20)


def malformed(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    send(handler, 200, json.dumps(completion("half of it"))[:-20].encode())


def no_completion(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    send(handler, 200, {"object": "chat.completion", "choices": []})


def sleeps(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    time.sleep(1.0)
    says("late")(handler, asked)


FAULTS: tuple[Reply, ...] = (fails(429), fails(500), hangs_up, cut_off, malformed)


class ChatServer:
    """Follows ``script``, one reply a request; then says what ``brain`` makes of the request, with ``faults`` as the
    share of requests that go wrong; ``spoilt`` counts them."""

    def __init__(self, brain: Callable[[Asked], str] = lambda asked: "yes", faults: float = 0.0) -> None:
        self.script: list[Reply] = []
        self.brain = brain
        self.asked: list[Asked] = []
        self.most_at_once = self.spoilt = 0
        chance, lock, outer, at_once = random.Random(0), threading.Lock(), self, [0]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(asked)
                    at_once[0] += 1
                    outer.most_at_once = max(outer.most_at_once, at_once[0])
                    reply = outer.script.pop(0) if outer.script else None
                    if reply is None and chance.random() < faults:
                        reply = chance.choice(FAULTS)
                        outer.spoilt += 1
                try:
                    assert self.path == "/v1/chat/completions"
                    (reply or says(outer.brain(asked)))(self, asked)
                finally:
                    with lock:
                        at_once[0] -= 1

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def recorded(chat: ChatModel, path: Path) -> Recorder:
    """A model whose replies are kept in a file."""
    return Recorder(RecorderConfig(path=str(path), chat=Part(name="scripted")), chat=chat)
