"""Planted differences are found, null ones are not, unequal questions are refused, the sentence says what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, N_USERS, Scorer

from palate.core.errors import ComparisonError, ConfigError
from palate.core.report import Interval, Report
from palate.core.split import Split
from palate.evaluation.comparison import Comparison, Comparisons, compare, effect_size, holm, sign_flip_p
from palate.evaluation.judging import judge_cases
from palate.evaluation.protocols import FullRanking
from palate.evaluation.reports import make_report, to_json
from palate.evaluation.slices import COLD_AMONG_COLD, NAMES, of_slice
from palate.evaluation.tables import headline, leaderboard


def report_of(name: str, values: np.ndarray | Sequence[np.ndarray], metric: str = "ndcg@10") -> Report:
    """A run whose users have these values; several arrays = several seeds."""
    tables = [np.asarray(v) for v in (values if isinstance(values, (list, tuple)) else [values])]
    cases = pl.concat(
        pl.DataFrame(
            {
                "seed": np.full(len(table), seed, dtype=np.int32),
                "case": np.arange(len(table)),
                "user_row": np.arange(len(table)),
                "target_row": np.arange(len(table)) % 7,
                metric: table,
            }
        )
        for seed, table in enumerate(tables)
    )
    return Report(
        name, name, "tiny", "leave-one-out", "h" * 32, "full ranking", "no", tuple(range(len(tables))), cases,
        {metric: Interval(float(np.mean(tables)), 0, 1)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def users() -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 0.3, 500)


def test_a_planted_difference_is_found(users: np.ndarray) -> None:
    """Far smaller than the spread between users, so only pairing shows it."""
    rng = np.random.default_rng(1)
    better = users + 0.03 + rng.normal(0, 0.1, 500)
    found = compare([report_of("A", better), report_of("B", users)]).pairs[0]
    assert found.difference == pytest.approx((better - users).mean())
    assert 0 < found.low < found.difference < found.high
    assert found.p_holm < 0.01
    assert found.winner == "A"
    assert found.reversed().winner == "A"
    assert found.effect == pytest.approx((better - users).mean() / (better - users).std(ddof=1))


def test_a_null_difference_is_found_in_one_of_twenty() -> None:
    rng = np.random.default_rng(2)
    shown, trials = 0, 200
    for trial in range(trials):
        base = rng.normal(0, 1, 80)
        a, b = (base + rng.normal(0, 0.5, 80) for _ in range(2))
        pair = compare([report_of("A", a), report_of("B", b)], resamples=400, flips=400, seed=trial).pairs[0]
        shown += pair.winner is not None
    assert shown / trials <= 0.09
    assert shown > 0


def test_correction_keeps_twelve_alike_systems_alike() -> None:
    rng = np.random.default_rng(3)
    false_alarms = 0
    for trial in range(20):
        runs = [report_of(f"S{i}", rng.normal(0, 1, 60)) for i in range(12)]
        found = compare(runs, resamples=300, flips=300, seed=trial)
        assert len(found.pairs) == 66
        false_alarms += any(pair.winner for pair in found.pairs)
    assert false_alarms <= 4


def test_the_luck_of_training_widens_the_interval(users: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    lucky = [users + 0.02 + shift + rng.normal(0, 0.05, 500) for shift in (-0.06, 0.0, 0.06)]
    single = compare([report_of("A", np.mean(lucky, axis=0)), report_of("B", users)]).pairs[0]
    several = compare([report_of("A", lucky), report_of("B", users)]).pairs[0]
    assert several.difference == pytest.approx(single.difference)
    assert single.winner == "A"
    assert several.winner is None
    assert several.high - several.low > 3 * (single.high - single.low)


def test_the_permutation_p_is_the_exact_one() -> None:
    """Nine users: every one of the 512 sign patterns counted."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.4, 1, 9), rng.normal(0, 1, 9)
    gaps = a - b
    signs = 1 - 2 * ((np.arange(512)[:, None] >> np.arange(9)) & 1)
    exact = (np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean()
    p = sign_flip_p(np.stack([a, b])[:, :, None], [(0, 1)], flips=40_000)
    assert p[0, 0] == pytest.approx(exact, abs=0.01)


def test_the_permutation_p_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(6)
    a = rng.normal(0.12, 1, 200)
    b = rng.normal(0, 1, 200)
    theirs = permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=20_000, rng=0,
    ).pvalue  # fmt: skip
    assert sign_flip_p(np.stack([a, b])[:, :, None], [(0, 1)], flips=20_000)[0, 0] == pytest.approx(theirs, abs=0.02)


def test_no_difference_at_all_has_p_one() -> None:
    same = np.random.default_rng(7).random(50)
    found = compare([report_of("A", same), report_of("B", same)]).pairs[0]
    assert (found.difference, found.p, found.p_holm, found.effect) == (0, 1, 1, 0)
    assert found.winner is None


def test_holm_agrees_with_statsmodels() -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    rng = np.random.default_rng(8)
    for size in (1, 2, 3, 66):
        p = rng.random(size) ** 3
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])


def test_effect_size_without_spread() -> None:
    assert effect_size(np.zeros(5)) == 0
    assert np.isnan(effect_size(np.full(5, 0.25)))
    assert np.isnan(effect_size(np.array([0.3])))


def test_unequal_questions_are_refused(users: np.ndarray) -> None:
    a, b = report_of("A", users), report_of("B", users)
    with pytest.raises(ComparisonError, match="different splits"):
        compare([a, replace(b, split_hash="other")])
    with pytest.raises(ComparisonError, match="asked differently"):
        compare([a, replace(b, protocol="candidates")])
    with pytest.raises(ComparisonError, match="do not answer the same cases"):
        compare([a, replace(b, cases=b.cases[:-1])])
    with pytest.raises(ComparisonError, match="named 'A'"):
        compare([a, a])
    with pytest.raises(ComparisonError, match="at least two"):
        compare([a])
    with pytest.raises(ComparisonError, match="did you mean 'ndcg@10'"):
        compare([a, b], ["ndcg@100"])


def test_rows_in_another_order_are_the_same_questions(users: np.ndarray) -> None:
    better = users + np.random.default_rng(9).normal(0.05, 0.1, 500)
    a, b = report_of("A", better), report_of("B", users)
    shuffled = replace(a, cases=a.cases.sample(fraction=1.0, shuffle=True, seed=1))
    straight, mixed = compare([a, b]).pairs[0], compare([shuffled, b]).pairs[0]
    assert (mixed.low, mixed.high, mixed.p) == pytest.approx((straight.low, straight.high, straight.p))


def findings(values: dict[str, float], shown: set[tuple[str, str]]) -> Comparisons:
    """``shown`` lists (better, worse)."""
    names = list(values)
    pairs = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            sure = (a, b) in shown or (b, a) in shown
            gap = values[a] - values[b]
            pairs.append(
                Comparison(a, b, "ndcg@10", gap, gap - (0.008 if sure else 1), gap + (0.008 if sure else 1), 0.01,
                           0.01 if sure else 0.5, 0.1)
            )  # fmt: skip
    return Comparisons(tuple(pairs), {"ndcg@10": values})


def test_the_sentence_about_two() -> None:
    found = findings({"EASE": 0.070, "SASRec": 0.082}, {("SASRec", "EASE")})
    assert found.sentence() == "SASRec is better than EASE on NDCG@10 (+0.012, 95 % interval +0.004 to +0.020)."
    level = findings({"EASE": 0.070, "SASRec": 0.082}, set())
    assert level.sentence() == (
        "SASRec and EASE are not shown to differ on NDCG@10 "
        "(SASRec minus EASE: +0.012, 95 % interval −0.988 to +1.012)."
    )


def test_the_sentence_about_three() -> None:
    values = {"ItemKNN": 0.068, "EASE": 0.070, "SASRec": 0.082}
    found = findings(values, {("SASRec", "EASE"), ("SASRec", "ItemKNN")})
    assert found.tiers() == [["SASRec"], ["EASE", "ItemKNN"]]
    assert found.sentence() == (
        "SASRec is better than EASE and ItemKNN on NDCG@10 (+0.012 over EASE, 95 % interval +0.004 to +0.020).\n"
        "ItemKNN is not shown to differ from EASE."
    )
    assert findings(values, set()).sentence() == (
        "EASE and ItemKNN are not shown to differ on NDCG@10 from SASRec, the highest (0.082)."
    )


def test_a_tier_never_claims_more_than_was_shown() -> None:
    """B is not shown to differ from A, nor is C from B, but C is worse than A."""
    found = findings({"A": 0.3, "B": 0.2, "C": 0.1}, {("A", "C")})
    assert found.tiers() == [["A", "B"], ["C"]]
    assert found.best() == ["A", "B"]
    said = found.sentence()
    assert "A is better than C on NDCG@10" in said
    assert "B is not shown to differ from A" in said
    assert "B is better" not in said


def test_the_sentence_about_twelve_stays_short() -> None:
    names = [f"S{i}" for i in range(12)]
    values = {name: 0.3 - 0.02 * i for i, name in enumerate(names)}
    every = {(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}
    said = findings(values, every).sentence().splitlines()
    assert len(said) == 5
    assert said[0].startswith("S0 is better than S1 and 10 others on NDCG@10 (+0.020 over S1,")
    assert "last 8" in said[-1]
    tiers = {(a, b) for i, a in enumerate(names) for j, b in enumerate(names) if i // 4 < j // 4}
    said = findings(values, tiers).sentence().splitlines()
    assert len(said) == 3
    assert "; S1, S2 and S3 are not shown to differ from S0." in said[0]
    assert said[2] == "S9, S10 and S11 are not shown to differ from S8."


def test_a_pair_can_be_asked_either_way_round(users: np.ndarray) -> None:
    found = compare([report_of("A", users + 0.1), report_of("B", users)])
    assert found.between("B", "A").difference == pytest.approx(-0.1)
    with pytest.raises(ComparisonError, match="were not compared"):
        found.between("A", "Z")
    with pytest.raises(ComparisonError, match="not compared on 'mrr'"):
        found.order("mrr")


# -- one slice of the cases --------------------------------------------------------------------------------------------

RANKED = FullRanking(metrics=("recall@1", "ndcg@10"))


def judged(split: Split, name: str, lift: float, seeds: int = 1) -> Report:
    """Scores by lot, every warm item above every cold one; ``lift`` raises cold targets among the cold items alone."""
    tables = []
    for seed in range(seeds):
        scores = np.random.default_rng([seed, len(name)]).random((N_USERS, N_ITEMS))
        cold = split.cold_items[split.test.targets]
        scores[split.test.user_rows[cold], split.test.targets[cold]] += lift
        scores[:, ~split.cold_items] += 10
        tables.append(judge_cases(Scorer(scores), split.test, RANKED, train=split.train, seed=seed))
    return make_report(tables, split, RANKED, name=name, system=name)


def test_a_slice_is_compared_on_its_own_cases_and_columns(split: Split) -> None:
    """Among all items nobody finds a cold target; among the cold ones one run always does, and is shown to."""
    whole = [judged(split, "finds", 5.0, seeds=2), judged(split, "guesses", 0.0)]
    assert compare([of_slice(report, "cold-items") for report in whole], ["recall@1"]).pairs[0].difference == 0
    parts = [of_slice(report, COLD_AMONG_COLD) for report in whole]
    found = compare(parts)
    pair = found.between("finds", "guesses", "recall@1")
    asked = whole[1].cases.filter(pl.col("cold-items"))
    by_hand = (asked["rank_among_cold"] == 1).to_numpy().mean()  # no ties: scores are drawn
    assert pair.difference == pytest.approx(1 - by_hand)
    assert 0 < pair.low <= pair.difference <= pair.high
    assert pair.winner == "finds"
    assert "finds is better than guesses" in found.sentence("recall@1")
    assert f"{asked.height} of the users: {COLD_AMONG_COLD}" in headline(parts)
    assert "chance alone gives recall@1 0.167" in parts[0].notes[0]
    told = to_json(parts, found)
    assert told["slice"] == COLD_AMONG_COLD
    assert told["runs"][0]["metrics"]["recall@1"]["value"] == 1
    assert leaderboard(parts, found, main="recall@1")


def test_the_interval_of_a_slice_is_the_one_its_report_has(split: Split) -> None:
    """Against a run that never finds anything the paired difference is the run's own figure, draw for draw."""
    run = judged(split, "guesses", 0.0)
    for name in (*NAMES, COLD_AMONG_COLD):
        part = of_slice(run, name)
        nothing = pl.when(pl.col("ndcg@10").is_nan()).then(float("nan")).otherwise(0.0).alias("ndcg@10")
        never = replace(part, name="never", cases=part.cases.with_columns(nothing))
        pair, span = compare([part, never], ["ndcg@10"]).pairs[0], run.slices[name]["ndcg@10"]
        assert (pair.difference, pair.low, pair.high) == pytest.approx((span.value, span.low, span.high))


def test_slices_that_are_not_there_are_refused(split: Split) -> None:
    run = judged(split, "run", 0.0)
    with pytest.raises(ConfigError, match="no slice 'cold-item'; did you mean 'cold-items'"):
        of_slice(run, "cold-item")
    warm = replace(run, slices={"warm-items": run.slices["warm-items"]})
    with pytest.raises(ComparisonError, match=r"no case of cold-items under .* \(it has warm-items\)"):
        of_slice(warm, "cold-items")
    with pytest.raises(ComparisonError, match="asked differently"):
        compare([of_slice(run, "cold-items"), replace(run, name="whole")])
