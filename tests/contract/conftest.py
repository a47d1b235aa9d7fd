"""One fit of every system of the table for the whole session, on ``world("test")`` with leave-one-out."""

from __future__ import annotations

import pytest

from palate.core.protocols import Recommender
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.split import Split
from palate.data.split import leave_one_out
from palate.data.world import World, world
from palate.systems import able
from tests.contract.questions import asked, small

STEPS = 60
"""Optimiser steps of the session's fit; systems in closed form do what they do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs them all, so that the session's fits are made once."""
    for item in items:
        if "tests/contract/" in item.path.as_posix():
            item.add_marker(pytest.mark.xdist_group("contract"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module's ``ROWS`` are the systems that its promises are about; where it names none, all recommenders."""
    if "name" in metafunc.fixturenames:
        rows = getattr(metafunc.module, "ROWS", able("Recommender"))
        metafunc.parametrize("name", [row.name for row in rows])


@pytest.fixture(scope="session")
def the_world() -> World:
    return world("test")


@pytest.fixture(scope="session")
def split(the_world: World) -> Split:
    return leave_one_out(the_world.dataset)


@pytest.fixture(scope="session")
def fits() -> dict[str, Recommender]:
    return {}


@pytest.fixture
def system(name: str, split: Split, fits: dict[str, Recommender]) -> Recommender:
    """The system of that name, fitted once a session; tests must not change it."""
    if name not in fits:
        fits[name] = small(name).fit(split.train, Run(max_steps=STEPS))
    return fits[name]


@pytest.fixture(scope="session")
def questions(split: Split) -> Requests:
    return asked(split)
