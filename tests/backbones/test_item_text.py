"""The item text template: every rule by hand, and what it writes for data sets as they are."""

from __future__ import annotations

import os

import polars as pl
import pytest

from palate.backbones.item_text import ItemText, texts_of
from palate.core.config import configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError
from palate.data.sources import load


def catalogue(**columns: list[object]) -> Dataset:
    n = len(next(iter(columns.values())))
    events = pl.DataFrame({"user_row": [0], "item_row": [0]}, schema={"user_row": pl.Int32, "item_row": pl.Int32})
    items = pl.DataFrame({"item": [str(i) for i in range(n)], **columns})
    return Dataset("tiny", events, items, pl.DataFrame({"user": ["u"]}), clock="order")


@pytest.mark.parametrize(
    ("title", "text", "category", "expected"),
    [
        ("Dune", "A desert planet.", ["novel"], "Dune. A desert planet. novel"),
        ("Dune", "Dune. A desert planet.", ["novel"], "Dune. A desert planet. novel"),
        ("Dune", "Dune, by F. Herbert. Novel.", ["novel"], "Dune, by F. Herbert. Novel."),
        ("Dune", "Dune (1984) . Drama.", ["Drama"], "Dune. Dune (1984) . Drama."),
        ("Dune (1984)", "Dune (1984) . Drama.", ["Drama"], "Dune (1984) . Drama."),
        ("It", "It was a dark night.", [], "It. It was a dark night."),
        ("Dune.", "dune", ["Dune"], "Dune."),
        ("  Two \n words ", None, None, "Two words"),
        (None, None, ["novel", "long"], "novel, long"),
        (None, "", [], "unknown item"),
    ],
)
def test_what_is_said_twice_is_written_once(title: object, text: object, category: object, expected: str) -> None:
    data = catalogue(title=[title, "x"], text=[text, "y"], category=[category, ["z"]])
    assert texts_of(data) == [expected, "x. y. z"]


def test_order_names_and_separators_are_the_template() -> None:
    data = catalogue(title=["Dune"], year=[1965], tags=[["sand", None, "spice"]])
    template = ItemText(fields=("year", "title", "tags", "brand"), named=True, separator=" | ", list_separator="/")
    assert template.render(data) == ["year: 1965 | title: Dune | tags: sand/spice"]
    assert ItemText(fields=("tags", "title")).render(data) == ["sand, spice. Dune"]


def test_repeats_stay_when_asked() -> None:
    data = catalogue(title=["Dune"], text=["Dune. Sand."])
    assert ItemText(once=False).render(data) == ["Dune. Dune. Sand."]


def test_long_texts_are_cut_between_words() -> None:
    data = catalogue(title=["one two three", "onetwothree", "one two"])
    assert ItemText(max_chars=7).render(data) == ["one two", "onetwot", "one two"]
    assert ItemText(max_chars=6).render(data) == ["one", "onetwo", "one"]


def test_a_table_without_text_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"items of 'tiny' have no text: none of title, text, category is a column"):
        texts_of(catalogue(price=[1.0]))
    with pytest.raises(ConfigError, match="did you mean 'separator'"):
        configure(ItemText, {"seperator": "-"})


@pytest.mark.parametrize("other", [{"named": True}, {"separator": "; "}, {"fields": ("title",)}, {"max_chars": 99}])
def test_another_template_has_another_key(other: dict[str, object]) -> None:
    assert configure(ItemText, other).key != ItemText().key
    assert configure(ItemText, other).key == configure(ItemText, other).key


def test_the_default_reads_the_world_as_it_is_written() -> None:
    data = load("world-test")
    assert texts_of(data) == data.items["text"].to_list()


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("ml-100k", 0, "Toy Story (1995). Animation, Children's, Comedy."),
        ("amazon-2014-beauty", 0, "OPI, Makeup, Nails, Nail Polish"),
    ],
)
def test_the_default_reads_public_data(name: str, row: int, expected: str) -> None:
    shared = os.environ.get("PALATE_DATA")
    if not shared or not os.path.isdir(os.path.join(shared, name)):
        pytest.skip(f"{name} is not in PALATE_DATA={shared}")
    texts = texts_of(load(name))
    assert texts[row] == expected
    assert all(texts)
