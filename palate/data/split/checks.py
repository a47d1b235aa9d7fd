"""Proof that nothing leaks: each check reads the finished split, not the rule that made it, and says what it saw.

A check returns one sentence with numbers, or raises ``LeakError`` naming the event, user or item that leaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.split import Cases, Split
from palate.data.split.questions import Mask

if TYPE_CHECKING:
    import polars as pl


def check_tables(split: Split) -> str:
    """Train speaks of the same users and items, row for row, as the whole dataset."""
    whole, train = split.dataset, split.train
    if train.n_users != whole.n_users or train.n_items != whole.n_items:
        raise LeakError(
            f"train has {train.n_users:,} users and {train.n_items:,} items, the dataset {whole.n_users:,} and "
            f"{whole.n_items:,}: rows would not mean the same; split the dataset again"
        )
    for table, own, column in ((whole.users, train.users, "user"), (whole.items, train.items, "item")):
        if own is not table and not own[column].equals(table[column]):
            raise LeakError(f"row numbers of train and dataset name different {column}s; split the dataset again")
    return f"train and dataset name the same {whole.n_users:,} users and {whole.n_items:,} items"


def check_questions(split: Split) -> str:
    """Every question is an event of the log, asked once, about the user and the item it really was."""
    whole = split.dataset
    for name, cases in (("valid", split.valid), ("test", split.test)):
        events = cases.events
        if len(events) and (events.min() < 0 or events.max() >= whole.n_interactions):
            raise LeakError(f"{name}: a question is about an event that the dataset does not hold")
        if (whole.item_rows[events] != cases.targets).any() or (whole.user_rows[events] != cases.user_rows).any():
            raise LeakError(f"{name}: a question's user or target differs from the event it is about")
        asked_at = cases.requests.times
        if asked_at is not None and not _same(asked_at, None if whole.times is None else whole.times[events]):
            raise LeakError(f"{name}: a question is asked at another time than its event happened")
    asked = np.concatenate([split.valid.events, split.test.events])
    twice = len(asked) - len(np.unique(asked))
    if twice:
        raise LeakError(f"{twice:,} events are asked twice, such as in valid and in test")
    return f"{len(split.valid):,} valid and {len(split.test):,} test events, none of them asked twice"


def check_histories(split: Split, *, shown_in_valid: Mask | None = None, shown_in_test: Mask | None = None) -> str:
    """Every history is made of earlier events of the same user; those of valid show no event that test asks.

    Histories are views of the log itself, or of those of its events that ``shown_in_…`` ``[E]`` marks; so where
    a view begins and ends proves what is in it.
    """
    whole = split.dataset
    hidden = np.zeros(whole.n_interactions, dtype=np.bool_)
    hidden[split.test.events] = True
    for name, cases, shown in (("valid", split.valid, shown_in_valid), ("test", split.test, shown_in_test)):
        first, last = _reach(whole, cases, shown)
        filled, events = cases.requests.histories.lengths > 0, cases.events
        strange = filled & (whole.user_rows[first] != whole.user_rows[events])
        if strange.any():
            raise LeakError(f"{name}: {_event(whole, events[strange][0])} is asked with the history of another user")
        ahead = filled & (last >= events)
        if ahead.any():
            raise LeakError(
                f"{name}: the history of {_event(whole, events[ahead][0])} holds that event itself or a later one"
            )
        if name == "valid":
            secret = hidden if shown is None else hidden & shown
            before = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(secret, dtype=np.int32)])
            peeking = filled & (before[last + 1] > before[first])
            if peeking.any():
                raise LeakError(f"valid: the history of {_event(whole, events[peeking][0])} shows an event of test")
    lengths = split.test.requests.histories.lengths
    shortest, longest = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
    return f"every history ends before its question; those of test hold {shortest:,} to {longest:,} events"


def check_training(split: Split, forbidden: Mask) -> str:
    """No event that ``forbidden`` ``[E]`` marks is in train, and train holds nothing that the dataset lacks.

    Events are compared by user, item and time, counted, so that repeats and ties hide nothing.
    """
    whole, train = split.dataset, split.train
    if not _equal_events(train, whole, ~forbidden):
        allowed = _counts(whole.interactions.filter(~forbidden))
        taught = _counts(train.interactions)
        keys = [column for column in taught.columns if column != "n"]
        both = taught.join(allowed, on=keys, how="left", suffix="_allowed", nulls_equal=True)
        extra = both.filter(both["n"] > both["n_allowed"].fill_null(0))
        if extra.height:
            user, item = whole.user_ids[extra["user_row"][0]], whole.item_ids[extra["item_row"][0]]
            raise LeakError(
                f"train holds {extra.height:,} events it must not learn from, such as user '{user}' with item "
                f"'{item}': they are asked in valid or test, come after such an event, or are not in the dataset"
            )
    return f"{train.n_interactions:,} events teach; none of the {int(forbidden.sum()):,} that must stay unseen is there"


def asked_or_later(split: Split, *, keeps: int | None = None) -> Mask:
    """``[E]`` the events from each user's first question on: a user's own future teaches nothing about the past.

    With ``keeps`` also all but so many events before it (or, for users who are not asked, before the end).
    """
    histories = split.dataset.histories
    first = histories.stops.copy()
    for cases in (split.valid, split.test):
        np.minimum.at(first, cases.user_rows, cases.events)
    oldest = histories.starts if keeps is None else np.maximum(histories.starts, first - keeps)
    stretches = np.stack([oldest - histories.starts, first - oldest, histories.stops - first], axis=1)
    return np.repeat(np.tile(np.array([True, False, True]), len(histories)), stretches.ravel())


def _reach(dataset: Dataset, cases: Cases, shown: Mask | None) -> tuple[np.ndarray, np.ndarray]:
    """First and last event ``[B]`` of each history as positions in the log; any where it is empty."""
    requests = cases.requests
    log, times = dataset.item_rows, dataset.times
    if shown is not None:
        log, times = log[shown], None if times is None else times[shown]
    if not _same(requests.histories.values, log) or not _same(requests.history_times, times):
        raise LeakError("the histories are no views of the dataset's own events, so nothing can be proved about them")
    filled = requests.histories.lengths > 0
    first = np.where(filled, requests.histories.starts, 0)
    last = np.where(filled, requests.histories.stops - 1, 0)
    if shown is None:
        return first, last
    position = np.flatnonzero(shown)
    return position[first], position[last]


def _same(values: np.ndarray | None, log: np.ndarray | None) -> bool:
    return values is log or (values is not None and log is not None and np.array_equal(values, log))


def _equal_events(train: Dataset, whole: Dataset, kept: Mask) -> bool:
    """Whether train is exactly the kept events, in order: the cheap proof, which most splits pass."""
    if train.n_interactions != int(kept.sum()):
        return False
    for column in ("user_row", "item_row", "time"):
        if column in whole.interactions.columns:
            own, theirs = train.interactions[column], whole.interactions[column].filter(kept)
            if not own.equals(theirs, null_equal=True):
                return False
    return True


def _counts(interactions: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    keys = [column for column in ("user_row", "item_row", "time") if column in interactions.columns]
    return interactions.group_by(keys, maintain_order=True).agg(pl.len().alias("n"))


def _event(dataset: Dataset, event: int) -> str:
    user = dataset.user_ids[dataset.user_rows[event]]
    item = dataset.item_ids[dataset.item_rows[event]]
    return f"user '{user}' and item '{item}'"
