"""Profiles by rules: planted tastes are named, blame is told from praise, nothing but the train part is read."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.annotation.extractive import Extractive, ExtractiveConfig
from palate.annotation.key_phrases import listed
from palate.annotation.profiles import AVOIDS, ENJOY, LIKES, phrases_of, sampled_events
from palate.annotation.tasks import TASKS
from palate.core.annotations import ItemProfile
from palate.core.dataset import Dataset
from palate.core.protocols import Profiler
from palate.data.split import leave_one_out
from palate.data.world import world
from palate.data.world.catalogue import THEMES
from tests.annotation.test_extractive import ITEMS, log


def profiles_of(**settings: int) -> tuple[list[str], list[str]]:
    """Summaries of items and users of the small log."""
    writer, train = Extractive(ExtractiveConfig(**settings)), log()
    assert isinstance(writer, Profiler)
    items = writer.item_profiles(train, np.arange(4))
    users = writer.user_profiles(train, np.arange(2), items)
    assert {record.author for record in (*items, *users)} == {"extractive"}
    return [record.summarization for record in items], [record.summarization for record in users]


def test_an_item_is_for_people_who_like_what_it_shares_with_others() -> None:
    items, _ = profiles_of(profile_phrases=2)
    assert items[0] == "People who enjoy adventure and sea would like this."
    assert "desert stars" in items[1]
    assert items[3] == "", "nothing is known of it, and its only review is blank"


def test_an_item_without_a_text_is_described_by_its_reviews() -> None:
    bare = ITEMS.with_columns(pl.lit(None, dtype=pl.String).alias("text"), pl.lit(None).alias("category"))
    record = Extractive().item_profiles(log(items=bare), np.array([0]))[0]
    assert "pirate ships" in record.summarization
    assert "dark harbour" not in record.summarization.lower(), "titles are never said"
    assert record.reasoning.startswith("Reviews of it")


def test_a_user_enjoys_what_was_praised_and_not_what_was_blamed() -> None:
    _, users = profiles_of()
    likes, _, avoids = users[0].partition("Would rather do without")
    assert "pirate ships" in likes
    assert "desert stars" in avoids
    assert "caravans" not in likes, "said of an item that nobody else is like"


@pytest.mark.parametrize("train", [log(), leave_one_out(world("test").dataset).train], ids=["small", "world"])
def test_the_words_around_a_list_of_phrases_say_nothing(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def users() -> list[str]:
        items = writer.item_profiles(train, np.arange(train.n_items))
        return [user.summarization for user in writer.user_profiles(train, np.arange(train.n_users), items)]

    writer = Extractive()
    before = users()
    told = " ".join([*train.items["text"].drop_nulls(), *train.interactions["review"].drop_nulls()]).lower()
    told += " ".join(name for names in train.items["category"].drop_nulls().to_list() for name in names).lower()
    own = words_of(f"{LIKES} {AVOIDS} and")
    assert {word for user in before for word in words_of(user)} <= {*words_of(told), *own}
    monkeypatch.setattr("palate.annotation.profiles.ENJOY", "Zzyzx folk long for {} at sundown, qqfoo.")
    assert users() == before
    assert any(before)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_][\w'’-]*", text.lower())


def test_phrases_are_read_from_the_list_that_was_written() -> None:
    for phrases in (["sea"], ["sea", "old maps"], ["home & kitchen", "sea", "old maps"]):
        assert phrases_of(ItemProfile(0, ENJOY.format(listed(phrases)), "", "extractive"), 3) == phrases
    assert phrases_of(ItemProfile(0, "", "", "extractive"), 3) == []
    assert phrases_of(ItemProfile(0, "For sailors of old ships.", "", "m"), 3) == ["sailors", "old ships"]


def test_only_some_events_are_read_drawn_evenly() -> None:
    train = world("test").dataset
    few = sampled_events(train, np.arange(train.n_users)[::-1], 5)
    assert (few.lengths == 5).all()
    assert (np.repeat(np.arange(train.n_users)[::-1], 5) == train.user_rows[few.flat()]).all()
    first = train.histories.starts[::-1].repeat(5)
    share = (few.flat() - first) / train.histories.lengths[::-1].repeat(5)
    assert abs(share.mean() - 0.47) < 0.03
    assert (sampled_events(train, np.arange(3), 100).lengths == train.histories.lengths[:3]).all()


def test_planted_tastes_are_named_and_later_events_are_not() -> None:
    """Most loved themes of the world's readers stand in their profiles, hardly any avoided ones do."""
    whole = world("small", readers=120)
    marked = whole.dataset.interactions.with_columns(pl.concat_str("review", pl.lit(" Wants more of zzyzx.")))
    split = leave_one_out(whole.dataset)
    asked = np.concatenate([split.valid.events, split.test.events])
    late = np.isin(np.arange(marked.height), asked)
    reviews = pl.select(pl.when(pl.Series(late)).then(marked["review"]).otherwise(whole.dataset.interactions["review"]))
    poisoned = replace(whole.dataset, interactions=marked.with_columns(reviews.to_series().alias("review")))
    train, writer = leave_one_out(poisoned).train, Extractive()
    items = writer.item_profiles(train, np.arange(train.n_items))
    users = writer.user_profiles(train, np.arange(train.n_users), items)
    assert not any("zzyzx" in record.summarization for record in (*items, *users))
    keys = [phrase.replace("a ", "").replace("the ", "").split()[0] for phrase, _ in THEMES.values()]
    taste = whole.truth.readers.taste[:, :-1]
    said = np.array([[key in user.summarization.partition("Would rather")[0] for key in keys] for user in users])
    assert said[taste > 0].mean() > 0.5
    assert said[taste < 0].mean() < 0.1


def test_prompts_say_what_the_records_need() -> None:
    for kind, words in (("item-profile", "200 words"), ("user-profile", "100 words")):
        assert words in TASKS[kind].instruction
        assert all(f"({name})" in TASKS[kind].instruction for name in TASKS[kind].record.model_fields)
