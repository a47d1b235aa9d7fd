"""Prompted ranking: what is shown, what is read, what is counted; orders, examples, the position check."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("transformers")

from chat_server import recorded

from palate.backbones.nano import Nano, NanoConfig
from palate.backbones.scripted import Replay, ReplayConfig, Scripted
from palate.core.chat import ChatReply, ChatRequest, Message
from palate.core.dataset import Dataset
from palate.core.errors import BudgetError, ConfigError
from palate.core.protocols import ReRanks
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.ranking_prompts import ANSWER
from palate.models.collaborative.popularity import Popularity
from palate.models.reranking.rank_prompted import RankPrompted, RankPromptedConfig
from palate.parts.ranked_answers import first_stage
from palate.parts.solved_examples import SolvedExamples
from palate.systems import build

N = 12


def log(n_users: int = 20) -> Dataset:
    """Everybody met six of twelve books; the lower its row, the more a book is met."""
    rng = np.random.default_rng(0)
    chances = 1 / (1 + np.arange(N))
    rows = [
        (user, int(item), 1000 + place)
        for user in range(n_users)
        for place, item in enumerate(rng.choice(N, 6, replace=False, p=chances / chances.sum()))
    ]
    table = pl.DataFrame(rows, schema=["user_row", "item_row", "time"], orient="row").cast(
        {"user_row": pl.Int32, "item_row": pl.Int32}
    )
    items = pl.DataFrame({"item": [f"i{row}" for row in range(N)], "title": [f"Book {row}" for row in range(N)]})
    return Dataset("books", table, items, pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]}))


TRAIN = log()
ASKED = Requests.of([[0, 1], [3], []], user_rows=np.array([0, 1, -1]))


def candidates_of(request: ChatRequest) -> list[str]:
    """What the last question of a prompt offers, in the order in which it is shown."""
    last = request.messages[0].content.split("\n\n")[-1]
    return re.findall(r"^[A-Z]\. (.*)$", last, re.MULTILINE)


def system(answers: Any, **settings: Any) -> tuple[RankPrompted, Scripted]:
    chat = Scripted(answers=answers)
    config = RankPromptedConfig(**{"answer": "text", "candidates": 4, "parallel": 1, **settings})
    return RankPrompted(config, retriever=Popularity(), chat=chat).fit(TRAIN, Run()), chat


def by_number(first: Callable[[int], float]) -> Callable[[ChatRequest], str]:
    """A model that ranks books by their number, whatever their order."""

    def answer(request: ChatRequest) -> str:
        shown = [int(title.split()[1]) for title in candidates_of(request)]
        order = sorted(range(len(shown)), key=lambda place: first(shown[place]))
        return "Ranking: " + ", ".join("ABCDEFGH"[place] for place in order)

    return answer


def test_the_best_of_the_first_stage_are_ranked_anew_and_the_rest_stays() -> None:
    model, chat = system(by_number(lambda number: -number), orders=2)
    first = Popularity().fit(TRAIN, Run()).recommend(ASKED, N).item_rows
    found = model.recommend(ASKED, N)
    for row in (0, 1):
        assert found.item_rows[row, :4].tolist() == sorted(first[row, :4].tolist(), reverse=True)
        np.testing.assert_array_equal(found.item_rows[row, 4:], first[row, 4:])
    np.testing.assert_array_equal(found.item_rows[2], first[2])
    assert not found.exact
    assert isinstance(model, ReRanks)
    np.testing.assert_array_equal(model.retrieved(ASKED).item_rows, first[:, :4])
    assert len(chat.asked) == 4, "two orders of two questions; who has no history is not asked about"
    assert chat.asked[0].messages[0].content.startswith("A person chose these, oldest first:\n- Book 0\n- Book 1\n")
    assert candidates_of(chat.asked[0]) != candidates_of(chat.asked[1])
    assert sorted(candidates_of(chat.asked[0])) == sorted(candidates_of(chat.asked[1]))
    own = Requests.of([[0, 1]], candidates=Ragged.of([[7, 2, 9]]), leave_out=Ragged.of([[2]]))
    assert model.recommend(own, 5).item_rows.tolist() == [[9, 7, -1, -1, -1]]


def test_the_position_check_tells_a_model_that_copies_from_one_that_knows() -> None:
    people = Requests.for_users(TRAIN, np.arange(20))
    knows, _ = system(by_number(lambda number: number), orders=3, candidates=6)
    copies, _ = system(lambda request: "Ranking: A, B, C, D, E, F", orders=3, candidates=6)
    for one in (knows, copies):
        one.recommend(people, 5)
    assert copies.record.bias.copied.interval.value == pytest.approx(1)
    assert knows.record.bias.agreed.interval.value == pytest.approx(1)
    assert abs(knows.record.bias.copied.interval.value) < 0.3 > abs(copies.record.bias.agreed.interval.value)
    assert "60 questions" in knows.notes[0]
    assert "correlate +1.00" in copies.notes[0]


def test_failures_are_asked_again_then_counted_and_inventions_are_never_ranked() -> None:
    script = ["Ranking: Solaris, B, B", "no idea", "Ranking: A", "hm", "hm", "Ranking: D, C, B, A"]
    model, chat = system(script, orders=2)
    found = model.recommend(ASKED, N)
    record = model.record
    assert (record.questions, record.retried, record.failed) == (4, 2, 1)
    assert (record.invalid, record.repeated, record.left_out) == (1, 1, 6)
    assert "Write only one line: 'Ranking: '" in chat.asked[2].messages[-1].content
    best = [candidates_of(chat.asked[place])[letter] for place, letter in ((0, 1), (1, 0), (5, 3))]
    names = [f"Book {row}" for row in found.item_rows[:2, 0]]
    assert names[0] in best[:2]
    assert names[1] == best[2], "the order that failed is left out"
    assert sorted(found.item_rows[0].tolist()) == list(range(N))
    silent, _ = system(lambda request: "I would rather not.", orders=2)
    first = Popularity().fit(TRAIN, Run()).recommend(ASKED, N)
    np.testing.assert_array_equal(silent.recommend(ASKED, N).item_rows, first.item_rows)
    assert silent.record.failed == 4


def test_examples_are_other_peoples_and_of_the_train_part_alone() -> None:
    pool = SolvedExamples.drawn(TRAIN, n=50, length=3, n_candidates=4, seed=0)
    assert len(pool) == TRAIN.n_users
    for row, user in enumerate(pool.users.tolist()):
        own = TRAIN.histories.row(user).tolist()
        chosen = pool.offered[row, pool.place[row]]
        assert chosen == own[-1]
        assert pool.histories.row(row).tolist() == own[-4:-1]
        assert not set(pool.offered[row].tolist()) - {chosen} & set(own)
    assert np.bincount(pool.place, minlength=4).min() > 0
    whole = SolvedExamples.drawn(TRAIN, n=50, length=3, n_candidates=10, seed=0)
    assert ((whole.offered >= 0).sum(1) == 7).all(), "six of twelve were met, and the chosen one is one of them"
    assert (whole.offered[:, 7:] == -1).all()
    others = np.concatenate([
        SolvedExamples.drawn(TRAIN, n=50, length=3, n_candidates=2, seed=seed).offered.ravel() for seed in range(200)
    ])  # fmt: skip
    drawn, wanted = np.bincount(others, minlength=N), np.zeros(N)
    for user in range(TRAIN.n_users):
        own = TRAIN.histories.row(user)
        chances = TRAIN.item_counts * ~np.isin(np.arange(N), own)
        wanted += 200 * chances / chances.sum()
        wanted[own[-1]] += 200
    assert (np.abs(drawn - wanted) < 5 * np.sqrt(wanted) + 5).all(), "as often as people meet them"
    for user in range(5):
        history = TRAIN.histories.row(user)
        near = pool.chosen(history, user, 3, nearest=True)
        assert user not in pool.users[near]
        shared = [
            np.isin(pool.histories.row(row), history).mean() for row in range(len(pool)) if pool.users[row] != user
        ]
        assert np.isin(pool.histories.row(near[-1]), history).mean() == max(shared)
    model, chat = system(by_number(lambda number: number), orders=1, shots=3)
    model.recommend(ASKED, 3)
    text = chat.asked[0].messages[0].content
    assert len(re.findall(rf"\n{ANSWER} [A-E]\n", text)) == 3
    assert len(text.split("\n\n")) == 4


def test_a_first_stage_keeps_its_order_however_large_its_scores_are() -> None:
    block = np.array([[20_000, 20_001, np.nan, 20_001, -3e30], [0, 0, 0, 1e-30, np.inf]], dtype=np.float32)
    found = first_stage(block)
    np.testing.assert_allclose(found, [[0.8, 1, -1, 1, 0.6], [0.6, 0.6, 0.6, 0.8, 1]], rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("settings", [{"answer": "probability"}, {"answer": "text"}])
def test_what_is_worth_the_same_stays_as_the_first_stage_has_it(settings: dict[str, Any]) -> None:
    model, _ = system("", **settings)
    items, first = np.arange(50), np.random.default_rng(0).permutation(50)
    value = -1.5 if settings["answer"] == "probability" else 0.5
    scores = model._scores(np.full(50, value), first, items).astype(np.float32)
    assert np.argsort(-scores).tolist() == first.tolist()
    assert len(np.unique(scores)) == 50
    lowest = model._scores(np.full(50, -1e9 if settings["answer"] == "probability" else 0.0), first, items)
    assert (lowest.astype(np.float32) > 1).all()


def test_the_first_stage_is_judged_and_shares_the_budget() -> None:
    class Watched(Popularity):
        def fit(self, train: Dataset, run: Run, judge: Any = None) -> Any:
            self.seen = run.budget_seconds, judge
            return super().fit(train, run, judge)

    def judge(system: Any) -> float:
        return 0.0

    nano = Nano(NanoConfig(width=16, heads=2, layers=1, forward_width=32, vocabulary=400, steps=0))
    for part, budget in (({"chat": Scripted(answers="")}, 8.0), ({"backbone": nano}, 4.0)):
        model = RankPrompted(RankPromptedConfig(candidates=4), retriever=Watched(), **part)
        model.fit(TRAIN, Run(budget_seconds=8.0), judge)
        assert model.retriever.seen == (budget, judge)


def test_steps_come_apart_from_the_answer() -> None:
    said = "Step 1: they like A.\nStep 2: but D is newer.\nRanking: D, A"
    model, chat = system(lambda request: said, thinking=True, orders=1)
    asked = model.questions(ASKED[np.array([0])], np.array([[2, 3, 4, 5]]))
    (heard,) = model.hear(asked)
    assert heard.answer is not None
    assert heard.answer.steps == ("Step 1: they like A.", "Step 2: but D is newer.")
    assert heard.answer.order == (3, 0)
    assert "each begin with 'Step'" in chat.asked[0].messages[0].content


def test_chances_of_labels_are_read_where_a_chat_model_tells_them() -> None:
    def told(request: ChatRequest) -> ChatReply:
        assert request.alternatives > 0
        chances = {" C": -0.7, "A": -1.6, "The": -1.0, "C.": -5.0}
        return ChatReply(Message("assistant", "C"), alternatives=chances)

    model, chat = system(told, answer="probability", orders=1)
    found = model.recommend(ASKED[np.array([0])], 2)
    assert [f"Book {row}" for row in found.item_rows[0]] == [candidates_of(chat.asked[0])[i] for i in (2, 0)]


def test_a_recorded_run_is_replayed_to_the_bit_and_the_meter_is_the_sum(tmp_path: Path) -> None:
    recorder = recorded(Scripted(answers=by_number(lambda number: number % 5)), tmp_path / "said.jsonl")
    config = RankPromptedConfig(answer="text", candidates=4, parallel=1, ledger=None)
    first = RankPrompted(config, retriever=Popularity(), chat=recorder).fit(TRAIN, Run())
    one = first.recommend(ASKED, N)
    replay = Replay(ReplayConfig(path=str(tmp_path / "said.jsonl")))
    second = RankPrompted(config, retriever=Popularity(), chat=replay).fit(TRAIN, Run())
    other = second.recommend(ASKED, N)
    assert one.item_rows.tobytes() == other.item_rows.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()
    asked = [one.n_bytes for one in recorder.chat.asked]  # type: ignore[attr-defined]
    assert first.record.usage.read == sum(asked) == second.record.usage.read


def test_what_was_paid_for_is_asked_once_and_a_budget_holds(tmp_path: Path) -> None:
    class Paid(Scripted):
        pretrained = "LM"

    def of(**settings: Any) -> RankPrompted:
        chat = Paid(answers=by_number(lambda number: -number))
        config = RankPromptedConfig(
            **{"answer": "text", "candidates": 4, "parallel": 1, "ledger": str(tmp_path / "said.sqlite"), **settings}
        )
        return RankPrompted(config, retriever=Popularity(), chat=chat).fit(TRAIN, Run())

    first, second = of(), of()
    found = first.recommend(ASKED, N).item_rows
    np.testing.assert_array_equal(second.recommend(ASKED, N).item_rows, found)
    assert [len(one.chat.asked) for one in (first, second)] == [4, 0]
    with pytest.raises(BudgetError, match="everything written is kept"):
        of(budget_tokens=10, candidates=5).recommend(ASKED, N)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"thinking": True}, "it needs answer=text"),
        ({"candidates": 30}, "there are 26 letters"),
        ({"backbone": None}, "name a chat model"),
        ({"chat": "scripted", "labels": "numbers", "candidates": 10}, "does not tell 1 from 10"),
        ({"ledger": None, "budget_tokens": 10}, "a budget is kept in the ledger"),
        ({"retriever": "item-kn"}, "there is no retriever 'item-kn'; did you mean 'item-knn'"),
    ],
)
def test_settings_that_do_not_go_together_are_one_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build("rank-prompted", settings)
