"""Looking around over HTTP: what is found is what is there, by brute force; and the pages of the web app."""

from __future__ import annotations

import json
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI

from palate.ask import Asker
from palate.core.errors import MisuseError
from palate.filters import parse_filter, rows_passing
from palate.questions import Filter
from palate.runs import FittedRun
from palate.serving.fits import Fits
from palate.serving.pages import VIEWS, add_pages, read_built
from tests.serving.conftest import client
from tests.serving.running import running


@pytest.fixture(scope="module")
def knn(runs: Path) -> Asker:
    return Asker(FittedRun.open(runs / "item-knn"))


def test_search_finds_every_item_with_all_words(server: Any, knn: Asker) -> None:
    items = knn.run.items
    for said in ("the", "sherlock holmes", "ASIMOV foundation", "nothing-reads-so"):
        found = server.get("/v1/items", params={"run": "item-knn", "q": said, "limit": 100}).json()
        expected = set()
        for row in items.iter_rows(named=True):
            text = " ".join(" ".join(v) if isinstance(v, list) else str(v) for k, v in row.items() if k != "image")
            if all(word in text.lower() for word in said.lower().split()):
                expected.add(row["item"])
        assert {one["item"] for one in found["items"]} == expected
        assert found["total"] == len(expected)
    begins = server.get("/v1/items", params={"run": "item-knn", "q": knn.titles[9][:12]}).json()["items"][0]
    assert begins["title"].startswith(knn.titles[9][:12])
    counts = [one["events"] for one in server.get("/v1/items", params={"run": "item-knn"}).json()["items"]]
    assert counts == sorted(counts, reverse=True)
    named = knn.item_ids[5:2:-1]
    some = server.get("/v1/items", params={"run": "item-knn", "item": named}).json()["items"]
    assert [one["item"] for one in some] == named


def test_filters_are_what_the_columns_say(knn: Asker) -> None:
    items = knn.run.items
    rows = items.rows(named=True)
    mystery = [i for i, row in enumerate(rows) if {"mystery", "fantasy"} & set(row["category"] or [])]
    assert rows_passing(items, [Filter("category", ("mystery", "fantasy"))]).tolist() == mystery
    assert 0 < len(mystery) < len(rows)
    early = [i for i, row in enumerate(rows) if row["year"] is not None and 1850 <= row["year"] <= 1900]
    assert rows_passing(items, [parse_filter("year=1850..1900")]).tolist() == early
    both = rows_passing(items, [parse_filter("category=mystery,fantasy"), parse_filter("year=1850..1900")])
    assert both.tolist() == sorted(set(mystery) & set(early))
    one_author = [i for i, row in enumerate(rows) if row["author"] == rows[0]["author"]]
    assert rows_passing(items, [Filter("author", (rows[0]["author"],))]).tolist() == one_author
    holes = pl.DataFrame({"item": ["a", "b"], "year": [None, 3], "good": [True, None]})
    assert rows_passing(holes, [parse_filter("year=..5")]).tolist() == [1]
    assert rows_passing(holes, [parse_filter("good=true")]).tolist() == [0]
    for wrong, said in {
        "categry=x": "nearest is 'category'|no column 'categry'", "category=1..2": "holds no numbers",
        "year=1900": "say the least and the most", "year=a..b": "are numbers", "year": "write COLUMN=VALUE",
    }.items():  # fmt: skip
        with pytest.raises(MisuseError, match=said):
            rows_passing(items, [parse_filter(wrong)])


def test_a_page_about_an_item_and_a_user_says_what_the_data_say(server: Any, knn: Asker) -> None:
    page = server.get("/v1/items/one", params={"run": "tiger", "item": knn.titles[4]}).json()
    row = knn.run.items.row(4, named=True)
    assert (page["item"], page["text"], page["about"]["author"]) == (row["item"], row["text"], row["author"])
    assert page["events"] == knn.run.taught.filter(pl.col("item") == row["item"]).height
    assert page["name"].startswith("<a_")
    user = server.get("/v1/users/one", params={"run": "item-knn", "user": "r0003"}).json()
    dataset = knn.run.dataset
    (at,) = dataset.user_rows_of(["r0003"])
    assert [one["item"] for one in user["events"]] == [knn.item_ids[item] for item in dataset.histories.row(int(at))]
    found = server.get("/v1/users", params={"run": "item-knn", "q": "R000", "limit": 100}).json()
    assert [one["user"] for one in found["users"]] == [one for one in dataset.user_ids if "r000" in one]


def test_neighbours_by_behaviour_and_code_are_those_of_brute_force(server: Any, runs: Path, knn: Asker) -> None:
    item = knn.item_ids[0]
    users: dict[str, set[str]] = {}
    for user, met in knn.run.taught.select("user", "item").iter_rows():
        users.setdefault(met, set()).add(user)
    cosine = {
        other: len(users[item] & users[other]) / np.sqrt(len(users[item]) * len(users[other]))
        for other in users if other != item
    }  # fmt: skip
    near = server.get("/v1/items/near", params={"run": "item-knn", "item": item, "space": "behaviour", "k": 5}).json()
    top = sorted(cosine.values(), reverse=True)[:5]
    assert np.allclose([one["similarity"] for one in near["items"]], top)
    assert np.allclose([cosine[one["item"]] for one in near["items"]], top)

    tiger = Asker(FittedRun.open(runs / "tiger"))
    tokens = tiger.system.parts["tokenizer"].codes.tokens  # type: ignore[attr-defined]
    shared = [sum(1 for _ in takewhile(bool, (a == b for a, b in zip(row, tokens[0], strict=True)))) for row in tokens]
    near = server.get("/v1/items/near", params={"run": "tiger", "item": item, "space": "code", "k": 6}).json()
    expected = sorted((n for row, n in enumerate(shared) if row and n), reverse=True)[:6]
    assert [one["similarity"] for one in near["items"]] == expected
    refused = server.get("/v1/items/near", params={"run": "item-knn", "item": item, "space": "code"})
    assert (refused.status_code, "gives items no names" in refused.json()["error"]) == (422, True)


def test_neighbours_by_text_are_near_both_ways(server: Any, knn: Asker) -> None:
    def near(item: str) -> dict[str, float]:
        asked = {"run": "text-cosine", "item": item, "space": "text", "k": 100}
        found = server.get("/v1/items/near", params=asked).json()["items"]
        assert [one["similarity"] for one in found] == sorted((one["similarity"] for one in found), reverse=True)
        return {one["item"]: one["similarity"] for one in found}

    item = knn.item_ids[2]
    first = near(item)
    assert item not in first
    other = next(iter(first))
    assert np.isclose(near(other)[item], first[other], atol=1e-5)


def test_the_audience_of_an_item_is_everybody_who_gets_it(server: Any, knn: Asker) -> None:
    item = knn.item_ids[7]
    body = {"run": "item-knn", "item": item, "k": 20, "users": 2000}
    said = server.post("/v1/audience", json=body).json()
    users = knn.run.dataset.user_ids
    expected = {}
    for start in range(0, len(users), 64):
        some = [{"user": user} for user in users[start : start + 64]]
        asked = {"run": "item-knn", "k": 20, "questions": some}
        for user, answer in zip(some, server.post("/v1/recommend/batch", json=asked).json(), strict=True):
            ranks = {one["item"]: one["rank"] for one in answer["recommended"]}
            if item in ranks:
                expected[user["user"]] = ranks[item]
    assert (said["asked"], said["users"]) == (len(users), len(users))
    assert {one["user"]: one["rank"] for one in said["receivers"]} == expected
    assert expected
    some = server.post("/v1/audience", json={**body, "users": 10}).json()
    assert some["asked"] == 10


def test_pictures_are_drawn_for_the_world_and_nothing_else_is_read(server: Any, tmp_path: Path) -> None:
    answer = server.get("/v1/items/cover", params={"run": "item-knn", "item": "b003"})
    assert (answer.headers["content-type"], answer.content[:4]) == ("image/png", b"\x89PNG")
    assert server.get("/v1/items/cover", params={"run": "item-knn", "item": "../b003"}).status_code == 404

    from types import SimpleNamespace

    from palate.core.errors import UnknownIdError
    from palate.serving.covers import Covers

    (tmp_path / "data" / "covers").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "data" / "covers" / "a.png").write_bytes(b"\x89PNG")
    images = ["covers/a.png", "../secret.png", str(tmp_path / "secret.png"), "items.parquet", None, "covers/none.png"]
    run: Any = SimpleNamespace(
        plan=SimpleNamespace(data=str(tmp_path / "data")), items=pl.DataFrame({"item": list("abcdef"), "image": images})
    )
    covers = Covers(run)
    assert covers.of(0) == (b"\x89PNG", "image/png")
    for row in range(1, 6):
        with pytest.raises(UnknownIdError, match="no picture"):
            covers.of(row)


def test_the_leaderboard_says_what_compare_says(runs: Path, tmp_path: Path) -> None:
    from palate.evaluation.comparison import compare
    from palate.experiment import report_of

    names = ["item-knn", "sasrec", "text-cosine"]
    for name in names:
        shutil.copytree(runs / name, tmp_path / name)
    reports = [report_of(FittedRun.open(tmp_path / name)) for name in names[:2]]
    with running([tmp_path / name for name in names], tmp_path / "s.sqlite") as (_, address), client(address) as asked:
        board = asked.get("/v1/leaderboard").json()
    assert board["unmeasured"] == ["text-cosine"]
    (table,) = board["tables"]
    comparisons = compare(reports)
    verdict = next(one for one in table["verdicts"] if one["metric"] == "ndcg@10")
    assert verdict["sentence"] == comparisons.sentence("ndcg@10")
    assert verdict["best"] == comparisons.best("ndcg@10")
    span = next(run for run in table["runs"] if run["name"] == "sasrec")["metrics"]["ndcg@10"]
    assert (span["value"], span["low"]) == (reports[1].metrics["ndcg@10"].value, reports[1].metrics["ndcg@10"].low)
    assert table["marks"] == ["simulated"]
    assert {"cold-items-among-cold", "short-histories"} <= set(table["slice_rules"])


def test_a_log_is_read_on_while_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "seed-0-training").mkdir(parents=True)
    plan = {"system": "sasrec", "data": "/home/me/world/", "config": {"training": {"epochs": 9}}}
    (folder / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "other").mkdir()
    log = folder / "seed-0-training" / "log.jsonl"
    log.write_text('{"step": 4, "at": 1.0, "epoch": 1, "loss": 2.5}\n{"step": 8, "at": 2.0, "ep')
    fits = Fits(tmp_path)
    (card,) = fits.cards(set())
    assert (card.name, card.title, card.epochs, card.seeds, card.state) == ("mine", "SASRec", 9, [0], "learning")
    assert card.data == "world", "no place of this machine"
    first = fits.log("mine", None, 0)
    assert ([line.loss for line in first.lines], first.next) == ([2.5], 1), "half a line waits"
    with log.open("a") as stream:
        stream.write('och": 2, "loss": null}\n{"step": 8, "at": 2.1, "epoch": 2, "valid": 0.25}\n')
    more = fits.log("mine", 0, first.next)
    assert [(line.epoch, line.loss, line.valid) for line in more.lines] == [(2, None, None), (2, None, 0.25)]
    log.write_text('{"step": 1, "at": 3.0, "epoch": 1, "loss": 9.0}\n')
    anew = fits.log("mine", 0, more.next)
    assert (anew.first, [line.loss for line in anew.lines]) == (0, [9.0]), "a log that was begun anew"
    assert (first.began, more.began, anew.began) == (1.0, 1.0, 3.0)
    (folder / "run.json").write_text("{}")
    assert fits.cards({folder.resolve()})[0].state == "finished"
    assert fits.cards({folder.resolve()})[0].served


BAD = [
    ("/v1/items", {"limit": 0}), ("/v1/items", {"limit": 101}), ("/v1/items", {"start": -1}),
    ("/v1/items", {"q": "x" * 201}),
    ("/v1/items", {"filter": "category"}), ("/v1/items", {"filter": "nothing=1"}),
    ("/v1/items", {"filter": "year=x..y"}), ("/v1/items", {"filter": "year=nan.."}),
    ("/v1/items", {"item": "nothing"}), ("/v1/items", {"item": "b001", "q": "x"}), ("/v1/items/one", {}),
    ("/v1/items/one", {"item": "../../etc/passwd"}), ("/v1/items/one", {"item": ""}),
    ("/v1/items/one", {"item": "a\nb"}),
    ("/v1/items/near", {"item": "b001", "space": "dreams"}), ("/v1/items/near", {"item": "b001"}),
    ("/v1/users/one", {"user": "nobody"}), ("/v1/users/one", {}), ("/v1/users", {"limit": "many"}),
    ("/v1/fits/log", {"fit": "../item-knn"}), ("/v1/fits/log", {"fit": "/etc"}), ("/v1/fits/log", {"fit": "."}),
    ("/v1/fits/log", {"fit": "item-knn", "seed": -1}), ("/v1/fits/log", {"fit": "item-knn", "after": 10**12}),
    ("/v1/items/cover", {"item": "nothing"}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "query"), BAD)
def test_bad_questions_are_a_clear_4xx(path: str, query: dict[str, Any], server: Any) -> None:
    answer = server.get(path, params={"run": "item-knn", **query} if "fits" not in path else query)
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()) == {"error", "code"}


def test_a_page_of_another_server_may_not_ask(server: Any) -> None:
    host = server.base_url.netloc.decode() if isinstance(server.base_url.netloc, bytes) else server.base_url.netloc
    body = {"run": "item-knn", "history": []}
    for origin, status in {f"http://{host}": 200, "https://example.org": 403, "null": 403}.items():
        assert server.post("/v1/recommend", json=body, headers={"Origin": origin}).status_code == status


@pytest.mark.parametrize("built", [True, False])
def test_pages_are_given_under_a_strict_policy_or_say_that_they_were_not_built(built: bool, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    if built:
        (tmp_path / "assets").mkdir()
        (tmp_path / "index.html").write_text("<title>Palate</title>")
        (tmp_path / "assets" / "app-1a2b.js").write_text("let a")
        (tmp_path / "secret.key").write_text("secret")
    app = FastAPI()
    add_pages(app, read_built(tmp_path))
    with TestClient(app) as asked:
        for address in ("/", *(f"/{view}" for view in VIEWS)):
            page = asked.get(address)
            assert page.status_code == (200 if built else 503)
            assert ("make web" in page.text) is not built
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert asked.head(address).status_code == page.status_code
        assert asked.get("/secret.key").status_code == 404
        assert asked.get("/assets/../../app.py").status_code == 404
        if built:
            script = asked.get("/assets/app-1a2b.js")
            assert script.headers["content-type"].startswith("text/javascript")
            assert "immutable" in script.headers["cache-control"]
