"""A server under 32 clients, against the same questions asked in one process.

Ours is the processor time that the process of ``palate serve`` spends on a request, everything included: HTTP, checks,
the log, the answer as JSON. The reference is the processor time of the system's ``recommend`` for a question, from
``Requests`` to ``Rankings``, in batches of the size that the server's batches had on average. Processor time, as
clients, server and reference share a machine, and all of them on one processor, as two hyperthreads at work on one core
both take longer over the same work: a server with its clients beside it would be charged for them, a reference alone
would not. What the clients saw by the clock is measured apart, on all processors. Equal answers first.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, must
from benchmarks.two_tower_serving import serving
from palate.ask import Asker
from palate.core.item_vectors import ItemVectors, keys_of
from palate.core.run import Run
from palate.experiment import Plan, fit, make_plan
from palate.questions import Question, together
from palate.runs import FittedRun

CLIENTS, SECONDS, K = 32, 60, 10
HISTORY, QUESTIONS = 20, 256
ITEMS, WIDTH = 100_000, 384
COST_SECONDS, REFERENCE_SECONDS = 20.0, 3.0


def run(quick: bool = False) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            knn = fit(make_plan("item-knn", "world-test"), Path(folder) / "item-knn", Run())
            return [under_load(knn, clients=4, seconds=1)]
        # Of the cheapest network and of one that searches: what HTTP costs beside an answer depends on the answer.
        runs = [fit(plan, Path(folder) / plan.system, Run(max_steps=100)) for plan in on_the_world()]
        runs.append(two_tower(Path(folder) / "hllm"))
        return [under_load(one, clients=CLIENTS, seconds=SECONDS) for one in runs]


def on_the_world() -> list[Plan]:
    names = {"tokenizer": "collaborative"}
    return [make_plan("sasrec", "world"), make_plan("tiger", "world", preset="small", settings=names)]


def two_tower(folder: Path) -> FittedRun:
    """A run of HLLM with a small item model, a User LLM as drawn, and item vectors as drawn: what it answers means
    nothing, what it costs is what such a run costs. Its data are nowhere, so it answers histories."""
    system, _ = serving(ITEMS, WIDTH)
    titles = [f"title {row}" for row in range(ITEMS)]
    drawn = system.items.held
    assert drawn is not None
    system.items.held = ItemVectors(system.version, keys_of(titles), drawn.vectors, drawn.live)
    system.facts = {"shape": {"n_items": ITEMS}, "fitted_on": "drawn", **system.remarks()}
    facts = {"data": {"name": "drawn", "fingerprint": "drawn", "simulated": True}, "cost": {}}
    fitted = FittedRun(folder, make_plan("hllm", "nowhere"), facts)
    system.save(fitted.system_folder(0))
    pl.DataFrame({"item": [str(row) for row in range(ITEMS)], "title": titles}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user": ["nobody"]}).write_parquet(folder / "users.parquet")
    fitted.write()
    return fitted


def under_load(fitted: FittedRun, *, clients: int, seconds: float) -> Result:
    asker = Asker(fitted)
    questions = drawn_questions(asker)
    with served(fitted) as (process, port):
        same_answers(asker, questions[:3], port)
        load(port, questions, clients, min(seconds, 2))  # warm
        seen = by_the_clock(load(port, questions, clients, seconds), clients, seconds)
        with one_processor(process):
            before = at(port), cpu_seconds(process)
            found = load(port, questions, clients, min(seconds, COST_SECONDS))
            after = at(port), cpu_seconds(process)
            check(found)
            batch = (after[0]["sum"] - before[0]["sum"]) / (after[0]["count"] - before[0]["count"])
            ours = (after[1] - before[1]) / len(found["seconds"])
            bare, whole = in_process(asker, questions, max(1, round(batch)))
        peak_mb = peak_of(process)
    words = (
        f"recommend in this process, batches of {batch:.1f} (with ids and titles {1e3 * whole:.2f} ms); {seen}"
    )  # fmt: skip
    name = f"serving, {fitted.plan.system} over {len(asker.item_ids):,} items"
    return Result(name, ours / bare, words, ours, bare, peak_mb)


def by_the_clock(found: dict[str, Any], clients: int, seconds: float) -> str:
    """What the clients saw, in words."""
    check(found)
    taken, errors = np.array(found["seconds"]), found["errors"]
    middle, late = (1e3 * float(np.quantile(taken, share)) for share in (0.5, 0.99))
    return (
        f"{clients} clients for {seconds:g} s: {len(taken):,} answers, {errors} errors, {len(taken) / seconds:,.0f}/s, "
        f"p50 {middle:.0f} ms, p99 {late:.0f} ms"
    )


def check(found: dict[str, Any]) -> None:
    """A request that failed ends the benchmark."""
    must(found["errors"] == 0 and len(found["seconds"]) > 0, f"{found['errors']} requests failed")


@contextmanager
def one_processor(process: int) -> Iterator[None]:
    """This process, its children to come and ``process``, all their threads, share one processor meanwhile (Linux)."""
    usual = os.sched_getaffinity(0)
    try:
        pin(process, {min(usual)})
        yield
    finally:
        pin(process, usual)


def pin(process: int, processors: set[int]) -> None:
    for owner in ("self", str(process)):
        for thread in Path(f"/proc/{owner}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has ended
                os.sched_setaffinity(int(thread.name), processors)


def drawn_questions(asker: Asker) -> list[Question]:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(asker.item_ids), (QUESTIONS, HISTORY))
    return [Question(history=[asker.item_ids[row] for row in some]) for some in rows]


def in_process(asker: Asker, questions: Sequence[Question], batch: int) -> tuple[float, float]:
    """Processor seconds a question: ``recommend`` alone, and from ids to ids and titles."""
    asked = [asker.read(one) for one in questions]
    bare = whole = 0.0
    n, until = 0, time.process_time() + REFERENCE_SECONDS
    asker.system.recommend(together(asked[:batch]), K)
    while time.process_time() < until or not n:
        start = n % (len(asked) - batch + 1)
        requests = together(asked[start : start + batch])
        begun = time.process_time()
        asker.system.recommend(requests, K)
        between = time.process_time()
        asker.answers([asker.read(one) for one in questions[start : start + batch]], K)
        bare, whole = bare + between - begun, whole + time.process_time() - between
        n += batch
    return bare / n, whole / n


# -- the other processes -----------------------------------------------------------------------------------------------


@contextmanager
def served(fitted: FittedRun) -> Iterator[tuple[int, int]]:
    """``palate serve`` as a process of its own: its id and its port."""
    code = "from palate.cli.main import main; main()"
    store = fitted.folder.parent / "serving.sqlite"
    command = [sys.executable, "-c", code, "serve", str(fitted.folder), "--port", "0", "--store", str(store)]
    with tempfile.TemporaryFile() as log:  # its lines are part of its work
        server = subprocess.Popen(
            [*command, "--timeout", "120"], stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ)
        )
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            must(line.startswith("serving on "), f"the server did not start: {line}")
            yield server.pid, int(line.rsplit(":", 1)[1])
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()


def load(port: int, questions: Sequence[Question], clients: int, seconds: float) -> dict[str, Any]:
    """What the clients saw, in a process of their own."""
    bodies = [json.dumps({"history": list(one.history or ()), "k": K}) for one in questions]
    plan = {"host": "127.0.0.1", "port": port, "seconds": seconds, "clients": clients, "bodies": bodies}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.serving_clients", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def same_answers(asker: Asker, questions: Sequence[Question], port: int) -> None:
    for question in questions:
        body = json.dumps({"history": list(question.history or ()), "k": K}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/recommend", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            theirs = json.load(answer)["recommended"]
        (mine,) = asker.answers([asker.read(question)], K)
        kept = [{key: value for key, value in asdict(one).items() if value is not None} for one in mine.recommended]
        must(theirs == kept, "the answers differ")


def at(port: int) -> dict[str, float]:
    """How many batches the server answered (``count``) and how many questions were in them (``sum``)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {end: float(value) for end, value in re.findall(r"palate_batch_questions_(sum|count)\{.*\} (\S+)", text)}


def cpu_seconds(process: int) -> float:
    """Processor time of a process and its threads so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024
