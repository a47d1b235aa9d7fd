"""Asking a fitted run: outside ids in, titles out. Every door (command line, HTTP, tools) asks through here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.errors import MisuseError, UnknownIdError, nearest
from palate.core.protocols import Recommender
from palate.core.ragged import Ragged
from palate.core.rankings import Ranking
from palate.core.requests import Requests
from palate.core.run import Progress, Silent
from palate.runs import FittedRun

USERS_AT_ONCE = 4096
"""Users answered between two pieces of the file that ``everyone`` writes."""
WHY_EVENTS = 50
"""At most so many newest events of a history are taken out, one after another, to explain an answer."""


@dataclass(frozen=True)
class Reason:
    """Without ``item`` in the history the answer's score would be lower by ``drop`` (higher, when negative)."""

    item: str
    drop: float


class Asker:
    """A run's first seed, ready to answer. ``item_ids`` and ``titles`` are those of the run's catalogue."""

    def __init__(self, run: FittedRun) -> None:
        if run.row.ability != "Recommender":
            raise MisuseError(f"{run.name} is a {run.plan.system}, which predicts ratings and recommends nothing")
        self.run = run
        self.system: Recommender = run.system(run.plan.seeds[0], verify=False)
        self.item_ids: list[str] = run.items["item"].to_list()
        titles = run.items["title"].to_list() if "title" in run.items.columns else self.item_ids
        self.titles: list[str] = [title or f"item {item}" for title, item in zip(titles, self.item_ids, strict=True)]
        self.row_of = {item: row for row, item in enumerate(self.item_ids)}
        self._row_of_title = {title.casefold(): row for row, title in reversed(list(enumerate(self.titles)))}

    def user(self, user: str) -> Requests:
        """What ``palate recommend --user`` asks: the whole history of a known user, which is not answered again."""
        rows = self.run.dataset.user_rows_of([user])
        return Requests.for_users(self.run.dataset, rows).leaving_out_history()

    def history(self, items: Sequence[str]) -> Requests:
        """A newcomer who met ``items`` (ids, or exact titles), oldest first."""
        return Requests.of([[self.item_row(item) for item in items]]).leaving_out_history()

    def item_row(self, name: str) -> int:
        """The row of an id, else of a title (any case). Raises ``UnknownIdError`` naming the nearest title."""
        row = self.row_of.get(name, self._row_of_title.get(name.casefold()))
        if row is None:
            raise UnknownIdError(f"no item or title '{name}' in this catalogue{nearest(name, self.titles)[:120]}")
        return row

    def answer(self, requests: Requests, k: int) -> list[Ranking]:
        """One ranking a request, in outside ids."""
        return list(self.system.recommend(requests, k).named(self.item_ids))

    def why(self, requests: Requests, answers: Ranking) -> list[list[Reason]]:
        """For one request: how the score of each answer changes when one history item is taken out (leave-one-out).

        Returns one list an answer, greatest drop first.
        """
        rows = np.array([self.row_of[item] for item in answers.items], dtype=np.int64)
        history = requests.histories.row(0)
        position = np.arange(len(history))[-WHY_EVENTS:]
        if len(history) < 2 or not len(rows):
            return [[] for _ in rows]  # without its only item a history is a newcomer's, scored on another scale
        first = int(requests.histories.starts[0])
        without = first + np.array([np.delete(np.arange(len(history)), out) for out in position])

        def repeated(column: npt.NDArray[np.integer] | None) -> npt.NDArray[np.integer] | None:
            return None if column is None else np.repeat(column, len(position))

        asked = Requests(
            histories=Ragged.of(requests.histories.values[without]),
            history_times=None if requests.history_times is None else requests.history_times[without].reshape(-1),
            user_rows=repeated(requests.user_rows),
            times=repeated(requests.times),
        )
        full = self.system.score(replace(requests, leave_out=None), Ragged.of([rows]))
        less = self.system.score(asked, Ragged.of([rows] * len(position))).reshape(len(position), len(rows))
        reasons = []
        for answer in range(len(rows)):
            drops = full[answer] - less[:, answer]
            order = np.argsort(-np.nan_to_num(drops, nan=-np.inf), kind="stable")
            reasons.append([Reason(self.item_ids[history[position[i]]], float(drops[i])) for i in order])
        return reasons

    def everyone(self, out: Path, k: int, progress: Progress | None = None) -> int:
        """Answer every user of the data into a Parquet file (user, rank, item, title, score); memory stays bounded.

        The file is written aside and renamed. Returns how many users were answered.
        """
        dataset = self.run.dataset
        progress = progress or Silent()
        schema = {"user": pl.String, "rank": pl.Int32, "item": pl.String, "title": pl.String, "score": pl.Float32}

        def pieces(*_: object) -> Iterator[pl.DataFrame]:
            ids, users = pl.Series(self.item_ids), dataset.users["user"]
            titles = pl.Series(self.titles)
            for start in range(0, dataset.n_users, USERS_AT_ONCE):
                rows = np.arange(start, min(start + USERS_AT_ONCE, dataset.n_users))
                requests = Requests.for_users(dataset, rows).leaving_out_history()
                found = self.system.recommend(requests, k)
                given = found.item_rows >= 0
                items = found.item_rows[given]
                yield pl.DataFrame({
                    "user": users[np.repeat(rows, given.sum(1))],
                    "rank": (np.nonzero(given)[1] + 1).astype(np.int32),
                    "item": ids[items], "title": titles[items], "score": found.scores[given],
                })  # fmt: skip
                progress.advance(len(rows))

        from polars.io.plugins import register_io_source

        progress.start("recommending", dataset.n_users)
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}-{secrets.token_hex(6)}")
        try:
            register_io_source(pieces, schema=schema).sink_parquet(aside, maintain_order=True)
            os.replace(aside, out)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        finally:
            progress.finish()
        return dataset.n_users
