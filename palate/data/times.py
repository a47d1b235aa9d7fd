"""Moments as people write them (ISO text, seconds, milliseconds) to int64 milliseconds; which of these a column is."""

from __future__ import annotations

from typing import Literal

import polars as pl

from palate.core.errors import DataError

TimeUnit = Literal["iso", "days", "seconds", "milliseconds", "microseconds", "order"]

PER_MILLISECOND: dict[str, float] = {"seconds": 1000.0, "milliseconds": 1.0, "microseconds": 0.001}

_SINCE = 1e8
"""Seconds: 1973. Smaller numbers count places in an order rather than seconds since 1970."""
_UNTIL = 1e10
"""Seconds: the year 2286. Greater numbers are milliseconds, and from a thousand times that on microseconds."""


def unit_of(numbers: pl.Series) -> TimeUnit:
    """What a column of numbers counts, by its median: seconds, milliseconds or microseconds since 1970, or an order."""
    middle = numbers.abs().median()
    if not isinstance(middle, (int, float)) or middle < _SINCE:
        return "order"
    if middle < _UNTIL:
        return "seconds"
    return "milliseconds" if middle < _UNTIL * 1000 else "microseconds"


def in_milliseconds(column: pl.Series, unit: TimeUnit | None = None) -> pl.Series:
    """A column of dates, ISO text or numbers as int64 milliseconds; a value that is no moment becomes null.

    Text without a zone is UTC. Numbers that only say an order stay as they are.
    """
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("ms")).cast(pl.Int64)
    if column.dtype == pl.String:
        if unit in (None, "iso", "days"):
            return parse_iso(column)
        column = column.str.strip_chars().cast(pl.Float64, strict=False)
    if not column.dtype.is_numeric():
        raise DataError(f"column '{column.name}' holds {column.dtype}, expected moments")
    unit = unit or unit_of(column)
    if unit == "order":
        return column.cast(pl.Int64, strict=False)
    if column.dtype.is_integer() and unit != "microseconds":
        return column.cast(pl.Int64) * int(PER_MILLISECOND[unit])
    return (column.cast(pl.Float64) * PER_MILLISECOND[unit]).round(0).cast(pl.Int64, strict=False)


def parse_iso(column: pl.Series) -> pl.Series:
    """ISO 8601 text (``2024-05-06``, ``2024-05-06 07:08:09.5``, ``…T…Z``, ``…+02:00``) as int64 milliseconds."""
    text = column.str.strip_chars().str.replace(r"(\d)[Tt](\d)", "$1 $2")
    zone = text.str.extract(r"([+-]\d{2}:?\d{2})$")
    text = text.str.replace(r"\s*(Z|UTC|[+-]\d{2}:?\d{2})$", "")
    # A date alone looks like a zone at its end ("-05-06" has no colon and no four digits), so it is left whole.
    full = pl.when(text.str.contains(r"^\d{4}-\d{2}-\d{2}$")).then(text + " 00:00:00").otherwise(text)
    frame = pl.DataFrame({"text": text, "zone": zone}).with_columns(full=full)
    seconds = frame["full"].str.replace(r"^(\d{4}-\d{2}-\d{2} \d{2}:\d{2})$", "${1}:00")
    moment = seconds.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="ms").cast(pl.Int64)
    sign = pl.when(pl.col("zone").str.starts_with("-")).then(-1).otherwise(1)
    hours = pl.col("zone").str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = pl.col("zone").str.slice(-2).cast(pl.Int64, strict=False)
    shift = (sign * (hours * 60 + minutes) * 60_000).fill_null(0)
    return frame.with_columns(moment=moment).select(pl.col("moment") - shift).to_series().alias(column.name)
