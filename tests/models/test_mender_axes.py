"""Mender on the five axes: words steer where the history says otherwise, silence does not, refusals are learnt.

Of four readers in five histories say something, too (``wishful(follows=…)``), so that silence costs the first axis
only a part. Five of twelve items are left to answer after a history of seven: by lot one in five is right.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from palate.annotation.extractive import Extractive
from palate.annotation.sentiment import Lexicon
from palate.backbones.tf_idf import TfIdf
from palate.core.report import Report
from palate.core.run import Run
from palate.core.split import Split
from palate.data.split import leave_one_out
from palate.evaluation.axes import AXES, ORACLE, SILENT, STATED, Benchmark, benchmark, judge_axes
from palate.evaluation.axes import make_axes_report as make_report
from palate.evaluation.protocols import PreferenceAxes
from tests.models.test_mender import made
from tests.models.wishful_logs import THEMES, wishful

PROTOCOL = PreferenceAxes(match="text", metrics=("recall@1",))
CHANCE = 1 / 5


class Signed(TfIdf):
    """Counted words, of which none is a refusal's, and a column that says whether a text refuses."""

    @property
    def version(self) -> str:
        return f"{super().version} signed"

    def encode(self, texts: Any) -> Any:
        signs = [[float(text.split()[0] in ("No", "Avoid", "Exclude"))] for text in texts]
        return np.hstack([super().encode(texts), np.array(signs, dtype=np.float32)])


def fitted(split: Split, **settings: Any) -> Any:
    system = made("mender-emb", **settings)
    system.encoder = Signed()
    return system.fit(split.train, Run(max_steps=250))


def told(system: Any, split: Split, asked: Benchmark) -> Report:
    return make_report([judge_axes(system, asked, PROTOCOL)], split, PROTOCOL, name="x", system="mender-emb")


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(wishful(120, follows=0.8))


@pytest.fixture(scope="module")
def asked(split: Split) -> Benchmark:
    encoder = TfIdf().fit([f"A tale of {theme}." for theme in THEMES])
    items = encoder.encode(split.dataset.items["text"].to_list())
    return benchmark(split, PROTOCOL, Extractive(), Lexicon(), encoder.encode, items=items, wanted=items)


@pytest.fixture(scope="module")
def practised(split: Split) -> Any:
    """Taught with examples that steer and with complaints beside the events."""
    return fitted(split, steered=0.3, complained=0.5)


@pytest.fixture(scope="module")
def report(practised: Any, split: Split, asked: Benchmark) -> Report:
    return told(practised, split, asked)


def test_words_alone_change_most_first_answers_and_silence_falls_to_chance(
    practised: Any, report: Report, asked: Benchmark
) -> None:
    axis = asked.axes[AXES.index("coarse-steering")]
    requests = axis.cases.requests
    unmet = [
        next(row for row in range(len(THEMES)) if row != target and row not in history)
        for target, history in zip(axis.cases.targets.tolist(), requests.histories, strict=True)
    ]
    other = replace(requests, words=tuple(f"Find {THEMES[row]}." for row in unmet))
    own = replace(requests, words=axis.words[STATED])
    first = [practised.recommend(one, 1).item_rows[:, 0] for one in (own, other)]
    assert len(unmet) >= 10
    assert (first[0] != first[1]).mean() > 0.8, "nothing but the words was changed"
    assert (first[1] == unmet).mean() > 0.8
    silent = report.slices[SILENT]
    for name in ("fine-steering/recall@1", "coarse-steering/recall@1"):
        assert report.metrics[name].value > 0.85
        assert silent[name].value < CHANCE + 0.2, "the history leads elsewhere"
    with_words, without = (report.slices[c]["recommendation/recall@1"].value for c in (ORACLE, SILENT))
    assert with_words > 0.8
    steering = np.mean([silent[f"{axis}/recall@1"].value for axis in ("fine-steering", "coarse-steering")])
    assert steering + 0.1 < without < with_words - 0.1, "it falls, and only in part: the history still says something"


def test_five_sentences_are_harder_than_the_right_one(report: Report) -> None:
    """The paper's first axis, whose sentence the target picked. The sentence that is picked without the target is often
    a wrong one of the five, and the axis of all five may stand above it."""
    all_five = report.metrics["consolidation/recall@1"].value
    assert all_five <= report.slices[ORACLE]["recommendation/recall@1"].value


def test_only_who_learnt_from_complaints_tells_a_refusal_from_a_wish(
    report: Report, split: Split, asked: Benchmark
) -> None:
    plain = told(fitted(split), split, asked).metrics["sentiment/recall@1"]
    learnt = report.metrics["sentiment/recall@1"]
    assert plain.n == learnt.n == len(THEMES)
    assert learnt.value > plain.value + 0.25
    assert learnt.low > plain.value


def test_examples_that_steer_and_complaints_stand_beside_the_events(split: Split) -> None:
    """As many as their shares say, and what the loss reads of them: complaints without a history, half against."""
    system = made("mender-emb", steered=0.5, complained=0.25)
    system.encoder = Signed()
    system.prepare(split.train, Run())
    lessons = system._taught[1]
    (steered, half), (complained, quarter) = lessons.others
    assert (half, quarter) == (0.5, 0.25)
    assert not steered.against.any()
    assert (steered.histories.lengths > 0).all()
    held = steered.histories
    assert not (held.flat() == steered.targets[held.row_numbers()]).any()
    assert complained.histories.lengths.sum() == 0
    assert complained.against.mean() == 0.5
    texts = pl.Series(lessons.preferences.texts)
    refused = texts.gather(complained.words).str.contains("^(No|Avoid|Exclude) ").to_numpy()
    assert np.array_equal(refused, complained.against)
    batches = system.batches(split.train, lessons, 0)
    assert batches.n == len(lessons.main) + round(0.5 * len(lessons.main)) + round(0.25 * len(lessons.main))
