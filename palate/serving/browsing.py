"""Routes for looking around: items, users, pictures, neighbours, who would get an item, figures, fits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Response

from palate.core.errors import MisuseError
from palate.filters import parse_filter
from palate.questions import Answer, Question
from palate.serving.board import Leaderboard
from palate.serving.catalogue import Facet, FoundItems, FoundUsers, ItemPage, UserPage
from palate.serving.fits import FitCard, FitLog
from palate.serving.schemas import Audience, Id, Name, Short
from palate.serving.served import Served
from palate.serving.service import Service
from palate.serving.spaces import Neighbours, Space
from palate.serving.waiting import aside, in_time

MOST_FOUND = 100
FARTHEST = 1_000_000
ASKED_AT_ONCE = 64
"""Users of one batch, between which other questions are answered."""

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
    slow = service.limits.slow_seconds

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
            return await aside(slow, lambda: catalogue.these(item))
        return await aside(slow, lambda: catalogue.search(q, filters, start, limit))

    @app.get("/v1/items/one", dependencies=[reading], tags=["look"])
    async def item(item: Item, run: Run = None) -> ItemPage:
        """An item with everything that is known of it."""
        served = service.find(run)
        return await aside(slow, lambda: served.catalogue.page(served.asker.item_row(item)))

    @app.get("/v1/items/near", dependencies=[reading], tags=["look"])
    async def near(item: Item, space: Space, run: Run = None, k: Limit = 10) -> Neighbours:
        """The nearest items by text, by the beginning of their names, or by who met both."""
        served = service.find(run)
        return await aside(slow, lambda: served.spaces.near(served.asker.item_row(item), space, k))

    @app.get("/v1/items/cover", dependencies=[reading], tags=["look"], response_class=Response, responses=PICTURES)
    async def cover(item: Item, run: Run = None) -> Response:
        """The picture of an item; 404 where it has none."""
        served = service.find(run)
        body, kind = await aside(slow, lambda: served.covers.of(served.asker.item_row(item)))
        return Response(body, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @app.get("/v1/facets", dependencies=[reading], tags=["look"])
    async def facets(run: Run = None) -> list[Facet]:
        """Columns of the catalogue that can be filtered, with their values or their range."""
        return await aside(slow, service.find(run).catalogue.facets)

    @app.post("/v1/audience", dependencies=[reading], tags=["ask"])
    async def audience(asked: Audience) -> WhoGets:
        """Which users would get an item among their k best, of users chosen evenly from the data; as many of them are
        asked as there is time for."""
        return await who_gets(service, asked)


def _add_users(app: FastAPI, service: Service, reading: Any) -> None:
    slow = service.limits.slow_seconds

    @app.get("/v1/users", dependencies=[reading], tags=["look"])
    async def users(run: Run = None, q: Said = "", start: Start = 0, limit: Limit = 20) -> FoundUsers:
        """Users of the data whose id holds these letters."""
        catalogue = service.find(run).catalogue
        return await aside(slow, lambda: catalogue.users(q, start, limit))

    @app.get("/v1/users/one", dependencies=[reading], tags=["look"])
    async def user(user: Annotated[Id, Query()], run: Run = None) -> UserPage:
        """What is known of a user, with the events that this server was sent."""
        served = service.find(run)
        return await aside(slow, lambda: served.catalogue.user(user, served.later(user)))


def _add_figures(app: FastAPI, service: Service, reading: Any) -> None:
    slow = service.limits.slow_seconds

    @app.get("/v1/leaderboard", dependencies=[reading], tags=["runs"])
    async def leaderboard() -> Leaderboard:
        """Figures of all runs with intervals and slices, paired comparisons, and what they show in words."""
        return await aside(slow, service.leaderboard)

    @app.get("/v1/fits", dependencies=[reading], tags=["runs"])
    async def fits() -> list[FitCard]:
        """Fits beside the served runs, finished or under way, the newest first."""
        return await aside(slow, service.fit_cards)

    @app.get("/v1/fits/log", dependencies=[reading], tags=["runs"])
    async def fit_log(
        fit: Annotated[Short, Query()], seed: Annotated[int | None, Query(ge=0, le=FARTHEST)] = None, after: Start = 0
    ) -> FitLog:
        """The training log of a fit from line ``after`` on."""
        return await aside(slow, lambda: service.fits.log(fit, seed, after))


async def who_gets(service: Service, asked: Audience) -> WhoGets:
    """Ask the run about users evenly chosen, until all were asked or the time is up."""
    served = service.find(asked.run)
    asker = served.asker
    row = asker.item_row(asked.item)
    item, ids = asker.item_ids[row], asker.run.dataset.user_ids
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(asked.users, len(ids))).astype(np.int64))]
    if not chosen:
        raise MisuseError("the data of this run have no users")
    receivers: list[Receiver] = []
    n_asked, until = 0, time.monotonic() + service.limits.seconds * 0.8
    while n_asked < len(chosen) and time.monotonic() < until:
        some = chosen[n_asked : n_asked + ASKED_AT_ONCE]
        questions = [Question(user=user) for user in some]
        waited = service.ask(asked.run, partial(_recommend, questions, asked.k))
        answers = await in_time(waited, service.limits.slow_seconds)
        for user, answer in zip(some, answers, strict=True):
            receivers += [Receiver(user, one.rank, one.score) for one in answer.recommended if one.item == item]
        n_asked += len(some)
    receivers.sort(key=lambda one: one.rank)
    return WhoGets(item, asker.titles[row], asked.k, n_asked, len(ids), receivers)


def _recommend(questions: list[Question], k: int, served: Served) -> Future[list[Answer]]:
    return served.recommend(questions, k)
