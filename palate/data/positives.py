"""Which events count as positive: ``rating>=4``, ``kind=buy``, several with a comma. A parser, never ``eval``.

A comma means *and*; equalities on the same column are alternatives, so ``kind=buy,kind=cart,rating>=4`` reads
"bought or carted, and rated 4 or better".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from palate.core.errors import DataError, nearest

Comparison = Literal[">=", "<=", "!=", "=", ">", "<"]

_CLAUSE = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|!=|==|=|>|<)\s*([^=<>!].*?)\s*")
EVERY_EVENT = "every event"


@dataclass(frozen=True)
class Clause:
    """One condition: a column, a comparison and the value as it was written."""

    column: str
    comparison: Comparison
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.comparison}{self.value}"


def parse_positive(rule: str) -> tuple[Clause, ...]:
    """``"rating>=4, kind=buy"`` → clauses. Raises ``DataError`` in one sentence for anything else."""
    clauses = []
    for part in rule.split(","):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise DataError(
                f"positive rule '{rule}': cannot read '{part.strip()}'; write such as rating>=4 or kind=buy"
            )
        column, comparison, value = match.groups()
        value = value.strip("'\"")
        clauses.append(Clause(column, "=" if comparison == "==" else comparison, value))  # type: ignore[arg-type]
    return tuple(clauses)


def positive_filter(rule: str, schema: pl.Schema) -> pl.Expr:
    """The rule as a filter on a table with ``schema``; an event whose value is missing is not positive."""
    alternatives: dict[str, list[pl.Expr]] = {}
    required: list[pl.Expr] = []
    for clause in parse_positive(rule):
        test = _test(clause, schema, rule)
        if clause.comparison == "=":
            alternatives.setdefault(clause.column, []).append(test)
        else:
            required.append(test)
    required += [pl.any_horizontal(tests) for tests in alternatives.values()]
    return pl.all_horizontal(required).fill_null(False)


def _test(clause: Clause, schema: pl.Schema, rule: str) -> pl.Expr:
    if clause.column not in schema:
        raise DataError(f"positive rule '{rule}': no column '{clause.column}'{nearest(clause.column, schema)}")
    dtype = schema[clause.column]
    column = pl.col(clause.column)
    value: float | int | str | bool
    if dtype.is_numeric():
        try:
            value = int(clause.value) if dtype.is_integer() else float(clause.value)
        except ValueError:
            raise DataError(
                f"positive rule '{rule}': '{clause.column}' holds numbers, but '{clause.value}' is none"
            ) from None
    elif dtype == pl.Boolean:
        if clause.value.lower() not in ("true", "false"):
            raise DataError(f"positive rule '{rule}': '{clause.column}' is true or false, not '{clause.value}'")
        value = clause.value.lower() == "true"
    else:
        value = clause.value
        column = column.cast(pl.String)
        if clause.comparison not in ("=", "!="):
            raise DataError(f"positive rule '{rule}': '{clause.column}' holds text; compare it with = or !=")
    tests = {
        ">=": column >= value,
        "<=": column <= value,
        "!=": column != value,
        "=": column == value,
        ">": column > value,
        "<": column < value,
    }
    return tests[clause.comparison]
