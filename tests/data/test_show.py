"""``palate data show`` and ``convert``: numbers by hand, and the real command line in a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.data.build import dataset_from
from palate.data.folder import read_folder
from palate.data.summary import gini, repeated, summarise

DAY = 86_400_000


def log() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": ["a", "a", "a", "b", "b", "c"],
            "item": ["x", "y", "x", "x", "y", "x"],
            "time": [0, DAY, 2 * DAY, 3 * DAY, 4 * DAY, 5 * DAY],
        }
    )


def test_numbers_by_hand() -> None:
    items = pl.DataFrame({"item": ["x", "y", "z"], "title": ["X", None, "Z"]})
    summary = summarise(dataset_from("t", log(), items=items, clock="day"))
    assert (summary.users, summary.items, summary.events) == (3, 3, 6)
    # Five distinct pairs of nine; user a ends with a repeat, b does not, c has one event only.
    assert summary.density == pytest.approx(5 / 9)
    assert summary.repeated_targets == 0.5
    assert summary.repeated_events == pytest.approx(1 / 6)
    assert (summary.first, summary.last) == ("1970-01-01", "1970-01-06")
    assert summary.per_user == {"least": 1, "25 %": 1.5, "median": 2, "75 %": 2.5, "95 %": 2.9, "most": 3, "mean": 2}
    assert summary.no_events == 1
    assert summary.popular == [("X", 4), ("item y", 2), ("Z", 0)]
    assert summary.filled["items.title"] == pytest.approx(2 / 3)
    assert "50% of the users' last events are items they met before" in summary.warnings[0]


@pytest.mark.parametrize(
    ("counts", "expected"), [([1, 1, 1], 0.0), ([0, 0, 3], 2 / 3), ([1, 3], 0.25), ([], 0.0), ([0, 0], 0.0)]
)
def test_gini(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts, dtype=np.int64)) == pytest.approx(expected)


def test_warnings_about_time() -> None:
    assert "only the order" in summarise(dataset_from("t", log().drop("time"))).warnings[-1]
    holes = log().with_columns(time=pl.Series([None, 1, 2, 3, 4, 5]))
    assert "1 events have no time" in summarise(dataset_from("t", holes)).warnings[-1]


def test_without_repeats_there_is_no_warning() -> None:
    dataset = dataset_from("t", log(), duplicates="first")
    assert repeated(dataset) == (0.0, 0.0)
    assert summarise(dataset).warnings == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = "import sys; from palate.cli.main import run; sys.exit(run(sys.argv[1:]))"
    environment = {**os.environ, "COLUMNS": "100", "POLARS_MAX_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    rows = log().rename({"user": "customer_id", "item": "thing", "time": "when"})
    rows.with_columns(pl.col("when") + 1_600_000_000_000).write_csv(path)
    return path


def test_show_says_how_it_reads_what_is_in_it_and_warns(events: Path) -> None:
    done = run("data", "show", str(events), "--column", "item=thing")
    assert done.returncode == 0, done.stderr
    assert "user     = customer_id  guessed" in done.stderr
    assert "item     = thing        chosen" in done.stderr
    assert "milliseconds since 1970" in done.stderr
    assert "2020-09-13" in done.stdout
    assert "Gini" in done.stdout
    assert "50% of the users' last events" in " ".join(done.stdout.split())


def test_show_as_json(events: Path) -> None:
    done = run("data", "show", str(events), "--column", "item=thing", "--json")
    said = json.loads(done.stdout)
    assert said["schema"] == "palate.data/1"
    assert (said["users"], said["items"], said["events"]) == (3, 2, 6)


def test_convert_and_read_back(events: Path, tmp_path: Path) -> None:
    options = ["--column", "item=thing", "--duplicates", "last", "--min-count", "2"]
    done = run("data", "convert", str(events), str(tmp_path / "out"), *options)
    assert done.returncode == 0, done.stderr
    dataset = read_folder(tmp_path / "out")
    assert dataset.n_interactions == 4
    assert dataset.about.notes[-1] == "k-core of 2"
    assert "4 events of 2 users with 2 items" in done.stdout


def test_bad_rows_are_one_line_or_left_out_and_listed(events: Path) -> None:
    events.write_text(events.read_text() + "a,x,soon\n")
    done = run("data", "show", str(events), "--column", "item=thing")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"palate: {events}, line 8, column 'when': found 'soon', expected a moment")
    assert "Traceback" not in done.stderr
    done = run("data", "show", str(events), "--column", "item=thing", "--skip-bad", "1")
    assert done.returncode == 0
    assert "left out" in done.stderr
    assert "line 8" in done.stderr


def test_misuse_is_two_and_a_bad_column_is_one_sentence(events: Path) -> None:
    assert run("data", "show").returncode == 2
    done = run("data", "show", str(events), "--column", "thing")
    assert done.returncode == 1
    assert "write MEANING=COLUMN" in done.stderr
