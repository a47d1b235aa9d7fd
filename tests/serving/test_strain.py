"""What many at once, a full disk or vanished data do to a server: it stays whole, and says so where it cannot."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palate.ask import Asker
from palate.core.errors import DataError, StoreError
from palate.filters import parse_filter
from palate.questions import Question
from palate.runs import FittedRun
from palate.serving.batching import BusyError, ClosedError
from palate.serving.browsing import _next
from palate.serving.catalogue import Catalogue
from palate.serving.guard import RefusedError, _check_page
from palate.serving.ledger import Ledger
from palate.serving.served import Limits, Served
from palate.serving.spaces import Spaces
from palate.serving.waiting import Room
from tests.serving.conftest import client
from tests.serving.running import running


def test_nobody_holds_a_connection_open_at_the_tools_door(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="the MCP server needs pip install 'palate[mcp]'")
    with running([runs / "item-knn"], tmp_path / "s.sqlite", tools=True) as (_, address), client(address) as asked:
        answer = asked.get("/mcp", headers={"Accept": "text/event-stream"}, timeout=5)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_whoever_finds_a_new_id_finds_all_of_the_item(runs: Path) -> None:
    asker = Asker(FittedRun.open(runs / "text-cosine"))

    class Watched(dict[str, int]):
        def update(self, new: Any) -> None:  # type: ignore[override]
            (row,) = new.values()
            assert asker.living.items["item"][row] == asker.item_ids[row] == "new"
            assert asker.titles[row] == "A new one"
            super().update(new)

    asker.row_of = Watched(asker.row_of)
    asker.add_items(asker.table_of([{"item": "new", "title": "A new one"}]))
    assert asker.item_row("a NEW one") == asker.row_of["new"] == len(asker.item_ids) - 1


class Letters:
    """An encoder that counts letters and remembers which thread asked it."""

    version = "letters, of this test"

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def encode(self, texts: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        return np.array([[text.count("e"), text.count("a"), 1] for text in texts], dtype=np.float32)


def test_a_runs_own_encoder_reads_texts_at_the_desk_and_needs_no_disk(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import palate.backbones.vectors as kept
    from palate.serving.batching import Desk

    def full(*_: object) -> None:
        raise StoreError("cannot write; the disk is full")

    monkeypatch.setattr(kept.VectorStore, "write", full)
    run = FittedRun.open(runs / "text-cosine")
    asker: Any = Asker(run)
    letters = Letters()
    asker.system = SimpleNamespace(parts={"encoder": letters})
    desk: Desk[Any, Any] = Desk(lambda _, jobs: [job() for job in jobs], name="the desk")
    near = Spaces(asker, lambda job: desk.ask(object(), [job]).result()[0]).near(0, "text", 5)
    assert (len(near.items), letters.threads) == (5, {"the desk"})
    assert "Letters" in near.method


def test_filtered_batches_are_answered_in_pieces_and_filtered_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import palate.filters
    import palate.questions

    asker = Asker(FittedRun.open(runs / "item-knn"))
    sizes: list[int] = []
    looked: list[int] = []
    real, passing = asker.system.recommend, palate.filters.rows_passing

    def counted(requests: Any, k: int) -> Any:
        sizes.append(len(requests))
        return real(requests, k)

    def looking(items: Any, filters: Any) -> Any:
        looked.append(1)
        return passing(items, filters)

    monkeypatch.setattr(palate.filters, "rows_passing", looking)
    asked = [Question(history=[item], filters=[parse_filter("year=1800..")]) for item in asker.item_ids[:6]]
    whole = asker.answers([asker.read(one) for one in asked], 3)
    monkeypatch.setattr(asker.system, "recommend", counted)
    n = len(passing(asker.run.items, asked[0].filters))
    monkeypatch.setattr(palate.questions, "MOST_CANDIDATES", 2 * n)
    read = [asker.read(one) for one in (*asked, Question(history=[]))]
    assert asker.answers(read, 3)[:6] == whole
    assert (sorted(sizes), len(looked)) == ([1, 2, 2, 2], 1)


def test_a_run_whose_data_vanished_answers_histories_and_looks(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import palate.data.sources

    read = []

    def gone(*_: object, **__: object) -> None:
        read.append(1)
        raise FileNotFoundError(2, "No such file or directory", "/secret/place")

    monkeypatch.setattr(palate.data.sources, "load", gone)
    asker = Asker(FittedRun.open(runs / "item-knn"))
    question = Question(history=asker.item_ids[:2], filters=[parse_filter("year=1800..")])
    assert len(asker.answers([asker.read(question)], 3)[0].recommended) == 3
    assert Catalogue(asker).search("the", [], 0, 5).items
    for _ in range(3):
        with pytest.raises(StoreError, match=r"cannot be used: No such file or directory$"):
            asker.read(Question(user="r0001"))
    assert len(read) == 1


def test_looks_are_refused_where_too_many_wait() -> None:
    room, go = Room(1, 1, "test"), threading.Event()
    first, second = room.do(lambda: go.wait(20)), room.do(lambda: "second")
    with pytest.raises(BusyError, match="ask again in"):
        room.do(lambda: "third")
    go.set()
    assert (first.result(20), second.result(20)) == (True, "second")
    room.close()
    with pytest.raises(ClosedError):
        room.do(lambda: "late")


def test_an_audience_grows_with_the_speed_and_comes_one_at_a_time(runs: Path, tmp_path: Path) -> None:
    assert [_next(4, 0.01, 8), _next(64, 0.1, 8), _next(4, 8.0, 9), _next(4, 8.0, 1)] == [16, 64, 1, 0]
    body = {"item": "b001", "users": 9}
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        with service.find(None).audience:
            assert asked.post("/v1/audience", json=body).status_code == 429
        assert asked.post("/v1/audience", json=body).json()["asked"] == 9


def test_pages_of_other_servers_start_no_work_but_may_link_here() -> None:
    def asked(**headers: str) -> int:
        given = {key.replace("_", "-").encode(): value.encode() for key, value in headers.items()}
        try:
            _check_page(given, b"localhost:8000")
        except RefusedError as refused:
            return refused.status
        return 200

    assert asked(sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert asked(sec_fetch_site="same-site", sec_fetch_mode="cors") == 403
    assert asked(sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 200
    assert asked(origin="http://evil.example", sec_fetch_mode="navigate") == 403
    assert asked(sec_fetch_site="same-origin", sec_fetch_mode="cors", origin="http://localhost:8000") == 200
    assert asked() == 200


def test_reports_without_a_metric_in_common_stand_without_a_comparison(runs: Path) -> None:
    from palate.experiment import report_of
    from palate.serving.board import _make

    whole = report_of(FittedRun.open(runs / "item-knn"))
    bare = replace(whole, name="other", metrics={})
    table = _make([whole, bare])
    assert (table.main, table.verdicts, [run.name for run in table.runs]) == ("", [], ["item-knn", "other"])
    assert "no metric in common" in str(table.problem)


def test_who_sends_no_whole_head_is_let_go(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.serving.parsing.HEAD_SECONDS", 0.4)
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (_, address):
        place = (address.removeprefix("http://").partition(":")[0], int(address.rpartition(":")[2]))
        with socket.create_connection(place, timeout=5) as silent, socket.create_connection(place, timeout=5) as slow:
            for _ in range(2):
                slow.sendall(head + b"\r\n")
                assert slow.recv(1000).startswith(b"HTTP/1.1 200")
            with suppress(ConnectionError):
                for _ in range(40):  # a letter at a time, which keeps a connection from being idle
                    slow.sendall(b"G")
                    time.sleep(0.05)
                pytest.fail("a head without end held its connection")
            assert silent.recv(10) == b""


def test_a_ledger_that_hangs_is_not_ready_and_keeps_nobody_waiting(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palate.serving.service.READY_SECONDS", 0.3)
    asked_for, go = threading.Event(), threading.Event()
    with running([runs / "item-knn"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        assert asked.get("/ready").status_code == 200

        def hanging() -> None:
            asked_for.set()
            go.wait(20)

        monkeypatch.setattr(service.ledger, "check", hanging)
        probe = Room(1, 0, "test").do(lambda: asked.get("/ready"))
        assert asked_for.wait(20)
        assert not probe.done()
        assert asked.get("/health").status_code == 200
        assert not go.is_set()
        said = probe.result(10)
        go.set()
        assert (said.status_code, said.json()["error"]) == (503, "the ledger does not answer within 0.3 s")
        monkeypatch.undo()
        assert asked.get("/ready").status_code == 200


def test_an_item_that_a_run_refuses_keeps_no_other_one_out(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path / "s.sqlite")
    for item in ("one", "bad", "two"):
        ledger.add_item("world-test", item, {"item": item, "title": item})
    real = Asker.add_items

    def picky(self: Asker, items: Any) -> None:
        if "bad" in list(items["item"]):
            raise DataError("it has no vector")
        real(self, items)

    monkeypatch.setattr(Asker, "add_items", picky)
    served = Served("text-cosine", runs / "text-cosine", ledger, Limits())
    served.desk.close()
    ledger.close()
    assert served.skipped == ["bad: it has no vector"]
    assert served.n_added == 2
    assert {"one", "two"} <= set(served.asker.row_of)
