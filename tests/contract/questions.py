"""Questions that every system must be able to answer, and how two answers are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from palate.core.dataset import Dataset
from palate.core.protocols import Recommender
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.split import Split
from palate.systems import build, system

HOUR = 3_600_000


def asked(split: Split) -> Requests:
    """Twenty known users with their train part, the same nameless, and every odd case the promises speak of."""
    known = Requests.for_users(split.train, np.arange(20))
    nameless = replace(known, user_rows=np.full(20, -1))
    return together(known, nameless, odd(split.train))


def odd(train: Dataset) -> Requests:
    """Unknown users, empty and one-item histories, repeats, a very long history, items added after training."""
    n, new = train.n_items, train.n_users
    seen = np.flatnonzero(train.item_counts)
    rng = np.random.default_rng(7)
    rows = [
        (-1, []), (new, []), (new + 1000, []), (0, []), (-1, [n]), (-1, [n + 3, n]), (3, [n]),
        (-1, seen[:1]), (new, seen[:1]), (5, seen[:1]), (-1, np.repeat(seen[:1], 30)), (-1, rng.choice(seen, 700)),
        (-1, [seen[0], n + 1, seen[1]]), (2, [*train.histories.row(2), n]),
        (-1, np.flatnonzero(train.item_counts == 0)),
    ]  # fmt: skip
    histories = Ragged.of([history for _, history in rows])
    return timed(Requests(histories, user_rows=np.array([user for user, _ in rows])))


def timed(requests: Requests) -> Requests:
    """Every history an hour an event, the question an hour after the last."""
    flat = requests.histories
    times = 1_600_000_000_000 + HOUR * np.arange(len(flat.values), dtype=np.int64)
    ends = np.full(len(flat), 1_600_000_000_000 + HOUR * (len(flat.values) + 1), dtype=np.int64)
    return replace(requests, history_times=times, times=ends)


def together(*parts: Requests) -> Requests:
    """Requests one after another, each with user rows, histories and their times; nothing left out."""
    histories = Ragged.from_lengths(
        np.concatenate([part.histories.flat().astype(np.int64) for part in parts]),
        np.concatenate([part.histories.lengths for part in parts]),
    )
    times = [part.history_times[part.histories.flat_positions()] for part in parts if part.history_times is not None]
    users = [part.user_rows for part in parts if part.user_rows is not None]
    return Requests(
        histories, np.concatenate(times), np.concatenate(users), _asked_at(histories, np.concatenate(times))
    )


def _asked_at(histories: Ragged, times: np.ndarray) -> np.ndarray:
    """An hour after the last event of each history; empty ones are asked after all."""
    last = np.where(histories.lengths > 0, times[np.maximum(histories.stops - 1, 0)], times.max())
    return last + HOUR


def everything(requests: Requests, n_items: int) -> Ragged:
    """Every item as a candidate of every request."""
    b = len(requests)
    return Ragged.from_lengths(np.tile(np.arange(n_items), b), np.full(b, n_items))


def table(system: Recommender, requests: Requests, n_items: int) -> np.ndarray:
    """``[B, n_items]`` the score of every item for every request."""
    return system.score(requests, everything(requests, n_items)).reshape(len(requests), n_items)


def same(one: Rankings, other: Rankings) -> bool:
    """Equal to the bit."""
    return (
        np.array_equal(one.item_rows, other.item_rows)
        and one.scores.tobytes() == other.scores.tobytes()
        and one.exact == other.exact
    )


def write(requests: Requests, path: Path) -> None:
    """Questions as plain arrays, for a process that knows no dataset."""
    assert requests.history_times is not None
    assert requests.user_rows is not None
    assert requests.times is not None
    np.savez(
        path,
        values=requests.histories.flat(),
        lengths=requests.histories.lengths,
        history_times=requests.history_times,
        user_rows=requests.user_rows,
        times=requests.times,
    )


def read(path: Path) -> Requests:
    """What ``write`` wrote."""
    with np.load(path) as stored:
        histories = Ragged.from_lengths(stored["values"], stored["lengths"])
        return Requests(histories, stored["history_times"], stored["user_rows"], stored["times"])


SMALLER: dict[str, dict[str, object]] = {
    "lc-rec": {"batch_size": 24}, "ulmrec": {"batch_size": 16, "backbone.steps": 40}
}  # fmt: skip
"""Settings of systems whose tiny preset takes long steps."""


def options_of(name: str) -> tuple[dict[str, object] | None, str | None]:
    """Settings and preset by which the contract asks a system: small where it has a preset for that."""
    return SMALLER.get(name), "tiny" if "tiny" in system(name).presets else None


def small(name: str) -> Recommender:
    """The unfitted system as the contract asks it."""
    settings, preset = options_of(name)
    return build(name, settings, preset=preset)
