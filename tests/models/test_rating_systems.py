"""Predicted ratings: hand-computed averages, planted tastes, prompts, parsers, heads, failures that are counted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rating_logs import leanings, log, lovers

from palate.backbones.scripted import Scripted
from palate.core.chat import ChatReply, ChatRequest, Message
from palate.core.errors import BudgetError, ConfigError, EndpointError
from palate.core.ragged import Ragged
from palate.core.ratings import RatingRequests
from palate.core.run import Run
from palate.curve import data_efficiency, draw, some_of
from palate.data.rating_prompts import Pieces, nearest_level, read_answer, read_rating
from palate.data.ratings import RatingBatches, hash_of, rated_before, rating_cases, statistics
from palate.data.split import leave_one_out, split
from palate.evaluation.ratings import rating_judge
from palate.experiment import make_plan
from palate.models.rating.average import RatingAverage, RatingAverageConfig
from palate.models.rating.prompted import RatingPrompted, RatingPromptedConfig
from palate.models.rating.rating_lm import RatingLM
from palate.systems import build

STARS = np.arange(1, 6, dtype=np.float32)


def questions(*rows: tuple[list[int], list[float], int, int]) -> RatingRequests:
    """``(history, its ratings, item, user)``."""
    return RatingRequests(
        Ragged.of([row[0] for row in rows]), np.array([r for row in rows for r in row[1]], np.float32),
        np.array([row[2] for row in rows]), np.array([row[3] for row in rows]),
    )  # fmt: skip


# -- averages ----------------------------------------------------------------------------------------------------------


def test_averages_equal_those_computed_by_hand() -> None:
    """Five users, five items; item 4 and user 4 have no rating."""
    taught = log([(0, 0, 5, 1), (0, 1, 3, 2), (1, 0, 4, 1), (2, 2, 1, 1), (3, 3, 2, 1)], 5, 5)
    asked = questions(([0, 1], [5, 3], 0, 0), ([0], [4], 4, 1), ([], [], 2, 4), ([2, 9], [1, math.nan], 9, 2))
    expected = {"everybody": [3, 3, 3, 3], "item": [4.5, 3, 1, 3], "user": [4, 4, 3, 1]}
    for of, stars in expected.items():
        system = RatingAverage(RatingAverageConfig(of=of)).fit(taught, Run())  # type: ignore[arg-type]
        np.testing.assert_allclose(system.predict(asked).stars, stars)
    damped = RatingAverage(RatingAverageConfig(of="item", damping=2)).fit(taught, Run()).predict(asked).stars
    np.testing.assert_allclose(damped, [(5 + 4 + 2 * 3) / 4, 3, (1 + 2 * 3) / 3, 3])


# -- questions never see the future ------------------------------------------------------------------------------------


def test_no_history_holds_the_moment_it_is_asked_at() -> None:
    whole = log([(0, i, 1 + i % 5, t) for i, t in enumerate([1, 2, 2, 3, 3, 3])] + [(1, 0, 2, 5)], 2, 6)
    asked = rated_before(whole, np.arange(whole.n_interactions))
    assert [len(row) for row in asked.histories] == [0, 1, 1, 3, 3, 3, 0]
    cases = rating_cases(leave_one_out(whole))
    assert cases.requests.histories.lengths.tolist() == [3], "the two others of the target's time are not told"
    assert cases.ratings.tolist() == [1.0]


def test_later_ratings_change_no_question() -> None:
    whole = lovers()
    made = split(whole, "temporal", valid_from=0.7, test_from=0.85)
    for part in ("valid", "test"):
        cases = rating_cases(made, part)  # type: ignore[arg-type]
        assert whole.times is not None
        asked_at = whole.times[cases.events]
        last = np.where(cases.requests.histories.lengths > 0, whole.times[cases.requests.histories.stops - 1], -1)
        assert (last < asked_at).all()
    moment = int(whole.times[made.test.events].min())  # type: ignore[index]
    ratings = whole.interactions["rating"].to_numpy().copy()
    late = whole.times >= moment  # type: ignore[operator]
    ratings[late] = np.random.default_rng(0).permutation(ratings[late])
    import polars as pl

    other = replace(whole, interactions=whole.interactions.with_columns(pl.Series("rating", ratings)))
    for one, two in ((made, split(other, "temporal", valid_from=0.7, test_from=0.85)),):
        a, b = rating_cases(one, "valid").requests, rating_cases(two, "valid").requests
        for left, right in zip(a.recent(10), b.recent(10), strict=True):
            np.testing.assert_array_equal(left, right)


def test_the_hash_follows_the_questions() -> None:
    made = leave_one_out(lovers())
    cases = rating_cases(made)
    assert hash_of(cases) == hash_of(rating_cases(made)) != hash_of(cases[np.arange(5)])
    asked, first = cases.requests, int(cases.requests.histories.starts[0])
    met, stars = asked.histories.values.copy(), asked.history_ratings.copy()
    met[first], stars[first] = (met[first] + 1) % made.dataset.n_items, 6 - stars[first]
    assert stars[first] != asked.history_ratings[first]
    for other in (
        replace(asked, histories=replace(asked.histories, values=met)), replace(asked, history_ratings=stars)
    ):  # fmt: skip
        assert hash_of(replace(cases, requests=other)) != hash_of(cases)
    said = statistics(made, cases)
    assert "720 ratings teach, 60 validate, 60 are asked" in said
    assert "0% of the users" in said


# -- the parser and the prompt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4", 4), ("4.5", 4.5), ("4,5", 4.5), ("Rating: 3/5", 3), ("five", 5), ("10", None), ("", None), ("0", None),
        ("I would say 4 out of 5.", 4), ("-3", None), ("no idea", None), ("2024 was a good year", None),
        ("Four stars", 4), ("5.5", None), ("1e9", None),
    ],
)  # fmt: skip
def test_what_is_read_as_a_rating(text: str, found: float | None) -> None:
    assert read_rating(text, 1, 5) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("They gave 5 to space books and 1 to crime. Rating: 2", 2), ("**Rating:** 4.5", 4.5),
        ("They like 3 things. I think 4", 4), ("Rating: 9", None), ("nothing", None),
        ("Rating: 1 is too low, so Rating: 3", 3),
    ],
)  # fmt: skip
def test_what_is_read_after_thinking(text: str, found: float | None) -> None:
    assert read_rating(text, 1, 5, thought=True) == found


@pytest.mark.parametrize(
    ("text", "found", "steps"),
    [
        ("Step 1: 5 for space.\nStep 2: this is crime.\nRating: 2", 2, 2),
        ("Step 1: 5 for space.\nStep 2: Rating: 5 would be too much.\n\n**Final rating:** 1.5/5", 1.5, 2),
        ("Rating: 4\nStep 1: because they gave 5 before.", 4, 1),
        ("They gave 5 to space and 1 to crime.\nRating: 2", 2, 1),
        ("Answer: 3/5", 3, 0),
        ("They like 3 things. I think 4", 4, 0),
        ("Step 1: they gave 5 to space.\nSo I would say 2.", 2, 1),
        # Steps without an answer are a failure, whatever numbers they hold.
        ("Step 1: they gave 5 to space.\nStep 2: Rating: 4 is near.", None, 2),
        ("Step 1: they gave 5 to space.\nRating: none", None, 1),
        ("step one: hm", None, 1), ("Stepping 2 back, Rating: 3", 3, 0), ("", None, 0),
        ("Rating: 4\u2028Step 2: Rating: 1", 4, 1), ("Rating: 9\nRating:", None, 1),
    ],
)  # fmt: skip
def test_steps_are_kept_apart_and_never_read_for_the_rating(text: str, found: float | None, steps: int) -> None:
    answer = read_answer(text, 1, 5, thought=True)
    assert (answer.stars, len(answer.steps)) == (found, steps)
    assert answer.failed == (found is None)


@given(
    st.lists(st.sampled_from([*"1259.,/-:* \n", "Rating", "Step 1", "Answer:", "five", "\u2028", "\x00"])).map("".join)
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_written_after_thinking_a_rating_is_on_the_scale_or_none(text: str) -> None:
    for thought in (False, True):
        answer = read_answer(text, 1, 5, thought=thought)
        assert answer.failed or 1 <= answer.stars <= 5
        assert thought or not answer.steps


def test_a_prompt_reads_as_it_should() -> None:
    pieces = Pieces(("Dune. space", "Gone. crime"), STARS)
    asked = questions(([0, 1], [5, 1.4], 0, 0), ([], [], 7, -1))
    rows = pieces.rows(asked, 3, "ask")
    assert pieces.text(rows[0]) == (
        "A person rates on a scale from 1 to 5, where 5 is best.\nThis person's earlier ratings, oldest first:\n"
        "- Dune. space: 5\n- Gone. crime: 1\nWhat will this person give to the next one?\n- Dune. space\nRating:"
    )
    assert "Nothing that this person rated is known yet" in pieces.text(rows[1])
    assert "something of which nothing is known\nRating:" in pieces.text(rows[1])
    assert pieces.text(pieces.rows(asked[:1], 0, "ask")[0]).count("Dune") == 1
    assert pieces.hash == Pieces(("other",), STARS).hash
    assert nearest_level(np.array([0, 1.5, 1.6, 9], np.float32), STARS).tolist() == [0, 0, 1, 4]


# -- what is learnt ----------------------------------------------------------------------------------------------------


def rmse(system: Any, cases: Any) -> float:
    return -rating_judge(cases)(system)


@pytest.mark.parametrize(("name", "bound"), [("rating-mf", 0.8), ("rating-mlp", 1.2), ("rating-transformer", 0.6)])
def test_tastes_that_are_planted_are_found(name: str, bound: float) -> None:
    """Averages are off by 2 stars for everybody here; who reads users or genres is not. An untrained network is."""
    made = leave_one_out(lovers())
    valid, test = rating_cases(made, "valid"), rating_cases(made)
    taught = build(name, preset="tiny").fit(made.train, Run(), rating_judge(valid))  # type: ignore[arg-type]
    assert rmse(taught, test) < bound
    assert rmse(build("rating-average").fit(made.train, Run()), test) > 1.8
    assert rmse(build("rating-average", preset="user").fit(made.train, Run()), test) > 1.7
    fresh = build(name, preset="tiny").fit(made.train, Run(max_steps=1))
    assert rmse(fresh, test) > 1.7
    if name == "rating-transformer":
        assert rmse(taught, untold(test)) > rmse(taught, test) + 0.5, "the history is what tells the taste"


@pytest.mark.parametrize("head", ["regression", "classification"])
def test_a_tuned_language_model_reads_who_rates_and_what_is_rated(head: str) -> None:
    """Either alone is off by a star for everybody. (A taste that no average shows, as in ``lovers``, a language model
    from nothing does not find in a test's time: both of its halves are worth nothing alone, and it learns neither.)"""
    made = leave_one_out(leanings())
    test = rating_cases(made)
    system = build(
        "rating-lm",
        {"head": head, "text.fields": ["category"], "length": 3, "training.epochs": 100, "training.weight_decay": 0.0,
         "training.learning_rate": 5e-3, "batch_size": 64, "backbone.steps": 0, "backbone.layers": 1,
         "backbone.width": 32},
        preset="tiny",
    ).fit(made.train, Run(max_steps=150))  # fmt: skip
    for preset in ("everybody", "user"):
        assert rmse(build("rating-average", preset=preset).fit(made.train, Run()), test) > 0.95
    assert rmse(build("rating-average").fit(made.train, Run()), test) > 0.95
    assert rmse(system, test) < 0.6
    assert rmse(system, untold(test)) > 0.9, "the history tells who rates"


def test_averages_of_items_read_no_history_and_those_of_users_nothing_else() -> None:
    made = leave_one_out(lovers())
    test = rating_cases(made)
    silent = untold(test)
    item = build("rating-average").fit(made.train, Run())
    everybody = build("rating-average", preset="everybody").fit(made.train, Run())
    user = build("rating-average", preset="user").fit(made.train, Run())
    assert rmse(item, silent) == rmse(item, test)
    assert rmse(user, silent) == rmse(everybody, test) != rmse(user, test)


def test_short_epochs_go_through_every_rating_before_any_comes_again() -> None:
    train = lovers(n_users=10)
    batches = RatingBatches(train, length=0, batch_size=16, seed=3, each=50)
    assert len(batches) == 4
    drawn = [np.concatenate(list(batches.orders(epoch))) for epoch in range(6)]
    assert [len(some) for some in drawn] == [50] * 6
    passes = np.concatenate(drawn)
    for start in (0, 140):
        assert sorted(passes[start : start + 140].tolist()) == list(range(140))
    np.testing.assert_array_equal(np.concatenate(list(batches.orders(2, skip=1))), drawn[2][16:])
    whole = RatingBatches(train, length=0, batch_size=16, seed=3)
    assert sorted(np.concatenate(list(whole.orders(1))).tolist()) == list(range(140))
    assert np.concatenate(list(whole.orders(1))).tolist() != np.concatenate(list(whole.orders(0))).tolist()


def untold(cases: Any) -> Any:
    """The same questions about unknown users without any history."""
    silent = RatingRequests(
        Ragged.empty(len(cases)), np.zeros(0, np.float32), cases.requests.items, np.full(len(cases), -1)
    )
    return replace(cases, requests=silent)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["regression", "classification"])
def test_both_heads_learn_64_examples_by_heart(head: str) -> None:
    """Of these draws no prompt comes twice with two ratings, which nobody could learn."""
    rng = np.random.default_rng(2)
    whole = log([(u, u % 8, float(rng.integers(1, 6)), 1) for u in range(8)] +
                [(u, 8 + i, float(rng.integers(1, 6)), 2 + i) for u in range(8) for i in range(7)], 8, 15)  # fmt: skip
    system = build(
        "rating-lm",
        {"head": head, "answer": "likeliest", "training.epochs": 2000, "training.learning_rate": 0.003,
         "training.warmup_steps": 20, "batch_size": 64, "training.weight_decay": 0.0, "length": 3, "backbone.steps": 0},
        preset="tiny",
    ).fit(whole, Run(max_steps=600))  # fmt: skip
    assert isinstance(system, RatingLM)
    asked = rated_before(whole, np.arange(64))
    stars, given = system.predict(asked).stars, whole.interactions["rating"].to_numpy()
    if head == "regression":
        assert np.sqrt(np.square(stars - given).mean()) < 0.2
    else:
        assert (stars == given).mean() > 0.95


def test_half_stars_become_words_and_the_expectation_beats_the_likeliest() -> None:
    """On a head that is calibrated the expectation has the lower squared error (a property of means)."""
    whole = log([(u, i, 0.5 + 0.5 * ((u * 3 + i) % 10), 1 + i) for u in range(6) for i in range(6)], 6, 6)
    system = build("rating-lm", {"head": "classification"}, preset="tiny").fit(whole, Run(max_steps=2))
    assert isinstance(system, RatingLM)
    assert len(system.words.ids) == len(set(system.words.ids.tolist())) == 10
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 10)).astype(np.float32) * 2)
    chances = logits.softmax(1)
    truth = system.words.levels[torch.multinomial(chances, 1, generator=torch.Generator().manual_seed(0))[:, 0].numpy()]
    system._logits = lambda states: states  # type: ignore[method-assign, assignment]
    errors = {}
    for answer in ("expectation", "likeliest"):
        system.config = system.config.model_copy(update={"answer": answer})
        errors[answer] = np.square(system._stars(system.fitted(), logits).detach().numpy() - truth).mean()
    assert errors["expectation"] < errors["likeliest"]


# -- asked and not taught ----------------------------------------------------------------------------------------------


def prompted(answers: Any, **settings: Any) -> tuple[RatingPrompted, Scripted]:
    chat = Scripted(answers=answers)
    config = RatingPromptedConfig(answer="text", parallel=1, **settings)
    return RatingPrompted(config, chat=chat).fit(lovers(), Run()), chat


def test_failures_are_asked_again_then_counted_never_dropped() -> None:
    system, chat = prompted(["4", "no idea", "3", "10", "still 10", "Rating: 2/5"])
    asked = questions(([0], [5], 1, 0), ([0], [5], 1, 0), ([0, 1], [5, 4], 2, 0), ([], [], 3, -1))
    found = system.predict(asked)
    np.testing.assert_allclose(found.stars, [4, 3, 4.5, 2])
    assert found.failed.tolist() == [False, False, True, False]
    assert found.retried.tolist() == [False, True, True, False]
    assert "Write only one number from 1 to 5, such as 3" in chat.asked[2].messages[-1].content
    assert chat.asked[0].messages[0].content.endswith("and nothing else.\nRating:")


def test_solved_examples_are_other_peoples() -> None:
    """Each prompt holds three whole examples with their answers, none of the person who is asked about."""
    system, _ = prompted(lambda request: "3", shots=3)
    assert system.told is not None
    for user in range(5):
        asked = questions(([0], [5], 1, user))
        text = system.prompt(asked, 0)
        assert text.count("A person rates") == 4
        assert text.count("\nRating:") == 4
        used = [row for row in range(len(system.told.solved)) if system.told.examples.user_rows[row] == user]
        for row in used:
            own = system.told.pieces.text(system.told.pieces.rows(system.told.examples[np.array([row])], 10, "ask")[0])
            assert own not in text


def test_a_chat_model_may_think_first_or_tell_its_chances() -> None:
    system, chat = prompted(lambda request: "They gave 5 stars to space. Rating: 2", thinking=True)
    assert system.predict(questions(([0], [5], 1, 0))).stars.tolist() == [2]
    assert "each begin with 'Step'" in chat.asked[0].messages[0].content

    def told(request: ChatRequest) -> ChatReply:
        assert request.alternatives > 0
        said = {" 4": math.log(0.5), "5": math.log(0.25), "4": math.log(0.05), "maybe": math.log(0.2)}
        return ChatReply(Message("assistant", "4"), alternatives=said)

    chat = Scripted(answers=told)
    whole = replace(lovers(), interactions=log([(0, i, 1 + i % 5, i) for i in range(10)], 60, 40).interactions)
    system = RatingPrompted(RatingPromptedConfig(), chat=chat).fit(whole, Run())
    stars = system.predict(questions(([0], [5], 1, 0))).stars
    np.testing.assert_allclose(stars, [(0.55 * 4 + 0.25 * 5) / 0.8], rtol=1e-6)
    with pytest.raises(ConfigError, match="it needs answer=text"):
        build("rating-prompted", {"thinking": True})


def test_steps_come_apart_from_the_rating_and_without_them_the_answer_is_another() -> None:
    """The same reply: who thinks answers what stands behind the steps, who does not reads the first number of all."""
    said = "Step 1: 5 for every space book.\nStep 2: this is crime.\nRating: 2"
    asked = questions(([0], [5], 1, 0))
    thinks, _ = prompted(lambda request: said, thinking=True)
    (heard,) = thinks.hear(asked)
    assert heard.steps == ("Step 1: 5 for every space book.", "Step 2: this is crime.")
    assert (heard.stars, heard.retried) == (2, False)
    assert thinks.predict(asked).stars.tolist() == [2]
    plain, chat = prompted(lambda request: said)
    (heard,) = plain.hear(asked)
    assert (heard.stars, heard.steps) == (1, ())
    assert "Step" not in chat.asked[0].messages[0].content
    bare, _ = prompted(lambda request: said.splitlines()[-1], thinking=True)
    assert bare.hear(asked)[0].steps == ()
    # Without its last line the reply is none, though its steps hold a 5: it is asked for again, and counted.
    silent, chat = prompted([said.rsplit("\n", 1)[0], "hm", said.rsplit("\n", 1)[0], "2/5"], thinking=True)
    (heard,) = silent.hear(asked)
    assert (heard.stars, heard.retried, len(heard.steps)) == (None, True, 2)
    found = silent.predict(asked)
    assert (found.stars.tolist(), found.failed.tolist(), found.retried.tolist()) == ([2], [False], [True])
    assert "Write only one number from 1 to 5" in chat.asked[1].messages[-1].content


class Paid(Scripted):
    """As a model of an endpoint: its answers cost something, so they are kept."""

    pretrained = "LM"  # type: ignore[assignment]


def test_answers_that_were_paid_for_outlive_a_failure(tmp_path: Any) -> None:
    """Three of four answers come before the endpoint fails; only the fourth is asked again. A budget stops in time."""
    asked = questions(*((([0, 1], [5, 4], item, 0)) for item in range(2, 6)))
    file = str(tmp_path / "answers.sqlite")

    def of(answers: Any, **settings: Any) -> tuple[RatingPrompted, Paid]:
        chat = Paid(answers=answers)
        config = RatingPromptedConfig(answer="text", parallel=1, ledger=file, **settings)
        return RatingPrompted(config, chat=chat).fit(lovers(), Run()), chat

    system, chat = of(["1", "2", "3"])
    with pytest.raises(EndpointError, match="was asked once more"):
        system.predict(asked)
    assert len(chat.asked) == 4
    system, chat = of(["5"])
    assert system.predict(asked).stars.tolist() == [1, 2, 3, 5]
    assert len(chat.asked) == 1
    assert system.predict(asked).stars.tolist() == [1, 2, 3, 5], "and nobody is asked a second time"
    other = questions(([0, 1], [5, 4], 9, 0))
    with pytest.raises(BudgetError, match="everything written is kept"):
        of(["4"], budget_tokens=10)[0].predict(other)
    with pytest.raises(ConfigError, match="a budget is kept in the ledger"):
        build("rating-prompted", {"ledger": None, "budget_tokens": 10})


def test_a_causal_model_writes_and_failures_count() -> None:
    """A model that was never taught to answer mostly fails; every question still has a number."""
    made = leave_one_out(lovers(n_users=12))
    system = build("rating-prompted", {"answer": "text"}, preset="tiny").fit(made.train, Run(max_steps=3))
    found = system.predict(rating_cases(made).requests)  # type: ignore[attr-defined]
    assert np.isfinite(found.stars).all()
    assert (found.failed <= found.retried).all()


# -- data efficiency ---------------------------------------------------------------------------------------------------


def test_the_curve_holds_every_share_and_seed_and_falls(tmp_path: Any) -> None:
    whole = lovers()
    made = leave_one_out(whole)
    small, large = (set(map(tuple, some_of(made.train, s).interactions.rows())) for s in (0.1, 0.4))
    assert small < large
    plan = make_plan("rating-mf", "nowhere", preset="tiny", seeds=2)
    plans = {"factors": plan, "item": make_plan("rating-average", "nowhere"),
             "user": make_plan("rating-average", "nowhere", preset="user")}  # fmt: skip
    curve = data_efficiency(plans, made, Run(), [0.05, 1.0])
    curve.write(tmp_path / "curve.json")
    kept = json.loads((tmp_path / "curve.json").read_text())
    assert [(p["name"], p["system"], p["share"], len(p["of_seeds"])) for p in kept["points"]] == [
        (name, plans[name].system, share, 2 if name == "factors" else 1) for name in plans for share in (0.05, 1.0)
    ]
    assert curve.points[4].figure == curve.points[5].figure, "whose own past average is asked needs no lesson"
    assert hash_of(rating_cases(made)) in kept["questions"]
    few, all_of_it = curve.points[:2]
    assert all_of_it.figure.value < few.figure.value - 0.3
    assert few.events == round(0.05 * made.train.n_interactions)
    draw(curve, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    said = ("share of the train part", "RMSE, less is better", *plans)
    assert all(f">{words}</text>" in drawn for words in said), "words stay words"
