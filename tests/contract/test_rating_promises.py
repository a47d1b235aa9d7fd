"""What every system that predicts ratings promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.core import store
from palate.core.errors import DataError, TrainingError
from palate.core.protocols import RatingPredictor, Recommender
from palate.core.ragged import Ragged
from palate.core.ratings import RatingRequests
from palate.core.run import Run
from palate.core.split import Split
from palate.data.ratings import rating_cases
from palate.systems import able
from tests.contract.questions import small

ROWS = able("RatingPredictor")
STEPS = 20


@pytest.fixture(scope="session")
def raters() -> dict[str, RatingPredictor]:
    return {}


@pytest.fixture
def rater(name: str, split: Split, raters: dict[str, RatingPredictor]) -> RatingPredictor:
    """The system of that name, fitted once a session; tests must not change it."""
    if name not in raters:
        raters[name] = small(name).fit(split.train, Run(max_steps=STEPS))  # type: ignore[assignment]
    return raters[name]


@pytest.fixture(scope="session")
def asked(split: Split) -> RatingRequests:
    """Test questions, then an unknown user, an empty history, an item added after training, ratings off the scale."""
    known = rating_cases(split).requests[np.arange(30)]
    n, users = split.train.n_items, split.train.n_users
    histories = [*(row.tolist() for row in known.histories), [], [0, 1], [n + 2], [3, 4]]
    given = [*known.history_ratings[known.histories.flat_positions()].tolist(), 5, 1, 2, 99, np.nan]
    return RatingRequests(
        Ragged.of(histories), np.array(given, np.float32),
        np.array([*known.items.tolist(), 0, n, n + 7, 5]),
        np.array([*known.user_rows.tolist(), -1, users, users + 9, 2]),
    )  # fmt: skip


def test_the_row_names_the_ability(rater: RatingPredictor) -> None:
    assert isinstance(rater, RatingPredictor)
    assert not isinstance(rater, Recommender)


def test_every_question_has_a_number_on_the_scale(rater: RatingPredictor, asked: RatingRequests) -> None:
    found = rater.predict(asked)
    assert found.stars.dtype == np.float32
    assert found.stars.shape == found.failed.shape == found.retried.shape == (len(asked),)
    assert ((found.stars >= 1) & (found.stars <= 5)).all()
    assert len(rater.predict(asked[np.zeros(0, np.int64)]).stars) == 0


def test_a_batch_is_its_questions_one_by_one(rater: RatingPredictor, asked: RatingRequests) -> None:
    whole = rater.predict(asked).stars
    backwards = rater.predict(asked[np.arange(len(asked))[::-1]]).stars[::-1]
    np.testing.assert_allclose(backwards, whole, rtol=1e-4, atol=1e-4)
    for row in (0, 7, *range(30, len(asked))):
        np.testing.assert_allclose(rater.predict(asked[row : row + 1]).stars[0], whole[row], rtol=1e-4, atol=1e-4)


def test_saved_is_loaded(
    name: str, rater: RatingPredictor, asked: RatingRequests, split: Split, tmp_path: Path
) -> None:
    rater.save(tmp_path / name)
    loaded = store.load(tmp_path / name)
    assert loaded.config == rater.config
    assert store.read_manifest(tmp_path / name)["fitted_on"] == split.train.fingerprint
    assert loaded.predict(asked).stars.tobytes() == rater.predict(asked).stars.tobytes()
    loaded.save(tmp_path / "again")
    assert store.load(tmp_path / "again").predict(asked).stars.tobytes() == rater.predict(asked).stars.tobytes()


def test_the_same_seed_gives_the_same_and_a_second_fit_forgets_the_first(
    name: str, asked: RatingRequests, split: Split
) -> None:
    """On the train part alone: what validation and test say is changed for the second."""
    few = Run(seed=3, max_steps=3)
    once = small(name).fit(split.train, few)
    other = split.train.keeping(split.train.user_rows % 2 == 0)
    twice = small(name).fit(other, Run(seed=8, max_steps=2)).fit(split.train, few)
    assert once.predict(asked).stars.tobytes() == twice.predict(asked).stars.tobytes()  # type: ignore[attr-defined]


def test_unfitted_and_unrated_are_our_errors(name: str, asked: RatingRequests, split: Split, tmp_path: Path) -> None:
    system = small(name)
    with pytest.raises(TrainingError, match="not fitted yet"):
        system.predict(asked)  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="not fitted yet"):
        system.save(tmp_path / name)
    silent = replace(split.train, interactions=split.train.interactions.drop("rating"))
    with pytest.raises(DataError, match="have no ratings, so none can be predicted"):
        system.fit(silent, Run(max_steps=1))
    empty = replace(split.train, interactions=split.train.interactions.with_columns(pl.lit(None).alias("rating")))
    with pytest.raises(DataError, match=r"no event of .* has a rating"):
        system.fit(empty, Run(max_steps=1))
