"""One tree of errors, each a sentence."""

from __future__ import annotations

import inspect

import pytest

from palate.core import errors
from palate.core.errors import DataError, MissingExtraError, PalateError, nearest


def test_every_error_is_in_the_tree_and_drawn() -> None:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(found) >= 10
    for kind in found:
        assert issubclass(kind, PalateError)
        assert len(kind.__mro__) <= 6, "errors inherit at most two of our own"
        assert errors.__doc__ is not None
        assert kind.__name__ in errors.__doc__
        assert kind.__doc__


@pytest.mark.parametrize(
    ("details", "sentence"),
    [
        ({}, "r.csv: expected a number"),
        ({"line": 7}, "r.csv, line 7: expected a number"),
        (
            {"line": 7, "column": "rating", "value": "five"},
            "r.csv, line 7, column 'rating': found 'five', expected a number",
        ),
        ({"value": "x" * 500}, "r.csv: found '" + "x" * 80 + "', expected a number"),
    ],
)
def test_where_the_data_is_wrong(details: dict[str, object], sentence: str) -> None:
    assert str(DataError.at("r.csv", "a number", **details)) == sentence  # type: ignore[arg-type]


def test_nearest_hints_or_lists() -> None:
    assert nearest("droput", ["width", "dropout"]) == "; did you mean 'dropout'?"
    assert nearest("zzz", ["width", "dropout"]) == "; known: dropout, width"


def test_a_missing_extra_names_the_command() -> None:
    assert (
        str(MissingExtraError.needing("DuckDB", "data"))
        == "DuckDB needs an optional package: pip install 'palate[data]'"
    )
