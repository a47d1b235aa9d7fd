"""The annotator without a model: what it finds in planted words, what it never says, what it never reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.annotation.extractive import Extractive, ExtractiveConfig
from palate.annotation.key_phrases import KeyPhrases, apart, candidates, feeling, listed, sentences, wishful
from palate.core import store
from palate.core.annotations import Intention, Preference
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.protocols import Annotator
from palate.core.ragged import Ragged
from palate.data.sources import load
from palate.data.split import leave_one_out
from palate.systems import component

ITEMS = pl.DataFrame(
    {
        "item": ["a", "b", "c", "d"],
        "title": ["Dark Harbour", "The Salt Road", None, "Plain"],
        "text": ["Dark Harbour. A tale of pirate ships and old maps.", 
                 "Caravans cross the salt road under desert stars.", "Pirate ships burn; desert stars look on.", None],
        "category": [["adventure", "sea"], ["travel"], ["adventure", "sea"], None],
    }
)  # fmt: skip
REVIEWS = [
    "I loved the pirate ships. The old maps were dull.",
    "Not good: the desert stars bored me. I wish it had more caravans.",
    None,
    "Dark Harbour has pirate ships! Excellent adventure.",
    "   ",
]


def log(reviews: list[str | None] | None = REVIEWS, items: pl.DataFrame = ITEMS) -> Dataset:
    """User 0 met a, b and d; user 1 met a and c."""
    events = pl.DataFrame(
        {
            "user_row": pl.Series([0, 0, 0, 1, 1], dtype=pl.Int32),
            "item_row": pl.Series([0, 1, 3, 0, 2], dtype=pl.Int32),
            "time": pl.Series(range(5), dtype=pl.Int64),
        }
    )
    if reviews is not None:
        events = events.with_columns(pl.Series("review", reviews, dtype=pl.String))
    return Dataset("small", events, items, pl.DataFrame({"user": ["u", "v"]}))


def test_words_of_feeling_are_turned_round_by_a_negation_close_by() -> None:
    assert feeling("A wonderful book, and a charming one.") == 2
    assert feeling("It was not a good book.") == -1
    assert feeling("Never boring.") == 1
    assert feeling("Not one of my friends read it, yet it is good.") == 1, "too far away"
    assert feeling("I wasn’t disappointed") == 1
    assert feeling("Der Hund bellt.") == 0


def test_phrases_are_runs_between_stop_words() -> None:
    assert candidates("A tale of pirate ships and old maps.", 3) == ["tale", "pirate ships", "old maps"]
    assert candidates("very old sea captain stories", 2) == ["captain stories"], "the end of a longer run"
    assert candidates("the wonderful pirate ships - ice-cold", 3) == ["pirate ships", "ice-cold"]
    assert candidates("I love it: love in Paris", 3) == ["love", "love", "paris"]
    assert candidates("", 3) == candidates("of the and", 3) == []
    assert sentences("One. Two! Three?\nFour") == ["One.", "Two!", "Three?", "Four"]
    assert wishful("Next time I would like more.")
    assert not wishful("I liked it.")


def test_the_best_phrases_are_frequent_in_a_group_and_rare_elsewhere() -> None:
    found = KeyPhrases.of([["sea", "gold"], ["sea", "war"], ["sea"], ["war", "sea", "sea"], []])
    assert found.phrases == ("gold", "sea", "war")
    np.testing.assert_allclose(found.rarity, np.log1p(5 / np.array([1, 4, 2])))
    groups = Ragged.of([[0, 1], [1, 3], [4], [], [0]])
    # gold 1.79, sea 2 × 0.81; war 2 × 1.25, sea 2 × 0.81; nothing; nothing; gold, sea
    assert found.best(groups, 2) == [["gold", "sea"], ["war", "sea"], [], [], ["gold", "sea"]]
    assert apart(["old maps", "maps", "sea", "old", "red sea"], 3) == ["old maps", "sea"]
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")


def test_an_intention_says_what_is_wished_praised_and_blamed() -> None:
    records = Extractive().intentions(log(), np.array([0, 1, 2, 3, 4]))
    assert [(one.event, one.user_row, one.item_row) for one in records] == [
        (0, 0, 0), (1, 0, 1), (2, 0, 3), (3, 1, 0), (4, 1, 2),
    ]  # fmt: skip
    assert {one.author for one in records} == {"extractive"}
    assert records[0].wish == "Looks for pirate ships. Not old maps."
    assert "pirate ships" in records[0].traits
    assert records[1].wish == "Would like caravans. Dislikes desert stars."
    assert (records[2].wish, records[2].traits, records[4].wish) == ("", "", ""), "nobody wrote a review"
    assert records[3].wish == "Is in the mood for pirate ships and adventure."
    for record in records:
        for line in (record.wish, record.traits):
            assert "harbour" not in line.lower(), "the title is not said"
            assert "\n" not in line


def test_a_preference_tells_what_lasts_from_what_is_new() -> None:
    train = log()
    annotator = Extractive(ExtractiveConfig(phrases=1, recent=1))
    both = annotator.preferences(train, Ragged.of([[0, 1], [3, 4]]))
    assert [one.user_row for one in both] == [0, 1]
    assert both[1].brief == "Likes adventure."
    assert both[0].short_term == "Lately caravans cross.", "the salt road is the title"
    assert annotator.preferences(train, Ragged.of([[2]])) == [Preference(0, "", "", "", "extractive")]
    assert annotator.preferences(train, Ragged.of([])) == []


def test_without_words_there_is_nothing_to_say() -> None:
    silent = log(None, pl.DataFrame({"item": ["a", "b", "c", "d"]}))
    records = Extractive().intentions(silent, np.array([0, 4]))
    assert records == [Intention(0, 0, 0, "", "", "extractive"), Intention(4, 1, 2, "", "", "extractive")]
    assert Extractive().preferences(silent, Ragged.of([[0, 1]]))[0].brief == ""


def test_it_is_an_annotator_that_can_be_named_and_saved(tmp_path: Path) -> None:
    annotator = component("annotator", Part(name="extractive", settings={"phrases": 2}))
    assert isinstance(annotator, Annotator)
    annotator.save(tmp_path / "one")
    again = store.load(tmp_path / "one")
    assert again.config == ExtractiveConfig(phrases=2)
    assert again.intentions(log(), np.arange(5)) == annotator.intentions(log(), np.arange(5))


def test_it_reads_the_train_part_alone() -> None:
    """With a word that stands in no training review in every other review, records stay the same."""
    whole = load("world-test")
    split = leave_one_out(whole)
    kept = np.zeros(whole.n_interactions, dtype=bool)
    kept[np.setdiff1d(np.arange(len(kept)), np.concatenate([split.valid.events, split.test.events]))] = True
    marked = pl.when(pl.Series(kept)).then(pl.col("review")).otherwise(pl.lit("zzyzx pylons. I wish for zzyzx."))
    poisoned = leave_one_out(replace(whole, interactions=whole.interactions.with_columns(review=marked)))
    last = split.train.histories.stops - 1
    records = Extractive().intentions(split.train, last)
    assert records == Extractive().intentions(poisoned.train, last)
    assert sum(bool(one.wish) for one in records) > 0.85 * len(records)
    everything = Extractive().intentions(poisoned.dataset, poisoned.dataset.histories.stops - 1)
    assert all("zzyzx" in one.wish for one in everything), "the word would have been seen"


@pytest.mark.parametrize("field", ["phrases", "longest", "recent"])
def test_settings_are_checked(field: str) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        ExtractiveConfig(**{field: 0})
