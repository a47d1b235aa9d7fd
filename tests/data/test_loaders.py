"""Every loader on a few hand-made lines in the layout of the original files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.data.loaders.xrec import NO_ORDER, NO_TRAIN
from palate.data.reading import UNTESTED
from palate.data.sources import load

Files = dict[str, str]
SECOND = 1_500_000_000


def lines(*records: object) -> str:
    return "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)


ML_100K = {
    "u.data": "2\t1\t5\t20\n1\t2\t3\t10\n1\t1\t4\t10\n",
    "u.item": "1|A (1990)|01-Jan-1990||url|0|1" + "|0" * 17 + "\n2|B|01-Jan-1991||url|0|0|1" + "|0" * 15 + "|1\n",
    "u.user": "1|24|M|writer|00000\n2|30|F|other|T8H1N\n",
}
ML_1M = {
    "ratings.dat": "1::2::5::20\n1::1::3::10\n",
    "movies.dat": "1::A (1990)::Action|Sci-Fi\n2::B: C (1991)::Drama\n3::Unmet (1992)::Drama\n",
    "users.dat": "1::F::1::10::48067\n",
}
TWEETS = {
    "ratings.dat": "1::0002::8::20\n1::0001::7::10\n",
    "movies.dat": "0001::A (1990)::Action\n0002::B (1991)::\n",
    "users.dat": "1::177651718\n",
}
ML_CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,2,4.5,20\n1,1,3.0,10\n",
    "movies.csv": 'movieId,title,genres\n1,"A, B (1990)",Action|Drama\n2,C (1991),(no genres listed)\n',
    "links.csv": "movieId,imdbId,tmdbId\n1,0114709,862\n2,0113497,\n",
}
GOODBOOKS = {
    "ratings.csv": "user_id,book_id,rating\n1,2,5\n1,1,4\n",
    "books.csv": "book_id,goodreads_book_id,title,authors,original_publication_year,language_code,image_url\n"
    '1,100,"A, B",Ann,1990.0,eng,u1\n2,200,C,Bob,,eng,u2\n',
    "book_tags.csv": "goodreads_book_id,tag_id,count\n100,1,5\n100,0,9\n",
    "tags.csv": "tag_id,tag_name\n0,fantasy\n1,magic\n",
}
REVIEW = {"reviewerID": "u", "asin": "i1", "overall": 5.0, "unixReviewTime": SECOND, "reviewText": "ok", "summary": "s"}
AMAZON_2014 = {
    "reviews_Toys_5.json": lines(REVIEW, {**REVIEW, "asin": "i2", "unixReviewTime": SECOND - 1}),
    "meta_Toys.json": lines(
        "{'asin': 'i1', 'title': 'It\\'s &amp; more', 'categories': [['Toys', 'Games'], ['Toys']], 'price': 1.5, "
        "'imUrl': 'http://x/1.jpg', 'description': 'A <b>fine</b> toy.'}",
        "{'asin': 'i2', 'categories': []}",
    ),
}
AMAZON_2018 = {
    "Toys_5.json": lines({**REVIEW, "vote": "1,234"}, {**REVIEW, "asin": "i2", "unixReviewTime": SECOND - 86_400}),
    "meta_Toys.json": lines(
        {"asin": "i1", "title": "T", "brand": "B", "category": ["Toys", "Toys"], "description": ["a", "b"],
         "price": "$1,299.50", "image": ["http://x/1.jpg", "http://x/2.jpg"]},
        {"asin": "i1", "title": "again"},
        {"asin": "i2", "title": "var aPageStart = (new Date()).getTime();", "price": "$1 - $2", "image": []},
    ),
}  # fmt: skip
REVIEW_2023 = {
    "user_id": "u", "parent_asin": "i1", "asin": "v1", "timestamp": SECOND * 1000 + 7, "rating": 5.0, "text": "ok",
    "title": "s", "helpful_vote": 3,
}  # fmt: skip
AMAZON_2023 = {
    "Toys.jsonl": lines(REVIEW_2023, {**REVIEW_2023, "parent_asin": "i2", "timestamp": SECOND * 1000}),
    "meta_Toys.jsonl": lines(
        {"parent_asin": "i1", "title": "T", "store": "S", "categories": ["Toys"], "price": 3, "description": ["d"],
         "images": [{"thumb": "http://x/t.jpg", "hi_res": None, "large": "http://x/l.jpg"}]},
        {"parent_asin": "i2", "title": None, "categories": [], "images": []},
    ),
}  # fmt: skip
STEAM = {
    "steam_reviews.json": lines(
        "{u'username': u'Ann', u'product_id': u'1', u'date': u'2017-12-24', u'hours': 3.5, u'text': u'it\\'s ok'}",
        "{u'username': u'Ann', u'product_id': u'2', u'date': u'2017-12-23', u'text': u'\\u2665'}",
    ),
    "steam_games.json": lines(
        "{u'id': u'1', u'app_name': u'A', u'genres': [u'Action'], u'tags': [u'Fun'], u'price': u'Free To Play'}",
        "{u'id': u'2', u'title': u'B', u'price': 9.99, u'developer': u'D'}",
        "{u'title': u'no id'}",
    ),
}
AUSTRALIAN = {
    "australian_user_reviews.json": lines(
        "{'user_id': 'ann', 'reviews': [{'item_id': '1', 'posted': 'Posted November 5, 2011.', 'recommend': True, "
        "'review': 'good'}, {'item_id': '2', 'posted': 'Posted July 3.', 'recommend': False, 'review': ''}]}"
    ),
}
YELP = {
    "yelp_academic_dataset_review.json": lines(
        {"user_id": "u", "business_id": "i1", "date": "2018-07-07 22:09:11", "stars": 4, "text": "good"},
        {"user_id": "u", "business_id": "i2", "date": "2011-04-19", "stars": 2.5, "text": "bad"},
    ),
    "yelp_academic_dataset_business.json": lines(
        {"business_id": "i1", "name": "Cafe", "categories": "Food, Coffee & Tea", "city": "York", "state": "N"},
        {"business_id": "i2", "name": "Bar", "categories": None, "city": "York", "state": "N"},
    ),
}
PIXELREC = {
    "interaction.csv": f"item_id,user_id,timestamp\ni1,u1,{SECOND}\ni2,u1,{SECOND - 1}\n",
    "item_info.csv": 'item_id,view_number,title_en,title,description,tag\ni1,5,Cat,猫,"a cat, sleeping",pets\n'
    "i2,6,,狗,,\n",
}
EXPLAINED = {
    "uid": 7,
    "iid": 2,
    "title": "B",
    "user_summary": "Likes B.",
    "item_summary": "For all.",
    "explanation": "So.",
}
XREC = {
    "total_trn.csv": "user,item\n7,1\n8,2\n7,3\n",
    "total_val.csv": "user,item\n7,2\n",
    "total_tst.csv": "user,item\n8,1\n",
    "tst.jsonl": lines(EXPLAINED, {**EXPLAINED, "uid": 8}, {**EXPLAINED, "iid": 99, "title": "of nobody here"}),
}
XREC_AMAZON = {
    "total_val.csv": 'user,item,Time\n7,1,"06 12, 2016"\n7,2,"01 7, 2015"\n',
    "total_tst.csv": 'user,item,Time\n7,3,"12 31, 2016"\n',
    "tst.jsonl": lines(EXPLAINED),
}
TALK = {
    "conversationId": "7", "initiatorWorkerId": 1, "respondentWorkerId": 2,
    "movieMentions": {"10": "A  (1990)", "20": "B (1991)", "30": "C (1992)"},
    "initiatorQuestions": {"10": {"suggested": 0, "liked": 1}, "20": {"suggested": 1, "liked": 2}},
    "messages": [{"text": "Did you see @20 ?"}, {"text": "I like @10 and @99"}],
}  # fmt: skip
REDIAL = {
    "train_data.jsonl": lines(TALK, {**TALK, "conversationId": "8", "movieMentions": [], "initiatorQuestions": []}),
    "test_data.jsonl": lines({**TALK, "initiatorWorkerId": 5, "initiatorQuestions": {"10": {"liked": 0}}}),
}
RECBOLE = {
    "toys.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    f"u\ti1\t5\t{SECOND}\nu\ti2\t4\t{SECOND - 1}\n",
    "toys.item": "item_id:token\ttitle:token_seq\tcategories:token_seq\tprice:float\n"
    "i1\tA toy\tFun Red\t1.5\ni2\tB\t\t\n",
    "toys.user": "user_id:token\tage:float\nu\t30\n",
}
BENCHMARK = {
    "games.test.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ti1 i2\ti3\nv\ti2\ti1\n",
    "games.valid.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ti1\ti2\n",
}
S3REC = {
    "Toys.txt": "1 5 3 5\n2 3\n",
    "Toys_item2attributes.json": json.dumps({"5": [1, 2, 1], "3": [2]}),
    "datamaps.json": json.dumps(
        {"id2item": {"5": "B5", "3": "B3"}, "id2attribute": {"1": "rare", "2": "Fun", "3": "Red"},
         "attributeid2num": {"1": 1, "2": 2, "3": 2}}
    ),
}  # fmt: skip
IREC = {"Toys.txt": "1 5 3\n2 3\n", "Toys_timestamps.txt": "1 86400 0\n2 0\n"}

ALL = {
    "ml-100k": ML_100K, "ml-1m": ML_1M, "tweets": TWEETS, "ml-csv": ML_CSV, "goodbooks": GOODBOOKS,
    "amazon-2014": AMAZON_2014, "amazon-2018": AMAZON_2018, "amazon-2023": AMAZON_2023, "steam": STEAM,
    "australian": AUSTRALIAN, "yelp": YELP, "pixelrec": PIXELREC, "xrec": XREC, "redial": REDIAL, "recbole": RECBOLE,
    "benchmark": BENCHMARK, "s3rec": S3REC, "irec": IREC,
}  # fmt: skip


def put(folder: Path, files: Files, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        content = text.encode("iso-8859-1" if name == "u.item" else "utf-8")
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    def reading(files: Files, **options: object) -> Dataset:
        return load(put(tmp_path / "set", files), **options)

    return reading


@pytest.mark.parametrize("name", ALL)
def test_packed_files_are_read_as_plain_ones(tmp_path: Path, name: str) -> None:
    plain, packed = put(tmp_path / "a" / "set", ALL[name]), put(tmp_path / "b" / "set", ALL[name], packed=True)
    left, right = load(plain), load(packed)
    assert left.fingerprint == right.fingerprint
    assert left.n_interactions > 0
    assert left.items.equals(right.items)


@pytest.mark.parametrize(
    "name", ["ml-1m", "goodbooks", "amazon-2014", "amazon-2023", "steam", "australian", "yelp", "pixelrec", "redial"]
)
def test_loaders_that_never_saw_the_original_say_so(tmp_path: Path, name: str) -> None:
    assert UNTESTED in load(put(tmp_path / name, ALL[name])).about.notes


@pytest.mark.parametrize("name", ["ml-100k", "tweets", "ml-csv", "amazon-2018", "s3rec", "irec", "recbole"])
def test_loaders_that_saw_it_do_not(tmp_path: Path, name: str) -> None:
    assert UNTESTED not in load(put(tmp_path / name, ALL[name])).about.notes


def seen(dataset: Dataset) -> list[tuple[object, ...]]:
    """Events as (user, item, time), in history order."""
    return [
        (dataset.user_ids[user], dataset.item_ids[item], time)
        for user, item, time in dataset.interactions.select("user_row", "item_row", "time").iter_rows()
    ]


def test_movielens_100k(read: Callable[..., Dataset]) -> None:
    dataset = read(ML_100K)
    # Two ratings of user 1 share a second: the order of the file decides.
    assert seen(dataset) == [("1", "2", 10_000), ("1", "1", 10_000), ("2", "1", 20_000)]
    assert dataset.items["category"].to_list() == [["Action"], ["Adventure", "Western"]]
    assert dataset.items["text"].to_list() == ["A (1990). Action.", "B. Adventure, Western. Released 1991."]
    assert dataset.users["zip code"].to_list() == ["00000", "T8H1N"]


OMDB = lines(
    {"movie_id": 2, "Title": "B", "Plot": "A ship sinks.", "Director": "Ann", "Country": "N/A", "Language": "English"},
    {"movie_id": 1, "Title": "A", "Plot": "N/A", "Director": "", "Country": "USA", "Language": None},
)


@pytest.fixture
def read_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Reads files as the set of that name, by its name."""
    monkeypatch.setenv("PALATE_DATA", str(tmp_path))
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))

    def reading(files: Files, packed: bool = False, name: str = "ml-100k-plots", **options: object) -> Dataset:
        return load(put(tmp_path / "ml-100k", files, packed=packed) and name, **options)

    return reading


@pytest.mark.parametrize("packed", [False, True])
def test_movielens_100k_with_plots_is_a_set_of_its_own(read_plots: Callable[..., Dataset], packed: bool) -> None:
    dataset = read_plots({**ML_100K, "omdb_metadata.jsonl": OMDB}, packed)
    assert dataset.name == "ml-100k-plots"
    assert dataset.items["text"].to_list() == [
        "A (1990). Action.",
        "B. Adventure, Western. Released 1991. A ship sinks.",
    ]
    assert dataset.items["plot"].to_list() == [None, "A ship sinks."]
    assert dataset.items["director"].to_list() == [None, "Ann"]
    assert dataset.items["country"].to_list() == ["USA", None]
    assert "CC BY-NC" in dataset.about.licence
    plain = read_plots(ML_100K, name="ml-100k")
    assert seen(dataset) == seen(plain)
    assert plain.items["text"].to_list() == ["A (1990). Action.", "B. Adventure, Western. Released 1991."]
    assert "plot" not in plain.items.columns, "figures of ml-100k stay what they were"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"no file 'omdb_metadata\.jsonl'"),
        ({"omdb_metadata.jsonl": OMDB + OMDB}, r"omdb_metadata\.jsonl has two records of movie_id"),
        ({"omdb_metadata.jsonl": lines({"Plot": "x"})}, r"line 1, column 'movie_id': found 'nothing'"),
    ],
)
def test_plots_that_cannot_be_read_are_one_sentence(
    read_plots: Callable[..., Dataset], files: Files, said: str
) -> None:
    with pytest.raises(DataError, match=said) as problem:
        read_plots({**ML_100K, **files})
    assert "\n" not in str(problem.value)


def test_movielens_1m(read: Callable[..., Dataset]) -> None:
    dataset = read(ML_1M)
    assert seen(dataset) == [("1", "1", 10_000), ("1", "2", 20_000)]
    assert dataset.titles == ["A (1990)", "B: C (1991)"]
    assert dataset.items["year"].to_list() == [1990, 1991]
    assert dataset.users.columns == ["user", "gender", "age", "occupation", "zip code"]


def test_movietweetings_keeps_leading_zeros(read: Callable[..., Dataset]) -> None:
    dataset = read(TWEETS)
    assert seen(dataset) == [("1", "0001", 10_000), ("1", "0002", 20_000)]
    assert dataset.items["category"].to_list() == [["Action"], []]
    assert dataset.about.licence == "MIT"


def test_movielens_csv(read: Callable[..., Dataset]) -> None:
    dataset = read(ML_CSV)
    assert seen(dataset) == [("1", "1", 10_000), ("1", "2", 20_000)]
    assert dataset.items["text"].to_list() == ["A, B (1990). Action, Drama.", "C (1991)."]
    assert dataset.items["imdb"].to_list() == ["0114709", "0113497"]


def test_goodbooks(read: Callable[..., Dataset]) -> None:
    dataset = read(GOODBOOKS)
    assert seen(dataset) == [("1", "2", 0), ("1", "1", 1)]
    assert dataset.clock == "order"
    assert dataset.items["category"].to_list() == [["fantasy", "magic"], []]
    assert dataset.items["text"].to_list() == ["A, B. By Ann. First published 1990. fantasy, magic.", "C. By Bob."]


def test_amazon_2014(read: Callable[..., Dataset]) -> None:
    dataset = read(AMAZON_2014)
    assert seen(dataset) == [("u", "i2", SECOND * 1000 - 1000), ("u", "i1", SECOND * 1000)]
    item = dataset.items.row(0, named=True)
    assert (item["title"], item["category"], item["price"]) == ("It's & more", ["Toys", "Games"], 1.5)
    assert item["text"] == "It's & more. Toys, Games. A fine toy."
    assert item["image"] == "http://x/1.jpg"


def test_amazon_2018(read: Callable[..., Dataset]) -> None:
    dataset = read(AMAZON_2018)
    assert dataset.clock == "day"
    assert dataset.interactions["helpful_votes"].to_list() == [None, 1234]
    first, second = dataset.items.iter_rows(named=True)
    assert (first["title"], first["category"], first["price"]) == ("T", ["Toys"], 1299.5)
    assert first["text"] == "T. B. Toys. a b."
    assert first["image"] == "http://x/1.jpg"
    assert (second["title"], second["price"], second["image"]) == (None, None, None)


def test_amazon_2023(read: Callable[..., Dataset]) -> None:
    dataset = read(AMAZON_2023)
    assert seen(dataset) == [("u", "i2", SECOND * 1000), ("u", "i1", SECOND * 1000 + 7)]
    assert dataset.clock == "unix"
    first = dataset.items.row(0, named=True)
    assert (first["brand"], first["image"], first["text"]) == ("S", "http://x/l.jpg", "T. S. Toys. d.")


def test_steam(read: Callable[..., Dataset]) -> None:
    dataset = read(STEAM)
    assert [item for _, item, _ in seen(dataset)] == ["2", "1"]
    assert dataset.interactions["review"].to_list() == ["♥", "it's ok"]
    assert dataset.titles == ["A", "B"]
    assert dataset.items["price"].to_list() == [0.0, 9.99]
    assert dataset.items["text"].to_list() == ["A. Action. Fun.", "B. D."]


def test_steam_of_australia(read: Callable[..., Dataset]) -> None:
    dataset = read(AUSTRALIAN)
    assert seen(dataset) == [("ann", "2", None), ("ann", "1", 1320451200000)]
    assert dataset.interactions["rating"].to_list() == [0.0, 1.0]


def test_yelp(read: Callable[..., Dataset]) -> None:
    dataset = read(YELP)
    assert seen(dataset) == [("u", "i2", 1303171200000), ("u", "i1", 1531001351000)]
    assert dataset.items["category"].to_list() == [["Food", "Coffee & Tea"], None]
    assert dataset.items["text"][0] == "Cafe. Food, Coffee & Tea. York. N"


def test_pixelrec(read: Callable[..., Dataset]) -> None:
    dataset = read(PIXELREC)
    assert seen(dataset) == [("u1", "i2", SECOND * 1000 - 1000), ("u1", "i1", SECOND * 1000)]
    assert dataset.titles == ["Cat", "狗"]
    assert dataset.items["text"].to_list() == ["Cat. pets. a cat, sleeping", "狗"]


def test_xrec(read: Callable[..., Dataset]) -> None:
    """Parts in the order train, valid, test; titles where known; what a model wrote stays out."""
    dataset = read(XREC)
    assert seen(dataset) == [("7", "1", 0), ("7", "3", 1), ("7", "2", 2), ("8", "2", 0), ("8", "1", 1)]
    assert dataset.interactions["part"].to_list() == ["train", "train", "valid", "train", "test"]
    assert dict(zip(dataset.item_ids, dataset.titles, strict=True)) == {"2": "B", "1": "item 1", "3": "item 3"}
    assert dataset.clock == "order"
    assert dataset.about.notes == (NO_ORDER,)
    assert not {"review", "text", "user_summary", "explanation"} & {*dataset.items.columns, *dataset.users.columns}
    assert read(XREC, positive="part=train").n_interactions == 3


def test_xrec_with_days_and_without_its_train_file(read: Callable[..., Dataset]) -> None:
    dataset = read(XREC_AMAZON)
    day = 86_400_000
    assert seen(dataset) == [("7", "2", 16_442 * day), ("7", "1", 16_964 * day), ("7", "3", 17_166 * day)]
    assert (dataset.clock, dataset.about.notes) == ("day", (NO_TRAIN,))
    wrong = {**XREC_AMAZON, "total_tst.csv": "user,item,Time\n7,3,2016\n"}
    with pytest.raises(DataError, match=r"total_tst.csv, line 2, column 'Time': .*expected a day such as 06 12, 2016"):
        read(wrong)


def test_redial(read: Callable[..., Dataset]) -> None:
    dataset = read(REDIAL)
    events = dataset.interactions
    assert seen(dataset) == [
        ("1", "20", 0),
        ("1", "10", 1),
        ("1", "30", 2),
        ("5", "20", 0),
        ("5", "10", 1),
        ("5", "30", 2),
    ]
    assert events["kind"].to_list() == ["suggested", *["mentioned"] * 5]
    assert events["rating"].to_list() == [None, 1.0, None, None, 0.0, None]
    assert dataset.titles == ["A (1990)", "B (1991)", "C (1992)"]
    assert load_liked(read).n_interactions == 1


def load_liked(read: Callable[..., Dataset]) -> Dataset:
    return read(REDIAL, positive="rating>=1")


def test_recbole(read: Callable[..., Dataset]) -> None:
    dataset = read(RECBOLE)
    assert seen(dataset) == [("u", "i2", SECOND * 1000 - 1000), ("u", "i1", SECOND * 1000)]
    assert dataset.titles == ["A toy", "B"]
    assert dataset.items["category"].to_list() == [["Fun", "Red"], []]
    assert dataset.items["text"].to_list() == ["A toy. Fun, Red", "B"]
    assert dataset.users["age"].to_list() == [30.0]


def test_recbole_rows_with_histories(read: Callable[..., Dataset]) -> None:
    dataset = read(BENCHMARK)
    assert seen(dataset) == [("u", "i1", 0), ("u", "i2", 1), ("u", "i3", 2), ("v", "i2", 0), ("v", "i1", 1)]
    assert dataset.clock == "order"


def test_sequences(read: Callable[..., Dataset]) -> None:
    dataset = read(S3REC)
    assert seen(dataset) == [("1", "5", 0), ("1", "3", 1), ("1", "5", 2), ("2", "3", 0)]
    assert dataset.item_ids == ["3", "5"]
    assert dataset.items["outside"].to_list() == ["B3", "B5"]
    # Number 1 of the file is "Fun": the rare attribute was dropped before numbering, as the counts prove.
    assert dataset.items["category"].to_list() == [["Red"], ["Fun", "Red"]]


def test_sequences_with_days(read: Callable[..., Dataset]) -> None:
    dataset = read(IREC)
    assert seen(dataset) == [("1", "3", 0), ("1", "5", 86_400_000), ("2", "3", 0)]
    assert dataset.clock == "day"


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "said"),
    [
        (
            "ml-100k",
            "u.data",
            "\t5\t",
            "\tfive\t",
            r"u\.data, line 1, column 'rating': found 'five', expected a number",
        ),
        ("ml-100k", "u.data", "1\t1\t4\t10", "1\t1\t4", r"u\.data, line 3: found .* expected 4 fields"),
        ("ml-1m", "ratings.dat", "1::1::3", "1::x::3", r"line 2, column 'MovieID': found 'x', expected a whole number"),
        ("ml-csv", "ratings.csv", "timestamp", "time", r"ratings\.csv, line 1: no column 'timestamp'; did you mean"),
        (
            "amazon-2018",
            "Toys_5.json",
            '"overall": 5.0',
            '"overall": "best"',
            r"line 1, column 'overall': found 'best'",
        ),
        ("amazon-2018", "Toys_5.json", '"asin": "i2"', '"asin": null', r"line 2, column 'asin': found 'nothing'"),
        (
            "steam",
            "steam_reviews.json",
            "u'2017-12-23'",
            "u'soon'",
            r"line 2, column 'date': found 'soon', expected a date",
        ),
        ("steam", "steam_reviews.json", "{u'username'", "__import__('os'", r"line 1: found .* expected a whole record"),
        ("yelp", "yelp_academic_dataset_review.json", "2018-07-07 22", "yesterday", r"line 1, column 'date'"),
        ("recbole", "toys.inter", "rating:float", "rating:real", r"line 1: found 'rating:real', expected name:token"),
        ("s3rec", "Toys.txt", "2 3", "2 x", r"Toys\.txt, line 2: found 'x', expected whole numbers"),
        ("irec", "Toys_timestamps.txt", "2 0", "2 0 0", r"do not stand beside those of Toys\.txt: user 2"),
        ("s3rec", "datamaps.json", "{", "[", r"datamaps\.json is not the JSON it should be"),
        ("redial", "train_data.jsonl", '"messages"', '"massages"', r"line 1: expected a conversation of ReDial"),
    ],
)
def test_damaged_originals_are_named_exactly(
    tmp_path: Path, name: str, file: str, old: str, new: str, said: str
) -> None:
    files = dict(ALL[name])
    assert old in files[file]
    files[file] = files[file].replace(old, new, 1)
    with pytest.raises(DataError, match=said) as problem:
        load(put(tmp_path / "set", files))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("name", ["ml-100k", "amazon-2018", "steam", "s3rec"])
def test_skip_bad_leaves_rows_out_and_lists_them(tmp_path: Path, name: str) -> None:
    files = dict(ALL[name])
    first = next(iter(files))
    files[first] += "? ?\n"
    folder = put(tmp_path / "set", files)
    with pytest.raises(DataError):
        load(folder)
    dataset = load(folder, skip_bad=1)
    assert dataset.n_interactions == load(put(tmp_path / "good", ALL[name])).n_interactions
    assert any(note.startswith("left out ") and first in note for note in dataset.about.notes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    files = {name: text for name, text in ML_100K.items() if name != "u.user"}
    with pytest.raises(DataError, match=r"has no file 'u\.user' \(plain or \.gz\)"):
        load(put(tmp_path / "set", files))
