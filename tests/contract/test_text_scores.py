"""What every system promises whose scores follow from texts: the parts that it names moved the score as it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from palate.core.errors import MisuseError
from palate.core.protocols import Grows, Recommender, ScoresTexts
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.split import Split
from palate.reasons import MOST_PARTS, of_texts
from palate.reasons import split as parts_of
from palate.systems import able, build
from tests.contract.questions import small, table

SHORT = {"item_model.steps": 10}
KINDS: dict[str, dict[str, Any] | None] = {
    "text-cosine": None, "hllm": None, "hllm early": SHORT | {"objective": "early"},
    "hllm late": SHORT | {"objective": "late"}, "lite-llm4rec tied": SHORT | {"head": "tied"},
}  # fmt: skip
"""The session's fits, and further settings that score in another way."""


@pytest.fixture(params=KINDS)
def reading(request: pytest.FixtureRequest, split: Split, fits: dict[str, Recommender]) -> Recommender:
    name, settings = request.param, KINDS[request.param]
    if name not in fits:
        unfitted = small(name) if settings is None else build(name.split()[0], settings, preset="tiny")
        fits[name] = unfitted.fit(split.train, Run(max_steps=60 if settings is None else 4))
    return fits[name]


def test_an_item_scores_as_its_text_does(reading: Recommender, questions: Requests, split: Split) -> None:
    assert isinstance(reading, ScoresTexts)
    assert reading.scores_texts
    texts = reading.item_texts(split.train)
    scores, whole = reading.score_texts(questions, texts), table(reading, questions, split.train.n_items)
    silent = np.isnan(scores).all(1)
    assert 0 < silent.sum() < len(questions) / 2, "only who has no history that can be read"
    np.testing.assert_allclose(scores[~silent], whole[~silent], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(reading.score_texts(questions[:2], texts[5:9]), scores[:2, 5:9], rtol=2e-4, atol=2e-5)


def test_taking_a_named_part_out_of_the_text_shows_the_stated_drop(
    reading: Recommender, split: Split, tmp_path: Path
) -> None:
    """The texts without the parts are those of new items here, which nobody has met."""
    catalogue, request = split.dataset, Requests.for_users(split.train, np.array([3]))
    rows = np.array([11, 40])
    assert isinstance(reading, ScoresTexts)
    texts = [reading.item_texts(catalogue)[row] for row in rows]
    found = of_texts(reading, request, catalogue, rows)
    for of_one in found:
        assert [part.drop for part in of_one] == sorted((part.drop for part in of_one), reverse=True)
        assert max(abs(part.drop) for part in of_one) > 1e-4
    reading.save(tmp_path)
    assert isinstance(reading, Grows)
    other: Any = type(reading).load(tmp_path)
    less = [(i, part, without) for i, text in enumerate(texts) for part, without in parts_of(text)]
    new = [{"item": f"new-{n}", "text": without} for n, (_, _, without) in enumerate(less)]
    grown = replace(catalogue, items=pl.concat([catalogue.items, pl.DataFrame(new, schema=catalogue.items.schema)]))
    other.add_items(grown)
    assert other.item_texts(grown)[catalogue.n_items :] == [without for _, _, without in less]
    asked = np.concatenate([rows, catalogue.n_items + np.arange(len(less))])
    full, scores = np.split(other.score(replace(request, leave_out=None), Ragged.of([asked])), [len(rows)])
    stated = [{part.text: part.drop for part in of_one} for of_one in found]
    assert [len(of_one) for of_one in stated] == [len(parts_of(text)) for text in texts]
    for (i, part, _), score in zip(less, scores, strict=True):
        assert full[i] - score == pytest.approx(stated[i][part], abs=2e-5)


def test_parts_tile_the_text_and_are_few() -> None:
    text = "Dune. A desert planet, where water is dear, breeds giant worms and a prince. Is he the one? science fiction"
    found = parts_of(text)
    assert [part for part, _ in found] == [
        "Dune", "A desert planet", "where water is dear", "breeds giant worms and a prince", "Is he the one?",
        "science fiction",
    ]  # fmt: skip
    assert found[2][1] == text.replace("where water is dear, ", "")
    assert all(len(without) < len(text) for _, without in found)
    many = parts_of(". ".join("abcdefghijklmnop"))
    assert len(many) == MOST_PARTS
    assert parts_of("One thing") == parts_of("") == []


def test_what_reads_no_texts_has_no_parts(split: Split) -> None:
    without = {row.name for row in able("Recommender") if not hasattr(row.kind, "score_texts")}
    assert {"sasrec", "item-knn", "tiger"} <= without
    request = Requests.for_users(split.train, np.array([3]))
    with pytest.raises(MisuseError, match="do not follow from texts"):
        of_texts(build("item-knn"), request, split.dataset, np.array([0]))
    with pytest.raises(MisuseError, match="do not follow from texts"):  # its free head has a row for each item
        of_texts(build("lite-llm4rec", preset="tiny"), request, split.dataset, np.array([0]))
