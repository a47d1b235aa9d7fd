"""Filters: a question's wish that only items of some kind are answered, read from columns of the catalogue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from palate.core.errors import MisuseError, nearest
from palate.core.ragged import IntArray
from palate.questions import Filter

RANGE = ".."
KEPT = 8
"""Filters whose rows are remembered."""


def rows_passing(items: pl.DataFrame, filters: Sequence[Filter]) -> IntArray:
    """Rows of the items that pass every filter, ascending. An item without a value passes none.

    Raises ``MisuseError`` for a column that is not there or that cannot be filtered so.
    """
    if not filters:
        return np.arange(items.height)
    passing = items.select(pl.all_horizontal(_passes(items.schema, one) for one in filters)).to_series()
    return np.flatnonzero(passing.fill_null(False).to_numpy())


class Passing:
    """Rows that pass, for the last few filters: the questions of a batch mostly filter alike, and then share one
    array. For one thread."""

    def __init__(self) -> None:
        self._items: pl.DataFrame | None = None
        self._kept: dict[tuple[Filter, ...], IntArray] = {}

    def rows(self, items: pl.DataFrame, filters: tuple[Filter, ...]) -> IntArray:
        """As ``rows_passing``."""
        if self._items is not items:
            self._items, self._kept = items, {}
        if filters not in self._kept:
            found = rows_passing(items, filters)
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[filters] = found
        return self._kept[filters]


def _passes(schema: pl.Schema, one: Filter) -> pl.Expr:
    if one.column not in schema:
        raise MisuseError(f"this catalogue has no column '{one.column[:80]}'{nearest(one.column, schema)[:120]}")
    kind, column = schema[one.column], pl.col(one.column)
    ranged = one.least is not None or one.most is not None
    if bool(one.any_of) == ranged:
        raise MisuseError(f"filter '{one.column}': say either values or the least and the most")
    if ranged:
        if not kind.is_numeric():
            raise MisuseError(f"'{one.column}' holds no numbers; say which values may be answered")
        low = pl.lit(True) if one.least is None else column >= one.least
        return low & (pl.lit(True) if one.most is None else column <= one.most)
    wanted = list(one.any_of)
    if kind == pl.String:
        return column.is_in(wanted)
    if kind == pl.List(pl.String):
        return column.list.eval(pl.element().is_in(wanted)).list.any()
    if kind == pl.Boolean:
        return column.cast(pl.String).is_in([value.lower() for value in wanted])
    raise MisuseError(f"'{one.column}' holds {kind}; say the least and the most instead of values")


def parse_filter(text: str) -> Filter:
    """``category=mystery,fantasy`` or ``year=1900..1950``, where either end may be left out."""
    column, equals, value = text.partition("=")
    if not equals or not column.strip() or not value.strip():
        raise MisuseError(f"filter '{text[:80]}': write COLUMN=VALUE,VALUE or COLUMN=LEAST..MOST")
    if RANGE in value:
        low, _, high = value.partition(RANGE)
        try:
            ends = [float(end) if end.strip() else None for end in (low, high)]
        except ValueError:
            ends = [math.nan]
        if not all(end is None or math.isfinite(end) for end in ends):
            raise MisuseError(f"filter '{text[:80]}': the ends of a range are numbers")
        return Filter(column.strip(), (), *ends)
    return Filter(column.strip(), tuple(one.strip() for one in value.split(",") if one.strip()))
