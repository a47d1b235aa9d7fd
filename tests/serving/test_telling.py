"""Events and new items over HTTP: used at once, written once; and runs that are replaced."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.ask import Asker
from palate.runs import FittedRun
from palate.serving.ledger import Ledger
from palate.serving.served import Limits, Served
from palate.serving.service import Service
from tests.serving.conftest import client
from tests.serving.running import running

SEA = "The captain and the crew of a whaling ship hunt a white whale across the ocean; storms, sails, islands"


@pytest.fixture(scope="module")
def told(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Any]]:
    """One server for all tests of this file, each with users and items of its own."""
    folders = [runs / name for name in ("text-cosine", "sasrec", "tiger")]
    with running(folders, tmp_path_factory.mktemp("told") / "s.sqlite") as (service, address), client(address) as asked:
        yield service, asked


def best(asked: Any, **body: Any) -> list[str]:
    found = asked.post("/v1/recommend", json={"run": "text-cosine", **body})
    assert found.status_code == 200, found.text
    return [one["item"] for one in found.json()["recommended"]]


def event(key: str, user: str, item: str, **more: Any) -> dict[str, Any]:
    return {"events": [{"key": key, "user": user, "item": item, **more}], "run": "sasrec"}


def test_the_next_answer_of_a_user_reads_their_events(told: tuple[Service, Any], runs: Path) -> None:
    """A stranger becomes somebody; a known user's history goes on, in Python as over HTTP."""
    _, asked = told
    asker = Asker(FittedRun.open(runs / "text-cosine"))
    items = asker.item_ids[7:10]
    missing = asked.post("/v1/recommend", json={"run": "text-cosine", "user": "eve"})
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown-id")
    for place, item in enumerate(items):
        written = asked.post("/v1/events", json=event(f"eve-{place}", "eve", item, time=place))
        assert written.json() == [{"key": f"eve-{place}", "new": True, "time": place}]
    assert best(asked, user="eve", k=5) == best(asked, history=items, k=5)
    before = asked.post("/v1/recommend", json={"run": "sasrec", "user": "r0003"}).json()
    top = before["recommended"][0]["item"]
    asked.post("/v1/events", json=event("r0003-1", "r0003", top))
    after = asked.post("/v1/recommend", json={"run": "sasrec", "user": "r0003"}).json()
    assert after["events"] == before["events"] + 1
    assert after["history"][-1]["item"] == top
    assert top not in {one["item"] for one in after["recommended"]}
    assert after["recommended"] != before["recommended"][1:]


def test_an_event_that_the_data_hold_already_is_not_counted_again(told: tuple[Service, Any], runs: Path) -> None:
    """The run may have been fitted anew on an export of what the server was told; the same again, later, is news."""
    _, asked = told
    data = Asker(FittedRun.open(runs / "sasrec")).dataset
    first = int(data.histories.starts[data.user_rows_of(["r0005"])[0]])
    item, time = data.item_ids[int(data.item_rows[first])], int(data.times[first])
    before = asked.post("/v1/recommend", json={"run": "sasrec", "user": "r0005"}).json()["events"]
    for more, key, at in ((0, "held", time), (1, "again", time + 1)):
        assert asked.post("/v1/events", json=event(key, "r0005", item, time=at)).status_code == 200
        assert asked.post("/v1/recommend", json={"run": "sasrec", "user": "r0005"}).json()["events"] == before + more


def test_a_key_is_written_once_and_not_for_two_events(told: tuple[Service, Any]) -> None:
    _, asked = told
    sent = event("once", "zoe", "b001", time=1)
    assert [asked.post("/v1/events", json=sent).json()[0]["new"] for _ in range(3)] == [True, False, False]
    other = asked.post("/v1/events", json=event("once", "zoe", "b002", time=1))
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert asked.post("/v1/recommend", json={"run": "sasrec", "user": "zoe"}).json()["events"] == 1
    unknown = asked.post("/v1/events", json=event("k", "zoe", "no such book"))
    assert (unknown.status_code, unknown.json()["error"]) == (
        404,
        "no item 'no such book' in the catalogue of 'world-test'",
    )


def test_a_new_item_is_recommended_at_once_by_systems_that_read_texts(told: tuple[Service, Any]) -> None:
    service, asked = told
    body = {"run": "text-cosine", "item": "whale", "title": "The White Whale", "text": SEA}
    added = asked.post("/v1/items", json=body).json()
    assert added["new"]
    assert added["runs"] == {
        "text-cosine": "recommended from now on",
        "sasrec": "knows only the items it was fitted on",
        "tiger": "recommended from now on",
    }
    assert best(asked, history=[], words="a whaling ship and a white whale on the ocean", k=1) == ["whale"]
    assert not asked.post("/v1/items", json=body).json()["new"]
    assert asked.post("/v1/items", json={**body, "text": "otherwise"}).status_code == 409
    assert asked.post("/v1/items", json={**body, "item": "b001"}).status_code == 409
    wrong = asked.post("/v1/items", json={**body, "item": "w2", "attributes": {"yaer": 1851}})
    assert (wrong.status_code, "did you mean 'year'" in wrong.json()["error"]) == (422, True)
    assert asked.post("/v1/items", json={**body, "item": "w2", "attributes": {"year": "long ago"}}).status_code == 422
    assert not any(content["item"] == "w2" for content in service.ledger.items("world-test"))
    # An event with it: systems that know it read it, the others go on without.
    asked.post("/v1/events", json=event("w", "ishmael", "whale"))
    assert asked.post("/v1/recommend", json={"run": "text-cosine", "user": "ishmael"}).json()["events"] == 1
    assert asked.post("/v1/recommend", json={"run": "sasrec", "user": "ishmael"}).json()["events"] == 0
    assert "whale" not in best(asked, user="ishmael", k=60)


def test_retired_items_are_answered_by_nobody_until_they_are_back(told: tuple[Service, Any]) -> None:
    _, asked = told
    for run in ("text-cosine", "sasrec", "tiger"):
        body = {"run": run, "history": ["b005"], "k": 3}
        first = asked.post("/v1/recommend", json=body).json()["recommended"]
        gone = [one["item"] for one in first][:2]
        assert asked.post("/v1/items/retire", json={"run": run, "items": gone}).json() == {"items": gone, "back": False}
        without = asked.post("/v1/recommend", json=body).json()["recommended"]
        assert not {one["item"] for one in without} & set(gone)
        asked.post("/v1/items/retire", json={"run": run, "items": gone, "back": True})
        assert asked.post("/v1/recommend", json=body).json()["recommended"] == first


def test_a_server_of_systems_that_cannot_grow_says_so(runs: Path, tmp_path: Path) -> None:
    with running([runs / "sasrec"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        refused = asked.post("/v1/items", json={"item": "whale", "text": SEA})
        assert (refused.status_code, refused.json()["code"]) == (409, "cannot-grow")
        assert service.ledger.items("world-test") == []


def test_items_added_earlier_are_taken_over_in_one_go(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the catalogue is made anew once; one that does not fit is named and left out."""
    ledger = Ledger(tmp_path / "store.sqlite")
    for item in ("x1", "x2", "x3"):
        ledger.add_item("world-test", item, {"item": item, "title": item, "text": SEA})
    ledger.add_item("world-test", "odd", {"item": "odd", "year": "long ago"})
    taken: list[list[str]] = []
    original = Asker.add_items

    def watched(self: Asker, items: Any) -> None:
        taken.append(items["item"].to_list())
        original(self, items)

    monkeypatch.setattr(Asker, "add_items", watched)
    served = Served("text-cosine", runs / "text-cosine", ledger, Limits())
    served.desk.close(10)
    assert taken == [["x1", "x2", "x3"]]
    assert served.n_added == 3
    assert [said.partition(":")[0] for said in served.skipped] == ["odd"]
    ledger.close()


def test_a_run_is_replaced_without_a_failed_request(runs: Path, tmp_path: Path) -> None:
    """A link is turned to another run under load: each answer is one of the two, and none fails."""
    link = tmp_path / "current"
    link.symlink_to(runs / "item-knn")
    failed: list[str] = []
    seen: set[str] = set()
    stop = threading.Event()
    with running([link], tmp_path / "s.sqlite") as (service, address):

        def ask() -> None:
            with client(address) as asked:
                while not stop.is_set():
                    answer = asked.post("/v1/recommend", json={"history": ["b001", "b007"], "k": 5})
                    if answer.status_code == 200:
                        seen.add(answer.json()["system"])
                    else:
                        failed.append(answer.text)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        with client(address) as asked:
            asked.post("/v1/items/retire", json={"items": ["b003"]})
            for target in ("text-cosine", "item-knn", "text-cosine"):
                (tmp_path / "next").symlink_to(runs / target)
                os.replace(tmp_path / "next", link)
                assert asked.post("/v1/reload").json() == {"runs": {"current": "replaced"}}
            assert asked.post("/v1/reload").json() == {"runs": {"current": "kept"}}
            assert "b003" not in {
                one["item"] for one in asked.post("/v1/recommend", json={"history": [], "k": 60}).json()["recommended"]
            }
            stop.set()
            for thread in threads:
                thread.join()
            assert failed == []
            assert seen == {"item-knn", "text-cosine"}
            # A run that cannot be opened leaves the earlier one in place.
            shutil.copytree(runs / "item-knn", tmp_path / "damaged")
            (tmp_path / "damaged" / "seed-0" / "config.json").write_text("{}")
            (tmp_path / "next").symlink_to(tmp_path / "damaged")
            os.replace(tmp_path / "next", link)
            assert "is damaged" in asked.post("/v1/reload").json()["runs"]["current"]
            assert "is damaged" in asked.get("/v1/runs").json()[0]["problem"]
            assert asked.post("/v1/recommend", json={"history": []}).json()["system"] == "text-cosine"
        assert '"event": "run not replaced"' in service.written.getvalue()  # type: ignore[attr-defined]
