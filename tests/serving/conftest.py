"""Fitted runs and real servers: uvicorn on a port of its own, asked by a real client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving.database import Database, postgres

SYSTEMS: dict[str, dict[str, Any]] = {
    "item-knn": {},
    "text-cosine": {"preset": "tiny"},
    "sasrec": {"preset": "tiny"},
    "tiger": {"preset": "tiny"},
}
"""Neighbours, vectors of texts, a network that scores everything, and a beam search."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs them all, so that the runs are fitted once."""
    for item in items:
        if "tests/serving/" in item.path.as_posix():
            item.add_marker(pytest.mark.xdist_group("serving"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of each system on the small test world, most of them taught for a few steps only."""
    from palate.core.run import Run
    from palate.experiment import fit, make_plan

    here = tmp_path_factory.mktemp("served")
    for name, choices in SYSTEMS.items():
        fit(make_plan(name, "world-test", **choices), here / name, Run(max_steps=15))
    return here


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A PostgreSQL server for the session; skips where there is none."""
    with postgres() as running:
        yield running


def client(address: str, token: str | None = None) -> Any:
    """An HTTP client of that server."""
    import httpx2

    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.Client(base_url=address, headers=headers, timeout=60)


@contextmanager
def process(
    *arguments: object, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``palate serve`` as a process of its own, with its address; killed at the end where it still runs."""
    code = "from palate.cli.main import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        assert line.startswith("serving on "), line
        yield server, line.split()[-1]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="session")
def server(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of one server for all four runs; tests that change what is served start their own."""
    from tests.serving.running import running

    store = tmp_path_factory.mktemp("store") / "serving.sqlite"
    with running([runs / name for name in SYSTEMS], store) as (_, address), client(address) as asked:
        yield asked
