"""Text cosine: scores by hand, words that steer, items that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.content.text_cosine import TextCosine, TextCosineConfig

PLACES = {"north": [1.0, 0.0], "east": [0.0, 3.0], "north east": [2.0, 2.0], "south": [-5.0, 0.0]}


class Compass:
    """Texts as directions, of different lengths."""

    version = "compass"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([PLACES[text] for text in texts], dtype=np.float32)


def catalogue(titles: Sequence[str], events: Sequence[tuple[int, int]] = ((0, 0), (1, 0), (1, 1))) -> Dataset:
    table = pl.DataFrame(
        {"user_row": [user for user, _ in events], "item_row": [item for _, item in events]},
        schema={"user_row": pl.Int32, "item_row": pl.Int32},
    )
    items = pl.DataFrame({"item": [f"i{row}" for row in range(len(titles))], "title": titles})
    return Dataset("compass", table, items, pl.DataFrame({"user": ["a", "b"]}))


def fitted(titles: Sequence[str] = ("north", "east", "north east"), **settings: object) -> TextCosine:
    system = TextCosine(TextCosineConfig.model_validate(settings), encoder=Compass())
    return system.fit(catalogue(titles), Run())


def scores(system: TextCosine, requests: Requests) -> np.ndarray:
    return np.concatenate(list(system.score_blocks(requests)))


def test_scores_are_cosines_with_the_mean_of_unit_vectors() -> None:
    h = np.sqrt(0.5)
    got = scores(fitted(), Requests.of([[0], [0, 1], [0, 2]]))
    third = np.array([1 + h, h]) / np.linalg.norm([1 + h, h])
    expected = [[1, 0, h], [h, h, 1], [third[0], third[1], third @ [h, h]]]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_newer_events_count_more_with_a_half_life() -> None:
    got = scores(fitted(half_life_events=1.0), Requests.of([[0, 1]]))
    np.testing.assert_allclose(got[0, :2], np.array([0.5, 1]) / np.sqrt(1.25), atol=1e-6)


def test_somebody_without_history_is_answered_by_counts_below_every_cosine() -> None:
    got = scores(fitted(), Requests.of([[], [0]]))
    assert list(np.argsort(-got[0])) == [0, 1, 2]
    assert got[0].max() < 0


def test_words_steer_and_answer_alone() -> None:
    system = fitted()
    plain, steered, alone = scores(system, Requests.of([[0], [0], []], words=("", "east", "east")))
    np.testing.assert_allclose(plain, scores(system, Requests.of([[0]]))[0])
    np.testing.assert_allclose(steered, scores(system, Requests.of([[0, 1]]))[0], atol=1e-6)
    assert alone.argmax() == 1


def test_words_can_be_left_unread() -> None:
    system = fitted(words=0.0)
    np.testing.assert_array_equal(
        scores(system, Requests.of([[0]], words=("east",))), scores(system, Requests.of([[0]]))
    )


def test_an_item_of_which_only_the_text_is_known_is_answered_until_it_is_retired() -> None:
    system = fitted(("north", "east"))
    system.add_items(catalogue(("north", "east", "north east")))
    asked = Requests.of([[0]]).leaving_out_history()
    assert list(system.recommend(asked, 2).item_rows[0]) == [2, 1]
    system.retire_items(np.array([2]))
    assert list(system.recommend(asked, 2).item_rows[0]) == [1, -1]
    system.retire_items(np.array([2]), back=True)
    assert system.recommend(asked, 1).item_rows[0, 0] == 2


def test_before_the_fit_there_is_one_clear_sentence() -> None:
    with pytest.raises(TrainingError, match="TextCosine was not fitted yet"):
        TextCosine(encoder=Compass()).readers(Requests.of([[0]]))
