"""What is asked, what is masked, and what the table of cases says about it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, N_USERS, Scorer, Searcher

from palate.core.config import configure, override
from palate.core.errors import ConfigError
from palate.core.split import Cases, Split
from palate.evaluation.candidates import draw
from palate.evaluation.judging import judge, judge_cases
from palate.evaluation.protocols import Candidates, FullRanking
from palate.evaluation.slices import COLD_AMONG_COLD, flags, rules, thresholds


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 30, (N_USERS, N_ITEMS)).astype(np.float32)


def plain_rank(scores: np.ndarray, target: int, history: set[int]) -> tuple[float, int]:
    may = [item for item in range(len(scores)) if item not in history]
    better = sum(scores[item] > scores[target] for item in may)
    level = sum(scores[item] == scores[target] for item in may)
    return better + (level + 1) / 2, level


@pytest.mark.parametrize("history", ["all", "train"])
def test_ranks_agree_with_asking_one_by_one(split: Split, history: str) -> None:
    system = Scorer(table())
    protocol = configure(FullRanking, {"history": history})
    cases = judge_cases(system, split.test, protocol, train=split.train)
    source = split.test.requests.histories if history == "all" else split.train.histories[split.test.user_rows]
    for place, row in enumerate(cases.iter_rows(named=True)):
        known = set(source.row(place).tolist())
        if row["target_row"] in known:
            continue
        rank, tied = plain_rank(system.scores[row["user_row"]], row["target_row"], known)
        assert (row["rank"], row["tied"]) == (rank, tied)
        assert row["user_row"] == split.test.user_rows[place]
        assert not known & set(row["answers"])
    assert cases.height == len(split.test)


def test_history_decides_what_the_system_reads(split: Split) -> None:
    """At test ``all`` holds the validation event; ``train`` holds what taught and nothing more."""
    both = {}
    for history in ("all", "train"):
        system = Scorer(table())
        judge_cases(system, split.test, configure(FullRanking, {"history": history}), train=split.train)
        both[history] = system.asked[0]
    lengths = split.dataset.histories.lengths[split.test.user_rows]
    assert (both["all"].histories.lengths == lengths - 1).all()
    assert (both["train"].histories.lengths == lengths - 2).all()
    valid_targets = dict(zip(split.valid.user_rows.tolist(), split.valid.targets.tolist(), strict=True))
    for place, user in enumerate(split.test.user_rows.tolist()):
        assert valid_targets[user] == both["all"].histories.row(place)[-1]
        assert valid_targets[user] in both["all"].leave_out.row(place)
        assert valid_targets[user] not in both["train"].leave_out.row(place)
    times = both["train"].history_times
    assert times is not None
    flat = both["train"].histories.flat_positions()
    assert (times[flat] // 1000 == np.repeat(split.test.user_rows, lengths - 2)).all()


def test_an_unmasked_history_competes(split: Split) -> None:
    scores = np.zeros((N_USERS, N_ITEMS))
    for place, user in enumerate(split.test.user_rows):
        scores[user, split.test.requests.histories.row(place)] = 5
        scores[user, split.test.targets[place]] = 1
    masked = judge_cases(Scorer(scores), split.test, FullRanking(), train=split.train)
    shown = judge_cases(Scorer(scores), split.test, FullRanking(mask_history=False), train=split.train)
    assert (masked["rank"] == 1).all()
    assert shown["rank"].to_list() == [1 + len(set(row.tolist())) for row in split.test.requests.histories]


def test_a_search_that_does_not_answer_the_target_misses(split: Split) -> None:
    lists = np.tile(np.arange(10), (N_USERS, 1))
    cases = judge_cases(Searcher(lists), split.test, FullRanking(), train=split.train)
    for row in cases.iter_rows(named=True):
        expected = row["target_row"] + 1.0 if row["target_row"] < 10 else np.inf
        assert row["rank"] == expected
    assert (cases.filter(pl.col("rank").is_infinite())["ndcg@10"] == 0).all()
    assert cases["rank"].is_infinite().any()
    assert (~cases["rank"].is_infinite()).any()


def test_cold_targets_are_ranked_twice_and_an_id_model_is_at_chance(split: Split) -> None:
    cold = np.flatnonzero(split.cold_items)
    assert len(cold) >= 6
    scores = table(3)
    scores[:, cold] = np.nan
    blind = judge_cases(Scorer(scores), split.test, FullRanking(metrics=("recall@1", "recall@3")), train=split.train)
    among = blind.filter("cold-items")
    assert among.height >= 12
    assert among["rank_among_cold"].is_not_null().all()
    assert blind.filter("warm-items")["rank_among_cold"].null_count() == blind.filter("warm-items").height
    assert (among["tied_among_cold"] == len(cold)).all()
    assert (among["rank"] > N_ITEMS - len(cold) - 12).all()

    scores[:, cold] = np.random.default_rng(1).random((N_USERS, len(cold)))
    seeing = judge_cases(Scorer(scores), split.test, FullRanking(), train=split.train).filter("cold-items")
    for row in seeing.iter_rows(named=True):
        mine = scores[row["user_row"]]
        assert row["rank_among_cold"] == 1 + (mine[cold] > mine[row["target_row"]]).sum()


def test_candidates_hold_the_target_and_n_items_never_met(split: Split) -> None:
    for drawn in ("uniform", "popularity"):
        protocol = configure(Candidates, {"n": 12, "drawn": drawn, "seed": 4})
        asked = protocol.ask(split.test, split.train)
        assert asked.requests.candidates is not None
        for place, row in enumerate(asked.requests.candidates):
            met = set(split.test.requests.histories.row(place).tolist())
            assert len(row) == len(set(row.tolist())) == 13
            assert split.test.targets[place] in row
            assert not met & (set(row.tolist()) - {int(split.test.targets[place])})
            if drawn == "popularity":
                others = row[row != split.test.targets[place]]
                assert (split.train.item_counts[others] > 0).all()


def test_the_draw_of_a_case_depends_on_nothing_else(split: Split) -> None:
    whole = draw(split.test, n=8, n_items=N_ITEMS, seed=1)
    some = np.array([40, 3, 17])
    part = draw(split.test[some], n=8, n_items=N_ITEMS, seed=1)
    assert [row.tolist() for row in part] == [whole.row(i).tolist() for i in some]
    other = draw(split.test, n=8, n_items=N_ITEMS, seed=2)
    assert [row.tolist() for row in other] != [row.tolist() for row in whole]


def test_fewer_items_than_asked_for_gives_all_there_are(split: Split) -> None:
    rows = draw(split.test, n=500, n_items=N_ITEMS, seed=0)
    for place, row in enumerate(rows):
        met = set(split.test.requests.histories.row(place).tolist()) - {int(split.test.targets[place])}
        assert set(row.tolist()) == set(range(N_ITEMS)) - met


def test_the_draw_is_fair(split: Split) -> None:
    """Over many cases of one empty history each item is drawn as often as its weight says."""
    b, n_items = 20_000, 10
    empty = split.test[np.zeros(b, dtype=np.int64)]
    requests = type(empty.requests).of([[]] * b, user_rows=np.arange(b))
    cases = Cases(requests, np.full(b, n_items - 1), np.arange(b))
    uniform = draw(cases, n=1, n_items=n_items, seed=0)
    counts = np.bincount(uniform.flat(), minlength=n_items)[:-1]
    assert np.abs(counts - b / 9).max() < 5 * np.sqrt(b / 9)
    weights = np.arange(n_items, dtype=np.float32)
    drawn = draw(cases, n=1, n_items=n_items, seed=0, weights=weights)
    counts = np.bincount(drawn.flat(), minlength=n_items)[:-1]
    expected = b * weights[:-1] / weights[:-1].sum()
    assert counts[0] == 0
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()


def test_the_target_is_ranked_among_its_candidates(split: Split) -> None:
    system = Scorer(table())
    protocol = Candidates(n=9, seed=2)
    cases = judge_cases(system, split.test, protocol, train=split.train)
    asked = protocol.ask(split.test, split.train).requests.candidates
    assert asked is not None
    for place, row in enumerate(cases.iter_rows(named=True)):
        scores = system.scores[row["user_row"]][asked.row(place)]
        own = system.scores[row["user_row"], row["target_row"]]
        assert row["rank"] == (scores > own).sum() + ((scores == own).sum() + 1) / 2
        assert set(row["answers"]) <= set(asked.row(place).tolist())


def test_a_protocol_says_how_it_asks() -> None:
    assert str(FullRanking()) == "full ranking, history: everything before the target, masked"
    assert "the train part only" in str(FullRanking(history="train"))
    assert "not masked" in str(FullRanking(mask_history=False))
    said = str(Candidates(n=20, seed=7, drawn="popularity"))
    assert "20 items" in said
    assert "train events" in said
    assert "seed 7" in said


def test_wrong_protocols_are_refused(split: Split) -> None:
    with pytest.raises(ConfigError, match="did you mean 'ndcg'"):
        FullRanking(metrics=("ngcd@10",))
    with pytest.raises(ConfigError, match="did you mean 'mask_history'"):
        configure(FullRanking, {"mask_histories": False})
    with pytest.raises(ConfigError, match="at least one metric"):
        FullRanking(metrics=())
    with pytest.raises(ConfigError, match="needs the train part"):
        FullRanking(history="train").ask(split.test)
    with pytest.raises(ConfigError, match="give it the train part"):
        Candidates().ask(split.test)
    assert override(FullRanking(), {"metrics": ["NDCG@5", "ndcg@5"]}).metrics == ("ndcg@5",)


def test_the_validation_judge_gives_the_mean_over_users(split: Split) -> None:
    system = Scorer(table())
    cases = judge_cases(system, split.valid, FullRanking(), train=split.train)
    assert judge(split.valid)(system) == pytest.approx(cases["ndcg@10"].mean())
    twice = split.valid[np.array([0, 0, 1])]
    scores = table()
    scores[twice.user_rows[0], twice.targets[0]] = 99
    scores[twice.user_rows[2], twice.targets[2]] = -1
    assert judge(twice)(Scorer(scores)) == pytest.approx(
        0.5
    )  # 1 for the first user however often asked, 0 for the other


def test_the_validation_judge_can_ask_a_fixed_part_of_the_users(split: Split) -> None:
    look = judge(split.valid, FullRanking(), "recall@10", users=9, seed=3)
    first, second = Scorer(table()), Scorer(table(1))
    look(first)
    look(second)
    assert len(first.asked[0]) == 9
    assert (first.asked[0].user_rows == second.asked[0].user_rows).all()
    other = Scorer(table())
    judge(split.valid, FullRanking(), "recall@10", users=9, seed=4)(other)
    assert (first.asked[0].user_rows != other.asked[0].user_rows).any()


def test_users_that_nobody_knows_count_one_each(split: Split) -> None:
    from dataclasses import replace

    class Blind(Scorer):
        def score_blocks(self, requests):  # type: ignore[no-untyped-def]
            yield self.scores[: len(requests)].copy()

    some = split.test[np.arange(5)]
    strangers = replace(some, requests=replace(some.requests, user_rows=np.full(5, -1)))
    cases = judge_cases(Blind(table()), strangers, FullRanking(), train=split.train)
    assert cases["user_row"].n_unique() == 5
    assert (cases["user_row"] < 0).all()


def test_slices_follow_from_the_train_part(split: Split) -> None:
    found = flags(split.test, split.train)
    counts = split.train.item_counts
    lengths = split.train.histories.lengths
    short, long, head = thresholds(split.train)
    for place, (user, target) in enumerate(zip(split.test.user_rows, split.test.targets, strict=True)):
        assert found["cold-items"][place] == (counts[target] == 0)
        assert found["warm-items"][place] == (counts[target] > 0)
        assert found["head-items"][place] == (counts[target] >= head)
        assert found["tail-items"][place] == (0 < counts[target] < head)
        assert found["short-histories"][place] == (lengths[user] <= short)
        assert found["long-histories"][place] == (lengths[user] >= long)
    warm = counts[counts > 0]
    assert 0.2 <= (warm >= head).mean() < 0.35
    taught = lengths[lengths > 0]
    assert (taught < short).mean() <= 1 / 3 <= (taught <= short).mean()
    assert (taught > long).mean() <= 1 / 3 <= (taught >= long).mean()
    assert not (found["short-histories"] & found["long-histories"]).any()
    assert f"{int(split.cold_items.sum())} such items" in rules(split.train)[COLD_AMONG_COLD]
