"""The same question has the same answer at every door."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.ask import Asker
from palate.cli.main import main
from palate.core.protocols import ScoresTexts
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.experiment import fit, make_plan
from palate.questions import Filter, Question, together
from palate.reasons import split as parts_of
from palate.runs import FittedRun
from tests.serving.conftest import SYSTEMS, client
from tests.serving.running import running


@pytest.fixture(scope="session")
def askers(runs: Path) -> dict[str, Asker]:
    return {name: Asker(FittedRun.open(runs / name)) for name in SYSTEMS}


def asked(asker: Asker) -> list[tuple[dict[str, Any], list[str]]]:
    """Requests as JSON, each with the same as options of the command line."""
    ids = asker.item_ids
    history, some, out = ids[3:9:2], ids[:30], ids[30:34]
    questions: list[tuple[dict[str, Any], list[str]]] = [
        ({"user": "r0001", "k": 7}, ["--user", "r0001", "-k", "7"]),
        ({"history": history}, ["--history", ",".join(history)]),
        ({"history": [asker.titles[3]]}, ["--history", asker.titles[3].replace(",", ",,")]),
        (
            {"history": history, "candidates": some, "leave_out": out, "k": 5},
            ["--history", ",".join(history), "--candidates", ",".join(some), "--leave-out", ",".join(out), "-k", "5"],
        ),
        ({"user": "r0002", "k": 3, "why": True}, ["--user", "r0002", "-k", "3", "--why"]),
        (
            {"history": history, "filters": [{"column": "category", "any_of": ["mystery", "adventure"]},
                                             {"column": "year", "least": 1850, "most": 1960}]},
            ["--history", ",".join(history), "--filter", "category=mystery,adventure", "--filter", "year=1850..1960"],
        ),
    ]  # fmt: skip
    if asker.reads_words:
        said = "a voyage at sea"
        questions.append(({"history": history, "words": said}, ["--history", ",".join(history), "--words", said]))
    return questions


@pytest.mark.parametrize("name", SYSTEMS)
def test_python_command_line_and_http_answer_alike(
    name: str, runs: Path, askers: dict[str, Asker], server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from palate.cli.main import main

    asker = askers[name]
    for body, options in asked(asker):
        by_http = server.post("/v1/recommend", json={"run": name, **body}).json()
        with pytest.raises(SystemExit, match="0"):
            main(["recommend", str(runs / name), *options, "--json"])
        by_command = json.loads(capsys.readouterr().out)
        parts = {one["item"]: one.pop("text_parts") for one in by_command["recommended"] if "text_parts" in one}
        assert by_http == by_command, body
        assert bool(parts) == (name == "text-cosine" and body.get("why", False))
        if parts:  # over HTTP they are told when one asks about the items
            asking = {key: value for key, value in body.items() if key not in ("k", "why")}
            told = server.post("/v1/explain", json={"run": name, **asking, "items": list(parts)}).json()["recommended"]
            assert {one["item"]: one["text_parts"] for one in told} == parts
        question = Question(**{key: value for key, value in body.items() if key not in ("k", "why", "filters")})
        question = replace(question, filters=[Filter(**filter) for filter in body.get("filters", ())])
        (ranking,) = asker.answer(together([asker.read(question)]), body.get("k", 10))
        found = [(one["item"], one["score"]) for one in by_http["recommended"]]
        assert found == list(zip(ranking.items, ranking.scores, strict=True))
        assert len(found) > 0
        assert not {item for item, _ in found} & set(body.get("leave_out", []))


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_of_mixed_questions_is_answered_as_each_alone(name: str, askers: dict[str, Asker], server: Any) -> None:
    questions = [{k: v for k, v in body.items() if k not in ("k", "why")} for body, _ in asked(askers[name])]
    batch = server.post("/v1/recommend/batch", json={"run": name, "k": 6, "questions": questions}).json()
    assert len(batch) == len(questions)
    for one, question in zip(batch, questions, strict=True):
        alone = server.post("/v1/recommend", json={"run": name, "k": 6, **question}).json()
        assert [(x["item"], x["title"]) for x in one["recommended"]] == [
            (x["item"], x["title"]) for x in alone["recommended"]
        ]
        assert np.allclose(
            [x["score"] for x in one["recommended"]], [x["score"] for x in alone["recommended"]], atol=1e-5
        )
        assert one["history"] == alone["history"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend", {"user": "r0001", "k": 7, "why": True}),
        ("/v1/recommend", {"history": ["b001"], "filters": [{"column": "year", "least": 1850.5}]}),
        ("/v1/recommend", {"history": ["b001"], "k": 2.0}),
        ("/v1/recommend", {"history": ["nothing"]}),
        ("/v1/recommend", {"user": "r0001", "history": []}),
        ("/v1/recommend/batch", {"questions": [{"user": "r0001"}, {"history": []}], "k": 3}),
        ("/v1/similar", {"item": "b001"}),
        ("/v1/explain", {"history": ["b001", "b002"], "items": ["b003"]}),
    ],
)
def test_the_short_way_answers_as_the_framework_does(path: str, body: dict[str, Any], server: Any) -> None:
    """A content type with more than its name goes the long way."""
    sent = json.dumps({"run": "item-knn", **body})
    short, long = (server.post(path, content=sent, headers={"Content-Type": kind}) for kind in
                   ("application/json", "application/json; charset=utf-8"))  # fmt: skip
    assert (short.status_code, short.json()) == (long.status_code, long.json())
    assert short.headers["content-type"] == long.headers["content-type"]


@pytest.mark.parametrize("name", ["item-knn", "sasrec", "tiger"])
def test_what_is_explained_is_what_taking_the_event_out_changes(
    name: str, askers: dict[str, Asker], server: Any
) -> None:
    """Ask for the score again over HTTP without the named event: it has fallen by the stated drop."""
    ids = askers[name].item_ids
    history, items = ids[2:8], ids[20:23]
    said = server.post("/v1/explain", json={"run": name, "history": history, "items": items}).json()["recommended"]
    scores = {one["item"]: one["score"] for one in said}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert any(abs(because["drop"]) > 1e-4 for one in said for because in one["because"])
    for one in said:
        for because in one["because"]:
            kept = [item for item in history if item != because["item"]]
            without = server.post("/v1/explain", json={"run": name, "history": kept, "items": [one["item"]]}).json()
            score = without["recommended"][0]["score"]
            assert np.isclose(one["score"] - score, because["drop"], atol=1e-4)


def test_a_new_item_that_lacks_a_named_part_of_a_text_scores_lower_as_stated(runs: Path, tmp_path: Path) -> None:
    """Over HTTP: what the text is without the part is the whole text of an item that is added."""
    with running([runs / "text-cosine"], tmp_path / "s.sqlite") as (service, address), client(address) as asked:
        asker = service.find(None).asker
        ids, system = asker.item_ids, asker.system
        assert isinstance(system, ScoresTexts)
        history, item = ids[2:8], ids[20]
        said = asked.post("/v1/explain", json={"history": history, "items": [item]}).json()
        assert said["methods"] == {"because": "leave-one-event-out", "text_parts": "leave-one-part-out"}
        (one,) = said["recommended"]
        without = dict(parts_of(system.item_texts(asker.living)[20]))
        assert len(one["text_parts"]) == 3
        for n, part in enumerate(one["text_parts"]):
            told = asked.post("/v1/items", json={"item": f"new-{n}", "text": without[part["text"]]})
            assert told.status_code == 200, told.text
            again = asked.post("/v1/explain", json={"history": history, "items": [f"new-{n}"]}).json()
            assert np.isclose(one["score"] - again["recommended"][0]["score"], part["drop"], atol=1e-5)


def test_an_event_that_moves_nothing_is_no_reason(runs: Path, server: Any, tmp_path: Path) -> None:
    """Popularity answers everybody alike; a history of one event has nothing left without it."""
    fit(make_plan("popularity", "world-test"), tmp_path / "popularity", Run())
    asker = Asker(FittedRun.open(tmp_path / "popularity"))
    (answer,) = asker.answers([asker.read(Question(user="r0001"))], 5, why=True)
    assert answer.methods is not None
    assert answer.methods.because == "none: no event moves a score by being left out"
    assert [one.because for one in answer.recommended] == [[]] * 5
    for history, said in ((["b001"], "none: without its only event a history says nothing"),
                          ([], "none: there is no history")):  # fmt: skip
        body = {"run": "item-knn", "history": history, "k": 2, "why": True}
        told = server.post("/v1/recommend", json=body).json()
        assert told["methods"]["because"] == said
        batch = server.post("/v1/recommend/batch", json={"run": "item-knn", "questions": [{"history": history}],
                                                         "k": 2, "why": True})  # fmt: skip
        assert batch.json() == [told]


def test_what_reads_no_texts_says_so_and_shows_none(
    runs: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"history": ["b001", "b002"], "k": 2}
    said = server.post("/v1/recommend", json={"run": "item-knn", **body, "why": True}).json()
    assert said["methods"]["text_parts"] == "none: scores of item-knn do not follow from texts of items"
    assert not any("text_parts" in one for one in said["recommended"])
    assert "methods" not in server.post("/v1/recommend", json={"run": "item-knn", **body}).json()
    for name, told in (("item-knn", "none: scores of item-knn"), ("text-cosine", "leave-one-part-out")):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            main(["recommend", str(runs / name), "--history", "b001,b002", "-k", "2", "--why"])
        shown = capsys.readouterr().out
        assert told in shown
        assert ("“" in shown) == (name == "text-cosine")


def test_words_are_explained_by_leaving_them_out(askers: dict[str, Asker], server: Any) -> None:
    ids = askers["text-cosine"].item_ids
    body = {"run": "text-cosine", "history": ids[:3], "items": ids[10:14]}
    with_words = server.post("/v1/explain", json={**body, "words": "a voyage at sea"}).json()["recommended"]
    without = server.post("/v1/explain", json=body).json()["recommended"]
    plain = {one["item"]: one["score"] for one in without}
    assert any(abs(one["words_drop"]) > 1e-3 for one in with_words)
    for one in with_words:
        assert np.isclose(one["score"] - plain[one["item"]], one["words_drop"], atol=1e-6)
    assert all("words_drop" not in one for one in without)


def test_similar_items_are_what_somebody_gets_who_met_only_this(askers: dict[str, Asker], server: Any) -> None:
    asker = askers["item-knn"]
    by_title = server.post("/v1/similar", json={"run": "item-knn", "item": asker.titles[5], "k": 4}).json()
    scores = asker.system.score(Requests.of([[5]]), Ragged.of([np.arange(len(asker.item_ids))]))
    scores[5] = -np.inf
    best = [asker.item_ids[row] for row in np.argsort(-scores, kind="stable")[:4]]
    assert [one["item"] for one in by_title["recommended"]] == best


def test_runs_say_what_is_served(server: Any) -> None:
    cards = {card["name"]: card for card in server.get("/v1/runs").json()}
    assert set(cards) == set(SYSTEMS)
    assert cards["text-cosine"]["reads_words"]
    assert cards["text-cosine"]["takes_new_items"]
    assert not cards["sasrec"]["takes_new_items"]
    assert cards["sasrec"]["simulated"]
    assert cards["sasrec"]["cost"]["parameters"] > 0


def test_the_api_describes_itself(server: Any) -> None:
    page = server.get("/openapi.json").json()
    assert page["openapi"].startswith("3.1")
    assert {"/v1/recommend", "/v1/events", "/v1/items", "/ready", "/metrics"} <= set(page["paths"])
    assert "429" in page["paths"]["/v1/recommend"]["post"]["responses"]
    assert server.get("/health").json() == {"status": "alive"}
    assert server.get("/ready").json() == {"status": "ready"}
