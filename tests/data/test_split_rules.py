"""Temporal, cold and few-shot rules by hand, with a leak planted in each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core import store
from palate.core.errors import ConfigError, DataError, LeakError, StoreError
from palate.core.provenance import check_fitted_on
from palate.core.run import Run
from palate.data.split import RULES, check, leave_one_out, load, save, split
from palate.models.collaborative.popularity import Popularity
from tests.data.split_logs import events, histories, log, with_train

DAY = 86_400_000
TIMED = log(
    [(0, 1, 10), (0, 2, 20), (0, 3, 30), (0, 4, 40), (0, 5, 40), (1, 5, 11), (1, 6, 25), (1, 7, 45), (2, 0, 50)],
    n_users=3,
)
MANY = log([(user, (user + 3 * place) % 8, place) for user in range(20) for place in range(1 + user % 6)], n_users=20)
DOMAINS = ["book"] * 4 + ["film"] * 3 + ["song"]
BRIDGED = log(
    [
        (user, item, place)
        for user in range(12)
        for place, item in enumerate([user % 4, 7, (user + 1) % 4, 4 + user % 3])
    ]
    + [(user, 5, 9) for user in range(12)],
    n_users=12,
    domain=DOMAINS,
)
SETTINGS: dict[str, dict[str, object]] = {
    "leave-one-out": {},
    "temporal": {"valid_from": 0.5, "test_from": 0.8},
    "cold-items": {"share": 0.25},
    "cold-users": {"share": 0.2},
    "few-shot": {"n": 2},
    "cross-domain": {"source": "book", "target": "film"},
}


def test_temporal_by_hand() -> None:
    made = split(TIMED, "temporal", valid_from=0.5, test_from=0.67)
    # times in order 10 11 20 25 | 30 40 | 40 45 50: event 4 (of 9) is at 30, event 6 at 40
    assert [row[2] for row in events(made.train)] == [10, 20, 11, 25]
    assert made.valid.targets.tolist() == [3]
    assert made.test.targets.tolist() == [4, 5, 7, 0]
    assert histories(made.test) == [[1, 2, 3], [1, 2, 3], [5, 6], []]  # an event of the same moment is not known yet
    assert "1 test events of users without any earlier event" in made.proof["newcomers"]
    assert made.proof["time"].startswith("train ends 1970-01-01 00:00:00")


def test_temporal_cuts_are_dates_too_and_first_asks_each_user_once() -> None:
    dated = log([(0, 1, 0), (0, 2, DAY), (0, 3, 2 * DAY), (0, 4, 2 * DAY + 1), (1, 1, 2 * DAY)])
    made = split(dated, "temporal", valid_from="1970-01-02", test_from="1970-01-03T00:00:00+00:00", asked="first")
    assert made.valid.targets.tolist() == [2]
    assert made.test.targets.tolist() == [3, 1]
    assert histories(made.test) == [[1, 2], []]


def test_temporal_refuses_order_data_and_wrong_cuts() -> None:
    with pytest.raises(DataError, match=r"needs real times, and dataset 'tiny' only knows the order .* leave-one-out"):
        split(replace(TIMED, clock="order"), "temporal")
    blank = replace(TIMED, interactions=TIMED.interactions.with_columns(time=TIMED.interactions["time"].shift(1)))
    with pytest.raises(DataError, match="needs a time for every event"):
        split(blank, "temporal")
    with pytest.raises(ConfigError, match=r"'test_from' cannot be '12 May': write a date such as 1998-03-01"):
        split(TIMED, "temporal", test_from="12 May")
    with pytest.raises(ConfigError, match="lies between 0 and 1"):
        split(TIMED, "temporal", valid_from=80)
    with pytest.raises(DataError, match="must come before test_from"):
        split(TIMED, "temporal", valid_from=0.9, test_from=0.5)


def test_a_future_event_under_temporal_is_caught() -> None:
    made = split(TIMED, "temporal", valid_from=0.5, test_from=0.67)
    with pytest.raises(
        LeakError, match=r"train holds an event of 1970-01-01 00:00:00, which is not before .* of valid"
    ):
        check(with_train(made, [(2, 0, 50)]))
    with pytest.raises(LeakError, match="not before"):
        check(with_train(made, [(1, 3, 30)]))  # at the very time of the first question
    late = made.test.requests.histories
    requests = replace(made.test.requests, histories=replace(late, stops=late.stops + np.array([0, 1, 0, 0])))
    with pytest.raises(LeakError, match="test: a history holds an event of the very time of its question"):
        check(replace(made, test=replace(made.test, requests=requests)))


def test_cold_items_are_held_out_wholly() -> None:
    made = split(MANY, "cold-items", share=0.25, seed=3)
    test, valid = set(made.test.targets.tolist()), set(made.valid.targets.tolist())
    assert len(test) == len(valid) == 2
    assert not test & valid
    assert not (test | valid) & set(made.train.item_rows.tolist())
    assert made.train.n_interactions + len(made.test) + len(made.valid) == MANY.n_interactions
    assert not test & {item for row in histories(made.valid) for item in row}
    assert {item for row in histories(made.test) for item in row} & test  # earlier questions are known by then


def test_a_cold_item_in_train_is_caught() -> None:
    made = split(MANY, "cold-items", share=0.25)
    cold = int(made.test.targets.min())
    n_events = int((MANY.item_rows == cold).sum())
    leaking = replace(made, train=MANY.keeping(~np.isin(MANY.item_rows, made.valid.targets)))
    with pytest.raises(LeakError, match=f"item 'i{cold}' is asked as unknown, and train shows it in {n_events} events"):
        check(leaking)


def test_a_cold_item_in_a_validation_history_is_caught() -> None:
    made = split(MANY, "cold-items", share=0.25)
    seen = replace(made.valid.requests, histories=replace(made.valid.requests.histories, values=MANY.item_rows))
    with pytest.raises(LeakError, match="no views of the dataset's own events"):
        check(replace(made, valid=replace(made.valid, requests=seen)))


def test_cold_users_are_on_one_side_only() -> None:
    made = split(MANY, "cold-users", share=0.2)
    asked = set(made.test.user_rows.tolist()) | set(made.valid.user_rows.tolist())
    assert len(made.test) == len(made.valid) == 3  # of 16 users with two events or more
    assert len(asked) == 6
    assert not asked & set(made.train.user_rows.tolist())
    assert all(len(row) >= 1 for row in histories(made.test))


def test_a_user_on_both_sides_of_cold_users_is_caught() -> None:
    made = split(MANY, "cold-users", share=0.2)
    user = int(made.test.user_rows[0])
    on_both = ~np.isin(MANY.user_rows, made.valid.user_rows) & ~np.isin(MANY.user_rows, made.test.user_rows[1:])
    with pytest.raises(LeakError, match=f"user 'u{user}' is on both sides: asked as unknown, and"):
        check(replace(made, train=MANY.keeping(on_both)))


def test_few_shot_forgets_what_is_older() -> None:
    made = split(log([(0, item, item) for item in range(7)] + [(1, item, item) for item in range(2)]), "few-shot", n=2)
    assert events(made.train) == [(0, 3, 3), (0, 4, 4), (1, 0, 0), (1, 1, 1)]
    assert histories(made.valid) == [[3, 4]]
    assert histories(made.test) == [[3, 4, 5]]
    with pytest.raises(LeakError, match="train holds 3 events of user 'u0', more than the 2"):
        check(with_train(made, [(0, 2, 2)]))


def test_cross_domain_by_hand() -> None:
    made = split(BRIDGED, "cross-domain", source="book", target="film", share=0.25)
    assert len(made.test) == len(made.valid) == 3
    for row, user in zip(histories(made.test), made.test.user_rows, strict=True):
        assert row == [user % 4, (user + 1) % 4]  # without the song
    assert made.test.targets.tolist() == [4 + user % 3 for user in made.test.user_rows]
    assert made.test.requests.candidates is not None
    assert [list(row) for row in made.test.requests.candidates] == [[4, 5, 6]] * 3
    assert 7 not in made.train.item_rows
    everything = BRIDGED.keeping(BRIDGED.item_rows != 7)
    with pytest.raises(LeakError, match="is asked as new to 'film', and train holds such events"):
        check(replace(made, train=everything))


def test_cross_domain_refuses_unknown_domains_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="no items of domain 'films'; did you mean 'film'"):
        split(BRIDGED, "cross-domain", source="book", target="films")
    with pytest.raises(DataError, match="have no column 'domain'"):
        split(MANY, "cross-domain", source="book", target="film")
    with pytest.raises(DataError, match="only 0 users go from 'film' to 'book'"):
        split(BRIDGED, "cross-domain", source="film", target="book")


@pytest.mark.parametrize("rule", sorted(SETTINGS))
def test_saved_is_loaded_and_made_anew_is_the_same(rule: str, tmp_path: Path) -> None:
    dataset = BRIDGED if rule == "cross-domain" else MANY if rule.startswith("cold") else TIMED
    made = split(dataset, rule, **SETTINGS[rule])
    save(tmp_path / "split", made)
    loaded = load(tmp_path / "split", dataset)
    assert loaded.hash == made.hash == split(dataset, rule, **SETTINGS[rule]).hash
    assert loaded.proof == made.proof
    assert histories(loaded.test) == histories(made.test)
    assert loaded.settings == made.settings


def test_every_rule_is_tried_here() -> None:
    assert set(SETTINGS) == set(RULES)


def test_a_seed_changes_what_is_drawn_and_the_hash() -> None:
    first, again, other = (split(MANY, "cold-items", share=0.25, seed=seed) for seed in (0, 0, 1))
    assert first.hash == again.hash != other.hash
    assert first.test.events.tolist() == again.test.events.tolist()
    assert set(first.test.targets.tolist()) != set(other.test.targets.tolist())


def test_a_split_of_other_data_or_a_changed_one_is_refused(tmp_path: Path) -> None:
    made = split(MANY, "cold-items", share=0.25)
    save(tmp_path / "split", made)
    with pytest.raises(StoreError, match="is a split of other interactions"):
        load(tmp_path / "split", TIMED)
    store.save(
        tmp_path / "other",
        made,
        arrays={"valid_events": made.valid.events, "test_events": made.test.events[1:]},
        facts=store.open_folder(tmp_path / "split").facts,
        fitted_on=MANY.fingerprint,
    )
    with pytest.raises(StoreError, match="rule 'cold-items' now gives another split"):
        load(tmp_path / "other", MANY)
    Popularity().fit(made.train, Run()).save(tmp_path / "model")
    with pytest.raises(StoreError, match="holds no split but a Popularity"):
        load(tmp_path / "model", MANY)
    (tmp_path / "split" / "facts.json").write_text("{}")
    with pytest.raises(StoreError, match="damaged"):
        load(tmp_path / "split", MANY)


def test_vectors_fitted_on_other_interactions_than_train_are_caught(tmp_path: Path) -> None:
    made = leave_one_out(TIMED)
    vectors = {"vectors": np.zeros((8, 2), dtype=np.float32)}
    store.save(tmp_path / "leaking", made, arrays=vectors, fitted_on=TIMED.fingerprint)
    with pytest.raises(LeakError, match=r"was fitted on other interactions .* may have seen what it must predict"):
        check_fitted_on(tmp_path / "leaking", made.train)
    store.save(tmp_path / "honest", made, arrays=vectors, fitted_on=made.train.fingerprint)
    assert check_fitted_on(tmp_path / "honest", made.train) is None
