"""The original files of public sets, where ``PALATE_DATA`` has them: the counts their publishers give, and more."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from palate.core.config import Part
from palate.data.sources import load
from palate.systems import component

Real = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "users", "items", "events", "clock"),
    [
        ("ml-100k", 943, 1_682, 100_000, "unix"),
        ("ml-latest-small", 671, 9_066, 100_004, "unix"),
        ("movietweetings-100k", 16_554, 10_506, 100_000, "unix"),
        ("amazon-2014-beauty", 22_363, 12_101, 198_502, "order"),
        ("amazon-2014-sports", 35_598, 18_357, 296_337, "order"),
        ("amazon-2014-toys", 19_412, 11_924, 167_597, "order"),
        ("yelp-s3rec", 30_431, 20_033, 316_354, "order"),
        ("lastfm-s3rec", 1_090, 3_646, 52_551, "order"),
        ("amazon-2018-giftcards", 458, 148, 2_972, "day"),
        ("amazon-2018-appliances-reviews", 47, 48, 2_277, "day"),
        ("xrec-amazon", 14_675, 14_695, 72_168, "day"),
        ("xrec-yelp", 15_962, 14_085, 393_680, "order"),
        ("xrec-google", 22_582, 16_557, 411_840, "order"),
        ("amazon-2018-games", 50_546, 16_859, 440_264, "order"),
    ],
)
def test_counts(real: Real, name: str, users: int, items: int, events: int, clock: str) -> None:
    real(name)
    dataset = load(name)
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (users, items, events)
    assert dataset.clock == clock
    assert dataset.item_counts.min() >= 1


def test_movielens_100k_in_detail(real: Real) -> None:
    folder = real("ml-100k")
    dataset = load("ml-100k")
    assert dataset.titles[0] == "Toy Story (1995)"
    assert dataset.titles[542] == "Misérables, Les (1995)"
    assert dataset.items["text"][1] == "GoldenEye (1995). Action, Adventure, Thriller."
    assert dataset.items["category"][0].to_list() == ["Animation", "Children's", "Comedy"]
    assert dataset.items["category"][266].to_list() == []
    assert dataset.items["year"][1] == 1995
    assert dataset.users.row(0, named=True) == {
        "user": "1", "age": 24, "gender": "M", "occupation": "technician", "zip code": "85711",
    }  # fmt: skip
    # By hand from the file: the user's lines sorted by time alone, stably.
    lines = [line.split("\t") for line in (folder / "u.data").read_text().splitlines()]
    own = [line for line in lines if line[0] == "405"]
    expected = [line[1] for line in sorted(own, key=lambda line: int(line[3]))]
    row = dataset.user_rows_of(["405"])[0]
    assert [dataset.item_ids[item] for item in dataset.histories.row(row)] == expected
    assert len({line[3] for line in own}) < len(own), "this user has ties, so the order of the file decides"


def test_movielens_100k_with_plots(real: Real) -> None:
    real("ml-100k")
    plain, dataset = load("ml-100k"), load("ml-100k-plots")
    assert dataset.interactions.equals(plain.interactions)
    assert dataset.items["plot"].is_not_null().sum() == 1_671
    assert dataset.items["text"][1].startswith(plain.items["text"][1] + " Years after a friend and fellow 00 agent")
    without = dataset.items["plot"].is_null()
    assert dataset.items["text"].filter(without).equals(plain.items["text"].filter(without))
    assert dataset.items["director"][0] == "John Lasseter"


def test_beauty_with_days_is_beauty_numbered_anew(real: Real) -> None:
    real("amazon-2014-beauty")
    plain, days = load("amazon-2014-beauty"), load("amazon-2014-beauty-days")
    assert (days.n_users, days.n_items, days.n_interactions) == (22_363, 12_101, 198_502)
    assert days.clock == "day"
    assert days.times is not None
    assert (days.times % 86_400_000 == 0).all()
    assert np.array_equal(np.sort(days.histories.lengths), np.sort(plain.histories.lengths))
    assert np.array_equal(np.sort(days.item_counts), np.sort(plain.item_counts))


def test_attributes_of_beauty_get_the_names_that_belong_to_them(real: Real) -> None:
    """The ASIN of item 2 is a nail polish of OPI: the numbers of the two files are not the same numbers."""
    real("amazon-2014-beauty")
    items = load("amazon-2014-beauty").items
    assert items.row(1, named=True)["outside"] == "B004ZT0SSG"
    assert items["category"][1].to_list() == ["OPI", "Makeup", "Nails", "Nail Polish"]
    assert items["text"][1] == "OPI, Makeup, Nails, Nail Polish"


def test_attributes_without_proof_get_no_names(real: Real) -> None:
    real("amazon-2014-sports")
    items = load("amazon-2014-sports").items
    assert items["category"][0][0] == "attribute 1"
    assert "text" not in items.columns


def test_gift_cards_in_detail(real: Real) -> None:
    real("amazon-2018-giftcards")
    dataset = load("amazon-2018-giftcards")
    assert dataset.items["title"].null_count() == 0
    assert dataset.interactions["review"].is_not_null().sum() == 2_966
    # The metadata has mark-up in some descriptions; a tag there has letters after the bracket.
    assert not dataset.items["text"].str.contains(r"</?[a-z]+[ >/]").any()
    everything = load("amazon-2018-giftcards", keep_unseen=True)
    assert everything.n_items == 1_547
    assert everything.n_interactions == 2_972


def test_appliances_lose_their_duplicates(real: Real) -> None:
    real("amazon-2018-appliances-reviews")
    assert load("amazon-2018-appliances-reviews", duplicates="last").n_interactions == 183


def test_conversations_of_redial(real: Real) -> None:
    dataset = load(real("redial") / "ievalm")
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (271, 2_021, 5_273)
    assert set(dataset.interactions["kind"].unique()) == {"suggested", "mentioned"}
    assert set(dataset.interactions["rating"].drop_nulls().unique()) == {0.0, 1.0}
    assert any("only redial_valid_data.jsonl" in note for note in dataset.about.notes)


def test_games_of_steam(real: Real) -> None:
    from palate.data.loaders.steam import games
    from palate.data.reading import BadRows

    folder = real("steam-au")
    table = games(folder, BadRows())
    assert table is not None
    assert table.height == 32_132
    assert table.row(0, named=True)["title"] == "Lost Summoner Kitty"
    assert table["price"][1] == 0.0


def test_books_of_goodbooks(real: Real) -> None:
    from palate.data.loaders.goodbooks import books
    from palate.data.reading import BadRows

    table = books(real("goodbooks-10k"), BadRows())
    assert table.height == 10_000
    assert table["title"][1] == "Harry Potter and the Sorcerer's Stone (Harry Potter, #1)"
    assert table["text"][0] == "The Hunger Games (The Hunger Games, #1). By Suzanne Collins. First published 2008."


def test_movies_of_movielens_1m(real: Real) -> None:
    from palate.data.loaders.movielens import barred_movies
    from palate.data.reading import BadRows

    table = barred_movies(real("ml-1m") / "movies.dat", "iso-8859-1", BadRows())
    assert table.height == 3_883
    assert table["title"][72] == "Misérables, Les (1995)"


def test_profiles_of_xrec_are_taken_as_they_stand(real: Real, tmp_path: Path) -> None:
    """By hand from the file: of whom there is an event, the first summary; nothing is refused."""
    folder = real("xrec-amazon")
    dataset = load("xrec-amazon")
    settings = {"file": "xrec-amazon/tst.jsonl", "ledger": str(tmp_path / "l.sqlite")}
    writer = component("annotator", Part(name="imported", preset="xrec", settings=settings))
    lines = list(map(json.loads, gzip.decompress((folder / "tst.jsonl.gz").read_bytes()).decode().splitlines()))
    for kind, ids, names in (("item", dataset.item_ids, "iid"), ("user", dataset.user_ids, "uid")):
        said = {str(line[names]): line[f"{kind}_summary"] for line in reversed(lines)}
        taken = writer.take(f"{kind}-profile", dataset)
        found = {ids[row]: entry.record["summarization"] for row, entry in taken.of.items()}
        assert found == {one: said[one] for one in said if one in set(ids)}
        assert (taken.counts["read"], taken.counts["refused"], taken.counts["otherwise"]) == (3000, 0, 0)
