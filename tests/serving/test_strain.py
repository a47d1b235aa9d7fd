"""What many at once, a full disk or vanished data do to a server: it stays whole, and says so where it cannot."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palate.ask import Asker
from palate.core.errors import StoreError
from palate.runs import FittedRun
from palate.serving.spaces import Spaces
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
