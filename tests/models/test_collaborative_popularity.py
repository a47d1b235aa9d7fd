"""Popularity by hand: counts, half-lives in days and in events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palate.core import store
from palate.core.config import configure
from palate.core.errors import ConfigError, TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.collaborative.popularity import DAY_MS, Popularity, PopularityConfig
from tests.models.collaborative_logs import log_of

ASKED = Requests.of([[0], []])


def test_counts_are_scores_and_what_is_left_out_stays_out() -> None:
    system = Popularity().fit(log_of([[0, 1, 1], [1, 2], [2]], n_items=4), Run())
    (block,) = system.score_blocks(ASKED)
    assert block.tolist() == [[1, 3, 2, 0]] * 2
    answer = system.recommend(Requests.of([[1], []]).leaving_out_history(), 4)
    assert answer.item_rows.tolist() == [[2, 0, 3, -1], [1, 2, 0, 3]]


def test_a_half_life_in_days_halves_each_half_life() -> None:
    train = log_of([[0, 1, 2]], 3, times=[0, 10 * DAY_MS, 20 * DAY_MS], clock="unix")
    (block,) = Popularity(PopularityConfig(half_life_days=10)).fit(train, Run()).score_blocks(ASKED[:1])
    np.testing.assert_allclose(block[0], [0.25, 0.5, 1.0])


def test_without_times_age_is_the_number_of_later_events_of_the_history() -> None:
    train = log_of([[0, 1, 2], [2, 0]], 3)
    config = PopularityConfig(half_life_days=10, half_life_events=1)
    (block,) = Popularity(config).fit(train, Run()).score_blocks(ASKED[:1])
    np.testing.assert_allclose(block[0], [0.25 + 1.0, 0.5, 1.0 + 0.5])


def test_order_data_never_reads_its_places_as_times() -> None:
    """Places 0, 1, 2 as milliseconds would all weigh one."""
    train = log_of([[0, 1, 2]], 3, times=[0, 1, 2], clock="order")
    (block,) = Popularity(PopularityConfig(half_life_days=1, half_life_events=1)).fit(train, Run()).score_blocks(ASKED)
    np.testing.assert_allclose(block[0], [0.25, 0.5, 1.0])


def test_saved_is_loaded(tmp_path: Path) -> None:
    train = log_of([[0, 1, 1]], n_items=2)
    system = Popularity(PopularityConfig(half_life_days=3)).fit(train, Run())
    system.save(tmp_path / "model")
    loaded = store.load(tmp_path / "model")
    assert loaded.config == system.config
    assert store.open_folder(tmp_path / "model").fitted_on == train.fingerprint
    np.testing.assert_array_equal(loaded.weights, system.weights)


def test_misuse_is_one_sentence() -> None:
    with pytest.raises(TrainingError, match="call fit or load first"):
        next(Popularity().score_blocks(ASKED))
    with pytest.raises(ConfigError, match="half_life_days"):
        configure(PopularityConfig, {"half_life_days": 0})
