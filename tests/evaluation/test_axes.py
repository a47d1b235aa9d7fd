"""The five axes: who follows words is told from who does not, and no question holds its own answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.annotation.extractive import Extractive
from palate.annotation.sentiment import Lexicon
from palate.backbones.tf_idf import TfIdf
from palate.core.protocols import FloatArray, ScoresAll
from palate.core.report import Report
from palate.core.requests import Requests
from palate.core.split import Split
from palate.data.split import leave_one_out
from palate.evaluation.axes import (
    AXES,
    EMPTY_GAIN,
    GAIN,
    ORACLE,
    SHUFFLED,
    SILENT,
    STATED,
    Benchmark,
    benchmark,
    judge_axes,
    make_axes_report,
    steps_before,
)  # fmt: skip
from palate.evaluation.comparison import compare
from palate.evaluation.protocols import PreferenceAxes
from palate.evaluation.reports import read_report, to_json, write_report
from palate.evaluation.tables import axes_tables, axis_metric, of_axes
from tests.models.wishful_logs import THEMES, wishful

PROTOCOL = PreferenceAxes()


class Follower(ScoresAll):
    """Answers the themes that the words name, those after a refusal last; without words by item row. ``deaf`` hears
    nothing."""

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        scores = np.tile(-np.arange(len(THEMES), dtype=np.float32), (len(requests), 1))
        for row, words in enumerate(requests.words or ()):
            for sentence in words.split(".") if not self.deaf else ():
                for item, theme in enumerate(THEMES):
                    if theme in sentence:
                        scores[row, item] = -99.0 if sentence.split()[0] in ("Avoid", "No", "Exclude") else 9.0
        yield scores


def split_of(titled: bool = False) -> Split:
    log = wishful(80)
    if titled:
        log = replace(log, items=log.items.with_columns(pl.Series("title", [f"Book of {theme}" for theme in THEMES])))
    return leave_one_out(log)


def asked(split: Split, protocol: PreferenceAxes = PROTOCOL) -> Benchmark:
    encoder = TfIdf().fit([f"A tale of {theme}." for theme in THEMES])
    items, titles = (encoder.encode(split.dataset.items[name].to_list()) for name in ("text", "title"))
    wanted = titles if protocol.match == "title" else items
    return benchmark(split, protocol, Extractive(), Lexicon(), encoder.encode, items=items, wanted=wanted)


@pytest.fixture(scope="module")
def split() -> Split:
    return split_of()


@pytest.fixture(scope="module")
def questions(split: Split) -> Benchmark:
    return asked(split, PreferenceAxes(match="text"))


def report(system: Follower, split: Split, questions: Benchmark, name: str = "run") -> Report:
    tables = [judge_axes(system, questions, PROTOCOL, seed=seed) for seed in (0, 1)]
    return make_axes_report(tables, split, PROTOCOL, name=name, system="text-cosine", notes=questions.notes)


def test_questions_are_of_the_test_part_and_hold_no_answer(split: Split, questions: Benchmark) -> None:
    assert tuple(axis.name for axis in questions.axes) == AXES
    recommend, fine, coarse, sentiment, together = questions.axes
    assert len(recommend.cases) == len(split.test)
    assert np.array_equal(recommend.cases.targets, split.test.targets)
    assert (steps_before(split) == split.test.events - 1).all()
    for axis in (fine, coarse):
        requests = axis.cases.requests
        assert len(axis.cases) > 8
        owners = split.test.user_rows.searchsorted(axis.cases.user_rows)
        assert (split.test.targets[owners] != axis.cases.targets).all(), "the history's own next item is another"
        held = requests.histories
        assert not (held.flat() == axis.cases.targets[held.row_numbers()]).any()
    assert sentiment.cases.requests.histories.lengths.sum() == 0
    assert sentiment.cases.requests.leave_out is None
    for refusal, wish in zip(sentiment.words["refused"], sentiment.words[STATED], strict=True):
        assert refusal.split()[0] in ("Avoid", "No", "Exclude")
        assert refusal.split(" ", 1)[1] == wish.replace("Search for", "Find").split(" ", 1)[1]
    assert len(set(sentiment.words["refused"])) == len(sentiment.cases) > 8, "one of each refusal"
    assert all(line.count(".") == 5 for line in together.words[STATED])
    for axis in questions.axes:
        assert sorted(axis.words[SHUFFLED]) == sorted(axis.words[STATED])


def test_what_is_written_after_the_target_is_not_read(split: Split, questions: Benchmark) -> None:
    events = np.isin(np.arange(split.dataset.n_interactions), split.test.events)
    other = pl.when(pl.Series(events)).then(pl.lit("Next I hope to find wolves. Terrible robots."))
    table = split.dataset.interactions.with_columns(other.otherwise(pl.col("review")).alias("review"))
    changed = asked(leave_one_out(replace(split.dataset, interactions=table)), PreferenceAxes(match="text"))
    for before, after in zip(questions.axes, changed.axes, strict=True):
        same = before.name != "sentiment"
        assert (before.words == after.words) == same, before.name


def test_who_follows_words_is_told_from_who_does_not(split: Split, questions: Benchmark) -> None:
    found, deaf = report(Follower(), split, questions), report(Follower(deaf=True), split, questions, "deaf")
    for axis in ("fine-steering", "coarse-steering"):
        assert found.metrics[f"{axis}/mrr@10"].value > 0.9
        gain, none = found.slices[GAIN][f"{axis}/mrr@10"], deaf.slices[GAIN][f"{axis}/mrr@10"]
        assert gain.low > 0
        assert none.value == none.low == none.high == 0
    assert found.metrics["sentiment/recall@5"].value > 0.9
    assert deaf.metrics["sentiment/recall@10"].value == 0, "an order that never changes follows no sentiment"
    assert "sentiment/ndcg@10" not in found.metrics
    assert "sentiment/recall@10" not in found.slices[SILENT]
    assert found.marks == ()
    assert "five sentences" in found.notes[0]
    assert ORACLE in found.slice_rules
    assert set(found.slices[ORACLE]) == {name for name in found.metrics if name.startswith("recommendation/")}


def test_success_of_sentiment_is_for_the_wish_and_against_the_refusal(questions: Benchmark) -> None:
    cases = judge_axes(Follower(), questions, PROTOCOL).filter(pl.col("axis") == "sentiment")
    wish, refusal = cases["rank"].to_numpy() <= 5, cases["rank refused"].to_numpy() <= 5
    assert cases["sentiment/recall@5"].to_list() == (wish & ~refusal).astype(float).tolist()
    assert cases["sentiment/recall@5"].mean() <= min(wish.mean(), 1 - refusal.mean())


def test_the_oracle_is_above_what_is_free_of_the_target() -> None:
    split = split_of(titled=True)
    found = report(Follower(), split, asked(split))
    name = "recommendation/ndcg@10"
    assert found.slices[ORACLE][name].value > found.metrics[name].value + 0.05
    assert found.slices[ORACLE][name].low > found.metrics[name].value


def test_reports_are_kept_compared_and_shown(split: Split, questions: Benchmark, tmp_path: Path) -> None:
    one, other = (report(Follower(deaf), split, questions, name) for deaf, name in ((False, "a"), (True, "b")))
    write_report(one, tmp_path)
    again = read_report(tmp_path)
    assert again.metrics == one.metrics
    assert again.cases.equals(one.cases)
    found = compare([one, other])
    assert found.between("a", "b", "fine-steering/mrr@10").winner == "a"
    assert np.isfinite(found.between("a", "b", "sentiment/recall@5").difference)
    plain = json.loads(json.dumps(to_json([one, other], found)))
    assert plain["runs"][0]["slices"][GAIN]["fine-steering/mrr@10"]["low"] > 0
    assert of_axes([one])
    said = printed([again, other], found, width=80)
    rows = [line.split()[0].strip(",") for line in said.splitlines() if line.startswith(tuple(AXES))]
    assert rows[:6] == [*AXES, AXES[0]], "as the paper has them, the oracle's last, also where they were read again"
    last = again.slices[EMPTY_GAIN][f"fine-steering/{axis_metric([again], 'recall@10')}"]
    low, high = (f"{end:.3f}".replace("0.", ".", 1) for end in (last.low, last.high))
    assert f"{low}–{high}" in said, "the last column is whole"


def printed(reports: Sequence[Report], comparisons: object, width: int) -> str:
    from rich.console import Console

    console = Console(width=width, record=True, file=StringIO())
    console.print(axes_tables(reports, comparisons))  # type: ignore[arg-type]
    return console.export_text()
