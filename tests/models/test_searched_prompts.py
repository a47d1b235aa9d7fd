"""Hard prompt tuning of the prompted systems: the wording that helps is found on the train part alone, scored again on
validation, saved with the run; no budget is exceeded, and no wording changes where none is better."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("transformers")

from rating_logs import log, lovers

from palate.backbones.nano import Nano, NanoConfig
from palate.backbones.scripted import Scripted
from palate.core import store
from palate.core.chat import ChatRequest
from palate.core.dataset import Dataset
from palate.core.errors import BudgetError, ConfigError
from palate.core.ratings import RatingRequests
from palate.core.run import Run
from palate.core.split import Split
from palate.data import ranking_prompts, rating_prompts
from palate.data.ratings import rating_cases
from palate.data.split import leave_one_out
from palate.evaluation.judging import judge
from palate.evaluation.protocols import FullRanking
from palate.evaluation.ratings import rating_judge
from palate.experiment import evaluate, fit, make_plan
from palate.models.collaborative.popularity import Popularity
from palate.models.rating.prompted import RatingPrompted, RatingPromptedConfig
from palate.models.reranking.rank_prompted import RankPrompted, RankPromptedConfig
from palate.parts.prompt_search import PromptSearchConfig
from palate.systems import build

BEST = rating_prompts.CANDIDATE.variants[1]
BEST_RANKING = ranking_prompts.ASKS["ranking"].variants[1].partition(".")[0]
MAGIC = "From {low} to {high} the stars will tell."
ASKS_FOR_WORDS = "A prompt for a language model"


def lone() -> Dataset:
    """Every event is about an item of its own, so a prompt tells by its titles which events it holds."""
    rng = np.random.default_rng(4)
    rows = [
        (user, 8 * user + place, float(rng.integers(1, 6)), 1000 + place) for user in range(12) for place in range(8)
    ]
    return log(rows, 12, 96)


SPLIT = leave_one_out(lone())
STARS = {f"Book {row}": stars for row, stars in lone().interactions.select("item_row", "rating").iter_rows()}


def titles(request: ChatRequest) -> list[str]:
    """The books of a prompt, the one that is asked about last."""
    return re.findall(r"Book \d+", request.messages[0].content)


def knows(under: Callable[[str, str], bool]) -> Callable[[ChatRequest], str]:
    """Right where ``under`` holds of prompt and title, else as wrong as can be."""

    def answer(request: ChatRequest) -> str:
        text, title = request.messages[0].content, titles(request)[-1]
        return f"{STARS[title] if under(text, title) else 1.0 if STARS[title] > 3 else 5.0:g}"

    return answer


def rating(
    answers: Any, judged: Any = None, run: Run | None = None, kind: type[Scripted] = Scripted, **settings: Any
) -> tuple[RatingPrompted, Scripted]:
    chat = kind(answers=answers)
    searched = PromptSearchConfig(**{"rounds": 2, "questions": 10, **settings.pop("search", {})})
    config = RatingPromptedConfig(answer="text", parallel=1, search=searched, **settings)
    return RatingPrompted(config, chat=chat).fit(SPLIT.train, run or Run(), judged), chat


ON_VALIDATION = rating_judge(rating_cases(SPLIT, "valid"))


# -- ratings -----------------------------------------------------------------------------------------------------------


def test_the_wording_that_helps_is_found_and_said_with_both_scores() -> None:
    system, _ = rating(knows(lambda text, _: BEST in text), ON_VALIDATION)
    searched = system.facts["search"]
    assert system.facts["wording"] == {"candidate": BEST}
    assert searched["train"]["winner"] == searched["valid"]["winner"] == 0
    assert searched["train"]["seed"] < -2 > searched["valid"]["seed"]
    assert searched["changed"] == ["candidate"]
    plain, _ = rating("3", search={"rounds": 0, "questions": 5})
    assert "search" not in plain.facts
    assert plain.notes == ()
    assert plain.facts["prompt"] != system.facts["prompt"], "the hash follows the words"
    assert "the best is kept" in system.notes[0]
    assert system.facts["prompt"] in system.notes[0]
    assert BEST in system.prompt(rating_cases(SPLIT).requests, 0)


def test_while_it_chooses_the_search_sees_events_of_the_train_part_and_none_after_the_one_it_asks_about() -> None:
    looks: list[int] = []

    def watched(system: Any) -> float:
        looks.append(len(chat.asked))
        return ON_VALIDATION(system)

    chat = Scripted(answers=knows(lambda text, _: BEST in text))
    config = RatingPromptedConfig(answer="text", parallel=1, shots=2, search=PromptSearchConfig(rounds=2, questions=99))
    RatingPrompted(config, chat=chat).fit(SPLIT.train, Run(), watched)
    assert len(looks) == 2, "the seed prompt and the best"
    taught = {f"Book {row}" for row in SPLIT.train.item_rows.tolist()}
    chosen_with = chat.asked[: looks[0]]
    assert chosen_with
    asked_about = set()
    for request in chosen_with:
        assert set(titles(request)) <= taught
        own = [int(title.split()[1]) for title in titles(request)]
        last = [number for number in own if number // 8 == own[-1] // 8]
        assert last == sorted(last), "a history holds what came before"
        asked_about.add(own[-1])
    assert len(asked_about) == 12, "a question of everybody"
    valid = {f"Book {row}" for row in rating_cases(SPLIT, "valid").requests.items.tolist()}
    assert {titles(request)[-1] for request in chat.asked[looks[0] :]} == valid
    test = {f"Book {row}" for row in rating_cases(SPLIT).requests.items.tolist()}
    assert not any(set(titles(request)) & test for request in chat.asked)


def test_equal_answers_keep_the_seed_prompt() -> None:
    system, chat = rating(lambda request: "3", ON_VALIDATION)
    assert system.facts["wording"] == {}
    assert system.facts["search"]["kept"] == "seed"
    assert system.facts["search"]["valid"]["seed"] == system.facts["search"]["valid"]["winner"]
    pieces = rating_prompts.pieces_before("ask-number")
    assert system.facts["search"]["tried"] == 1 + sum(len(piece.variants) - 1 for piece in pieces)
    assert len(chat.asked) == 10 * system.facts["search"]["tried"] + 12
    assert "no wording was better, the seed prompt stays" in system.notes[0]


def test_what_validation_finds_worse_is_taken_back_and_said() -> None:
    taught = {f"Book {row}" for row in SPLIT.train.item_rows.tolist()}
    system, _ = rating(knows(lambda text, title: (BEST in text) == (title in taught)), ON_VALIDATION)
    searched = system.facts["search"]
    assert searched["train"]["winner"] > searched["train"]["seed"]
    assert searched["valid"]["winner"] < searched["valid"]["seed"]
    assert system.facts["wording"] == {}
    assert BEST not in system.prompt(rating_cases(SPLIT).requests, 0)
    assert "the best of training is worse there, the seed prompt stays" in system.notes[0]


def test_the_chat_model_proposes_words_and_broken_ones_are_never_asked_with() -> None:
    def answer(request: ChatRequest) -> str:
        text = request.messages[0].content
        if text.startswith(ASKS_FOR_WORDS):
            return f"1. Tell me.\n2. {MAGIC}\n3. {{low}} {{high}} {{secret}}"
        return knows(lambda text, _: "the stars will tell" in text)(request)

    system, chat = rating(answer, ON_VALIDATION, search={"rounds": 1, "proposals": 3})
    assert MAGIC in system.facts["wording"].values()
    assert system.facts["search"]["train"]["winner"] == 0
    assert "1 to 5 the stars will tell." in system.prompt(rating_cases(SPLIT).requests, 0)
    refused = {(piece, said) for piece, said, _ in system.facts["search"]["refused"]}
    assert ("opening", "Tell me.") in refused
    assert ("opening", "{low} {high} {secret}") in refused
    asked = [request for request in chat.asked if not request.messages[0].content.startswith(ASKS_FOR_WORDS)]
    assert len(chat.asked) - len(asked) == 4, "once a piece"
    assert not any("secret" in request.messages[0].content for request in asked)
    with pytest.raises(ConfigError, match="are proposed by a chat model: name one"):
        build("rating-prompted", {"search": {"rounds": 1, "proposals": 2}})
    with pytest.raises(ConfigError, match="it needs rounds of 1 or more"):
        build("rank-prompted", {"search.proposals": 2})


class Paid(Scripted):
    """As a model of an endpoint: its answers cost something, so they are kept."""

    pretrained = "LM"  # type: ignore[assignment]


def test_a_budget_stops_the_search_cleanly_and_more_of_it_goes_on_where_it_stood(tmp_path: Path) -> None:
    answers = knows(lambda text, _: BEST in text)
    whole, free = rating(answers, ON_VALIDATION, kind=Paid, ledger=str(tmp_path / "free.sqlite"))
    file = str(tmp_path / "kept.sqlite")
    chat = Paid(answers=answers)
    config = RatingPromptedConfig(
        answer="text", parallel=1, search=PromptSearchConfig(rounds=2, questions=10), ledger=file, budget_tokens=12_000
    )
    stopped = RatingPrompted(config, chat=chat)
    with pytest.raises(BudgetError, match="everything written is kept"):
        stopped.fit(SPLIT.train, Run(), ON_VALIDATION)
    assert 10 < len(chat.asked) < len(free.asked)
    assert sum(one.n_bytes for one in chat.asked) < 12_000
    again, rest = rating(answers, ON_VALIDATION, kind=Paid, ledger=file, budget_tokens=10**9)
    assert len(rest.asked) + len(chat.asked) == len(free.asked), "nothing is paid for twice"
    assert again.facts["wording"] == whole.facts["wording"]
    assert again.facts["search"] == whole.facts["search"]


def test_steps_and_seconds_bound_the_search() -> None:
    system, chat = rating(knows(lambda text, _: BEST in text), run=Run(max_steps=3))
    assert system.facts["search"]["tried"] == 3
    assert len(chat.asked) == 30
    assert "it may score 3 wordings" in system.notes[0]
    system, _ = rating(knows(lambda text, _: BEST in text), run=Run(budget_seconds=1e-9))
    assert system.facts["search"]["ended"] == "the time of the fit was up"
    assert system.facts["search"]["tried"] == 1


def test_a_searched_prompt_is_saved_loaded_and_reported(tmp_path: Path) -> None:
    """Through the doors, with a language model of weights: the report says both scores, the loaded system asks in the
    words that were found, to the bit."""
    whole = leave_one_out(lovers(n_users=30))
    settings = {"search.rounds": 1, "search.questions": 20, "length": 3}
    plan = make_plan("rating-prompted", "nowhere", preset="tiny", settings=settings)
    fitted = fit(plan, tmp_path / "run", Run(max_steps=6), split=whole)
    system = fitted.system(0, verify=False)
    assert isinstance(system, RatingPrompted)
    searched = system.facts["search"]
    assert searched["train"]["winner"] >= searched["train"]["seed"]
    assert searched["valid"] is not None
    report = evaluate(fitted, split=whole)
    assert any("prompt wording searched: 6 wordings on 20 training questions" in note for note in report.notes)
    assert any(system.facts["prompt"] in note for note in report.notes)


def test_saved_words_are_loaded_words(tmp_path: Path) -> None:
    nano = {"width": 16, "heads": 2, "layers": 1, "forward_width": 32, "vocabulary": 400, "steps": 0}
    asked = rating_cases(SPLIT).requests
    made: dict[str, Any] = {
        "rating-prompted": build("rating-prompted", {"backbone": {"name": "nano", **nano, "length": 2048}}),
        "rank-prompted": RankPrompted(
            RankPromptedConfig(candidates=4), retriever=Popularity(), backbone=Nano(NanoConfig(**nano))
        ),
    }
    for name, system in made.items():
        system.fit(SPLIT.train, Run())
        before = system.facts["prompt"]
        words = {"history": (rating_prompts if name == "rating-prompted" else ranking_prompts).HISTORY.variants[1]}
        system._say(words)
        assert system.facts["prompt"] != before
        system.save(tmp_path / name)
        again: Any = store.load(tmp_path / name)
        assert again.facts["wording"] == words
        assert again.facts["prompt"] == system.facts["prompt"]
        if name == "rating-prompted":
            assert words["history"] in again.prompt(asked, 0)
            assert again.predict(asked).stars.tobytes() == system.predict(asked).stars.tobytes()
        else:
            some = SPLIT.test.requests[:5]
            assert again.questions(some, np.tile(np.arange(4), (5, 1)))[0].prompt.startswith(words["history"])
            assert (again.recommend(some, 5).item_rows == system.recommend(some, 5).item_rows).all()


def test_a_style_is_another_prompt_with_a_hash_of_its_own() -> None:
    plain, chat = rating(lambda request: "3", search={"rounds": 0, "questions": 5})
    page, other = rating(lambda request: "3", search={"rounds": 0, "questions": 5}, style="conventional")
    asked = rating_cases(SPLIT).requests[:2]
    for system in (plain, page):
        assert isinstance(asked, RatingRequests)
        system.predict(asked)
    assert "This person" not in other.asked[0].messages[0].content
    assert "Reviews by one customer" in other.asked[0].messages[0].content
    assert chat.asked[0].messages[0].content.endswith("and nothing else.\nRating:")
    assert plain.facts["prompt"] != page.facts["prompt"]


# -- rankings ----------------------------------------------------------------------------------------------------------


def chosen_books(n_users: int = 16) -> Split:
    """Everybody chooses books in the order of their numbers."""
    rng = np.random.default_rng(2)
    rows = [
        (user, int(item), 1000 + place)
        for user in range(n_users)
        for place, item in enumerate(np.sort(rng.choice(20, 7, replace=False)))
    ]
    table = pl.DataFrame(rows, schema=["user_row", "item_row", "time"], orient="row").cast(
        {"user_row": pl.Int32, "item_row": pl.Int32}
    )
    items = pl.DataFrame({"item": [f"i{row}" for row in range(20)], "title": [f"Book {row}" for row in range(20)]})
    return leave_one_out(Dataset("books", table, items, pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]})))


BOOKS = chosen_books()


def ranks_by_number(under: str) -> Callable[[ChatRequest], str]:
    """The least number above the last of the history first, where the prompt holds ``under``; else last."""

    def answer(request: ChatRequest) -> str:
        text = request.messages[0].content
        told = [int(number) for number in re.findall(r"^- Book (\d+)$", text, re.MULTILINE)]
        shown = [int(number) for number in re.findall(r"^[A-Z]\. Book (\d+)$", text, re.MULTILINE)]
        order = sorted(range(len(shown)), key=lambda place: (shown[place] < told[-1], shown[place]))
        order = order if under in text else order[::-1]
        return "Ranking: " + ", ".join("ABCDEFGH"[place] for place in order)

    return answer


def ranking(answers: Any, judged: Any = None, **settings: Any) -> tuple[RankPrompted, Scripted]:
    chat = Scripted(answers=answers)
    config = RankPromptedConfig(**{
        "answer": "text", "candidates": 5, "parallel": 1, "orders": 1,
        "search": PromptSearchConfig(rounds=2, questions=16), **settings,
    })  # fmt: skip
    return RankPrompted(config, retriever=Popularity(), chat=chat).fit(BOOKS.train, Run(), judged), chat


def test_a_ranking_prompt_is_searched_on_last_training_events_alone() -> None:
    looks: list[int] = []
    on_validation = judge(BOOKS.valid, FullRanking(), "ndcg@10")

    def watched(system: Any) -> float:
        if isinstance(system, RankPrompted):
            looks.append(len(chat.asked))
        return on_validation(system)

    chat = Scripted(answers=ranks_by_number(BEST_RANKING))
    config = RankPromptedConfig(
        answer="text", candidates=5, parallel=1, orders=1, search=PromptSearchConfig(rounds=2, questions=16)
    )
    system = RankPrompted(config, retriever=Popularity(), chat=chat).fit(BOOKS.train, Run(), watched)
    searched = system.facts["search"]
    assert list(system.facts["wording"]) == ["ranking"]
    assert BEST_RANKING in system.facts["wording"]["ranking"]
    assert searched["train"]["winner"] > searched["train"]["seed"] + 0.2
    assert searched["valid"]["winner"] >= searched["valid"]["seed"]
    assert len(looks) == 2
    own = [BOOKS.train.histories.row(user).tolist() for user in range(BOOKS.train.n_users)]
    for request in chat.asked[: looks[0]]:
        text = request.messages[0].content
        told = [int(number) for number in re.findall(r"^- Book (\d+)$", text, re.MULTILINE)]
        shown = [int(number) for number in re.findall(r"^[A-Z]\. Book (\d+)$", text, re.MULTILINE)]
        whose = [row for row in own if row[: len(told)] == told]
        # The target is the last training event, what is told stands before it, and nothing else was met.
        assert any(set(shown) & set(row) == {row[-1]} and told == row[:-1] for row in whose)
    assert "0 questions" not in system.notes[0]
    assert system.notes[0].startswith("nobody was asked"), "the record is of answers, not of the search"
    assert "NDCG of what was chosen" in system.notes[1]


def test_equal_rankings_keep_the_seed_and_unreadable_ones_count_as_the_worst() -> None:
    system, _ = ranking(lambda request: "Ranking: A, B, C, D, E")
    assert system.facts["wording"] == {}
    assert system.facts["search"]["valid"] is None
    good = ranks_by_number("")
    silent = ranking_prompts.CANDIDATES.variants[0]
    system, _ = ranking(lambda request: "hm" if silent in request.messages[0].content else good(request))
    assert list(system.facts["wording"]) == ["candidates"]
    assert system.facts["search"]["train"]["seed"] == pytest.approx(1 / np.log2(6))
    assert "validation did not look" in system.notes[1]
