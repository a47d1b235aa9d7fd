"""Five questions to a system that reads words: does it follow a wish, and how far?

The benchmark of Mender (Paischer et al. 2025, arXiv 2412.08604). After each event an annotator wrote five sentences.

recommendation   the history and one sentence written after its last event, to find what came next
fine-steering    a history whose next item is i' and a sentence near to i, to find i; i and i' are nearest neighbours
coarse-steering  the same with i' farthest from i
sentiment        a refusal that a negative review caused, and the same turned round, without a history: a success at k
                 is the item among the first k for the wish and not for the refusal
consolidation    the history and all five sentences at once, to find what came next

Each is also asked without words and with the words of another question; ``gain`` is the paired difference. The paper
picks the sentence of ``recommendation`` by the title of the target: that figure is computed too and always marked as an
oracle, while the axis itself picks the sentence that is nearest to the history. What comes after the target is never
read, but for the refusals of ``sentiment``: they are what the review of the target caused.

Of the steering sentences the second nearest leads to i and the third nearest to i', as published. Only positive
sentences steer (``steer_with=all`` lifts that). Shapes: B cases, m questions of an axis, N items, S sentences, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.errors import DataError
from palate.core.protocols import Discerner, FloatArray, Recommender, Sentiment
from palate.core.ragged import IntArray, Ragged
from palate.core.report import Interval, Report
from palate.core.requests import Requests
from palate.core.split import Cases, Split
from palate.data.matrices import request_items
from palate.data.preferences import Preferences, complaints, negative_reviews, steering, unit, write
from palate.evaluation.heading import all_seeds, heading
from palate.evaluation.judging import find
from palate.evaluation.metrics import metric, metrics
from palate.evaluation.protocols import PreferenceAxes
from palate.evaluation.uncertainty import RESAMPLES, intervals, per_user, run_number

AXES = ("recommendation", "fine-steering", "coarse-steering", "sentiment", "consolidation")
STATED, SILENT, SHUFFLED, ORACLE, REFUSED = "stated", "no words", "another's words", "oracle", "refused"
GAIN, EMPTY_GAIN = "gain", "gain by another's words"
RULES = {
    SILENT: "the same questions without words",
    SHUFFLED: "the same questions, each with the words of another",
    ORACLE: "NOT a serving condition: the sentence was picked by the target itself, as in the paper",
    GAIN: "with the words less without them, question by question",
    EMPTY_GAIN: "with another's words less without any",
}
"""The slices of a report."""
_PLACES = (1, 2)
"""Of the sentences that steer, counted from 0: the nearest is left to training."""


@dataclass(frozen=True, eq=False)
class Axis:
    """The questions of one axis: ``cases`` without words, and the words of each condition ``[m]``."""

    name: str
    cases: Cases
    words: Mapping[str, tuple[str, ...]]

    def asked(self, condition: str) -> Cases:
        """As they are asked under a condition."""
        words = self.words.get(condition)
        return self.cases if words is None else replace(
            self.cases, requests=replace(self.cases.requests, words=words)
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Benchmark:
    """All axes of a split, and lines that say how they came about."""

    axes: tuple[Axis, ...]
    notes: tuple[str, ...]


def benchmark(
    split: Split,
    protocol: PreferenceAxes,
    annotator: Discerner,
    sentiment: Sentiment,
    encode: Callable[[Sequence[str]], FloatArray],
    *,
    items: FloatArray,
    wanted: FloatArray,
) -> Benchmark:
    """The questions to the test part. ``items`` ``[N, D]`` are vectors of the items' texts, ``wanted`` those that the
    oracle reads of a target; ``encode`` makes vectors of sentences. Raises ``DataError`` where nothing can be asked."""
    dataset, test = split.dataset, split.test
    before = steps_before(split)
    preferences = Preferences.of(annotator.step_preferences(dataset, np.unique(before[before >= 0])), sentiment)
    if not preferences.texts:
        raise DataError(f"'{dataset.name}' has no words from which {annotator.label} could write what users search for")
    vectors = unit(encode(preferences.texts))
    items, wanted = unit(items), unit(wanted)
    rows = np.where(before >= 0, preferences.written_after(before), -1)
    told = np.flatnonzero(rows >= 0)
    asked = replace(test[told], requests=replace(test[told].requests.leaving_out_history(), words=None))
    of_history = unit(request_items(asked.requests, len(items)) @ items)
    leak_free = preferences.matched(rows[told], vectors, of_history)
    oracle = preferences.matched(rows[told], vectors, wanted[asked.targets])
    every = [" ".join(preferences.texts[place] for place in row) for row in preferences.held[rows[told]]]
    shuffles = [np.random.default_rng([protocol.seed, 3, number]) for number in range(len(AXES))]
    texts = preferences.texts
    axes = [
        Axis(AXES[0], asked, _worded([texts[row] for row in leak_free], shuffles[0])
             | {ORACLE: tuple(texts[row] for row in oracle)})
    ]  # fmt: skip
    allowed = preferences.eligible if protocol.steer_with == "positive" else preferences.held
    pool = np.unique(allowed[np.unique(rows[told])].flat()).astype(np.int64)
    steered, dropped = _steering(
        asked, items, [texts[row] for row in pool], vectors[pool], shuffles[1:3], protocol.seed
    )
    axes += steered
    used = [line for axis in steered for line in axis.words[STATED]]
    axes.append(_sentiment(split, annotator, sentiment, encode, shuffles[3]))
    axes.append(Axis(AXES[4], asked, _worded(every, shuffles[4])))
    notes = (
        f"{len(told):,} of {len(test):,} cases have {annotator.label}'s five sentences before their target; "
        f"{_share(used, split, annotator, sentiment):.0%} of the sentences that steer also stand in the train part; "
        f"{dropped:,} pairs were left out because every drawn history held their item",
    )
    return Benchmark(tuple(axis for axis in axes if len(axis.cases)), notes)


def _steering(
    asked: Cases, items: FloatArray, texts: Sequence[str], vectors: FloatArray,
    shuffles: Sequence[np.random.Generator], seed: int,
) -> tuple[list[Axis], int]:  # fmt: skip
    """Both axes that steer by ``texts`` ``[S]``, and how many pairs were dropped."""
    axes, dropped = [], 0
    for name, farthest, rng in ((AXES[1], False, shuffles[0]), (AXES[2], True, shuffles[1])):
        pairs = steering(
            asked.targets, asked.requests.histories, items, vectors, farthest=farthest, places=_PLACES, seed=seed
        )
        cases = replace(asked[pairs.cases], targets=pairs.targets)
        axes.append(Axis(name, cases, _worded([texts[row] for row in pairs.sentences], rng)))
        dropped += pairs.n_dropped
    return axes, dropped


def steps_before(split: Split) -> IntArray:
    """``[B]`` the event before each test target, by its position in the whole dataset; -1 where the case's history does
    not end with it."""
    dataset, test = split.dataset, split.test
    previous = np.asarray(test.events, dtype=np.int64) - 1
    last = np.maximum(previous, 0)
    histories = test.requests.histories
    held = np.full(len(test), -1, dtype=np.int64)
    some = histories.lengths > 0
    held[some] = histories.values[histories.stops[some] - 1]
    users = dataset.user_rows[np.maximum(test.events, 0)]
    good = (previous >= 0) & (dataset.user_rows[last] == users) & (dataset.item_rows[last] == held)
    return np.where(good, previous, -1)


def _sentiment(
    split: Split, annotator: Discerner, sentiment: Sentiment, encode: Callable[[Sequence[str]], FloatArray],
    rng: np.random.Generator,
) -> Axis:  # fmt: skip
    """What was written after the targets is read here and nowhere else."""
    dataset = split.dataset
    events, said = negative_reviews(dataset, np.unique(split.test.events[split.test.events >= 0]), sentiment)
    preferences = Preferences.of(annotator.step_preferences(dataset, events), sentiment)
    written = [*preferences.texts, *said]
    vectors = unit(encode(written)) if written else np.zeros((0, 1), np.float32)
    n_texts = len(preferences.texts)
    found = complaints(dataset, events, preferences, vectors[:n_texts], vectors[n_texts:])
    n, texts = len(found.events), preferences.texts
    requests = Requests(Ragged.empty(n), user_rows=dataset.user_rows[found.events].astype(np.int64))
    cases = Cases(requests, dataset.item_rows[found.events].astype(np.int64), found.events)
    order = _another(n, rng)
    wishes, refusals = ([texts[row] for row in rows] for rows in (found.wishes, found.refusals))
    words = {STATED: wishes, REFUSED: refusals}
    words |= {SHUFFLED: [wishes[i] for i in order], f"{SHUFFLED} {REFUSED}": [refusals[i] for i in order]}
    return Axis(AXES[3], cases, {condition: tuple(lines) for condition, lines in words.items()})


def _worded(lines: Sequence[str], rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    return {STATED: tuple(lines), SHUFFLED: tuple(lines[row] for row in _another(len(lines), rng))}


def _another(n: int, rng: np.random.Generator) -> IntArray:
    """``[n]`` for each question another one, each once."""
    order = rng.permutation(n)
    found = np.empty(n, dtype=np.int64)
    found[order] = np.roll(order, 1)
    return found


def _share(used: Sequence[str], split: Split, annotator: Discerner, sentiment: Sentiment) -> float:
    """How many of the sentences also stand in the train part."""
    taught = set(write(split.train, annotator, sentiment).texts)
    return sum(text in taught for text in used) / max(len(used), 1)


# -- judging -----------------------------------------------------------------------------------------------------------


def judge_axes(system: Recommender, asked: Benchmark, protocol: PreferenceAxes, *, seed: int = 0) -> pl.DataFrame:
    """One row a question: ``seed``, ``case``, ``user_row``, ``target_row``, ``axis``, ``words``, ``rank``, ``tied``,
    the rank under every other condition, and a column ``axis/metric`` for each of them; null on other axes."""
    names = metrics(protocol.metrics)
    k = max([protocol.k, *(name.k or 0 for name in names)])
    silent: dict[int, tuple[npt.NDArray[np.float64], IntArray]] = {}
    tables, first = [], 0
    for axis in asked.axes:
        found = {}
        for condition in axis.words:
            one = find(system, axis.asked(condition), k, answers=False)
            found[condition] = one.ranks, one.tied
        if axis.name != AXES[3]:  # without words a wish and its refusal are one question
            if id(axis.cases) not in silent:
                one = find(system, axis.cases, k, answers=False)
                silent[id(axis.cases)] = one.ranks, one.tied
            found[SILENT] = silent[id(axis.cases)]
        n = len(axis.cases)
        columns: dict[str, object] = {
            "seed": np.full(n, seed, dtype=np.int32),
            "case": np.arange(first, first + n, dtype=np.int32),
            "user_row": axis.cases.user_rows.astype(np.int64),
            "target_row": axis.cases.targets.astype(np.int32),
            "axis": [axis.name] * n,
            "words": list(axis.words[STATED]),
            "rank": found[STATED][0],
            "tied": found[STATED][1],
        }
        columns |= {f"rank {condition}": ranks for condition, (ranks, _) in found.items() if condition != STATED}
        for name in names:
            columns |= _values(axis.name, name.name, found)
        tables.append(pl.DataFrame(columns))
        first += n
    return pl.concat(tables, how="diagonal")


def _values(axis: str, name: str, found: Mapping[str, tuple[npt.NDArray[np.float64], IntArray]]) -> dict[str, object]:
    """The columns of one metric on one axis."""
    value = {condition: metric(name).of_ranks(*place) for condition, place in found.items()}
    if axis == AXES[3]:
        if metric(name).kind != "recall":
            return {}  # among the first k or not: nothing else is defined
        # 1 where the wish finds the item and the refusal does not, 0 else; ties share their places, here too.
        value = {
            condition: np.maximum(value[condition] - value[refused], 0.0)
            for condition, refused in ((STATED, REFUSED), (SHUFFLED, f"{SHUFFLED} {REFUSED}"))
        }
    if SILENT in value:
        value |= {GAIN: value[STATED] - value[SILENT], EMPTY_GAIN: value[SHUFFLED] - value[SILENT]}
    return {column(axis, name, condition): values for condition, values in value.items()}


def column(axis: str, name: str, condition: str = STATED) -> str:
    """Under which name values stand: ``recommendation/recall@10``, ``gain: recommendation/recall@10``."""
    return f"{axis}/{name}" if condition == STATED else f"{condition}: {axis}/{name}"


# -- reporting ---------------------------------------------------------------------------------------------------------


def make_axes_report(
    cases: pl.DataFrame | Iterable[pl.DataFrame],
    split: Split,
    protocol: PreferenceAxes,
    *,
    name: str,
    system: str,
    pretrained: str = "no",
    cost: Mapping[str, float] | None = None,
    marks: Sequence[str] = (),
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Report:
    """The figures of one run from ``judge_axes``: one table, or one a seed. ``metrics`` are the five axes, ``slices``
    the other conditions."""
    together = all_seeds(cases, name, "answered no case: the split has nothing to ask")
    wanted = [
        (condition, f"{axis}/{one.name}", column(axis, one.name, condition))
        for condition in (STATED, *RULES) for axis in AXES for one in metrics(protocol.metrics)
        if column(axis, one.name, condition) in together.columns
    ]  # fmt: skip
    per_seed = []
    for _, table in sorted(together.group_by("seed"), key=lambda group: group[0]):
        values = table.select([where for _, _, where in wanted]).cast(pl.Float64).fill_null(float("nan")).to_numpy()
        per_seed.append(per_user(table["user_row"].to_numpy(), values)[1])
    spans = intervals(per_seed, resamples=resamples, run=run_number(name))
    figures: dict[str, dict[str, Interval]] = {}
    for (condition, what, _), span in zip(wanted, spans, strict=True):
        figures.setdefault(condition, {})[what] = span
    return Report(
        **heading(together, split, protocol, marks),
        name=name, system=system, pretrained=pretrained, metrics=figures.pop(STATED), slices=figures,
        slice_rules={condition: rule for condition, rule in RULES.items() if condition in figures},
        cost=dict(cost or {}), notes=tuple(notes),
    )  # fmt: skip
