"""What is said of a user index: counted by hand, in words that programs can read."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from palate.evaluation.index_health import index_health

NUMBERS = np.array([[0, 1], [0, 1], [0, 2], [3, 1], [-1, -1]] + [[0, 4], [3, 5]] * 8)
TASTES = np.array([[row[0] == 0, row[0] != 0] for row in NUMBERS])


def test_names_codes_and_tastes_are_counted() -> None:
    health = index_health(NUMBERS, TASTES, {"read": "reviews"})
    assert (health.users, health.named, health.different, health.codes_in_use) == (21, 20, 5, (2, 4))
    first, second = health.planted_tastes
    assert first.own == pytest.approx(1), "the first code is the taste"
    assert (first.groups, second.groups) == (2, 5)
    assert second.own < 1
    assert first.above.low > 0
    said = json.loads(json.dumps(asdict(health)))
    assert all(key.isidentifier() for key in said)
    assert said["planted_tastes"][1]["groups"] == 5
    assert "grouped by 2 codes (5 groups)" in health.table()


def test_without_tastes_or_names_nothing_is_made_up() -> None:
    assert index_health(NUMBERS).planted_tastes == ()
    nobody = index_health(np.full((3, 2), -1), np.ones((3, 2), dtype=bool))
    assert (nobody.named, nobody.different, nobody.codes_in_use, nobody.planted_tastes) == (0, 0, (0, 0), ())
