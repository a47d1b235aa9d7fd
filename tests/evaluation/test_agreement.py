"""Agreement of groups with tastes: against a hand count, one of a library, groups by lot and groups that know."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from palate.core.errors import DataError
from palate.core.report import Interval
from palate.data.world import planted, world
from palate.evaluation.agreement import agreement, information, over_seeds


def test_with_one_taste_each_it_is_the_usual_figure() -> None:
    rng = np.random.default_rng(0)
    groups, taste = rng.integers(5, size=200), rng.integers(4, size=200)
    taste[:100] = groups[:100] % 4
    wanted = normalized_mutual_info_score(taste, groups, average_method="geometric")
    assert information(groups, np.eye(4, dtype=bool)[taste]) == pytest.approx(wanted)
    twice = np.concatenate([groups, groups[:50]]), np.concatenate([taste, taste[:50]])
    weights = np.where(np.arange(200) < 50, 2.0, 1.0)
    wanted = normalized_mutual_info_score(twice[1], twice[0], average_method="geometric")
    assert information(groups, np.eye(4, dtype=bool)[taste], weights) == pytest.approx(wanted)


def test_only_groups_that_know_stand_above_a_random_index() -> None:
    rng = np.random.default_rng(1)
    tastes = np.eye(6, dtype=bool)[rng.integers(6, size=150)] | np.eye(6, dtype=bool)[rng.integers(6, size=150)]
    knowing = agreement(tastes.argmax(1), tastes, resamples=100)
    assert knowing.above.low > 0.2
    lot = agreement(rng.integers(20, size=150), tastes, resamples=100)
    assert lot.random > 0.03, "many groups agree with anything by chance"
    assert lot.above.low < 0 < lot.above.high
    assert information(np.zeros(150, dtype=int), tastes) == 0
    with pytest.raises(DataError, match="at least two of each"):
        agreement(np.zeros(1, dtype=int), tastes[:1])


def test_the_mean_of_seeds_holds_the_spread_over_users_and_over_seeds() -> None:
    alike = over_seeds([Interval(0.1, 0.07, 0.13, 9), Interval(0.1, 0.05, 0.15, 9)])
    assert (alike.value, alike.low, alike.high, alike.n) == pytest.approx((0.1, 0.06, 0.14, 9))
    apart = over_seeds([Interval(0.0, -0.03, 0.03, 9), Interval(0.2, 0.17, 0.23, 9)])
    assert apart.value == pytest.approx(0.1)
    assert apart.high - apart.value == pytest.approx(np.hypot(0.03, 1.96 * np.sqrt(0.02) / np.sqrt(2)))
    one = Interval(0.1, 0.07, 0.13, 9)
    assert (over_seeds([one]).low, over_seeds([one]).high) == pytest.approx((one.low, one.high))


def test_the_truth_of_a_world_is_found_again() -> None:
    made = world("test", readers=30, seed=4)
    again = planted(made.dataset)
    assert again is not None
    np.testing.assert_array_equal(again.truth.readers.taste, made.truth.readers.taste)
    from tests.models.reader_logs import coloured_readers

    assert planted(coloured_readers(4)) is None
