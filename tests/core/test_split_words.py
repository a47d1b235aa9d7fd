"""``Cases`` and ``Split``: what they promise whatever the rule."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from palate.core.dataset import Dataset
from palate.core.requests import Requests
from palate.core.split import Cases, Split


def made() -> Split:
    events = pl.DataFrame({"user_row": [0, 0, 0, 1], "item_row": [0, 1, 2, 1]}).cast(pl.Int32)
    users = pl.DataFrame({"user": ["u", "v"]})
    dataset = Dataset("tiny", events, pl.DataFrame({"item": ["a", "b", "c", "d"]}), users)
    valid = Cases(Requests.of([[0]], user_rows=np.array([0])), np.array([1]), np.array([1]))
    test = Cases(Requests.of([[0, 1]], user_rows=np.array([0])), np.array([2]), np.array([2]))
    return Split(dataset, dataset.keeping(np.array([0, 3])), valid, test, "leave-one-out", {"min": 3})


def test_cases_are_sliced_together() -> None:
    cases = Cases(Requests.of([[1], [2], [3]], user_rows=np.array([5, 5, 6])), np.array([7, 8, 9]), np.array([0, 1, 2]))
    some = cases[1:]
    assert len(some) == 2
    assert some.targets.tolist() == [8, 9]
    assert some.events.tolist() == [1, 2]
    assert [row.tolist() for row in some.requests.histories] == [[2], [3]]
    assert some.user_rows.tolist() == [5, 6]
    assert cases[np.array([2])].targets.tolist() == [9]


def test_nameless_cases_are_a_user_each() -> None:
    assert Cases(Requests.of([[1], [2]]), np.array([3, 4]), np.array([-1, -1])).user_rows.tolist() == [0, 1]


def test_the_hash_sees_rule_settings_teaching_and_questions() -> None:
    split = made()
    other = Cases(split.test.requests, np.array([3]), split.test.events)
    changed = [
        dataclasses.replace(split, rule="temporal"),
        dataclasses.replace(split, settings={"min": 4}),
        dataclasses.replace(split, train=split.dataset),
        dataclasses.replace(split, test=other),
        dataclasses.replace(split, valid=other),
        dataclasses.replace(split, valid=split.test, test=split.valid),
    ]
    hashes = {made().hash, *(one.hash for one in changed)}
    assert len(hashes) == 7
    assert made().hash == split.hash
    # What was proved, or what the data is called, does not change the questions.
    assert dataclasses.replace(split, proof={"seen": "1"}).hash == split.hash


def test_cold_items_are_those_no_training_event_shows() -> None:
    assert made().cold_items.tolist() == [False, False, True, True]
