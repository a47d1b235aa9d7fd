"""Sentences after each event keep their contract, read nothing that came later, and are told for from against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from palate.annotation.chat import ChatAnnotator, ChatAnnotatorConfig
from palate.annotation.extractive import Extractive
from palate.annotation.rows import step_rows
from palate.annotation.sentiment import Lexicon
from palate.annotation.steps import WINDOW, kept, window
from palate.annotation.tasks import StepPreferencesWords
from palate.backbones.scripted import Scripted, ScriptedConfig
from palate.core.annotations import SENTENCES
from palate.core.protocols import Discerner, Sentiment
from palate.data.world import world

DATASET = world("test").dataset


def test_five_sentences_of_several_words_after_nearly_every_event() -> None:
    writer = Extractive()
    assert isinstance(writer, Discerner)
    records = writer.step_preferences(DATASET, np.arange(DATASET.n_interactions))
    assert sum(not record.sentences for record in records) < 0.02 * len(records)
    for record in records:
        assert len(record.sentences) in (0, SENTENCES)
        assert len(set(record.sentences)) == len(record.sentences)
        assert all(len(sentence.split()) > 1 for sentence in record.sentences)
        assert record.user_row == DATASET.user_rows[record.event]
        assert record.author == "extractive"


def test_no_sentence_follows_from_what_came_later() -> None:
    events = DATASET.histories.starts + 3
    before = Extractive().step_preferences(DATASET, events)
    later = ~np.isin(np.arange(DATASET.n_interactions), window(DATASET, events).flat())
    other = pl.lit("I wish it had more dragons. Wonderful.")
    review = pl.when(pl.Series(later)).then(other).otherwise(pl.col("review")).alias("review")
    changed = replace(DATASET, interactions=DATASET.interactions.with_columns(review))
    assert Extractive().step_preferences(changed, events) == before
    assert Extractive().step_preferences(changed, events + 1) != before


def test_the_window_is_of_one_user_and_ends_with_the_event() -> None:
    read = window(DATASET, np.arange(DATASET.n_interactions))
    for event, row in enumerate(read):
        assert row[-1] == event
        assert len(row) <= WINDOW
        assert len(set(DATASET.user_rows[row].tolist())) == 1
    first = DATASET.histories.starts
    assert (read.lengths[first] == 1).all()
    assert (read.lengths[first + WINDOW] == WINDOW).all()
    assert [row.events for row in step_rows(DATASET, np.array([7, 9]))] == [tuple(read.row(7)), tuple(read.row(9))]


def test_the_contract_is_kept_or_nothing_is() -> None:
    good = ["Find ships.", "Avoid war.", "Look for islands.", "No storms.", "Search for maps."]
    assert kept(good, set()) == tuple(good)
    assert kept([*good, "Find more."], set()) == tuple(good)
    assert kept(["Ships", *good], set()) == tuple(good), "one word is no sentence"
    assert kept(["Find ships!", *good], set()) == ("Find ships!", *good[1:]), "the same once more"
    assert kept(["Find a Lego ship.", *good], {"lego"}) == tuple(good), "a brand is not named"
    assert kept(["Find alegory.", *good[1:]], {"lego"})[0] == "Find alegory.", "part of a word is no brand"
    assert kept(good[:4], set()) == ()
    assert kept(["Find a Lego ship.", *good[1:]], {"lego"}) == ()


def test_a_chat_model_must_write_five_and_those_that_name_a_title_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="at least 5 sentences"):
        StepPreferencesWords(sentences=["Find ships.", "Avoid war.", "maps", "x", "y"])
    title = DATASET.titles[int(DATASET.item_rows[0])]
    lines = [f"Find {title} again.", "Find ships.", "Avoid war.", "Look for maps.", "No storms at all.", "More tea."]
    chat = Scripted(ScriptedConfig(replies=(json.dumps({"sentences": lines}),)))
    writer = ChatAnnotator(ChatAnnotatorConfig(ledger=str(tmp_path / "l.sqlite")), chat=chat)
    (record,) = writer.step_preferences(DATASET, np.array([0]))
    assert record.sentences == tuple(lines[1:])
    assert record.author == chat.label


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Avoid magic.", False), ("No war.", False), ("Notes on war.", True), ("Find sad endings.", True),
        ("Nonfiction about trains.", True), ("A waste of an evening. Mostly magic.", False), ("I loved it.", True),
        ("It is about war.", True), ("", True),
    ],
)  # fmt: skip
def test_for_or_against(text: str, good: bool) -> None:
    assert isinstance(Lexicon(), Sentiment)
    assert Lexicon().positive([text]).tolist() == [good]
