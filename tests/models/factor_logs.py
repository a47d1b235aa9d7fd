"""Two planted groups, for systems that hold a vector for each user and each item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from palate.core.dataset import Dataset
from palate.core.protocols import ScoresAll
from palate.core.requests import Requests
from tests.models.collaborative_logs import log_of

N_USERS, N_ITEMS = 60, 40


def two_groups(seed: int = 0, met: int = 8) -> Dataset:
    """60 users, 40 items: even users meet random even items, odd users odd items, ``met`` of 20 each."""
    rng = np.random.default_rng(seed)
    half = np.arange(0, N_ITEMS, 2)
    return log_of([list(rng.choice(half, met, replace=False) + user % 2) for user in range(N_USERS)], N_ITEMS)


def scores(system: ScoresAll, requests: Requests) -> np.ndarray:
    """``[B, N]``."""
    return np.concatenate([block.copy() for block in system.score_blocks(requests)])


def group_recall(system: ScoresAll, requests: Requests, group: np.ndarray) -> float:
    """Share of the best ten unmet items that belong to the asking user's own group; chance is about 0.37."""
    rankings = system.recommend(requests.leaving_out_history(), 10)
    return float(np.mean(rankings.item_rows % 2 == group[:, None]))


def everybody(train: Dataset, *, named: bool = True) -> Requests:
    """Each user with the training history; nameless when not ``named``."""
    requests = Requests.for_users(train, np.arange(train.n_users))
    return requests if named else replace(requests, user_rows=None)


def grown(train: Dataset) -> Dataset:
    """The same log and one more user, who met the first two even items and one that is new."""
    log = log_of([*(list(row) for row in train.histories), [0, 2, train.n_items]], train.n_items + 1)
    assert isinstance(log.interactions, pl.DataFrame)
    return log
