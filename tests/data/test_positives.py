"""The rule that says which events count."""

from __future__ import annotations

import polars as pl
import pytest

from palate.core.errors import DataError
from palate.data.positives import Clause, parse_positive, positive_filter

TABLE = pl.DataFrame(
    {
        "id": [0, 1, 2, 3],
        "rating": [5.0, 4.0, None, 3.5],
        "kind": ["buy", "view", "cart", None],
        "hours": [1, 2, 3, 4],
        "verified": [True, False, True, None],
    }
)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("rating>=4", [0, 1]),
        ("rating > 4", [0]),
        ("rating<=3.5", [3]),
        ("rating!=5", [1, 3]),
        ("kind=buy", [0]),
        ("kind==buy", [0]),
        ("kind=buy,kind=cart", [0, 2]),
        ("kind='buy', hours<3", [0]),
        ("kind!=buy", [1, 2]),
        ("hours>=2,hours<=3", [1, 2]),
        ("verified=true", [0, 2]),
        ("rating>=4,kind=view", [1]),
    ],
)
def test_rules(rule: str, kept: list[int]) -> None:
    assert TABLE.filter(positive_filter(rule, TABLE.schema))["id"].to_list() == kept


def test_clauses_are_parsed_and_never_run() -> None:
    assert parse_positive("rating>=4, kind=buy") == (Clause("rating", ">=", "4"), Clause("kind", "=", "buy"))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("rating", "cannot read 'rating'"),
        ("", "cannot read ''"),
        ("rating>=", "cannot read"),
        ("__import__('os')", "cannot read"),
        ("rating>=4;kind=buy", "'rating' holds numbers, but '4;kind=buy' is none"),
        ("ratnig>=4", "no column 'ratnig'; did you mean 'rating'"),
        ("rating>=good", "but 'good' is none"),
        ("hours>=1.5", "but '1.5' is none"),
        ("kind>buy", "compare it with = or !="),
        ("verified=yes", "is true or false"),
    ],
)
def test_what_is_no_rule_is_one_sentence(rule: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as problem:
        positive_filter(rule, TABLE.schema)
    assert "\n" not in str(problem.value)
