"""What every system promises about its answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.core.protocols import Recommender, ScoresAll
from palate.core.ragged import Ragged
from palate.core.ranks import ranks
from palate.core.requests import Requests
from palate.core.split import Split
from palate.data.world import World
from palate.data.world.oracle import oracle_scores
from tests.contract.questions import same, table

K = 10


def reads_texts_alone(system: Recommender) -> bool:
    """Nothing tells such a system what nobody buys; only taste that shows in texts helps it."""
    return type(system).__module__.startswith("palate.models.content.")


def test_has_the_abilities_of_a_recommender(system: Recommender) -> None:
    assert isinstance(system, Recommender)


def test_higher_is_better_the_favourite_beats_what_nobody_bought(
    system: Recommender, split: Split, the_world: World
) -> None:
    """For nine of ten readers, what they would most likely read next stands above a book that no train event shows."""
    sold = split.train.item_counts > 0
    assert (~sold).any()
    unread = np.ones((split.train.n_users, split.train.n_items), dtype=bool)
    unread[split.train.user_rows, split.train.item_rows] = False
    chances = np.where(unread & sold, oracle_scores(the_world), -1)
    favourite = chances.argmax(1)
    scores = table(system, Requests.for_users(split.train, np.arange(split.train.n_users)), split.train.n_items)
    wanted = scores[np.arange(len(scores)), favourite]
    assert np.isfinite(wanted).all()
    never = np.nan_to_num(scores[:, ~sold], nan=-np.inf)
    assert (wanted[:, None] > never).mean() > (0.75 if reads_texts_alone(system) else 0.85)


def test_learns_something_the_answer_fits_the_reader(system: Recommender, split: Split) -> None:
    """Targets stand clearly higher than in a ranking by lot (half of the items)."""
    cases = split.test
    warm = split.train.item_counts[cases.targets] > 0
    scores = table(system, cases.requests[np.flatnonzero(warm)], split.train.n_items)
    places = ranks([scores], cases.targets[warm], leave_out=cases.requests.histories[np.flatnonzero(warm)])
    bound = 0.9 if reads_texts_alone(system) else 0.8
    assert places.mean() < bound * (split.train.n_items - cases.requests.histories.lengths[warm].mean()) / 2


def test_nan_means_cannot_score_and_is_never_answered(system: Recommender, questions: Requests, split: Split) -> None:
    n = split.train.n_items
    scores = table(system, questions, n + 4)
    assert scores.dtype == np.float32
    assert np.isnan(scores[:, n:]).all(), "an item added after training cannot be scored"
    assert not np.isinf(scores).any()
    rankings = system.recommend(questions, n + 4)
    empty = rankings.item_rows < 0
    assert np.isnan(rankings.scores[empty]).all()
    assert np.isfinite(rankings.scores[~empty]).all()
    found = np.zeros(scores.shape, dtype=bool)
    rows, places = np.nonzero(~empty)
    found[rows, rankings.item_rows[rows, places]] = True
    if rankings.exact:
        np.testing.assert_array_equal(found, np.isfinite(scores))


def test_recommend_agrees_with_score(system: Recommender, questions: Requests, split: Split) -> None:
    """Best first, ties to the lower row, the same numbers to the bit."""
    n = split.train.n_items
    rankings = system.recommend(questions, K)
    assert rankings.item_rows.shape == rankings.scores.shape == (len(questions), K)
    scores = table(system, questions, n)
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")[:, :K]
    if not isinstance(system, ScoresAll):  # a search adds up in another order
        own = np.take_along_axis(scores, np.maximum(rankings.item_rows, 0), axis=1)
        np.testing.assert_allclose(rankings.scores, np.where(rankings.item_rows < 0, np.nan, own), rtol=1e-4)
        if rankings.exact:
            np.testing.assert_allclose(rankings.scores, np.take_along_axis(scores, order, axis=1), rtol=1e-4)
        return
    np.testing.assert_array_equal(rankings.item_rows, order)
    np.testing.assert_array_equal(rankings.scores, np.take_along_axis(scores, order, axis=1))


def test_a_batch_is_its_questions_one_by_one(system: Recommender, questions: Requests, split: Split) -> None:
    n = split.train.n_items
    whole = table(system, questions, n)
    backwards = table(system, questions[np.arange(len(questions))[::-1]], n)[::-1]
    np.testing.assert_allclose(backwards, whole, rtol=2e-4, atol=2e-5)
    for row in (0, 13, 25, *range(40, len(questions))):
        alone = table(system, questions[row : row + 1], n)[0]
        np.testing.assert_allclose(alone, whole[row], rtol=2e-4, atol=2e-5, err_msg=f"question {row}")
        answer = system.recommend(questions[row : row + 1], K)
        own = whole[row, answer.item_rows[0]]
        assert (np.diff(own) <= 2e-4 * np.abs(own[1:]) + 2e-5).all(), f"question {row}"


def test_what_is_left_out_never_appears(system: Recommender, questions: Requests, split: Split) -> None:
    n = split.train.n_items
    rng = np.random.default_rng(0)
    left = Ragged.of([rng.integers(0, n + 3, rng.integers(0, n)) for _ in range(len(questions))])
    rankings = system.recommend(replace(questions, leave_out=left).leaving_out_history(), n)
    for answer, away, history in zip(rankings.item_rows, left, questions.histories, strict=True):
        assert not set(answer[answer >= 0].tolist()) & {*away.tolist(), *history.tolist()}
    nothing = replace(questions, leave_out=Ragged.of([np.arange(n)] * len(questions)))
    assert (system.recommend(nothing, 3).item_rows == -1).all()


def test_leaving_out_changes_no_score(system: Recommender, questions: Requests, split: Split) -> None:
    """What remains keeps its order."""
    n = split.train.n_items
    whole, rest = system.recommend(questions, n), system.recommend(questions.leaving_out_history(), n)
    if not whole.exact:
        pytest.skip("a search may find others when some are left out")
    for before, after, history in zip(whole.item_rows, rest.item_rows, questions.histories, strict=True):
        kept = before[(before >= 0) & ~np.isin(before, history)]
        np.testing.assert_array_equal(after[after >= 0], kept)


def test_only_candidates_are_answered(system: Recommender, questions: Requests, split: Split) -> None:
    n = split.train.n_items
    rng = np.random.default_rng(1)
    wanted = [rng.integers(0, n + 5, rng.integers(0, 15)) for _ in range(len(questions))]
    limited = replace(questions, candidates=Ragged.of(wanted))
    rankings = system.recommend(limited, 15)
    scores = table(system, questions, n)
    for row, (answer, candidates) in enumerate(zip(rankings.item_rows, wanted, strict=True)):
        scorable = {item for item in candidates.tolist() if item < n and np.isfinite(scores[row, item])}
        found = answer[answer >= 0].tolist()
        assert len(found) == len(set(found))
        assert set(found) == scorable if rankings.exact else set(found) <= scorable


def test_score_follows_the_order_of_the_candidates(system: Recommender, questions: Requests, split: Split) -> None:
    """Flat, row after row, repeats and unknown rows included; the same numbers whatever else is asked."""
    n = split.train.n_items
    rng = np.random.default_rng(2)
    candidates = Ragged.of([rng.integers(-1, n + 2, rng.integers(0, 9)) for _ in range(len(questions))])
    flat = system.score(questions, candidates)
    assert flat.shape == (int(candidates.lengths.sum()),)
    whole = np.pad(table(system, questions, n), ((0, 0), (0, 3)), constant_values=np.nan)
    np.testing.assert_allclose(flat, whole[candidates.row_numbers(), candidates.flat()], rtol=1e-5, atol=1e-6)


def test_strangers_and_newcomers_get_a_sensible_answer(
    system: Recommender, questions: Requests, split: Split, the_world: World
) -> None:
    """Every odd question has a full list; who is unknown and silent is shown what people buy."""
    counts = split.train.item_counts
    odd = questions[40:]
    rankings = system.recommend(odd, K)
    assert (rankings.item_rows >= 0).all()
    silent = Requests.of([[], [], [len(counts)]], user_rows=np.array([-1, split.train.n_users, -1]))
    answers = system.recommend(silent, K).item_rows
    assert counts[answers].mean() > 1.2 * counts[counts > 0].mean()
    assert (answers == answers[0]).all(), "nothing tells these newcomers apart"


def test_an_item_added_after_training_is_read_over(system: Recommender, split: Split) -> None:
    n = split.train.n_items
    history = split.train.histories.row(4).tolist()
    hour = 3_600_000
    times = np.arange(len(history), dtype=np.int64) * hour
    plain = Requests.of([history], history_times=times, times=np.array([len(history) * hour]))
    more = Requests.of(
        [[n + 2, *history[:3], n, *history[3:]]],
        history_times=np.concatenate([times[:1], times[:3], times[2:3], times[3:]]),
        times=plain.times,
    )
    np.testing.assert_allclose(table(system, more, n), table(system, plain, n), rtol=1e-4, atol=1e-5)
    assert same(system.recommend(more, K), system.recommend(plain, K))


def test_questions_need_no_times_and_no_names(system: Recommender, questions: Requests, split: Split) -> None:
    bare = Requests(questions.histories)
    assert (system.recommend(bare, K).item_rows >= 0).all()
    assert table(system, bare, split.train.n_items).shape == (len(questions), split.train.n_items)


def test_no_question_no_answer(system: Recommender, questions: Requests) -> None:
    rankings = system.recommend(questions[:0], K)
    assert rankings.item_rows.shape == rankings.scores.shape == (0, K)
    assert system.score(questions[:0], Ragged.empty(0)).shape == (0,)


def test_asking_leaves_no_trace(system: Recommender, questions: Requests, split: Split) -> None:
    """Neither the questions nor the system change, even when the caller overwrites a block."""
    before = [questions.histories.values.copy(), questions.user_rows.copy(), questions.history_times.copy()]  # type: ignore[union-attr]
    first = system.recommend(questions, K)
    if isinstance(system, ScoresAll):
        for block in (*system.score_blocks(questions), *system.score_blocks(questions[:1])):
            assert block.dtype == np.float32
            block[:] = 0
    assert same(system.recommend(questions, K), first)
    for column, kept in zip(
        (questions.histories.values, questions.user_rows, questions.history_times), before, strict=True
    ):
        np.testing.assert_array_equal(column, kept)
