"""ULMRec: the index decides what comes next, one forward a prompt, honest figures over the catalogue, no leaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from palate.backbones.nano import Nano, NanoConfig
from palate.backbones.text_model import TextModel
from palate.backbones.tf_idf import TfIdf
from palate.core.config import Config, Part, override
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.protocols import Judge, ReRanks, ScoresAll
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.split import Cases, Split
from palate.data.lettered import LetteredBatch, LetteredBatches, lettered
from palate.data.pairs import Unmet
from palate.evaluation.judging import judge_cases
from palate.evaluation.protocols import FullRanking
from palate.evaluation.reports import make_report
from palate.models.reranking import ulmrec
from palate.models.reranking.ulmrec import ULMRec, ULMRecConfig
from palate.parts.lettered import Script, letters_of, written
from palate.parts.prompting import read_packed
from palate.systems import component
from palate.tokenizers.user_index import UserIndex
from tests.models.reader_logs import COLOURS, N_ITEMS, N_OF_COLOUR, Witness, colour_of, coloured_readers, item_of

NANO = {"width": 32, "heads": 2, "layers": 2, "forward_width": 64, "length": 512, "steps": 0, "vocabulary": 700}
SIX = (8, 12, 16, 20, 0, 9)


class InOrder(ScoresAll):
    """Retrieves items by their rows, or by ``best`` first; remembers who fitted it."""

    config = Config()

    def __init__(self, best: tuple[int, ...] = ()) -> None:
        self.scores = -np.arange(N_ITEMS, dtype=np.float32)
        self.scores[list(best)] += 100
        self.taught: Dataset | None = None

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> InOrder:
        self.taught = train
        return self

    def score_blocks(self, requests: Requests) -> Iterator[np.ndarray]:
        yield np.repeat(self.scores[None], len(requests), axis=0)

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> InOrder:
        return cls()


def system(**settings: Any) -> ULMRec:
    config = override(ulmrec.tiny(), {
        "backbone": Part(name="nano", settings=NANO).model_dump(), "candidates": 6, "length": 4,
        "title_tokens": 4, "max_tokens": 400, "batch_size": 64, "prefixes": 1, "ratio": 0.9, "trust": 0.0,
        "codes": "tokens", "alignment": ["preference"], "training.epochs": 36, "training.learning_rate": 5e-3,
        "training.judge_every": 36, **settings,
    })  # fmt: skip
    named = UserIndex(override(component("user_index", config.user_index).config, {
        "size": 8, "training.epochs": 20, "training.judge_every": 20,
    }), TfIdf())  # fmt: skip
    return ULMRec(
        config, retriever=InOrder(SIX), user_index=named,
        backbone=component("backbone", config.backbone), annotator=Witness(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def train() -> Dataset:
    return coloured_readers()


@pytest.fixture(scope="module")
def fitted(train: Dataset) -> ULMRec:
    return system().fit(train, Run())


# -- what the index is worth -------------------------------------------------------------------------------------------


def test_the_index_tells_the_preference_and_anothers_index_anothers(train: Dataset, fitted: ULMRec) -> None:
    users, lm, index = np.arange(50), fitted.backbone, fitted.user_index
    said = lm.read([f" Likes {COLOURS[colour_of(int(user))]}." for user in users])

    def right(numbers: np.ndarray) -> float:
        ask, answer = fitted.script.preferred(fitted._read_indexes(index.spelled(numbers)), said)
        with torch.no_grad():
            states, first = read_packed(lm, ask.joined(answer), "cpu")
            begun = first + ask.lengths - 1
            told = [
                lm.logits(states[at : at + n]).argmax(1).tolist() for at, n in zip(begun, answer.lengths, strict=True)
            ]
        return float(np.mean([one == row.tolist() for one, row in zip(told, answer, strict=True)]))

    assert right(index.numbers[users]) > 0.9
    assert right(np.roll(index.numbers, 1, axis=0)[users]) < 0.3, "the next user likes another colour"


def test_anothers_index_ranks_worse_and_without_one_nobody_can_tell(
    train: Dataset, fitted: ULMRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of readers with one history, each asked about the own colour. Letters are answered by what the model tells of
    the index that stands in each prompt, not by the model's own letters: those take the longer test below."""
    lm, script, index = fitted.backbone, fitted.script, fitted.user_index

    def by_preference(prompts: Ragged, counts: np.ndarray) -> np.ndarray:
        texts, told = lm.spell(prompts), []
        read = lm.read([text.rpartition("User index:")[2].partition("\n")[0] for text in texts], inside=True)
        for colour in COLOURS:
            ask, answer = script.preferred(read, lm.read([f" Likes {colour}."] * len(texts)))
            with torch.no_grad():
                states, first = read_packed(lm, ask.joined(answer), "cpu")
                said = lm.logits(states).log_softmax(1)
            begun = first + ask.lengths - 1
            told.append([sum(float(said[at + k, token]) for k, token in enumerate(row.tolist()))
                         for at, row in zip(begun, answer, strict=True)])  # fmt: skip
        found = np.full((len(texts), len(script.letters)), -np.inf, dtype=np.float32)
        for row, text in enumerate(texts):
            shown = re.findall(r"\([A-Z]\) (\w+)", text.rpartition("Candidates:")[2])
            assert len(shown) == counts[row]
            found[row, : len(shown)] = [told[COLOURS.index(one)][row] if one in COLOURS else -1e3 for one in shown]
        return found

    users = np.arange(train.n_users)
    targets = np.array([item_of(colour_of(int(user)), 0) for user in users])
    cases = Cases(Requests.of([[1, 2]] * len(users), user_rows=users), targets, users)

    def ndcg(numbers: np.ndarray) -> float:
        monkeypatch.setattr(index, "_numbers", numbers)
        table = judge_cases(fitted, cases, FullRanking(metrics=("ndcg@10",)), train=train)
        return float(table["ndcg@10"].mean())  # type: ignore[arg-type]

    monkeypatch.setattr(fitted, "_answered", by_preference)
    own = index.numbers
    same_for_all = float(np.mean(1 / np.log2(np.arange(2, 2 + len(COLOURS)))))
    """The most that anybody can reach who sees the same of all: one order, each colour as often at each place."""
    assert ndcg(own) > 0.9 > same_for_all
    assert ndcg(np.roll(own, 1, axis=0)) < same_for_all, "the next user likes another colour"
    assert ndcg(np.full_like(own, -1)) <= same_for_all + 1e-6


@pytest.mark.slow
def test_letters_follow_the_own_index_and_neither_anothers_nor_none() -> None:
    """Of two lettered titles, the own colour's and another's, about readers with one history: only the index tells.
    A nano learns it late and with alignment tasks: after 80 epochs it answers by lot."""
    train, epochs = coloured_readers(256), {"training.epochs": 250, "training.judge_every": 250}
    made = system(candidates=2, ratio=0.5, **epochs, **{"training.learning_rate": 2e-3}).fit(train, Run())
    rng, users = np.random.default_rng(5), np.tile(np.arange(256), 4)
    colours = np.array([colour_of(int(user)) for user in users])
    pairs = np.stack([item_of(0, 0) + N_OF_COLOUR * of + rng.integers(N_OF_COLOUR, size=len(users))
                      for of in (colours, (colours + rng.integers(1, 4, len(users))) % 4)], axis=1)  # fmt: skip
    place = rng.integers(2, size=len(users))
    shown = np.take_along_axis(pairs, np.stack([place, 1 - place], axis=1), axis=1)

    def right(numbers: np.ndarray) -> float:
        index = made._read_indexes(made.user_index.spelled(numbers[users]))
        prompts = made.script.asked(index, Ragged.of([[1, 2]] * len(users)), Ragged.of(shown.tolist()))
        with torch.no_grad():
            return float((made._answered(prompts, np.full(len(users), 2))[:, :2].argmax(1) == place).mean())

    numbers, spread = made.user_index.numbers, 4 * 0.5 / len(users) ** 0.5
    assert right(numbers) > 0.85
    assert right(np.roll(numbers, 1, axis=0)) < 0.5 + spread / 2, "the next user likes another colour"
    assert abs(right(np.full_like(numbers, -1)) - 0.5) < spread


def alone(lm: TextModel[Any], tokens: np.ndarray) -> torch.Tensor:
    """``[S, V]`` log-probabilities after each token of one prompt by itself."""
    ids, mask = lm.padded(Ragged.of([tokens.tolist()]))
    with torch.no_grad():
        return lm.logits(lm.states(lm.embed(ids), mask)[0])


def test_the_loss_is_that_of_the_letters_and_in_its_share_of_the_words(train: Dataset, fitted: ULMRec) -> None:
    """Of each prompt by itself: the chance of the target's letter, of each token that is told."""
    lm, script, settings = fitted.backbone, fitted.script, fitted.config
    indexes = fitted._read_indexes(fitted.user_index.spelled(fitted.user_index.numbers))
    liked = lm.read([f" Likes {COLOURS[colour_of(user)]}." for user in range(train.n_users)])
    candidates, users = Ragged.of([[3, 9, 12], [1, 8, 4, 13, 20]]), np.array([5, 2])
    lessons = (np.array([4, 7]), np.array([1]), np.array([6, 0, 3]))
    histories = Ragged.of([[0, 1], [2]])
    asked = script.asked(indexes[users], histories, candidates)
    letters = [
        -alone(lm, row)[-1, script.letters[:n]].log_softmax(0)
        for row, n in zip(asked, candidates.lengths.tolist(), strict=True)
    ]
    told = [script.preferred(indexes[lessons[0]], liked[lessons[0]]),
            script.named(indexes[lessons[1]], train.histories[lessons[1]]),
            script.recalled(indexes[lessons[2]], train.histories[lessons[2]])]  # fmt: skip
    words = []
    for ask, answer in ((one, other) for pair in told for one, other in zip(*pair, strict=True)):
        said = alone(lm, np.concatenate([ask, answer])).log_softmax(1)[len(ask) - 1 : -1]
        words += [-said[at, token] for at, token in enumerate(answer.tolist())]
    found = []
    try:
        fitted.config = settings.model_copy(update={"alignment": ("preference", "index", "history"), "ratio": 0.3})
        for targets in ([0, 0], [2, 4], [1, 0], [0, 1]):
            batch = LetteredBatch(histories, users, candidates, np.array(targets), lessons)
            with torch.no_grad():
                found.append(float(fitted.loss(batch, train.histories, indexes, liked)))
            by_hand = 0.35 * (letters[0][targets[0]] + letters[1][targets[1]]) + 0.3 * torch.stack(words).mean()
            assert found[-1] == pytest.approx(float(by_hand), abs=1e-5)
    finally:
        fitted.config = settings
    assert min(np.diff(np.sort(found))) > 5e-5, "each of these targets is another loss"


def test_letters_alone_teach_to_pick_the_target(train: Dataset) -> None:
    """Of two candidates in an order that was not taught; by chance half of them would be right."""
    made = system(candidates=2, batch_size=32, ratio=0.0, **{"training.epochs": 60, "training.judge_every": 60})
    made.fit(train, Run())
    asking = LetteredBatches(train, [], candidates=2, length=4, batch_size=128, ratio=0.0, prefixes=None, seed=77)
    right = []
    for batch in (*asking.epoch(0), *asking.epoch(1)):
        index = made._read_indexes(made.user_index.spelled(made.user_index.numbers[batch.users]))
        with torch.no_grad():
            said = made._answered(made.script.asked(index, batch.histories, batch.candidates), batch.candidates.lengths)
        right += (said.argmax(1) == batch.targets).tolist()
    assert np.mean(right) > 0.5 + 4 * 0.5 / len(right) ** 0.5


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lm(train: Dataset) -> TextModel[Any]:
    nano = Nano(NanoConfig(**{**NANO, "steps": 0}))
    return nano.prepare(written(4, train.titles), Run())


def script_of(lm: TextModel[Any], train: Dataset, **settings: int) -> Script:
    settings = {"candidates": 5, "length": 4, "title_tokens": 6, "index_tokens": 20, "max_tokens": 400, **settings}
    return Script.of(lm, train.titles, **settings)  # type: ignore[arg-type]


def test_a_prompt_reads_as_it_should(lm: TextModel[Any], train: Dataset) -> None:
    script = script_of(lm, train)
    index = lm.read([" <a_1> <b_2>"])
    prompt = lm.spell(script.asked(index, Ragged.of([[5, 0, 1, 2, 9]]), Ragged.of([[3, 23, 10]])))[0]
    assert prompt.endswith(
        "\nUser index: <a_1> <b_2>\nHistory: (1) plain 0 (2) plain 1 (3) plain 2 (4) red 1"
        "\nCandidates: (A) plain 3 (B) amber 3 (C) red 2\nAnswer: ("
    )
    ask, answer = script.named(index, Ragged.of([[8]]))
    assert lm.spell(ask)[0].endswith("\nHistory: (1) red 0\nUser index:")
    assert lm.spell(answer) == [" <a_1> <b_2>"]
    ask, answer = script.recalled(index, Ragged.of([[8]]))
    assert lm.spell(ask)[0].endswith(" <a_1> <b_2>\nHistory:")
    assert lm.spell(answer) == [" (1) red 0"]


def test_a_long_history_loses_its_oldest_items_and_the_index_nothing(lm: TextModel[Any], train: Dataset) -> None:
    index, long = lm.read([" <a_1> <b_2>"]), Ragged.of([[8, 9, 10, 11]])
    whole = script_of(lm, train).asked(index, long, Ragged.of([[0, 1, 2, 3, 4]]))
    room = int(whole.lengths[0]) - 1
    tight = replace(script_of(lm, train), max_tokens=room)
    shorter = tight.asked(index, long, Ragged.of([[0, 1, 2, 3, 4]]))
    assert shorter.lengths[0] <= room
    said = lm.spell(shorter)[0]
    assert "<a_1> <b_2>\nHistory: (1) red 1 (2) red 2 (3) red 3\nCandidates: (A) plain 0" in said
    with pytest.raises(ConfigError, match=r"max_tokens=90 does not hold 5 candidates and an item of the history"):
        script_of(lm, train, max_tokens=90)


def test_letters_are_the_tokens_of_the_list_and_single(lm: TextModel[Any], train: Dataset) -> None:
    script = script_of(lm, train)
    tokens = script.asked(lm.read([" x"]), Ragged.of([[0]]), Ragged.of([[1, 2, 3, 4, 5]])).row(0).tolist()
    assert all(letter in tokens for letter in script.letters.tolist())

    class Merging(Nano):
        """Reads a bracket and a letter as one."""

        def read(self, texts: Any, max_tokens: int | None = None, *, inside: bool = False) -> Ragged:
            return Ragged.of([[7] for _ in texts])

    with pytest.raises(ConfigError, match="does not read the letter A of '\\(A' as one token"):
        letters_of(Merging(NanoConfig(**NANO)), 5)


def test_letters_are_scored_alike_whatever_stands_beside(train: Dataset, fitted: ULMRec) -> None:
    """One by one, packed with others, and padded on the left: the same log-probabilities, from one forward."""
    requests = Requests.of([[0, 1, 2], [3], [9, 4], [0]], user_rows=np.array([0, 1, 2, -1]))
    items = fitted.retrieved(requests).item_rows
    together = fitted.letters(requests, items)
    alone = np.concatenate([fitted.letters(requests[i : i + 1], items[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(alone, together, atol=2e-5)
    np.testing.assert_allclose(np.exp(together).sum(1), 1, rtol=1e-5)
    index, lm, script = fitted.user_index, fitted.backbone, fitted.script
    spelled = fitted._read_indexes(index.spelled(index.asked(requests)))
    prompts = script.asked(spelled, requests.histories, Ragged.of(items))
    ids, mask = lm.padded(prompts, "left")
    with torch.no_grad():
        last = lm.states(lm.embed(ids), mask)[:, -1]
        padded = lm.logits(last, torch.from_numpy(script.letters)).log_softmax(1)
    np.testing.assert_allclose(padded.numpy(), together, atol=2e-4)


def test_what_a_place_is_worth_is_told_and_shrinks_with_several_orders(train: Dataset, fitted: ULMRec) -> None:
    requests = Requests.of([[1, 2]] * 16, user_rows=np.arange(16)).leaving_out_history()
    one, settings = fitted.position_gap(requests), fitted.config
    try:
        fitted.config = settings.model_copy(update={"orders": 6})
        several = fitted.position_gap(requests)
    finally:
        fitted.config = settings
    assert fitted.facts["position gap"] > 0
    assert several < one


# -- batches -----------------------------------------------------------------------------------------------------------


def unmet_of_six(n_items: int) -> Unmet:
    """Of 400 users who met the first six items."""
    rows = np.repeat(np.arange(400, dtype=np.int32), 6)
    table = pl.DataFrame({"user_row": rows, "item_row": np.tile(np.arange(6, dtype=np.int32), 400),
                          "time": np.arange(2400)})  # fmt: skip
    items = pl.DataFrame({"item": [f"i{row}" for row in range(n_items)]})
    return Unmet(Dataset("six", table, items, pl.DataFrame({"user": [f"u{row}" for row in range(400)]})))


def test_candidates_hold_the_target_anywhere_and_nothing_met(train: Dataset) -> None:
    rng = np.random.default_rng(0)
    targets, users = np.tile(np.arange(4), 100), np.arange(400)
    candidates, places = lettered(targets, users, unmet_of_six(30), 6, rng)
    assert (candidates.lengths == 6).all()
    flat = candidates.flat().reshape(400, 6)
    np.testing.assert_array_equal(flat[np.arange(400), places], targets)
    assert ((flat > 5).sum(1) == 5).all()
    assert all(len(set(row)) == 6 for row in flat.tolist())
    assert np.bincount(places, minlength=6).min() > 40
    assert np.bincount(flat[flat > 5], minlength=30)[6:].min() > 40
    few, _ = lettered(targets, users, unmet_of_six(8), 6, rng)
    assert (few.lengths == 3).all(), "two are left beside the target"
    pairs = unmet_of_six(10).distinct(np.zeros(6000, dtype=np.int64), 2, rng)
    found = np.unique(np.sort(pairs, axis=1), axis=0, return_counts=True)
    assert found[0].tolist() == [[6, 7], [6, 8], [6, 9], [7, 8], [7, 9], [8, 9]]
    assert (np.abs(found[1] - 1000) < 150).all(), "each pair is as likely; five deviations are 144"
    none = unmet_of_six(6).distinct(users[:2], 2, rng)
    assert none.tolist() == [[-1, -1]] * 2


def test_batches_are_mixed_as_said_and_resume(train: Dataset) -> None:
    others = [np.arange(0, 10), np.array([], dtype=np.int64), np.arange(20, 30)]
    batches = LetteredBatches(
        train, others, candidates=5, length=1, batch_size=16, ratio=0.5, prefixes=1, seed=3
    )  # fmt: skip
    assert (batches.questions, len(batches)) == (64, 8)
    epoch = list(batches.epoch(2))
    assert np.concatenate([batch.users for batch in epoch]).tolist() != sorted(range(64))
    assert sorted(np.concatenate([batch.users for batch in epoch]).tolist()) == list(range(64))
    for batch in epoch:
        assert (len(batch.users), sum(map(len, batch.lessons)), len(batch.lessons[1])) == (8, 8, 0)
        assert (batch.histories.lengths == 1).all()
    for one, other in zip(batches.epoch(2, skip=5), epoch[5:], strict=True):
        np.testing.assert_array_equal(one.candidates.flat(), other.candidates.flat())
        np.testing.assert_array_equal(one.lessons[0], other.lessons[0])
    bare = LetteredBatches(train, [], candidates=5, length=1, batch_size=16, ratio=0.0, prefixes=1, seed=3)
    assert [len(batch.users) for batch in bare.epoch(0)] == [16] * 4, "nothing stands beside the questions"


# -- figures over the catalogue ----------------------------------------------------------------------------------------


def test_the_rest_stands_behind_in_the_retrievers_order(fitted: ULMRec) -> None:
    requests = Requests.of([[1, 2]], user_rows=np.array([0])).leaving_out_history()
    answer = fitted.recommend(requests, N_ITEMS)
    assert isinstance(fitted, ReRanks)
    assert set(answer.item_rows[0, :6].tolist()) == {8, 12, 16, 20, 0, 9}
    assert answer.item_rows[0, 6:-2].tolist() == [i for i in range(24) if i not in (8, 12, 16, 20, 0, 9, 1, 2)]
    assert answer.item_rows[0, -2:].tolist() == [-1, -1]
    assert (np.diff(answer.scores[0, :-2]) < 0).all()
    assert not answer.exact
    every = fitted.score(requests, Ragged.of([np.arange(N_ITEMS)]))
    np.testing.assert_allclose(every[answer.item_rows[0, :-2]], answer.scores[0, :-2], rtol=1e-5)
    silent = fitted.recommend(Requests.of([[], [999]]), 4)
    assert silent.item_rows.tolist() == [[0, 8, 9, 12]] * 2, "nothing to read: the retriever's order stays"


def test_trust_adds_the_retrievers_odds(fitted: ULMRec) -> None:
    requests, settings = Requests.of([[1, 2]], user_rows=np.array([0])), fitted.config
    items = np.tile(np.array(SIX), (1, 1))
    candidates = Ragged.of([list(SIX)])
    np.testing.assert_allclose(fitted.score(requests, candidates), fitted.letters(requests, np.sort(items))[0][
        np.argsort(np.argsort(items[0]))], atol=1e-5)  # fmt: skip
    try:
        fitted.config = settings.model_copy(update={"trust": 2.0})
        trusted = fitted.score(requests, candidates)
    finally:
        fitted.config = settings
    scores = torch.from_numpy(InOrder(SIX).scores[list(SIX)]).log_softmax(0).numpy()
    np.testing.assert_allclose(trusted, fitted.score(requests, candidates) + 2 * scores, atol=1e-4)


def test_figures_over_the_catalogue_are_the_sum_of_both_parts(train: Dataset, fitted: ULMRec) -> None:
    """overall@k = among retrieved · share, case by case; a target that was not retrieved counts 0 at k up to six."""
    users = np.arange(train.n_users)
    targets = np.array([item_of(colour_of(int(u)), int(u) // len(COLOURS) % N_OF_COLOUR) for u in users])
    cases = Cases(Requests.of([[1, 2]] * len(users), user_rows=users), targets, users)
    split = Split(train, train, cases, cases, rule="planted")
    protocol = FullRanking(metrics=("recall@5", "ndcg@5", "recall@10"))
    table = judge_cases(fitted, cases, protocol, train=train)
    lists = fitted.recommend(cases.requests.leaving_out_history(), 10).item_rows
    direct = float(np.mean((lists[:, :5] == targets[:, None]).any(1)))
    held = np.isin(targets, [8, 12, 16, 20, 0, 9])
    assert table.filter(pl.col("retrieved_at").is_null())["recall@5"].sum() == 0
    report = make_report(table, split, protocol, name="narrow", system="ulmrec", resamples=50)
    assert report.metrics["recall@5"].value == pytest.approx(direct)
    assert report.beyond["ceiling@6"].value == pytest.approx(held.mean())
    for name in ("recall@5", "ndcg@5"):
        both = report.slices["retrieved"][name].value * held.mean() + report.slices["not-retrieved"][name].value * (
            1 - held.mean()
        )
        assert report.metrics[name].value == pytest.approx(both)
        assert report.slices["not-retrieved"][name].value == 0
    assert report.beyond["retriever-recall@5"].value == pytest.approx(np.isin(targets, [8, 12, 16, 20, 0]).mean())
    assert "retriever-recall@10" not in report.beyond
    assert f"no recall at k <= 6 can exceed {held.mean():.3f}" in report.notes[0]
    plain = judge_cases(InOrder(), cases, protocol, train=train)
    assert make_report(plain, split, protocol, name="plain", system="x", resamples=50).notes == ()


# -- parts -------------------------------------------------------------------------------------------------------------


def test_its_parts_are_taught_by_the_train_part(train: Dataset, fitted: ULMRec) -> None:
    """What its annotator reads: ``test_what_prompts_show``."""
    retriever = fitted.retriever
    assert isinstance(retriever, InOrder)
    assert retriever.taught is train
    assert getattr(fitted.user_index, "fitted_on", "") == train.fingerprint


def test_codes_may_be_tokens_and_adapters_stand_where_named(train: Dataset) -> None:
    adapted = {**NANO, "tune": "lora", "lora_layers": ["q_proj", "v_proj"]}
    found = system(backbone=Part(name="nano", settings=adapted).model_dump())
    found.fit(train, Run(max_steps=2))
    assert (found.backbone.read([" <a_0> <b_0> <c_0>"]).lengths <= 6).all()
    learnt = {name for name, weights in found.backbone.model.named_parameters() if weights.requires_grad}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in learnt if "lora_" in name}
    assert layers == {"q_proj", "v_proj"}
    with pytest.raises(ConfigError, match="ULMRec needs a decoder-only language model; this one is of kind encoder"):
        system(backbone=Part(name="nano", settings={**NANO, "objective": "masked"}).model_dump()).fit(train, Run())
    wrong = {**NANO, "tune": "lora", "lora_layers": ["nothing"]}
    with pytest.raises(ConfigError, match="no linear layer of this model ends in nothing"):
        system(backbone=Part(name="nano", settings=wrong).model_dump()).fit(train, Run(max_steps=1))


def test_presets() -> None:
    published = ulmrec.paper()
    assert published.candidates == 20
    assert published.backbone.settings["lora_layers"] == ["q_proj", "v_proj"]
    assert ULMRecConfig().ratio == 0.5
