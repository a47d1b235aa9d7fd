"""Events and items on disk: keys make writing twice harmless, nothing is half written, a full disk is survived.

The same behaviour from both stores: a SQLite file and a real PostgreSQL server.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.core.errors import ConfigError, StoreError
from palate.serving.ledger import ConflictError, Event, Ledger, Written
from palate.serving.stores import FullDiskError
from tests.serving.database import Database

Place = Path | str


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a new ledger may lie."""
    if request.param == "sqlite":
        return tmp_path / "s.sqlite"
    return str(request.getfixturevalue("database").url())


@pytest.fixture
def opened() -> Iterator[Callable[[Place], Ledger]]:
    """Opens ledgers that are closed in the end."""
    held: list[Ledger] = []

    def one(place: Place) -> Ledger:
        held.append(Ledger(place))
        return held[-1]

    yield one
    for ledger in held:
        ledger.close()


@pytest.fixture
def ledger(place: Place, opened: Any) -> Ledger:
    found: Ledger = opened(place)
    return found


def test_the_same_key_is_the_same_event_and_another_event_is_a_conflict(
    ledger: Ledger, place: Place, opened: Any
) -> None:
    event = Event("k1", "ann", "b001", 5, "buy", 4.3)
    other = Event("k2", "ann", "b002", 4)
    assert ledger.append("d", [[event], [event, other]]) == [
        [Written("k1", True, 5)],
        [Written("k1", False, 5), Written("k2", True, 4)],
    ]
    changed = Event("k1", "ann", "b003", 5, "buy", 4.3)
    good, bad = ledger.append("d", [[Event("k3", "bob", "b001", 6)], [Event("k4", "bob", "b002", 7), changed]])
    assert good == [Written("k3", True, 6)]
    assert isinstance(bad, ConflictError)
    assert [event.item for event in ledger.later("d", "ann")] == ["b002", "b001"]
    assert [event.item for event in ledger.later("d", "bob")] == ["b001"], "k4 stood beside a conflict"
    assert ledger.later("another data set", "ann") == []
    ledger.close()
    again = opened(place)
    assert again.append("d", [[event]]) == [[Written("k1", False, 5)]]
    assert again.later("d", "ann")[1].rating == 4.3
    again.check()


def test_without_a_time_a_retry_is_still_the_same_event(ledger: Ledger) -> None:
    ((first,),) = ledger.append("d", [[Event("k", "ann", "b001")]])
    ((second,),) = ledger.append("d", [[Event("k", "ann", "b001")]])
    assert (first.new, second.new) == (True, False)
    assert first.time == second.time


def test_many_threads_of_two_servers_write_one_key_once(ledger: Ledger, place: Place, opened: Any) -> None:
    """In different orders, as two that waited for each other would."""
    found: list[Any] = []
    other = opened(place)

    def write(server: Ledger, numbers: list[int]) -> None:
        for start in range(0, 20, 4):
            found.extend(server.append("d", [[Event(f"k{n}", "ann", "b001", n)] for n in numbers[start : start + 4]]))

    orders = [list(range(20)), list(range(20))[::-1]]
    threads = [threading.Thread(target=write, args=(s, order)) for s in (ledger, other) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written.new for batch in found for written in batch) == 20
    assert ledger.n_events("d") == other.n_events("d") == 20


@pytest.mark.parametrize("text", ["'; DROP TABLE events; --", "% %s ? ??", "ünï ‮ 𝄞", "\\x00 \\"])
def test_what_is_written_is_never_part_of_a_statement(ledger: Ledger, text: str) -> None:
    event = Event(text, text, text, 1, text)
    assert ledger.append(text, [[event], [event]]) == [[Written(text, True, 1)], [Written(text, False, 1)]]
    assert [(later.item, later.kind) for later in ledger.later(text, text)] == [(text, text)]
    assert ledger.add_item(text, text, {"item": text})
    ledger.retire(text, [text])
    assert (ledger.items(text), ledger.retired(text)) == ([{"item": text}], [text])


def test_items_are_written_once_and_retired_and_back(ledger: Ledger) -> None:
    content = {"item": "new", "title": "A Title"}
    assert ledger.add_item("d", "new", content)
    assert not ledger.add_item("d", "new", content)
    with pytest.raises(ConflictError, match="reads otherwise"):
        ledger.add_item("d", "new", {**content, "title": "Another"})
    assert ledger.items("d") == [content]
    ledger.retire("d", ["new", "b001", "B2"])
    ledger.retire("d", ["b001", "B2"])
    assert ledger.retired("d") == ["B2", "b001", "new"]
    ledger.retire("d", ["b001", "B2"], back=True)
    assert ledger.retired("d") == ["new"]
    ledger.forget_item("d", "new")
    assert ledger.items("d") == []


LARGE = [Event(f"k{number}", "ann" * 60, "b001", number) for number in range(1000)]


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(opened: Any, tmp_path: Path) -> None:
    ledger = opened(tmp_path / "s.sqlite")
    ledger.append("d", [[Event("before", "ann", "b001", 1)]])
    (pages,) = ledger._store._writer.execute("PRAGMA page_count").fetchone()
    ledger._store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FullDiskError, match="full; nothing of this was written"):
        ledger.append("d", [LARGE])
    assert ledger.n_events("d") == 1
    ledger._store._writer.execute("PRAGMA max_page_count = 100000")
    assert all(written.new for written in ledger.append("d", [LARGE])[0])


def test_a_full_disk_of_a_database_is_the_same_sentence(opened: Any, database: Database) -> None:
    """The database says so itself, with the number that it has for this."""
    url = database.url()
    ledger = opened(url)
    ledger.append("d", [[Event("before", "ann", "b001", 1)]])
    for statement in (
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON palate.events FOR EACH ROW WHEN (NEW.time = 500) "
        "EXECUTE FUNCTION full_disk()",
    ):
        database.say(statement, url)
    with pytest.raises(FullDiskError, match="full; nothing of this was written"):
        ledger.append("d", [LARGE])
    assert ledger.n_events("d") == 1
    database.say("DROP TRIGGER full_disk ON palate.events", url)
    assert all(written.new for written in ledger.append("d", [LARGE])[0])


def test_a_database_that_was_killed_has_what_it_acknowledged_and_is_found_again(
    opened: Any, database: Database
) -> None:
    ledger = opened(database.url())
    ledger.append("d", [[Event("before", "ann", "b001", 1)]])
    assert ledger.n_events("d") == 1
    database.kill()
    for failing in (ledger.check, lambda: ledger.append("d", [[Event("lost", "ann", "b001", 2)]])):
        with pytest.raises(StoreError, match="does not answer; ask again soon"):
            failing()
    database.start()
    ledger._store._down_until = 0.0
    assert [later.time for later in ledger.later("d", "ann")] == [1]
    assert ledger.append("d", [[Event("lost", "ann", "b001", 2)]]) == [[Written("lost", True, 2)]]


def test_a_connection_that_was_cut_between_two_requests_is_opened_anew(opened: Any, database: Database) -> None:
    url = database.url()
    ledger = opened(url)
    ledger.append("d", [[Event("k", "ann", "b001", 1)]])
    assert ledger.n_events("d") == 1
    ours = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'palate' AND datname = current_database()"
    )
    assert len(database.say(ours, url)) == 2, "one that reads, one that writes"
    assert ledger.n_events("d") == 1
    assert ledger.append("d", [[Event("k", "ann", "b001", 1)]]) == [[Written("k", False, 1)]]


def test_a_reader_that_the_database_let_go_is_replaced(opened: Any, database: Database) -> None:
    url = database.url()
    name = database.say("SELECT current_database()", url)[0][0]
    database.say(f"ALTER DATABASE {name} SET idle_session_timeout = 200", url)
    ledger = opened(url)
    assert ledger.n_events("d") == 0
    time.sleep(0.5)
    assert ledger.n_events("d") == 0


def test_a_database_with_other_defaults_is_written_as_any_other(opened: Any, database: Database) -> None:
    url = database.url()
    name = database.say("SELECT current_database()", url)[0][0]
    for default in ("transaction_isolation = 'serializable'", "transaction_read_only = on"):
        database.say(f"ALTER DATABASE {name} SET default_{default}", url)
    with opened(url)._store.writing() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("read committed",)


def test_a_store_that_cannot_be_is_refused_without_its_password(opened: Any, database: Database) -> None:
    with pytest.raises(StoreError, match="write postgresql://USER@HOST:PORT/NAME") as refused:
        Ledger("postgresql://palate:geheim@[half/x")
    assert "geheim" not in str(refused.value)
    nowhere = database.of("nowhere").replace("palate@", "palate:geheim@")
    with pytest.raises(StoreError, match=r'cannot hold events: .*database "nowhere" does not exist') as refused:
        Ledger(nowhere)
    assert "geheim" not in str(refused.value)
    with pytest.raises(ConfigError, match="a file or postgresql://USER@HOST/NAME") as unknown:
        Ledger("postgresql+psycopg://palate:geheim@h/x")
    assert "geheim" not in str(unknown.value)
    url = database.url()
    opened(url.replace("postgresql://", "PostgreSQL://"))
    database.say("UPDATE palate.about SET version = 7", url)
    with pytest.raises(StoreError, match="another Palate"):
        Ledger(url)
    database.say("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreError, match="texts are LATIN1"):
        Ledger(database.of("latin"))


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    with pytest.raises(StoreError, match="cannot hold events"):
        Ledger(tmp_path / "text.sqlite")
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    with pytest.raises(StoreError, match="another Palate"):
        Ledger(tmp_path / "newer.sqlite")
