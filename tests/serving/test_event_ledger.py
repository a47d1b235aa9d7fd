"""Events and items on disk: keys make writing twice harmless, nothing is half written, a full disk is survived."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from palate.core.errors import StoreError
from palate.serving.ledger import ConflictError, Event, FullDiskError, Ledger, Written


def test_the_same_key_is_the_same_event_and_another_event_is_a_conflict(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "s.sqlite")
    event = Event("k1", "ann", "b001", 5, "buy", 4.5)
    other = Event("k2", "ann", "b002", 4)
    assert ledger.append("d", [[event], [event, other]]) == [
        [Written("k1", True, 5)],
        [Written("k1", False, 5), Written("k2", True, 4)],
    ]
    changed = Event("k1", "ann", "b003", 5, "buy", 4.5)
    good, bad = ledger.append("d", [[Event("k3", "bob", "b001", 6)], [Event("k4", "bob", "b002", 7), changed]])
    assert good == [Written("k3", True, 6)]
    assert isinstance(bad, ConflictError)
    assert [event.item for event in ledger.later("d", "ann")] == ["b002", "b001"]
    assert [event.item for event in ledger.later("d", "bob")] == ["b001"], "k4 stood beside a conflict"
    assert ledger.later("another data set", "ann") == []
    ledger.close()
    again = Ledger(tmp_path / "s.sqlite")
    assert again.append("d", [[event]]) == [[Written("k1", False, 5)]]


def test_without_a_time_a_retry_is_still_the_same_event(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "s.sqlite")
    ((first,),) = ledger.append("d", [[Event("k", "ann", "b001")]])
    ((second,),) = ledger.append("d", [[Event("k", "ann", "b001")]])
    assert (first.new, second.new) == (True, False)
    assert first.time == second.time


def test_many_threads_write_one_key_once(tmp_path: Path) -> None:
    ledger, found = Ledger(tmp_path / "s.sqlite"), []

    def write() -> None:
        for number in range(20):
            found.extend(ledger.append("d", [[Event(f"k{number}", "ann", "b001", number)]]))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written.new for batch in found for written in batch) == 20
    assert ledger.n_events("d") == 20


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "s.sqlite")
    ledger.append("d", [[Event("before", "ann", "b001", 1)]])
    (pages,) = ledger._writer.execute("PRAGMA page_count").fetchone()
    ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    large = [Event(f"k{number}", "ann" * 60, "b001", number) for number in range(1000)]
    with pytest.raises(FullDiskError, match="full; nothing of this was written"):
        ledger.append("d", [large])
    assert ledger.n_events("d") == 1
    ledger._writer.execute("PRAGMA max_page_count = 100000")
    assert all(written.new for written in ledger.append("d", [large])[0])  # type: ignore[union-attr]


def test_items_are_written_once_and_retired_and_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "s.sqlite")
    content = {"item": "new", "title": "A Title"}
    assert ledger.add_item("d", "new", content)
    assert not ledger.add_item("d", "new", content)
    with pytest.raises(ConflictError, match="reads otherwise"):
        ledger.add_item("d", "new", {**content, "title": "Another"})
    assert ledger.items("d") == [content]
    ledger.retire("d", ["new", "b001"])
    ledger.retire("d", ["b001"], back=True)
    assert ledger.retired("d") == ["new"]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    with pytest.raises(StoreError, match="cannot hold events"):
        Ledger(tmp_path / "text.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    with pytest.raises(StoreError, match="another Palate"):
        Ledger(tmp_path / "newer.sqlite")
