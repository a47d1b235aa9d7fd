"""Downloads against a server on this machine that cuts off, ignores Range, changes its file or sends wrong bytes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import DownloadError
from palate.data.download import Patience, download

CONTENT = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(tries=3, wait_seconds=0.001, timeout_seconds=5)


@dataclass
class Manners:
    """How the server behaves. cuts: bytes after which each of the first answers breaks off."""

    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str | None = '"one"'
    statuses: list[int] = field(default_factory=list)
    silent: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {key.lower(): value for key, value in handler.headers.items()}
        self.asked.append(headers)
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        start = int(headers["range"].removeprefix("bytes=").removesuffix("-")) if "range" in headers else 0
        partial = self.ranges and start > 0 and headers.get("if-range") == self.etag
        if partial and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[start:] if partial else self.content
        handler.send_response(206 if partial else 200)
        if partial:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if not self.silent:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        handler.wfile.flush()


@dataclass
class Server:
    url: str
    manners: Manners


@pytest.fixture
def server() -> Iterator[Server]:
    manners = Manners()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            manners.answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_port}/set.zip", manners)
    http.shutdown()
    http.server_close()
    thread.join()


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_whole_file_arrives_and_its_checksum_is_recorded(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "deep" / "set.zip", patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert json.loads((path.parent / "checksums.json").read_text()) == {server.url: SHA256}
    assert leftovers(path.parent) == {"set.zip", "checksums.json"}


def test_a_file_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"mine")
    download(server.url, tmp_path / "set.zip")
    assert server.manners.asked == []


def test_what_was_cut_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.manners.cuts = [300_000, 200_000]
    path = download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK)
    assert path.read_bytes() == CONTENT
    assert [asked.get("range") for asked in server.manners.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert server.manners.asked[1]["if-range"] == '"one"'


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.manners.cuts = [250_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"cut off after 250,000 of 700,000 bytes, after 3 tries; what has come is"):
        download(server.url, tmp_path / "set.zip", patience=QUICK)
    assert leftovers(tmp_path) == {"set.zip.part", "set.zip.part.json"}
    server.manners.cuts = []
    server.manners.asked.clear()
    assert download(server.url, tmp_path / "set.zip", patience=QUICK).read_bytes() == CONTENT
    assert server.manners.asked[0]["range"] == "bytes=250000-"


def test_a_server_that_ignores_range_starts_anew(server: Server, tmp_path: Path) -> None:
    server.manners.cuts, server.manners.ranges = [300_000], False
    assert download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_glued_together(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.manners.cuts, server.manners.etag = [300_000], etag
    assert download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK).read_bytes() == CONTENT
    assert all("range" not in asked for asked in server.manners.asked)


def test_a_file_that_changed_meanwhile_starts_anew(server: Server, tmp_path: Path) -> None:
    server.manners.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "set.zip", patience=QUICK)
    server.manners.cuts, server.manners.content, server.manners.etag = [], CONTENT[::-1], '"two"'
    assert download(server.url, tmp_path / "set.zip", patience=QUICK).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_already_whole_is_accepted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    (tmp_path / "set.zip.part.json").write_text('{"validator": "\\"one\\""}')
    assert download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "set.zip.part.json").write_text('{"validator": "\\"one\\""}')
    assert download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK).read_bytes() == CONTENT


def test_wrong_bytes_never_reach_their_place(server: Server, tmp_path: Path) -> None:
    server.manners.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"checksum is .* and not {SHA256[:16]}…; it was thrown away"):
        download(server.url, tmp_path / "set.zip", sha256=SHA256, patience=QUICK)
    assert leftovers(tmp_path) == set()


def test_a_recorded_checksum_is_asked_of_the_next_download(server: Server, tmp_path: Path) -> None:
    download(server.url, tmp_path / "set.zip", patience=QUICK).unlink()
    server.manners.content = CONTENT[:-1] + b"x"
    with pytest.raises(DownloadError, match=f"and not {SHA256[:16]}"):
        download(server.url, tmp_path / "set.zip", patience=QUICK)


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.manners.statuses = [503, 429]
    assert download(server.url, tmp_path / "set.zip", patience=QUICK).read_bytes() == CONTENT


def test_a_missing_file_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    server.manners.statuses = [404, 404]
    with pytest.raises(DownloadError, match="the server answers 404 Not Found"):
        download(server.url, tmp_path / "set.zip", patience=QUICK)
    assert len(server.manners.asked) == 1
    assert leftovers(tmp_path) == set()


def test_no_server_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no connection .*refused.*, after 2 tries"):
        download("http://127.0.0.1:9/set.zip", tmp_path / "set.zip", patience=Patience(2, 0.001, 1))


def test_progress_is_told_every_byte(server: Server, tmp_path: Path) -> None:
    class Watch:
        def __init__(self) -> None:
            self.said: list[object] = []

        def start(self, what: str, total: int | None) -> None:
            self.said.append(what)

        def advance(self, steps: int = 1, **figures: float) -> None:
            self.said.append(steps)

        def finish(self) -> None:
            self.said.append("end")

    watch = Watch()
    server.manners.cuts = [300_000]
    download(server.url, tmp_path / "set.zip", patience=QUICK, progress=watch)
    assert watch.said[0] == "download set.zip"
    assert watch.said[-1] == "end"
    assert sum(steps for steps in watch.said if isinstance(steps, int)) == len(CONTENT)
