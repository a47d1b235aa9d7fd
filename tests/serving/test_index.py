"""Doors that answer from an index of item vectors: nearly the same, measured, and it follows the catalogue."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest

from palate.ask import Asker
from palate.core.errors import ConfigError, MisuseError
from palate.questions import Answer, Question
from palate.runs import FittedRun
from palate.serving.batching import BusyError
from palate.serving.indexing import Indexing
from palate.serving.logs import make_log
from palate.serving.served import Limits
from palate.serving.service import Service

pytest.importorskip("usearch")


@pytest.fixture
def asker(runs: Path) -> Asker:
    return Asker(FittedRun.open(runs / "text-cosine"))


def test_an_index_answers_nearly_the_same_and_says_how_nearly(asker: Asker) -> None:
    history = asker.item_ids[3:9]
    questions = [asker.read(question) for question in (
        Question(user="r0001"), Question(history=history), Question(history=[], words="a voyage at sea"),
        Question(history=history, candidates=asker.item_ids[:20]), Question(history=[]),
    )]  # fmt: skip
    exact = asker.answers(questions, 10)
    asker.use_index("usearch")
    found = asker.answers(questions, 10)
    assert asker.recall is not None
    assert asker.recall.share == 1, "a graph of sixty items is walked whole"
    assert asker.recall.queries == 120, "the users of the data ask"
    for one, other in zip(exact, found, strict=True):
        assert [item.item for item in other.recommended] == [item.item for item in one.recommended]
    assert [answer.exact for answer in found][:4] == [False, False, False, True], "candidates are looked at one by one"
    asker.use_index("exact")
    assert asker.recall is None
    assert asker.answers(questions, 10) == exact


def test_an_index_follows_what_is_added_and_retired(asker: Asker) -> None:
    asker.use_index("usearch")
    title = asker.titles[5]

    def asked() -> tuple[list[str], bool]:
        (answer,) = asker.answers([asker.read(Question(history=[asker.item_ids[5]]))], 61)
        return [one.item for one in answer.recommended], answer.exact

    for change, there in (
        (lambda: asker.add_items(asker.table_of([{"item": "new", "title": f"{title} again", "text": title}])), True),
        (lambda: asker.retire_items(["new"]), False),
    ):
        assert asker.stale_index is None
        change()
        items, exact = asked()
        assert ("new" in items, exact, asker.recall) == (there, True, None), "looked at until the index is there"
        stale = asker.stale_index
        assert stale is not None
        stale.refresh()
        items, exact = asked()
        assert ("new" in items, exact) == (there, False)
        assert asker.recall is not None


def test_questions_are_answered_while_an_index_is_built(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its catalogue changes twice while the first index is built, which is then one of vectors that are gone."""
    lines, slow = StringIO(), Slow(monkeypatch)
    limits = Limits(index="usearch")
    service = Service([runs / "text-cosine"], tmp_path / "s.sqlite", limits=limits, log=make_log(lines))
    slow.down()

    def answer() -> Answer:
        (found,) = service.find(None).recommend([Question(user="r0001")], 60).result(60)
        assert isinstance(found, Answer)
        return found

    try:
        best = answer().recommended[0].item
        service.retire(None, [best])
        slow.wait()
        assert answer().exact
        assert best not in [one.item for one in answer().recommended]
        second = answer().recommended[0].item
        service.retire(None, [second])
        slow.go_on(2)
        slow.wait(2)  # of the vectors after the second change
        wait_until(lambda: not answer().exact)
        found = answer()
        assert not {best, second} & {one.item for one in found.recommended}
        wait_until(lambda: lines.getvalue().count("index built") == 2)  # when the run was opened, and now
    finally:
        slow.go_on(9)
        service.close()


def test_a_server_that_ends_waits_for_no_index_and_a_full_desk_costs_none(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, slow, others = StringIO(), Slow(monkeypatch), threading.enumerate()
    limits = Limits(index="usearch")
    service = Service([runs / "text-cosine"], tmp_path / "s.sqlite", limits=limits, log=make_log(lines))
    slow.down()
    try:
        served = service.find(None)
        served.asker.retire_items(["b001"])
        plain, refused = served.do, []

        def full(job: Any) -> Any:
            if len(refused) < 5:
                refused.append(job)
                raise BusyError(0)
            return plain(job)

        monkeypatch.setattr(served, "do", full)
        slow.go_on(1)
        assert served.index_anew() is not None
        assert (len(refused), slow.begun) == (5, 1), "asked again for room, built once"
        monkeypatch.setattr(served, "do", plain)
        service.retire(None, ["b002"])
        slow.wait(2)
        service.close()
        (thread,) = [one for one in threading.enumerate() if one.name == "indexing" and one not in others]
        assert thread.daemon, "no process waits for it"
    finally:
        slow.go_on(9)
    wait_until(lambda: not thread.is_alive())
    assert "bug" not in lines.getvalue()


def test_a_run_stands_in_line_once_and_a_fault_is_told(runs: Path, tmp_path: Path) -> None:
    done, lines, hold = [], StringIO(), Semaphore(0)

    class Run:
        def __init__(self, name: str) -> None:
            self.name = name

        def index_anew(self) -> None:
            done.append(self.name)
            assert hold.acquire(timeout=60)
            if self.name == "bad":
                raise ZeroDivisionError

    first, bad, last = Run("first"), Run("bad"), Run("last")
    indexing = Indexing(make_log(lines))
    for one in (first, *[bad, last] * 100, first):
        indexing.want(one)  # type: ignore[arg-type]
    for _ in range(4):
        hold.release()
    wait_until(lambda: len(done) >= 3)
    wait_until(lambda: '"event": "bug"' in lines.getvalue())
    indexing.close()
    assert sorted(set(done)) == ["bad", "first", "last"]
    assert len(done) <= 4, "the first may have begun before the last change"


class Slow:
    """``build_index`` that waits until it may go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self._patch, self._may, self._news = patch, Semaphore(0), threading.Condition()

    def down(self) -> None:
        from palate.parts import retrieval

        plain = retrieval.build_index

        def slow(*given: Any, **how: Any) -> Any:
            with self._news:
                self.begun += 1
                self._news.notify_all()
            assert self._may.acquire(timeout=60)
            return plain(*given, **how)

        self._patch.setattr(retrieval, "build_index", slow)

    def go_on(self, times: int) -> None:
        for _ in range(times):
            self._may.release()

    def wait(self, times: int = 1) -> None:
        """Until so many have begun."""
        with self._news:
            assert self._news.wait_for(lambda: self.begun >= times, timeout=60)


def test_what_holds_no_vectors_and_what_is_no_setting_is_refused(runs: Path, asker: Asker) -> None:
    with pytest.raises(MisuseError, match="is a item-knn, whose scores are no products of two vectors"):
        Asker(FittedRun.open(runs / "item-knn")).use_index("usearch")
    with pytest.raises(ConfigError, match="index usearch has no setting 'efort'; did you mean 'effort'"):
        asker.use_index("usearch", efort=3)


def test_the_command_line_and_the_server_tell_the_recall(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from palate.cli.main import main

    with pytest.raises(SystemExit, match="0"):
        main(
            [
                "recommend",
                str(runs / "sasrec"),
                "--user",
                "r0001",
                "--json",
                "--index",
                "usearch",
                "--index-set",
                "effort=64",
            ]
        )
    said = capsys.readouterr()
    assert "index usearch: recall@60 against exact 1.0000 on 120 queries" in said.err
    assert json.loads(said.out)["exact"] is False
    lines = StringIO()
    folders = [runs / "text-cosine", runs / "item-knn"]
    service = Service(folders, tmp_path / "told.sqlite", limits=Limits(index="usearch"), log=make_log(lines))
    try:
        built = [json.loads(line) for line in lines.getvalue().splitlines() if "index built" in line]
        assert [(line["run"], line["said"][:20]) for line in built] == [("text-cosine", "index usearch: recal")]
    finally:
        service.close()


@pytest.mark.parametrize("head", ["free", "tied"])
def test_an_index_answers_for_a_head_over_item_vectors(
    head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bias of each item stands in its vector, so that the order is the system's own."""
    from palate.cli.main import main
    from palate.core.run import Run
    from palate.experiment import fit, make_plan

    plan = make_plan("lite-llm4rec", "world-test", preset="tiny", settings={"head": head})
    fit(plan, tmp_path / "lite", Run(max_steps=10))
    told = {}
    for index in ("exact", "usearch"):
        with pytest.raises(SystemExit, match="0"):
            main(["recommend", str(tmp_path / "lite"), "--user", "r0001", "--json", "--index", index])
        said = capsys.readouterr()
        told[index] = json.loads(said.out)
    assert "index usearch: recall@60 against exact 1.0000 on 120 queries" in said.err
    assert (told["exact"]["exact"], told["usearch"]["exact"]) == (True, False)
    names = [[one["item"] for one in told[index]["recommended"]] for index in told]
    assert names[0] == names[1]
    scores = [[one["score"] for one in told[index]["recommended"]] for index in told]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_an_index_that_finds_too_little_can_be_allowed_to_and_one_given_up_is_told(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from palate.cli.main import main
    from palate.parts import retrieval

    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(runs / "text-cosine"), "--index-set", "effort=9"])
    assert "add --index usearch" in capsys.readouterr().err
    monkeypatch.setattr(retrieval, "_overlap", lambda *_: 0.5)
    folders, lines = [runs / "text-cosine"], StringIO()
    with pytest.raises(ConfigError, match=r"finds 0\.5000 of the 60 best, less than 0\.98"):
        Service(folders, tmp_path / "a.sqlite", limits=Limits(index="usearch"))
    limits = Limits(index="usearch", index_settings={"at_least": 0.4})
    service = Service(folders, tmp_path / "b.sqlite", limits=limits, log=make_log(lines))
    try:
        service.retire(None, ["b001"])
        wait_until(lambda: lines.getvalue().count("index built") == 2)
        assert "index given up" not in lines.getvalue()
        monkeypatch.setattr(retrieval, "_overlap", lambda *_: 0.3)
        service.retire(None, ["b002"])
        wait_until(lambda: "index given up" in lines.getvalue())
        service.retire(None, ["b003"])
        (told,) = [json.loads(line) for line in lines.getvalue().splitlines() if "index given up" in line]
        assert (told["run"], told["level"]) == ("text-cosine", "warning")
        assert service.find(None).recommend([Question(history=[])], 3).result()[0].exact
    finally:
        service.close()


def wait_until(there: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not there():
        assert time.monotonic() < until
        time.sleep(0.01)
