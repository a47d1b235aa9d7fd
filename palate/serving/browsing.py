"""Routes for looking around: items, users, pictures, neighbours, who would get an item, figures, fits."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Response

from palate.ask import Asker
from palate.core.errors import MisuseError
from palate.filters import parse_filter
from palate.questions import Answer, Question
from palate.serving.batching import BusyError
from palate.serving.board import Leaderboard
from palate.serving.catalogue import Facet, FoundItems, FoundUsers, ItemPage, UserPage
from palate.serving.fits import FitCard, FitLog
from palate.serving.schemas import Audience, Id, Name, Short
from palate.serving.served import Served
from palate.serving.service import Service
from palate.serving.spaces import Neighbours, Space
from palate.serving.waiting import LateError, in_time

MOST_FOUND = 100
FARTHEST = 1_000_000
ASKED_AT_FIRST, ASKED_AT_ONCE = 4, 64
"""Users of the first batch and of the largest, between which other questions are answered."""
BATCH_SECONDS = 1.0

Run = Annotated[Id | None, Query(description="Which run is asked; may be left out where only one is served")]
Item = Annotated[Name, Query(description="An id or an exact title")]
Start = Annotated[int, Query(ge=0, le=FARTHEST)]
Limit = Annotated[int, Query(ge=1, le=MOST_FOUND)]
Said = Annotated[str, Query(max_length=200)]
Filters = Annotated[
    Sequence[Annotated[str, Query(max_length=500)]],
    Query(max_length=20, description="category=mystery,fantasy or year=1900..1950"),
]
Items = Annotated[Sequence[Name], Query(max_length=MOST_FOUND, description="Ids or exact titles: only these")]
PICTURES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in ("image/png", "image/jpeg", "image/webp")}, "description": "The picture"}
}


@dataclass(frozen=True)
class Receiver:
    """A user who would get the item, and where it would stand among their answers."""

    user: str
    rank: int
    score: float | None


@dataclass(frozen=True)
class WhoGets:
    """Who of the ``asked`` users (of ``users`` in all) would get an item, best ranks first."""

    item: str
    title: str
    k: int
    asked: int
    users: int
    receivers: list[Receiver]


def add_browsing(app: FastAPI, service: Service, reading: Any) -> None:
    """Routes that read; ``reading`` lets through whoever may."""
    _add_items(app, service, reading)
    _add_users(app, service, reading)
    _add_figures(app, service, reading)


def _add_items(app: FastAPI, service: Service, reading: Any) -> None:
    @app.get("/v1/items", dependencies=[reading], tags=["look"])
    async def search_items(
        run: Run = None,
        q: Said = "",
        filter: Filters = (),
        item: Items = (),
        start: Start = 0,
        limit: Limit = 20,
    ) -> FoundItems:
        """Items in which every word occurs, those with it in the title first, then the most met; or just these items,
        in the order in which they are named."""
        catalogue, filters = service.find(run).catalogue, [parse_filter(one) for one in filter]
        if item:
            if q or filters or start:
                raise MisuseError("name items, or search for some; not both")
            return await service.aside(lambda: catalogue.these(item))
        return await service.aside(lambda: catalogue.search(q, filters, start, limit))

    @app.get("/v1/items/one", dependencies=[reading], tags=["look"])
    async def item(item: Item, run: Run = None) -> ItemPage:
        """An item with everything that is known of it."""
        served = service.find(run)
        return await service.aside(lambda: served.catalogue.page(served.asker.item_row(item)))

    @app.get("/v1/items/near", dependencies=[reading], tags=["look"])
    async def near(item: Item, space: Space, run: Run = None, k: Limit = 10) -> Neighbours:
        """The nearest items by text, by the beginning of their names, or by who met both."""
        served = service.find(run)
        return await service.aside(
            lambda: served.spaces.near(served.asker.item_row(item), space, k), long=space == "text"
        )

    @app.get("/v1/items/cover", dependencies=[reading], tags=["look"], response_class=Response, responses=PICTURES)
    async def cover(item: Item, run: Run = None) -> Response:
        """The picture of an item; 404 where it has none."""
        served = service.find(run)
        body, kind = await service.aside(lambda: served.covers.of(served.asker.item_row(item)))
        return Response(body, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/v1/facets", dependencies=[reading], tags=["look"])
    async def facets(run: Run = None) -> list[Facet]:
        """Columns of the catalogue that can be filtered, with their values or their range."""
        return await service.aside(service.find(run).catalogue.facets)

    @app.post("/v1/audience", dependencies=[reading], tags=["ask"])
    async def audience(asked: Audience) -> WhoGets:
        """Which users would get an item among their k best, of users chosen evenly from the data; as many of them are
        asked as there is time for."""
        return await who_gets(service, asked)


def _add_users(app: FastAPI, service: Service, reading: Any) -> None:
    @app.get("/v1/users", dependencies=[reading], tags=["look"])
    async def users(run: Run = None, q: Said = "", start: Start = 0, limit: Limit = 20) -> FoundUsers:
        """Users of the data whose id holds these letters."""
        catalogue = service.find(run).catalogue
        return await service.aside(lambda: catalogue.users(q, start, limit))

    @app.get("/v1/users/one", dependencies=[reading], tags=["look"])
    async def user(user: Annotated[Id, Query()], run: Run = None) -> UserPage:
        """What is known of a user, with the events that this server was sent."""
        served = service.find(run)
        return await service.aside(lambda: served.catalogue.user(user, served.later(user)))


def _add_figures(app: FastAPI, service: Service, reading: Any) -> None:
    @app.get("/v1/leaderboard", dependencies=[reading], tags=["runs"])
    async def leaderboard() -> Leaderboard:
        """Figures of all runs with intervals and slices, paired comparisons, and what they show in words."""
        return await service.aside(service.leaderboard, long=True)

    @app.get("/v1/fits", dependencies=[reading], tags=["runs"])
    async def fits() -> list[FitCard]:
        """Fits beside the served runs, finished or under way, the newest first."""
        return await service.aside(service.fit_cards)

    @app.get("/v1/fits/log", dependencies=[reading], tags=["runs"])
    async def fit_log(
        fit: Annotated[Short, Query()], seed: Annotated[int | None, Query(ge=0, le=FARTHEST)] = None, after: Start = 0
    ) -> FitLog:
        """The training log of a fit from line ``after`` on."""
        return await service.aside(lambda: service.fits.log(fit, seed, after))


async def who_gets(service: Service, asked: Audience) -> WhoGets:
    """Ask the run about users evenly chosen, until all were asked or the time is up.

    A few at first, then as many as take about a second, so that other questions are answered in between. Raises
    ``BusyError`` while the run is asked for another audience.
    """
    served, asker = service.find(asked.run), service.find(asked.run).asker
    if not served.audience.acquire(blocking=False):
        raise BusyError(math.ceil(service.limits.seconds))
    try:
        row, chosen, n_users = await service.aside(partial(_chosen, asker, asked))
        receivers: list[Receiver] = []
        n_asked, at_once, until = 0, ASKED_AT_FIRST, time.monotonic() + service.limits.seconds * 0.8
        while n_asked < len(chosen) and at_once and time.monotonic() < until:
            some, started = chosen[n_asked : n_asked + at_once], time.monotonic()
            questions = [Question(user=user) for user in some]
            waited = service.ask(asked.run, partial(_recommend, questions, asked.k))
            try:
                answers = await in_time(waited, service.limits.seconds if not n_asked else until - started)
            except LateError:
                if not n_asked:
                    raise
                break
            for user, answer in zip(some, answers, strict=True):
                receivers += [
                    Receiver(user, one.rank, one.score) for one in answer.recommended if one.item == asker.item_ids[row]
                ]
            n_asked += len(some)
            now = time.monotonic()
            at_once = _next(len(some), now - started, until - now)
    finally:
        served.audience.release()
    receivers.sort(key=lambda one: one.rank)
    return WhoGets(asker.item_ids[row], asker.titles[row], asked.k, n_asked, n_users, receivers)


def _chosen(asker: Asker, asked: Audience) -> tuple[int, list[str], int]:
    """The row of the item, the users who are asked, and how many users there are."""
    row, ids = asker.item_row(asked.item), asker.dataset.user_ids
    if not ids:
        raise MisuseError("the data of this run have no users")
    places = np.unique(np.linspace(0, len(ids) - 1, min(asked.users, len(ids))).astype(np.int64))
    return row, [ids[place] for place in places], len(ids)


def _next(n: int, seconds: float, left: float) -> int:
    """How many users make the next batch, where ``n`` took ``seconds`` and so many are ``left``; 0 where none fits."""
    each = max(seconds, 1e-6) / n
    return int(min(ASKED_AT_ONCE, 4 * n, max(1.0, BATCH_SECONDS / each), left / each))


def _recommend(questions: list[Question], k: int, served: Served) -> Future[list[Answer]]:
    return served.recommend(questions, k)
