"""Leave-one-out by hand, and leaks planted on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import ConfigError, DataError, LeakError
from palate.data.split import check, leave_one_out, split
from tests.data.split_logs import histories, log, with_train

TINY = log([(0, 1, 10), (0, 2, 20), (0, 3, 30), (0, 4, 40), (1, 5, 11), (1, 6, 12), (3, 1, 5), (3, 2, 6), (3, 7, 7)])


def test_leave_one_out_by_hand() -> None:
    made = leave_one_out(TINY)
    assert made.test.targets.tolist() == [4, 7]
    assert made.valid.targets.tolist() == [3, 2]
    assert histories(made.test) == [[1, 2, 3], [1, 2]]
    assert histories(made.valid) == [[1, 2], [1]]
    assert made.test.user_rows.tolist() == [0, 3]
    assert made.test.events.tolist() == [3, 8]
    assert made.test.requests.times is not None
    assert made.test.requests.times.tolist() == [40, 7]
    assert made.train.item_rows.tolist() == [1, 2, 5, 6, 1]
    assert "2 users are asked; 1 with fewer than 3 events only teach" in made.proof["users"]
    assert made.hash == split(TINY, "leave-one-out").hash


def test_histories_are_views_of_the_log() -> None:
    made = leave_one_out(TINY)
    assert np.shares_memory(made.test.requests.histories.values, TINY.item_rows)


def test_order_data_can_be_left_out_but_has_no_times() -> None:
    made = leave_one_out(log([(0, 1, 0), (0, 2, 1), (0, 3, 2)], clock="order"))
    assert made.test.requests.times is None
    assert made.test.targets.tolist() == [3]


def test_ties_in_time_follow_the_file_order() -> None:
    made = leave_one_out(log([(0, 5, 9), (0, 3, 9), (0, 4, 9)]))
    assert made.test.targets.tolist() == [4]
    assert histories(made.test) == [[5, 3]]


def test_nothing_to_ask_is_one_sentence() -> None:
    with pytest.raises(DataError, match="leaves nothing to ask in dataset 'tiny'"):
        leave_one_out(log([(0, 1, 1), (1, 2, 2)]))
    with pytest.raises(DataError, match="has no events to split"):
        leave_one_out(log([]))


def test_unknown_rule_and_setting_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'leave-one-out'"):
        split(TINY, "leave-one")
    with pytest.raises(ConfigError, match="unknown setting 'n'"):
        split(TINY, "leave-one-out", n=1)


def test_a_validation_event_in_train_is_caught() -> None:
    made = leave_one_out(TINY)
    with pytest.raises(
        LeakError, match="train holds 1 events it must not learn from, such as user 'u0' with item 'i3'"
    ):
        check(with_train(made, [(0, 3, 30)]))


def test_a_test_event_swapped_for_a_training_event_is_caught() -> None:
    made = leave_one_out(TINY)
    rows = [(0, 1, 10), (0, 4, 40), (1, 5, 11), (1, 6, 12), (3, 1, 5)]
    with pytest.raises(LeakError, match="user 'u0' with item 'i4'"):
        check(replace(made, train=log(rows)))


def test_a_foreign_event_in_train_is_caught() -> None:
    with pytest.raises(LeakError, match="user 'u2' with item 'i0'"):
        check(with_train(leave_one_out(TINY), [(2, 0, 1)]))


def test_a_target_inside_its_own_history_is_caught() -> None:
    made = leave_one_out(TINY)
    peeking = replace(made.test.requests.histories, stops=made.test.requests.histories.stops + 1)
    requests = replace(made.test.requests, histories=peeking)
    with pytest.raises(LeakError, match="test: the history of user 'u0' and item 'i4' holds that event itself or a"):
        check(replace(made, test=replace(made.test, requests=requests)))


def test_the_history_of_another_user_is_caught() -> None:
    made = leave_one_out(TINY)
    swapped = replace(made.test.requests, histories=made.test.requests.histories[np.array([1, 0])])
    with pytest.raises(LeakError, match="asked with the history of another user"):
        check(replace(made, test=replace(made.test, requests=swapped)))


def test_an_event_asked_in_valid_and_in_test_is_caught() -> None:
    made = leave_one_out(TINY)
    with pytest.raises(LeakError, match="2 events are asked twice"):
        check(replace(made, valid=made.test))


def test_a_wrong_target_and_a_wrong_catalogue_are_caught() -> None:
    made = leave_one_out(TINY)
    with pytest.raises(LeakError, match="test: a question's user or target differs"):
        check(replace(made, test=replace(made.test, targets=made.test.targets + 1)))
    fewer = replace(made.train, items=made.train.items.head(7))
    with pytest.raises(LeakError, match="train has 4 users and 7 items"):
        check(replace(made, train=fewer))


def test_histories_that_are_no_views_of_the_log_are_caught() -> None:
    made = leave_one_out(TINY)
    copied = replace(made.test.requests.histories, values=made.test.requests.histories.values + 1)
    with pytest.raises(LeakError, match="no views of the dataset's own events"):
        check(replace(made, test=replace(made.test, requests=replace(made.test.requests, histories=copied))))


def test_a_question_at_another_time_is_caught() -> None:
    made = leave_one_out(TINY)
    assert made.test.requests.times is not None
    requests = replace(made.test.requests, times=made.test.requests.times - 1)
    with pytest.raises(LeakError, match="test: a question is asked at another time than its event happened"):
        check(replace(made, test=replace(made.test, requests=requests)))


def test_a_validation_history_that_shows_a_test_event_is_caught() -> None:
    made = leave_one_out(TINY)
    with pytest.raises(LeakError, match="valid: the history of user 'u0' and item 'i4' shows an event of test"):
        check(replace(made, valid=made.test, test=made.valid))
