"""A dataset is frozen, sorted, and translates ids to rows and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from palate.core.dataset import Dataset
from palate.core.errors import DataError, UnknownIdError

EVENTS = {"user_row": [0, 0, 2, 2, 2], "item_row": [1, 0, 2, 1, 1], "time": [5, 7, 1, 2, 2]}


def made(**changes: object) -> Dataset:
    events = pl.DataFrame(EVENTS, schema_overrides={"user_row": pl.Int32, "item_row": pl.Int32, "time": pl.Int64})
    items = pl.DataFrame({"item": ["10", "20", "30", "40"], "title": ["Emma", None, "Ulysses", ""]})
    dataset = Dataset("tiny", events, items, pl.DataFrame({"user": ["ann", "bob", "cy"]}))
    return dataclasses.replace(dataset, **changes)  # type: ignore[arg-type]


def test_counts_and_columns() -> None:
    dataset = made()
    assert (dataset.n_users, dataset.n_items, dataset.n_interactions) == (3, 4, 5)
    assert dataset.user_rows.dtype == dataset.item_rows.dtype == np.int32
    assert [row.tolist() for row in dataset.histories] == [[1, 0], [], [2, 1, 1]]
    assert np.shares_memory(dataset.histories.values, dataset.item_rows)
    assert dataset.item_counts.tolist() == [1, 3, 1, 0]
    assert dataset.titles == ["Emma", "item 20", "Ulysses", "item 40"]
    assert made(items=pl.DataFrame({"item": ["a", "b", "c", "d"]})).titles == ["a", "b", "c", "d"]


def test_times_only_where_they_are_known() -> None:
    times = made().times
    assert times is not None
    assert times.tolist() == [5, 7, 1, 2, 2]
    assert made(clock="order").times is None
    assert made(interactions=made().interactions.drop("time")).times is None
    gaps = made().interactions.with_columns(time=pl.Series([5, None, 1, 2, 2]))
    assert made(interactions=gaps).times is None


def test_ids_and_rows() -> None:
    dataset = made()
    assert dataset.item_rows_of(["30", "10"]).tolist() == [2, 0]
    assert dataset.item_rows_of(["30", "99"], missing="negative").tolist() == [2, -1]
    assert dataset.user_rows_of([]).tolist() == []
    with pytest.raises(UnknownIdError, match=r"^no item '99' in this dataset \(4 items known\)"):
        dataset.item_rows_of(["10", "99"])
    with pytest.raises(UnknownIdError, match=r"no user 'anne' in this dataset .*; did you mean 'ann'\?"):
        dataset.user_rows_of(["anne"])


def test_keeping_some_events_keeps_items_and_users() -> None:
    dataset = made()
    by_mask = dataset.keeping(np.array([True, False, True, False, True]))
    by_position = dataset.keeping(np.array([0, 2, 4]))
    for kept in (by_mask, by_position):
        assert kept.interactions["item_row"].to_list() == [1, 2, 1]
        assert (kept.n_users, kept.n_items) == (3, 4)
    assert by_mask.fingerprint == by_position.fingerprint != dataset.fingerprint
    assert dataset.n_interactions == 5


def test_the_fingerprint_sees_who_met_what_when() -> None:
    dataset = made()
    assert made().fingerprint == dataset.fingerprint
    other_time = dataset.interactions.with_columns(time=pl.Series([5, 8, 1, 2, 2]))
    other_item = dataset.interactions.with_columns(item_row=pl.Series([1, 0, 2, 1, 0], dtype=pl.Int32))
    other_user = dataset.interactions.with_columns(user_row=pl.Series([0, 0, 1, 2, 2], dtype=pl.Int32))
    others = [made(interactions=table) for table in (other_time, other_item, other_user)]
    others.append(made(users=pl.DataFrame({"user": ["ann", "bob", "cyd"]})))
    others.append(made(items=pl.DataFrame({"item": ["10", "20", "30", "41"]})))
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 6
    # What is known about items is no interaction.
    assert made(items=dataset.items.drop("title"), name="renamed").fingerprint == dataset.fingerprint


def test_tables_that_cannot_be_one() -> None:
    with pytest.raises(DataError, match="'tiny' lacks the column 'item_row'"):
        made(interactions=made().interactions.drop("item_row"))
    with pytest.raises(DataError, match="lacks the column 'user'"):
        made(users=pl.DataFrame({"name": ["a"]}))
    with pytest.raises(DataError, match="must be sorted by user_row"):
        made(interactions=made().interactions.reverse())


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        made().name = "other"  # type: ignore[misc]


def test_no_events_at_all() -> None:
    dataset = made(interactions=made().interactions.clear())
    assert [row.tolist() for row in dataset.histories] == [[], [], []]
    assert dataset.item_counts.tolist() == [0, 0, 0, 0]
    assert len(dataset.fingerprint) == 32
