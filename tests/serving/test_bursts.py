"""What comes together costs once: one wake-up of the loop and one write of the log for a whole batch."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from palate.core.errors import MisuseError
from palate.serving.batching import ClosedError
from palate.serving.guard import Guard, Message, Receive, Scope, Send
from palate.serving.logs import Forward, make_log
from palate.serving.metrics import Metrics
from palate.serving.waiting import Arrivals, LateError, in_time


def test_answers_that_are_ready_together_wake_the_loop_once() -> None:
    async def run() -> None:
        loop, woken = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def count(*given: Any) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return wake(*given)

        loop.call_soon_threadsafe = count  # type: ignore[assignment, method-assign]
        arrivals = Arrivals(loop)
        for _ in range(2):  # the second batch wakes it again
            works: list[Future[int]] = [Future() for _ in range(6)]
            here = [arrivals.of(work) for work in works]
            here[4].cancel()  # nobody waits for it any more

            def batch(works: list[Future[int]] = works) -> None:
                for n, work in enumerate(works[:-2]):
                    work.set_result(n)
                works[-2].cancel()
                works[-1].set_exception(MisuseError("odd"))

            thread = threading.Thread(target=batch)
            thread.start()
            thread.join()  # the loop can do nothing meanwhile
            found = await asyncio.wait_for(asyncio.gather(*here[:4], here[5], return_exceptions=True), 5)
            assert found[:4] == [0, 1, 2, 3]
            assert isinstance(found[4], MisuseError)
        assert woken == 2

    asyncio.run(run())


def test_an_odd_failure_keeps_nobody_waiting_who_comes_after_it() -> None:
    async def run() -> None:
        odd, fine, arrivals = Future[int](), Future[int](), Arrivals(asyncio.get_running_loop())
        here = arrivals.of(odd), arrivals.of(fine)
        odd.set_exception(StopIteration("odd"))
        fine.set_result(1)
        with pytest.raises(RuntimeError, match=r"StopIteration\('odd'\)"):
            await asyncio.wait_for(here[0], 5)
        assert await asyncio.wait_for(here[1], 5) == 1

    asyncio.run(run())


def test_waiting_ends_with_the_time_the_work_or_whoever_waits() -> None:
    async def run() -> None:
        work: Future[int] = Future()
        with pytest.raises(LateError, match="no answer within 0 s"):
            await in_time(work, 0.01)
        assert work.cancelled(), "what nobody waits for is dropped"
        dropped: Future[int] = Future()
        asyncio.get_running_loop().call_soon(dropped.cancel)
        with pytest.raises(ClosedError):
            await in_time(dropped, 5)
        left: Future[int] = Future()
        waiting = asyncio.create_task(in_time(left, 5))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert left.cancelled()

    asyncio.run(run())


class Stream(io.StringIO):
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_lines_that_are_said_together_are_written_with_one_write() -> None:
    stream = Stream()
    log = make_log(stream)
    with log.together():
        for number in range(3):
            log.info("request", number=number)
        assert stream.writes == 0
    log.debug("never shown")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("bug", path={"a set"})
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (stream.writes, [line.get("number") for line in lines]) == (2, [0, 1, 2, None])
    assert {"request", "info"} == {lines[0]["event"], lines[0]["level"]}
    assert lines[0]["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in lines[3]["exception"]
    with log.together():
        with log.together():
            log.info("inner")
        log.info("outer")
        assert stream.writes == 2
    assert stream.writes == 3, "the outermost one writes"
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()[4:]] == ["inner", "outer"]


def test_a_library_speaks_in_our_log() -> None:
    stream = io.StringIO()
    library = logging.Logger("library")
    library.addHandler(Forward(make_log(stream)))
    for level in (logging.INFO, logging.WARNING, 35, logging.ERROR, logging.CRITICAL):
        library.log(level, "said at %d", level)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["level"] for line in lines] == ["warning", "warning", "error", "critical"]
    assert (lines[0]["event"], lines[0]["logger"], lines[0]["said"]) == ("library", "library", "said at 30")


class Full(io.StringIO):
    """A disk that is full until there is ``room``."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_log_on_a_full_disk_stops_nobody_and_says_later_what_it_lost() -> None:
    stream = Full()
    log = make_log(stream)
    log.info("one")
    with log.together():
        log.info("two")
        log.info("three")
    stream.room = True
    log.info("four")
    log.info("five")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["log-lost", "four", "five"]
    assert lines[0]["lines"] == 3


def test_requests_that_end_together_are_written_down_with_one_write() -> None:
    stream, metrics = Stream(), Metrics()

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    async def run() -> None:
        guard = Guard(door, metrics=metrics, log=make_log(stream), local_only=True)
        scope = {"type": "http", "method": "GET", "headers": [(b"host", b"localhost")]}
        for batch in (1, 2):  # the second one is written, too
            await asyncio.gather(*(guard(dict(scope), receive, send) for _ in range(6)))
            await asyncio.sleep(0)
            assert stream.writes == batch

    asyncio.run(run())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["status"]) for line in lines] == [("request", 204)] * 12
    assert len({line["request"] for line in lines}) == 12
    assert b'status="204"} 12.0' in metrics.text()
