"""Ask a system every case of a split and write down what came: one row a case, from which all else is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.protocols import Recommender, ScoresAll
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings, rank
from palate.core.ranks import places
from palate.core.split import Cases
from palate.evaluation import reranking
from palate.evaluation.metrics import Metric, metric, metrics
from palate.evaluation.protocols import MAIN, FullRanking, Protocol
from palate.evaluation.slices import flags


def judge_cases(
    system: Recommender,
    cases: Cases,
    protocol: Protocol,
    *,
    train: Dataset,
    seed: int = 0,
    answers: bool = True,
) -> pl.DataFrame:
    """One row a case: ``seed``, ``case``, ``user_row``, ``target_row``, ``rank``, ``tied``, a column a metric, a flag
    a slice, and the list that was answered (``answers``, item rows, -1 = no more).

    A system that scores the whole catalogue is asked for exact places; any other for a list, in which an absent
    target is a miss (rank infinite). Cold targets are ranked a second time among the cold items alone
    (``rank_among_cold``, null for warm targets); of a re-ranker stands where targets were among what was retrieved
    (``evaluation.reranking``). ``answers=False`` saves the work of making lists.
    """
    asked = protocol.ask(cases, train)
    names = metrics(protocol.metrics)
    found = find(system, asked, _length(names, protocol.k), answers=answers)
    columns: dict[str, object] = {
        "seed": np.full(len(cases), seed, dtype=np.int32),
        "case": np.arange(len(cases), dtype=np.int32),
        "user_row": _users(cases),
        "target_row": cases.targets.astype(np.int32),
        "rank": found.ranks,
        "tied": found.tied,
    }
    for name in names:
        columns[name.name] = name.of_ranks(found.ranks, found.tied)
    columns |= flags(cases, train)
    frame = pl.DataFrame(columns)
    if isinstance(protocol, FullRanking):
        frame = frame.with_columns(_among_cold(system, asked, train, _length(names, protocol.k)))
    frame = frame.with_columns(reranking.columns(system, asked).values())
    if found.lists is not None:
        lists = found.lists.item_rows[:, : protocol.k].astype(np.int32)
        frame = frame.with_columns(pl.Series("answers", lists, dtype=pl.Array(pl.Int32, lists.shape[1])))
    return frame


def judge(
    cases: Cases,
    protocol: Protocol | None = None,
    metric_name: str = MAIN,
    *,
    train: Dataset | None = None,
    users: int | None = None,
    seed: int = 0,
) -> Callable[[Recommender], float]:
    """What a system under training is told about validation: one number, the mean over users of one metric.

    ``users`` asks a fixed random part of the users, drawn once from ``seed``, so that all looks of all systems see
    the same part.
    """
    protocol = protocol or FullRanking()
    chosen = metric(metric_name)
    if users is not None:
        cases = cases[_of_some_users(_users(cases), users, seed)]
    asked = protocol.ask(cases, train)
    _, user = np.unique(_users(cases), return_inverse=True)
    share = 1 / np.bincount(user)[user] / (user.max(initial=0) + 1)

    def look(system: Recommender) -> float:
        found = find(system, asked, _length((chosen,), protocol.k), answers=False)
        return float(chosen.of_ranks(found.ranks, found.tied) @ share)

    return look


@dataclass(frozen=True, eq=False)
class Found:
    """Where targets stand. ranks and tied ``[B]``; lists when they were asked for."""

    ranks: npt.NDArray[np.float64]
    tied: IntArray
    lists: Rankings | None


def find(system: Recommender, asked: Cases, k: int, *, answers: bool) -> Found:
    """Where the targets stand in what ``system`` answers; lists are ``k`` long."""
    requests, targets = asked.requests, asked.targets
    if not isinstance(system, ScoresAll):
        lists = system.recommend(requests, k)
        at = lists.item_rows == targets[:, None]
        ranks = np.where(at.any(axis=1), at.argmax(axis=1) + 1.0, np.inf)
        return Found(ranks, np.ones(len(targets), dtype=np.int64), lists)
    parts: list[tuple[npt.NDArray[np.float64], IntArray]] = []
    made: list[Rankings] = []
    start = 0
    for block in system.score_blocks(requests):
        rows = slice(start, start + len(block))
        some = requests[rows]
        # Places first: they leave the block as it is, while making lists overwrites it.
        place = places([block], targets[rows], leave_out=some.leave_out, candidates=some.candidates)
        parts.append((place.expected, place.tied))
        if answers:
            made.append(rank([block], k, leave_out=some.leave_out, candidates=some.candidates))
        start += len(block)
    if not parts:
        return Found(np.zeros(0), np.zeros(0, dtype=np.int64), rank([], k) if answers else None)
    ranks, tied = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return Found(ranks, tied, Rankings.joined(made) if answers else None)


def _among_cold(system: Recommender, asked: Cases, train: Dataset, k: int) -> list[pl.Series]:
    """The places of cold targets among the cold items only; null elsewhere."""
    cold = np.flatnonzero(train.item_counts == 0)
    asks = np.flatnonzero(np.isin(asked.targets, cold))
    ranks = np.full(len(asked), np.nan)
    tied = np.ones(len(asked), dtype=np.int64)
    if len(asks):
        starts = np.zeros(len(asks), dtype=np.int64)
        only_cold = Ragged(cold, starts, starts + len(cold))
        some = asked[asks]
        found = find(system, replace(some, requests=replace(some.requests, candidates=only_cold)), k, answers=False)
        ranks[asks], tied[asks] = found.ranks, found.tied
    return [
        pl.Series("rank_among_cold", ranks).fill_nan(None),
        pl.Series("tied_among_cold", tied, dtype=pl.Int64),
    ]


def _length(names: tuple[Metric, ...], k: int) -> int:
    return max([k, *(name.k or 0 for name in names)])


def _users(cases: Cases) -> IntArray:
    """``[B]`` who each case counts for; users that nobody knows (-1) are one each, below zero."""
    rows = cases.user_rows.astype(np.int64)
    return np.where(rows >= 0, rows, -1 - np.arange(len(rows)))


def _of_some_users(user_rows: IntArray, n: int, seed: int) -> IntArray:
    everybody = np.unique(user_rows)
    if n >= len(everybody):
        return np.arange(len(user_rows))
    some = np.random.default_rng(seed).choice(everybody, size=n, replace=False)
    return np.flatnonzero(np.isin(user_rows, some))
