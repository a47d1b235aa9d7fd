"""Training windows and serving batches against a loop over the users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.data.batches import SequenceBatch, SequenceBatches, TogetherBatches, asked_sequences
from tests.models.sequence_logs import timed_log

N_ITEMS = 50
LENGTH = 4


def log(clock: str = "unix") -> Dataset:
    """Users of 0 to 14 events; every event has a time of its own, from which it can be recognised."""
    rng = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 14, 0]
    times = np.cumsum(rng.integers(1, 1000, sum(lengths)))
    stops = np.cumsum(lengths)
    return timed_log(
        [rng.integers(0, N_ITEMS, n).tolist() for n in lengths],
        [times[stop - n : stop].tolist() for n, stop in zip(lengths, stops, strict=True)],
        N_ITEMS,
        clock,  # type: ignore[arg-type]
    )


def taught_by_hand(train: Dataset, windows: str) -> set[tuple[tuple[int, ...], ...]]:
    """(items, targets, times, next times) of each window."""
    assert train.times is not None
    found = set()
    for user in range(train.n_users):
        mine = train.user_rows == user
        items, times = train.item_rows[mine].tolist(), train.times[mine].tolist()
        stop = len(items)
        while stop > 1:
            start = max(0, stop - 1 - LENGTH)
            found.add(
                (tuple(items[start : stop - 1]), tuple(items[start + 1 : stop]),
                 tuple(times[start : stop - 1]), tuple(times[start + 1 : stop]))
            )  # fmt: skip
            stop = stop - LENGTH if windows == "all" else 0
    return found


def rows(batch: SequenceBatch) -> list[tuple[tuple[int, ...], ...]]:
    columns = (batch.items, batch.targets, batch.times, batch.next_times)
    lengths = batch.lengths.tolist()
    parts = [column.split(lengths) for column in columns if column is not None]
    return [tuple(tuple(part.tolist()) for part in row) for row in zip(*parts, strict=True)]


def batches(train: Dataset, windows: str = "all", seed: int = 0, batch_size: int = 5) -> SequenceBatches:
    return SequenceBatches(train, length=LENGTH, batch_size=batch_size, seed=seed, windows=windows)  # type: ignore[arg-type]


@pytest.mark.parametrize("windows", ["last", "all"])
def test_windows_are_those_of_a_loop_over_users(windows: str) -> None:
    found = [row for batch in batches(log(), windows).epoch(0) for row in rows(batch)]
    assert len(found) == len(set(found))
    assert set(found) == taught_by_hand(log(), windows)


def test_every_event_but_a_user_s_first_is_a_target_once() -> None:
    train = log()
    assert train.times is not None
    targets = np.concatenate([batch.next_times.numpy() for batch in batches(train).epoch(0)])
    first = np.concatenate([[True], train.user_rows[1:] != train.user_rows[:-1]])
    assert sorted(targets.tolist()) == train.times[~first].tolist()


@pytest.mark.parametrize("windows", ["last", "all"])
def test_batches_have_their_size_and_come_longest_first(windows: str) -> None:
    data = batches(log(), windows)
    epoch = list(data.epoch(0))
    assert len(epoch) == len(data)
    assert all(len(batch.lengths) == 5 for batch in epoch[:-1])
    for batch in epoch:
        assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
        assert 1 <= int(batch.lengths.min()) <= int(batch.lengths.max()) <= LENGTH


def test_an_epoch_is_a_function_of_seed_and_number_alone() -> None:
    def epoch(seed: int, number: int, skip: int = 0) -> list[list[tuple[tuple[int, ...], ...]]]:
        return [rows(batch) for batch in batches(log(), seed=seed).epoch(number, skip)]

    data = batches(log())
    list(data.epoch(7))
    torch.manual_seed(11)
    assert [rows(batch) for batch in data.epoch(2)] == epoch(0, 2)
    assert epoch(0, 2) != epoch(0, 3)
    assert epoch(0, 2) != epoch(1, 2)
    for skip in range(len(data) + 1):
        assert epoch(0, 2, skip) == epoch(0, 2)[skip:]


def test_nothing_beyond_the_training_events_is_taught() -> None:
    """The events a split took out, here each user's last, appear nowhere in any batch."""
    whole = log()
    assert whole.times is not None
    last = np.concatenate([whole.user_rows[1:] != whole.user_rows[:-1], [True]])
    for batch in batches(whole.keeping(~last)).epoch(0):
        assert batch.times is not None
        assert batch.next_times is not None
        seen = torch.cat([batch.times, batch.next_times]).numpy()
        assert not np.isin(whole.times[last], seen).any()


def test_where_only_the_order_is_known_there_are_no_times() -> None:
    batch = next(batches(log("order")).epoch(0))
    assert batch.times is None
    assert batch.next_times is None


def test_asked_histories_keep_their_newest_events_and_their_places() -> None:
    histories = [[1, 2], [], [3, 4, 5, 6, 7, 8], [9], [60, 10, 11]]
    ragged = Ragged.of(histories)
    requests = Requests(ragged, history_times=100 + np.arange(12), times=np.arange(1000, 1005))
    (batch,) = asked_sequences(requests, length=LENGTH, n_items=N_ITEMS, batch_size=10)
    assert batch.order.tolist() == [2, 0, 4, 3, 1]
    assert batch.lengths.tolist() == [4, 2, 2, 1, 0]
    assert [part.tolist() for part in batch.items.split([4, 2, 2, 1])] == [[5, 6, 7, 8], [1, 2], [10, 11], [9]]
    assert batch.times is not None
    assert batch.times.tolist() == [104, 105, 106, 107, 100, 101, 110, 111, 108]
    assert batch.next_times is not None
    assert batch.next_times.tolist() == [105, 106, 107, 1002, 101, 1000, 111, 1004, 1003]


def test_without_a_time_of_asking_the_last_event_s_time_stands_for_it() -> None:
    requests = Requests(Ragged.of([[1, 2], [3]]), history_times=np.array([5, 6, 7]))
    (batch,) = asked_sequences(requests, length=LENGTH, n_items=N_ITEMS, batch_size=10)
    assert batch.next_times is not None
    assert batch.next_times.tolist() == [6, 6, 7]


def test_asking_in_batches_answers_every_request_once() -> None:
    requests = Requests.of([[i] * (i % 6) for i in range(23)])
    parts = list(asked_sequences(requests, length=LENGTH, n_items=N_ITEMS, batch_size=7))
    assert [len(part.lengths) for part in parts] == [7, 7, 7, 2]
    for nth, part in enumerate(parts):
        asked = part.order.numpy() + 7 * nth
        assert part.lengths.tolist() == [min(int(i) % 6, LENGTH) for i in asked]
        assert part.items.tolist() == [int(i) for i in asked for _ in range(min(int(i) % 6, LENGTH))]
    assert list(asked_sequences(requests[:0], length=LENGTH, n_items=N_ITEMS, batch_size=7)) == []


def test_windows_asked_together_teach_every_event_even_an_only_one() -> None:
    train = log()
    found = list(TogetherBatches(train, length=LENGTH, batch_size=5, seed=0).epoch(0))
    events: dict[int, set[int]] = {}
    for batch in found:
        assert batch.together
        targets = torch.split(batch.targets, batch.counts.tolist())
        items = torch.split(batch.items, batch.lengths.tolist())
        for user, read, told in zip(batch.users.tolist(), items, targets, strict=True):
            assert told[:-1].tolist() == read.tolist(), "what is read next is what was asked for before it"
            events.setdefault(user, set()).update(told.tolist())
    assert events == {user: set(row.tolist()) for user, row in enumerate(train.histories) if len(row)}
