"""Doubts against a count by hand, and what chance gives."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core.errors import DataError
from palate.evaluation.doubts import doubts


def test_share_of_noise_among_as_many_as_there_are() -> None:
    users = np.array([0, 0, 1, 1, 2, 2, 2])
    losses = np.array([0.1, 3.0, 2.0, 0.2, 0.3, np.nan, 0.4], dtype=np.float32)
    noise = np.array([False, True, False, True, False, True, False])
    found = doubts(users, losses, noise)
    assert (found.events, found.noise) == (6, 2), "the event of unknown loss takes no part"
    assert found.chance == 2 / 6
    assert found.largest.value == 0.5, "losses 3.0 (noise) and 2.0"
    assert found.smallest.value == 0.5, "losses 0.1 and 0.2 (noise)"


def test_losses_that_know_and_losses_that_do_not() -> None:
    rng = np.random.default_rng(0)
    users, noise = np.repeat(np.arange(300), 20), rng.random(6000) < 0.1
    knows = doubts(users, (noise + rng.normal(0, 0.5, 6000)).astype(np.float32), noise)
    assert knows.largest.low > 0.3
    assert knows.smallest.value < 0.02
    lot = doubts(users, rng.random(6000).astype(np.float32), noise)
    assert lot.largest.low < lot.chance < lot.largest.high


def test_one_user_has_no_interval_but_the_point() -> None:
    found = doubts(np.zeros(4, dtype=np.int64), np.arange(4, dtype=np.float32), np.array([False, False, False, True]))
    assert (found.largest.value, found.largest.low, found.largest.high) == (1.0, 1.0, 1.0)


def test_losses_that_are_all_alike_share_their_places() -> None:
    users, noise = np.repeat(np.arange(50), 4), np.arange(200) < 20
    found = doubts(users, np.zeros(200, dtype=np.float32), noise)
    assert found.largest.value == found.smallest.value == pytest.approx(found.chance)
    half = doubts(users, (np.arange(200) < 10).astype(np.float32), noise)
    assert half.largest.value == pytest.approx((10 + 10 * 10 / 190) / 20), "ten for sure, ten drawn among the rest"


def test_seeds_rank_by_themselves_and_their_luck_widens_the_interval() -> None:
    rng = np.random.default_rng(1)
    users, noise = np.repeat(np.arange(200), 10), rng.random(2000) < 0.1
    knowing, blind = noise + rng.normal(0, 0.2, 2000), rng.random(2000)
    alone = [doubts(users, losses, noise) for losses in (knowing, blind)]
    both = doubts(users, [knowing, blind], noise)
    assert both.largest_by_seed == tuple(one.largest.value for one in alone)
    assert both.largest.value == pytest.approx(np.mean(both.largest_by_seed))
    assert both.smallest.value == pytest.approx(np.mean([one.smallest.value for one in alone]))
    assert both.largest.high - both.largest.low > 2 * max(one.largest.high - one.largest.low for one in alone)
    twice = doubts(users, [knowing, knowing], noise)
    assert (twice.largest.low, twice.largest.high) == pytest.approx((alone[0].largest.low, alone[0].largest.high))
    missing = knowing.copy()
    missing[:10] = np.nan
    assert doubts(users, [missing, blind], noise).events == 1990, "known in every seed, or left out"


@pytest.mark.parametrize("noise", [[False, False], [True, True]])
def test_without_noise_or_without_others_there_is_nothing_to_find(noise: list[bool]) -> None:
    with pytest.raises(DataError, match="both noise and others"):
        doubts(np.zeros(2, dtype=np.int64), np.ones(2, dtype=np.float32), np.array(noise))
