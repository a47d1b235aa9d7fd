"""Guessed columns and moments; tables of every format read through the guess."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from palate.core.errors import ConfigError, DataError
from palate.data.schema import guess
from palate.data.sources import load
from palate.data.times import in_milliseconds, parse_iso, unit_of

SECOND = 1_600_000_000


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"customer_id": ["a"], "ProductID": ["x"], "event_time": ["2020-01-01 10:00:00"], "event_type": ["view"]},
            {"user": "customer_id", "item": "ProductID", "time": "event_time", "kind": "event_type"},
        ),
        (
            {"userId": [1], "movieId": [2], "rating": [3.5], "timestamp": [SECOND]},
            {"user": "userId", "item": "movieId", "time": "timestamp", "rating": "rating"},
        ),
        (
            {"reviewerID": ["a"], "asin": ["x"], "overall": [5], "reviewText": ["good"], "unixReviewTime": [SECOND]},
            {
                "user": "reviewerID",
                "item": "asin",
                "time": "unixReviewTime",
                "rating": "overall",
                "review": "reviewText",
            },
        ),
        (
            {"user_name": ["Ann"], "user_id": [7], "item_name": ["Pen"], "item_id": [8], "genres": ["a|b"]},
            {"user": "user_id", "item": "item_id", "title": "item_name", "category": "genres"},
        ),
        # A column called rating that holds words is no rating, and a date that is none is no time.
        (
            {"user": ["a"], "item": ["x"], "rating": ["good"], "date": ["some day"]},
            {"user": "user", "item": "item"},
        ),
        ({"visitor_pseudo_id": ["a"], "web_item_code": ["x"]}, {"user": "visitor_pseudo_id", "item": "web_item_code"}),
    ],
)
def test_guesses(columns: dict[str, list[object]], expected: dict[str, str]) -> None:
    assert dict(guess(pl.DataFrame(columns)).columns) == expected


def test_an_override_wins_and_is_shown_as_chosen() -> None:
    sample = pl.DataFrame({"user": ["a"], "account": ["b"], "item": ["x"], "rating": [1.0], "score": [2.0]})
    schema = guess(sample, {"user": "account", "rating": ""})
    assert dict(schema.columns) == {"user": "account", "item": "item"}
    shown = schema.render("events.csv")
    assert "events.csv is read as:" in shown
    assert "user     = account  chosen, e.g. b" in shown
    assert "item     = item     guessed, e.g. x" in shown
    assert "not used: user, rating, score" in shown
    assert "the order of the rows is the order of events" in shown
    assert "--column user=" in shown


@pytest.mark.parametrize(
    ("columns", "overrides", "said"),
    [
        ({"a": ["x"], "b": ["y"]}, {}, r"cannot tell which column is the user \(columns: a, b\); say it with --column"),
        ({"user": ["x"], "b": ["y"]}, {}, r"cannot tell which column is the item"),
        ({"user": ["x"], "item": ["y"]}, {"user": "usr"}, r"has no column 'usr'; did you mean 'user'"),
        ({"user": ["x"], "item": ["y"]}, {"usr": "user"}, r"--column usr=user: no such meaning; did you mean 'user'"),
        ({"196": [1], "242": [2], "3": [3]}, {}, r"line 1: found '196, 242, 3', expected the names of the columns"),
    ],
)
def test_what_cannot_be_guessed_is_said(columns: dict[str, list[object]], overrides: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        guess(pl.DataFrame(columns), overrides)


@pytest.mark.parametrize(
    ("values", "unit", "milliseconds"),
    [
        ([SECOND], "seconds", [SECOND * 1000]),
        ([SECOND * 1000 + 5], "milliseconds", [SECOND * 1000 + 5]),
        ([SECOND * 1_000_000], "microseconds", [SECOND * 1000]),
        ([1, 2, 3], "order", [1, 2, 3]),
        ([-SECOND], "seconds", [-SECOND * 1000]),
        ([SECOND + 0.25], "seconds", [SECOND * 1000 + 250]),
    ],
)
def test_numbers_as_moments(values: list[float], unit: str, milliseconds: list[int]) -> None:
    column = pl.Series("time", values)
    assert unit_of(column) == unit
    assert in_milliseconds(column).to_list() == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01 00:00:01", 1000),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01 00:01", 60_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31 20:00:00-0400", 0),
        (" 1970-01-01 00:00:00 UTC ", 0),
        ("01/02/1970", None),
        ("", None),
        ("1970-13-01", None),
    ],
)
def test_iso_text_as_moments(text: str, milliseconds: int | None) -> None:
    assert parse_iso(pl.Series("time", [text])).to_list() == [milliseconds]


EVENTS = [
    {"customer": "a", "sku": "x", "when": "2020-01-02T00:00:01", "stars": 4.5, "title": "Pen", "genre": "ink|blue"},
    {"customer": "b", "sku": "y", "when": "2020-01-01T00:00:00", "stars": 2.0, "title": "Ink", "genre": "ink"},
    {"customer": "a", "sku": "y", "when": "2020-01-01T00:00:00", "stars": 1.0, "title": "", "genre": ""},
]


def write(folder: Path, kind: str) -> str:
    path = folder / f"events.{kind}"
    table = pl.DataFrame(EVENTS)
    if kind == "csv":
        table.write_csv(path)
    elif kind == "tsv":
        table.write_csv(path, separator="\t")
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(table.write_csv().encode()))
    elif kind == "parquet":
        table.write_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    elif kind == "sql":
        table.write_parquet(folder / "t.parquet")
        path.write_text(f"SELECT customer, sku, \"when\", stars, title, genre FROM '{folder / 't.parquet'}'")
    else:
        table.write_parquet(folder / "t.parquet")
        return f"duckdb:SELECT * FROM '{folder / 't.parquet'}'"
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "jsonl", "parquet", "sql", "query"])
def test_every_format_gives_the_same_dataset(tmp_path: Path, kind: str) -> None:
    if kind in ("sql", "query"):
        pytest.importorskip("duckdb")
    shown: list[str] = []
    dataset = load(write(tmp_path, kind), shown=shown.append)
    assert dataset.user_ids == ["a", "b"]
    assert dataset.item_ids == ["x", "y"]
    assert dataset.item_rows.tolist() == [1, 0, 1]
    assert dataset.interactions["time"].to_list() == [1577836800000, 1577923201000, 1577836800000]
    assert dataset.interactions["rating"].to_list() == [1.0, 4.5, 2.0]
    assert dataset.titles == ["Pen", "Ink"]
    assert dataset.items["category"].to_list() == [["ink", "blue"], ["ink"]]
    assert dataset.clock == "unix"
    assert len(shown) == 1
    assert "user     = customer" in shown[0]
    assert "dates in ISO form" in shown[0]
    assert any(note.startswith("columns: user = customer") for note in dataset.about.notes)


def test_days_give_the_clock_of_days(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user,item,date\na,x,2020-01-02\na,y,2020-01-01\n")
    dataset = load(tmp_path / "e.csv")
    assert dataset.clock == "day"
    assert dataset.item_rows.tolist() == [1, 0]


def test_without_times_the_rows_are_the_order(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user;item\na;x\na;y\n")
    assert load(tmp_path / "e.csv").clock == "order"


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_bad_moment_is_named_exactly(tmp_path: Path, ending: str) -> None:
    rows = [f"u{i},x,2020-01-01 00:00:{i % 60:02d}" for i in range(5000)]
    rows[4321] = "u9,x,yesterday"
    text = "user,item,time\n" + "\n".join(rows)
    path = tmp_path / f"e.{ending}"
    path.write_bytes(gzip.compress(text.encode()) if ending == "csv.gz" else text.encode())
    with pytest.raises(DataError, match=r"line 4323, column 'time': found 'yesterday', expected a moment"):
        load(path)
    dataset = load(path, skip_bad=1)
    assert dataset.n_interactions == 4999
    assert any("line 4323" in note for note in dataset.about.notes)


def test_a_bad_value_in_json_is_named_exactly(tmp_path: Path) -> None:
    lines = [json.dumps({"user": f"u{i}", "item": i, "rating": 3}) for i in range(1500)]
    lines[1200] = json.dumps({"user": "u", "item": 1, "rating": "five"})
    lines[1300] = '{"user": "u", "item": '
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(DataError, match=r"line 1201, column 'rating': found 'five', expected a number"):
        load(path)
    with pytest.raises(
        DataError, match=r"more than 1 rows cannot be read; the next is .*line 1301: found .*whole record"
    ):
        load(path, skip_bad=1)
    assert load(path, skip_bad=2).n_interactions == 1498


def test_a_bad_moment_in_parquet_names_the_row(tmp_path: Path) -> None:
    table = {"user": ["a", "b", "c"], "item": ["x", "y", "z"], "time": ["2020-01-01", "2020-01-02", "never"]}
    pl.DataFrame(table).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"row 3, column 'time': found 'never', expected a moment"):
        load(tmp_path / "e.parquet")


def test_options_of_reading(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,thing,stars\na,x,5\na,y,1\nb,x,4\n")
    options = {"columns": {"user": "id", "item": "thing"}, "positive": "rating>=4"}
    dataset = load(tmp_path / "e.csv", **options)
    assert dataset.n_interactions == 2
    assert dataset.about.positive == "rating>=4"
    with pytest.raises(ConfigError, match="unknown setting 'min_cuont'; did you mean 'min_count'"):
        load(tmp_path / "e.csv", min_cuont=5)


def test_a_query_that_fails_is_one_sentence() -> None:
    pytest.importorskip("duckdb")
    with pytest.raises(DataError, match="the query cannot be answered") as problem:
        load("duckdb:SELEC nothing")
    assert "\n" not in str(problem.value)
    with pytest.raises(DataError, match="cannot tell which column is the user"):
        load("duckdb:SELECT 1 AS one")


def test_files_that_cannot_be_tables(tmp_path: Path) -> None:
    (tmp_path / "e.xlsx").write_text("")
    with pytest.raises(DataError, match=r"cannot read '\.xlsx'; expected one of \.csv"):
        load(tmp_path / "e.xlsx")
    (tmp_path / "e.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"e\.parquet cannot be read"):
        load(tmp_path / "e.parquet")
    (tmp_path / "e.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no record"):
        load(tmp_path / "e.jsonl")
