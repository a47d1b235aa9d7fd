"""Asking a fitted run: outside ids in, titles out. Every door (command line, HTTP, tools) asks through here.

A door fills in a ``Question``; ``Asker.read`` turns its ids into rows, ``Asker.answers`` asks the system about many of
them at once and says each answer in ids and titles. Two doors that ask the same therefore answer the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import (
    DataError,
    LeakError,
    MisuseError,
    PalateError,
    StoreError,
    UnknownIdError,
    nearest,
)
from palate.core.protocols import Grows, Recommender, TwoTower
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Ranking, Rankings
from palate.core.requests import Requests
from palate.core.run import Progress, Silent
from palate.data.positives import EVERY_EVENT, positive_filter
from palate.filters import Passing
from palate.parts.retrieval import Indexed, Kind, Recall
from palate.questions import (
    Answer,
    Asked,
    Because,
    Later,
    Met,
    Methods,
    Question,
    Recommended,
    TextPart,
    pieces,
    together,
)
from palate.reasons import of_events, of_texts, of_words, scores_texts
from palate.runs import FittedRun

USERS_AT_ONCE = 4096
"""Users answered between two pieces of the file that ``everyone`` writes."""
MEASURED_USERS = 1000
"""Users with whom the recall of an index is measured."""
HINTED_TITLES = 2000
"""The nearest title is looked for among at most so many: in a large catalogue that takes seconds."""
SHOWN_EVENTS = 50
"""An answer repeats at most so many newest events of the history that it read."""
SHOWN_REASONS = 3
"""Events that an answer names beside each item, and parts of its text: those that moved its score most."""
READ_ANSWERS = 5
"""Answers whose texts are taken apart, from the best on."""
ROUNDING = 1e-6
"""A score that changes by no more than this share of itself has not moved."""


class Asker:
    """A run's first seed, or the one named, ready to answer. ``item_ids`` and ``titles`` are those of the run's
    catalogue, to which ``add_items`` adds. One thread asks and changes; others may look up ids, titles and ``living``
    meanwhile."""

    def __init__(self, run: FittedRun, name: str | None = None, *, seed: int | None = None) -> None:
        if run.row.ability != "Recommender":
            raise MisuseError(f"{run.name} is a {run.plan.system}, which predicts ratings and recommends nothing")
        seed = run.plan.seeds[0] if seed is None else seed
        if seed not in run.plan.seeds:
            raise MisuseError(f"{run.name} has no seed {seed}; its seeds are {', '.join(map(str, run.plan.seeds))}")
        self.run = run
        self.name = name or run.name
        self.system: Recommender = run.system(seed, verify=False)
        self.item_ids: list[str] = []
        self.titles: list[str] = []
        self.row_of: dict[str, int] = {}
        self._row_of_title: dict[str, int] = {}
        self._catalogue: Dataset | None = None
        self._without_data: tuple[Dataset, type[PalateError], str] | None = None
        self._passing = Passing()
        self._retired = np.zeros(0, dtype=np.int64)
        self._know(run.items)
        self._indexed: Indexed | None = None

    def use_index(self, kind: Kind, **settings: Any) -> None:
        """Answer from an index of item vectors from now on; its ``recall`` against exact search is measured here, with
        users of the data. ``exact`` is what the system itself answers, and what is answered once the catalogue has
        changed, until this is called again or ``stale_index`` is refreshed.

        Raises ``MisuseError`` where the system's scores are no products of two vectors, ``ConfigError`` where the index
        finds too little.
        """
        if kind == "exact":
            self._indexed = None
        elif isinstance(self.system, TwoTower):
            self._indexed = Indexed(self.system, kind, queries=self._some_users(), **settings)
        else:
            what = f"{self.name} is a {self.run.plan.system}, whose scores are no products of two vectors"
            raise MisuseError(f"{what}: ask it without an index")

    def _some_users(self) -> Requests | None:
        """Users drawn from the data, who measure an index; None where the data cannot be read."""
        try:
            known = np.flatnonzero(self.dataset.histories.lengths)
        except PalateError:
            return None
        some = np.random.default_rng(0).permutation(known)[:MEASURED_USERS]
        return Requests.for_users(self.dataset, np.sort(some)) if len(some) else None

    @property
    def recall(self) -> Recall | None:
        """How much of what exact search finds is answered; None where nothing is missed."""
        indexed = self._indexed
        return indexed.recall if indexed is not None and indexed.fresh else None

    @property
    def stale_index(self) -> Indexed | None:
        """The index that the catalogue has left behind, if there is one. Until it is refreshed every item is looked
        at."""
        indexed = self._indexed
        return None if indexed is None or indexed.fresh else indexed

    def _recommend(self, requests: Requests, k: int) -> Rankings:
        indexed = self._indexed
        return (indexed if indexed is not None and indexed.fresh else self.system).recommend(requests, k)

    def _know(self, items: pl.DataFrame, grown: Dataset | None = None) -> None:
        """Further items, whose rows follow the last; ``grown`` is the data with them.

        Threads that only look around may read meanwhile: whoever finds an id finds its row in the table, and whoever
        finds a row in the table finds its id and title. Hence this order.
        """
        ids = items["item"].to_list()
        named = items["title"].to_list() if "title" in items.columns else ids
        titles = [title or f"item {item}" for item, title in zip(ids, named, strict=True)]
        first = len(self.item_ids)
        self.titles += titles
        self.item_ids += ids
        if grown is not None:
            self._catalogue = grown
        self.row_of.update({item: first + i for i, item in enumerate(ids)})
        for i, title in enumerate(titles):
            self._row_of_title.setdefault(title.casefold(), first + i)

    @property
    def reads_words(self) -> bool:
        """Whether the system reads the words of a question."""
        return "words" in self.run.row.tags

    # -- asking ------------------------------------------------------------------------------------------------------

    def user(self, user: str) -> Requests:
        """What ``palate recommend --user`` asks: the whole history of a known user, which is not answered again."""
        return together([self.read(Question(user=user))])

    def history(self, items: Sequence[str]) -> Requests:
        """A newcomer who met ``items`` (ids, or exact titles), oldest first."""
        return together([self.read(Question(history=items))])

    def item_row(self, name: str) -> int:
        """The row of an id, else of a title (any case). Raises ``UnknownIdError`` naming the nearest title."""
        row = self.row_of.get(name)
        if row is None:
            row = self._row_of_title.get(name.casefold())
        if row is None:
            hint = nearest(name, self.titles)[:120] if len(self.titles) <= HINTED_TITLES else ""
            raise UnknownIdError(f"no item or title '{name[:80]}' in this catalogue{hint}")
        return row

    def read(self, question: Question) -> Asked:
        """A question in rows. Raises ``UnknownIdError`` or ``MisuseError`` in one sentence."""
        if (question.user is None) == (question.history is None):
            raise MisuseError("say who is asked: either a user or a history")
        if question.words and not self.reads_words:
            raise MisuseError(f"{self.name} is a {self.run.plan.system}, which reads no words; ask it without")
        user_row, times = -1, None
        if question.user is not None:
            user_row, history, times = self._history_of(question.user, question.later)
        else:
            history = self._rows(question.history or ())
        candidates: IntArray | None = None if question.candidates is None else self._rows(question.candidates)
        if question.filters:
            passing = self._passing.rows(self.living.items, tuple(question.filters))
            candidates = passing if candidates is None else candidates[np.isin(candidates, passing)]
        left = np.concatenate([history, self._rows(question.leave_out), self._retired])
        return Asked(user_row, history, times, question.words, candidates, left)

    def answers(self, asked: Sequence[Asked], k: int, *, why: bool = False, texts: bool = False) -> list[Answer]:
        """One answer a question. Questions of different kinds may be mixed; each is answered as if it were alone.

        ``why`` names what of each history moved the scores, ``texts`` also what of the items' texts did: that reads
        some forty texts a question, so it is asked for by itself."""
        alike: dict[tuple[bool, bool, bool], list[int]] = {}
        for place, one in enumerate(asked):
            alike.setdefault((one.times is None, one.candidates is None, not one.words), []).append(place)
        found: dict[int, Answer] = {}
        for places in (piece for kind in alike.values() for piece in pieces(asked, kind)):
            requests = together([asked[place] for place in places])
            rankings = self._recommend(requests, k)
            for i, (place, ranking) in enumerate(zip(places, rankings.named(self.item_ids), strict=True)):
                found[place] = self._said(requests, i, ranking, rankings.exact, why, texts)
        return [found[place] for place in range(len(asked))]

    def answer(self, requests: Requests, k: int) -> list[Ranking]:
        """One ranking a request, in outside ids."""
        return list(self._recommend(requests, k).named(self.item_ids))

    def explained(self, asked: Asked, items: Sequence[str]) -> Answer:
        """The score of each of ``items`` for one question, and what moved it, in the order of the scores.

        An item that the system cannot score stands last, without a score.
        """
        rows = self._rows(items)
        requests = together([asked])
        scores = self.system.score(replace(requests, leave_out=None, candidates=None), Ragged.of([rows]))
        order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
        ranking = Ranking(tuple(self.item_ids[rows[i]] for i in order), tuple(float(scores[i]) for i in order))
        return self._said(requests, 0, ranking, True, why=True, texts=True)

    def similar(self, item: str) -> Question:
        """The question whose answers are like ``item``: what somebody would get who met it and nothing else."""
        return Question(history=[item])

    def _history_of(self, user: str, later: Sequence[Later]) -> tuple[int, IntArray, IntArray | None]:
        """The row of a user (-1 where only ``later`` knows them), their history and its times."""
        dataset = self.dataset
        (row,) = dataset.user_rows_of([user], missing="negative" if later else "error")
        past = np.zeros(0, dtype=np.int64) if row < 0 else dataset.histories.row(int(row)).astype(np.int64)
        known = [event for event in self._counted(later) if event.item in self.row_of]
        here = slice(0, 0) if row < 0 else slice(int(dataset.histories.starts[row]), int(dataset.histories.stops[row]))
        if dataset.times is not None and known:  # the data may be an export that holds them by now
            held = set(zip(past.tolist(), dataset.times[here].tolist(), strict=True))
            known = [event for event in known if (self.row_of[event.item], event.time) not in held]
        rows = np.concatenate([past, np.array([self.row_of[event.item] for event in known], dtype=np.int64)])
        if dataset.times is None:
            return int(row), rows, None
        times = np.concatenate([dataset.times[here], np.array([event.time for event in known], dtype=np.int64)])
        order = np.argsort(times, kind="stable")
        return int(row), rows[order], times[order]

    def _counted(self, later: Sequence[Later]) -> Sequence[Later]:
        """Those that the rule counts by which the data were read, such as ``rating>=4``."""
        rule = self.dataset.about.positive
        if not later or rule == EVERY_EVENT:
            return later
        schema = {"kind": pl.String, "rating": pl.Float64}
        table = pl.DataFrame([(event.kind, event.rating) for event in later], schema=schema, orient="row")
        try:
            counts = table.select(positive_filter(rule, table.schema)).to_series()
        except DataError:  # a rule about something that later events do not say
            return ()
        return [event for event, counted in zip(later, counts, strict=True) if counted]

    def _rows(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        rows = [self.row_of.get(name) for name in names]  # ids nearly always; titles are looked for one by one
        found = [self.item_row(name) if row is None else row for name, row in zip(names, rows, strict=True)]
        return np.array(found, dtype=np.int64)

    def _said(
        self, requests: Requests, i: int, ranking: Ranking, exact: bool, why: bool, texts: bool
    ) -> Answer:  # fmt: skip
        """The answer to request ``i`` in ids and titles; with ``why`` also what moved each score."""
        title = self.titles
        history = requests.histories.row(i)
        because: list[list[Because]] | None = None
        words: list[float] | None = None
        parts: list[list[TextPart]] = []
        methods: Methods | None = None
        if why:
            alone = requests[i : i + 1]
            because = [of_one[:SHOWN_REASONS] for of_one in self.why(alone, ranking)]
            words = of_words(self.system, alone, self._rows_answered(ranking))
            parts, method = self._text_parts(alone, ranking, texts)
            methods = Methods(_method_of_events(len(history), because), method)
        recommended = [
            Recommended(
                place + 1, item, title[self.row_of[item]], None if isnan(score) else score,
                None if because is None else because[place],
                None if words is None else words[place],
                parts[place][:SHOWN_REASONS] if place < len(parts) else None,
            )
            for place, (item, score) in enumerate(zip(ranking.items, ranking.scores, strict=True))
        ]  # fmt: skip
        met = [Met(self.item_ids[row], title[row]) for row in history[-SHOWN_EVENTS:].tolist()]
        return Answer(self.name, self.run.plan.system, exact, len(history), met, recommended, methods)

    # -- why ---------------------------------------------------------------------------------------------------------

    def why(self, requests: Requests, answers: Ranking) -> list[list[Because]]:
        """For one request: how the score of each answer changes when one history item is taken out (leave-one-out).

        Returns one list an answer, greatest drop first; what cannot be scored, or moves a score by no more than
        rounding, is left out.
        """
        position, drops = of_events(self.system, requests, self._rows_answered(answers))
        met = requests.histories.row(0)[position].tolist()
        reasons = []
        for score, of_one in zip(answers.scores, drops.tolist(), strict=True):
            least = 0.0 if isnan(score) else ROUNDING * abs(score)
            moved = [
                Because(self.item_ids[row], self.titles[row], drop)
                for row, drop in zip(met, of_one, strict=True)
                if abs(drop) > least
            ]
            reasons.append(sorted(moved, key=lambda one: -one.drop))
        return reasons

    def _rows_answered(self, answers: Ranking) -> IntArray:
        return np.array([self.row_of[item] for item in answers.items], dtype=np.int64)

    def _text_parts(self, requests: Requests, answers: Ranking, read: bool) -> tuple[list[list[TextPart]], str]:
        """For one request: how the scores of the best answers change when a part of the item's text is taken out, one
        list an answer, greatest drop first; and the method, or why there is none. Nothing is read unless ``read``."""
        if not scores_texts(self.system):
            return [], f"none: scores of {self.run.plan.system} do not follow from texts of items"
        method = "leave-one-part-out"
        rows = self._rows_answered(answers)[:READ_ANSWERS]
        if not read or not len(rows):
            return [], method
        try:
            return of_texts(self.system, requests, self.living, rows), method
        except PalateError as problem:  # the encoder is far away: what the history says stands without it
            return [], f"none: {problem}"

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    @property
    def grows(self) -> bool:
        """Whether the system recommends items that are added after training."""
        return isinstance(self.system, Grows)

    def table_of(self, items: Sequence[Mapping[str, object]]) -> pl.DataFrame:
        """New items as rows of this catalogue's table. Raises ``DataError`` naming the item and the column."""
        schema = self.living.items.schema
        rows = []
        for entry in items:
            if entry["item"] in self.row_of:
                raise DataError(f"item '{entry['item']}' is in this catalogue already")
            rows.append(
                {column: _fitting(value, schema, column, str(entry["item"])) for column, value in entry.items()}
            )
        return pl.DataFrame(rows, schema=schema)

    def add_items(self, items: pl.DataFrame) -> None:
        """Recommend these too from now on; ``items`` comes from ``table_of``. Raises ``MisuseError`` where the system
        knows only what it was fitted on."""
        if not isinstance(self.system, Grows):
            raise MisuseError(
                f"{self.name} is a {self.run.plan.system}, which knows only the items it was fitted on; "
                "fit it again with them, or serve a system that reads items' texts"
            )
        if not items.height:
            return
        grown = replace(self.living, items=pl.concat([self.living.items, items]))
        self.system.add_items(grown)
        self._know(items, grown)

    def retire_items(self, items: Sequence[str], *, back: bool = False) -> None:
        """Never answer these items from now on, or answer them again. Histories may hold them as before."""
        rows = self._rows(items)
        self._retired = np.setdiff1d(self._retired, rows) if back else np.union1d(self._retired, rows)
        if isinstance(self.system, Grows):
            self.system.retire_items(rows, back=back)

    @property
    def retired(self) -> IntArray:
        """Rows of the retired items, ascending."""
        return self._retired

    @property
    def living(self) -> Dataset:
        """The run's data with the items that were added since; the run's own catalogue without events where the data
        cannot be read."""
        if self._catalogue is not None:
            return self._catalogue
        try:
            return self.dataset
        except PalateError:
            assert self._without_data is not None
            return self._without_data[0]

    @property
    def dataset(self) -> Dataset:
        """The data of the run. Raises ``LeakError`` or ``StoreError`` where they changed or vanished, from then on at
        once: they are not read again for every question."""
        if self._without_data is None:
            try:
                return self.run.dataset
            except (PalateError, OSError) as failure:
                nothing = pl.DataFrame(schema={"user_row": pl.Int32, "item_row": pl.Int32})
                bare = Dataset(self.run.plan.data, nothing, self.run.items, self.run.users)
                said = str(failure) if isinstance(failure, PalateError) else failure.strerror or type(failure).__name__
                problem: type[PalateError] = LeakError if isinstance(failure, LeakError) else StoreError
                self._without_data = bare, problem, f"the data of {self.name} cannot be used: {said}"
        _, problem, said = self._without_data
        raise problem(said)

    # -- everybody ---------------------------------------------------------------------------------------------------

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
                found = self._recommend(requests, k)
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


def _method_of_events(n_events: int, because: Sequence[Sequence[Because]]) -> str:
    """How the events of a reason were found, or why there are none."""
    if any(because):
        return "leave-one-event-out"
    if n_events < 2:
        return "none: without its only event a history says nothing" if n_events else "none: there is no history"
    return "none: no event moves a score by being left out"


def _fitting(value: object, schema: pl.Schema, column: str, item: str) -> object:
    """A value as the catalogue's column takes it: a list for a list, text for text."""
    if column not in schema:
        raise DataError(f"item '{item}': this catalogue has no column '{column}'{nearest(column, schema)[:120]}")
    kind = schema[column]
    if isinstance(kind, pl.List) and isinstance(value, str):
        value = [value]
    elif kind == pl.String and isinstance(value, list):
        value = ", ".join(value)
    try:
        pl.Series([value], dtype=kind, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        raise DataError(f"item '{item}': column '{column}' holds {kind}, not {str(value)[:40]!r}") from None
    return value
