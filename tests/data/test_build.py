"""Tables to a dataset: order, numbering, duplicates, k-core; each against its plain definition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data import numbering, order
from palate.data.build import dataset_from
from palate.data.numbering import core_mask, encode, number
from palate.data.order import history_order

NARROW = st.integers(-3, 3)
WIDE = st.integers(-(2**63), 2**63 - 1)
TIMES = st.one_of(st.none(), NARROW, st.integers(0, 2**41), WIDE)
EVENTS = st.lists(st.tuples(st.integers(0, 6), TIMES), max_size=80)


def lexsorted(users: np.ndarray, times: list[int | None]) -> np.ndarray:
    """The definition: a stable sort by user, then unknown before known, then time."""
    known = np.array([time is not None for time in times], dtype=bool)
    filled = np.array([time or 0 for time in times], dtype=np.int64)
    return np.lexsort((filled, known, users))


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(1, 3))
def test_history_order_is_the_stable_sort(events: list[tuple[int, int | None]], threads: int) -> None:
    users = np.array([user for user, _ in events], dtype=np.int32)
    times = [time for _, time in events]
    known = np.array([time is not None for time in times], dtype=bool)
    filled = np.array([time or 0 for time in times], dtype=np.int64)
    found = history_order(users, filled, 7, known=known, along=(filled, users), threads=threads)
    expected = lexsorted(users, times)
    assert found.positions.tolist() == expected.tolist()
    assert found.user_rows.tolist() == users[expected].tolist()
    assert found.along[0].tolist() == filled[expected].tolist()
    assert found.along[1].tolist() == users[expected].tolist()


@pytest.mark.parametrize("place_bits", [1, 3, 20])
def test_order_does_not_depend_on_the_size_of_buckets(place_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, 200, 5_000).astype(np.int32)
    times = rng.integers(0, 300, 5_000) * 1000
    monkeypatch.setattr(order, "PLACE_BITS", place_bits)
    monkeypatch.setattr(order, "_STRETCH", 512)
    found = history_order(users, times, 250)
    assert found.positions.tolist() == np.lexsort((times, users)).tolist()
    assert found.offsets[-1] == 5_000
    assert len(found.offsets) == 251


def test_order_without_times_keeps_the_order_of_the_input() -> None:
    users = np.array([1, 0, 1, 0, 1], dtype=np.int32)
    assert history_order(users, None, 2).positions.tolist() == [1, 3, 0, 2, 4]


def test_one_user_with_more_events_than_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "PLACE_BITS", 4)
    times = np.random.default_rng(1).integers(0, 2**40, 1_000)
    users = np.zeros(1_000, dtype=np.int32)
    assert history_order(users, times, 1).positions.tolist() == np.argsort(times, kind="stable").tolist()


IDS = st.one_of(
    st.lists(st.integers(-5, 5), max_size=50),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50),
    st.lists(st.text(max_size=3), max_size=50),
)


@settings(max_examples=200, deadline=None)
@given(IDS)
def test_ids_become_rows_by_first_appearance(ids: list[int] | list[str]) -> None:
    column = pl.Series("item", ids, dtype=pl.String if ids and isinstance(ids[0], str) else pl.Int64)
    coded = encode(column, "item")
    rows, table = number(coded, coded.codes, None, "item", keep_unseen=True)
    distinct = list(dict.fromkeys(ids))
    assert table["item"].to_list() == [str(name) for name in distinct]
    assert rows.tolist() == [distinct.index(name) for name in ids]


def test_first_appearance_over_many_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "_STRETCH", 7)
    ids = np.random.default_rng(0).integers(-50, 50, 1_000).tolist()
    coded = encode(pl.Series("user", ids), "user")
    rows, table = number(coded, coded.codes, None, "user", keep_unseen=True)
    distinct = list(dict.fromkeys(ids))
    assert table["user"].to_list() == [str(name) for name in distinct]
    assert rows.tolist() == [distinct.index(name) for name in ids]


@pytest.mark.parametrize("dtype", [pl.UInt8, pl.Int16, pl.UInt32, pl.UInt64, pl.Int64])
def test_every_integer_type_is_an_id(dtype: type[pl.DataType]) -> None:
    column = pl.Series("user", [250, 3, 250], dtype=pl.Int64).cast(dtype, strict=False).fill_null(250 % 128)
    coded = encode(column, "user")
    assert coded.texts(coded.codes.astype(np.int64)).to_list() == [str(value) for value in column.to_list()]


def brute_core(pairs: list[tuple[int, int]], k: int) -> list[bool]:
    kept = [True] * len(pairs)
    while True:
        users = Counter(user for (user, _), stays in zip(pairs, kept, strict=True) if stays)
        items = Counter(item for (_, item), stays in zip(pairs, kept, strict=True) if stays)
        now = [stays and users[user] >= k and items[item] >= k for (user, item), stays in zip(pairs, kept, strict=True)]
        if now == kept:
            return kept
        kept = now


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=60), st.integers(0, 5))
def test_core_is_the_fixed_point(pairs: list[tuple[int, int]], k: int) -> None:
    users = encode(pl.Series("user", [user for user, _ in pairs], dtype=pl.Int64), "user")
    items = encode(pl.Series("item", [item for _, item in pairs], dtype=pl.Int64), "item")
    mask = core_mask(users, items, k)
    assert (mask.tolist() if mask is not None else [True] * len(pairs)) == brute_core(pairs, k)


def events(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"user": ["b", "a", "b", "a"], "item": ["x", "y", "z", "x"], **columns})


def test_rows_follow_the_listed_table_then_first_appearance() -> None:
    listed = pl.DataFrame({"item": ["q", "z", "x"], "title": ["Q", "Z", "X"]})
    dataset = dataset_from("t", events(time=[4, 3, 2, 1]), items=listed)
    assert dataset.item_ids == ["q", "z", "x", "y"]
    assert dataset.titles == ["Q", "Z", "X", "item y"]
    assert dataset.user_ids == ["b", "a"]
    assert dataset.interactions["user_row"].to_list() == [0, 0, 1, 1]
    assert dataset.interactions["item_row"].to_list() == [1, 2, 2, 3]
    assert dataset.interactions["time"].to_list() == [2, 4, 1, 3]


def test_unseen_listed_ids_go_when_asked() -> None:
    listed = pl.DataFrame({"item": ["q", "z", "x"]})
    assert dataset_from("t", events(), items=listed, keep_unseen=False).item_ids == ["z", "x", "y"]
    square = pl.DataFrame({"user": ["a", "a", "b", "b"], "item": ["x", "z", "z", "x"]})
    assert dataset_from("t", square, items=listed, min_count=2).item_ids == ["z", "x"]


def test_whole_number_ids_meet_text_ids_of_the_table_only_when_written_the_same() -> None:
    log = pl.DataFrame({"user": [1, 1], "item": [7, 8]})
    dataset = dataset_from("t", log, items=pl.DataFrame({"item": ["007", "8"]}))
    assert dataset.item_ids == ["007", "8", "7"]
    assert dataset.item_rows.tolist() == [2, 1]


def test_unknown_times_come_first_and_stay_unknown() -> None:
    dataset = dataset_from("t", events(time=[None, 3, -5, None]))
    assert dataset.interactions["time"].to_list() == [None, -5, None, 3]
    assert dataset.times is None
    assert dataset.clock == "unix"


@pytest.mark.parametrize("time", [{}, {"time": [None] * 4}])
def test_without_times_the_clock_is_the_order(time: dict[str, object]) -> None:
    dataset = dataset_from("t", events(**time))
    assert dataset.clock == "order"
    assert dataset.interactions["time"].to_list() == [0, 1, 0, 1]
    assert dataset.interactions["item_row"].to_list() == [0, 2, 1, 0]


def test_dates_are_times() -> None:
    from datetime import date

    log = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "time": [date(1970, 1, 3), date(1970, 1, 2)]})
    assert dataset_from("t", log).interactions["time"].to_list() == [86_400_000, 172_800_000]


@pytest.mark.parametrize(("rule", "kept"), [("keep", [1, 2, 4, 3]), ("first", [1, 2]), ("last", [2, 3])])
def test_duplicates(rule: str, kept: list[float]) -> None:
    """The rating tells the events apart; of the two at time 9 the later one in the file is the last."""
    log = pl.DataFrame({"user": ["a"] * 4, "item": ["x", "x", "y", "x"], "time": [9, 5, 6, 9], "rating": [4, 1, 2, 3]})
    dataset = dataset_from("t", log, duplicates=rule)  # type: ignore[arg-type]
    assert dataset.interactions["rating"].to_list() == kept
    assert (dataset.about.duplicates == "kept") == (rule == "keep")


def test_positives_come_before_duplicates_and_core_and_are_written_down() -> None:
    log = events(rating=[5.0, 4.0, 1.0, 4.0])
    dataset = dataset_from("t", log, positive="rating>=4", about=About(notes=("kept",)), min_count=2)
    # Without z user b has one event, without b item x has one: nothing is left.
    assert dataset.n_interactions == 0
    assert dataset.about.positive == "rating>=4"
    assert dataset.about.notes == ("kept", "k-core of 2")


def test_further_columns_stay_with_their_events() -> None:
    log = events(time=[4, 3, 2, 1], place=["p4", "p3", "p2", "p1"], kind=["buy", "view", "buy", "view"])
    dataset = dataset_from("t", log)
    assert dataset.interactions["place"].to_list() == ["p2", "p4", "p1", "p3"]


def test_a_scanned_file_gives_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = events(time=[4, 3, 2, 1])
    log.write_parquet(tmp_path / "log.parquet")
    scanned = dataset_from("t", pl.scan_parquet(tmp_path / "log.parquet"))
    assert scanned.fingerprint == dataset_from("t", log).fingerprint


def test_an_empty_log_is_a_dataset() -> None:
    dataset = dataset_from("t", pl.DataFrame(schema={"user": pl.String, "item": pl.String, "time": pl.Int64}))
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (0, 0, 0)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"user": ["a"]}, "lack the column 'item'"),
        ({"users": ["a"], "item": ["x"]}, "lack the column 'user'; did you mean 'users'"),
        ({"user": ["a", None], "item": ["x", "y"]}, "row 2, column 'user': found nothing, expected an id"),
        ({"user": ["a"], "item": [1.5]}, "column 'item' holds Float64, expected ids"),
        ({"user": ["a"], "item": ["x"], "time": [1.5]}, "column 'time' holds Float64"),
        ({"user": ["a"], "item": ["x"], "rating": ["good"]}, "good"),
    ],
)
def test_unusable_tables_are_refused_in_one_sentence(log: dict[str, list[object]], said: str) -> None:
    with pytest.raises(DataError, match=said) as problem:
        dataset_from("t", pl.DataFrame(log))
    assert "\n" not in str(problem.value)


def test_a_listed_id_may_have_one_row() -> None:
    with pytest.raises(DataError, match="lists 'x' more than once"):
        dataset_from("t", events(), items=pl.DataFrame({"item": ["x", "x"]}))


def test_some_users_are_drawn_whatever_the_order_of_the_file() -> None:
    """Whole histories; the name and a note say so; items that none of them met and other listed users leave."""
    rng = np.random.default_rng(0)
    log = pl.DataFrame({"user": [f"u{n}" for n in rng.integers(0, 40, 400)], "item": [f"i{n}" for n in range(400)],
                        "time": np.arange(400)})  # fmt: skip
    listed = pl.DataFrame({"user": ["u0", "nobody", *(f"u{n}" for n in range(1, 40))]})
    few = dataset_from("t", log, users=listed, some_users=7, keep_unseen=True)
    assert (few.name, few.n_users, few.about.notes) == ("t-7-users", 7, ("7 of 40 users, drawn by lot over their ids",))
    assert few.n_interactions == log.filter(pl.col("user").is_in(few.user_ids)).height
    moved = dataset_from("t", log.sort("item"), some_users=7)
    assert set(moved.user_ids) == set(few.user_ids)
    assert moved.n_items == moved.n_interactions == few.n_interactions
    assert set(few.user_ids) < set(dataset_from("t", log, some_users=20).user_ids), "more users hold the fewer"
    assert set(few.user_ids) != set(log["user"].unique(maintain_order=True).to_list()[:7]), "the file decides nothing"


def test_some_users_are_of_those_that_the_core_leaves() -> None:
    square = pl.DataFrame({"user": ["a", "a", "b", "b", "c"], "item": ["x", "y", "x", "y", "z"]})
    found = dataset_from("t", square, min_count=2, some_users=2)
    assert sorted(found.user_ids) == ["a", "b"]
    assert "the k-core holds of all of them together" in found.about.notes[0]
    with pytest.raises(DataError, match="'t': 3 users are asked for and 2 are left; ask for 1 to 2"):
        dataset_from("t", square, min_count=2, some_users=3)


def test_negative_core_is_refused() -> None:
    with pytest.raises(DataError, match="min_count is -1"):
        dataset_from("t", events(), min_count=-1)
