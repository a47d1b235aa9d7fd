"""Any table of events: CSV, TSV, JSON lines, Parquet or the answer of a DuckDB query, one event a row.

Columns are guessed (``palate.data.schema``) and shown before they are used. Columns about the item (title, category,
…) become the table of items: the first value of each item that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.dataset import About, Clock
from palate.core.errors import DataError, MissingExtraError
from palate.data.delimited import Field, Layout, header_of, read_delimited, sample_delimited
from palate.data.json_lines import Key, as_number, as_text, read_records, records
from palate.data.reading import BadRows, Reading, Tables, about_with
from palate.data.schema import OF_EVENTS, OF_ITEMS, Schema, guess
from palate.data.times import PER_MILLISECOND, TimeUnit, in_milliseconds

Shown = Callable[[str], None]

SAMPLE_ROWS = 1000
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".sql")
QUERY = "duckdb:"
MOMENT = "a moment (an ISO date, seconds or milliseconds)"
_DAY = 86_400_000


def read_table(source: str, reading: Reading, shown: Shown | None = None) -> Tables:
    """The events of a file, or of a query written as ``duckdb:SELECT …``. ``shown`` is told how columns are read."""
    bad = BadRows(reading.skip_bad)
    if source.startswith(QUERY):
        name, (schema, events) = "the query", _frame(_query(source[len(QUERY) :]), reading, "the query", bad, shown)
    else:
        path = Path(source)
        name = path.name
        schema, events = _read_file(path, reading, bad, shown)
    events, clock = _with_clock(events, schema)
    items = _items(events, schema)
    about = About(title=name, source=source, notes=(f"columns: {said(schema)}",))
    return Tables(events.drop(OF_ITEMS, strict=False), items, clock=clock, about=about_with(about, bad))


def said(schema: Schema) -> str:
    """The columns in one line."""
    return ", ".join(f"{role} = {column}" for role, column in schema.columns.items())


def _read_file(
    path: Path, reading: Reading, bad: BadRows, shown: Shown | None
) -> tuple[Schema, pl.DataFrame | pl.LazyFrame]:
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix == ".parquet":
        return _frame(pl.scan_parquet(path), reading, str(path), bad, shown)
    if suffix == ".sql":
        return _frame(_query(path.read_text(encoding="utf-8")), reading, str(path), bad, shown)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json(path, reading, bad, shown)
    if suffix in (".csv", ".tsv", ".txt"):
        return _delimited(path, reading, bad, shown)
    raise DataError(f"{path}: cannot read '{suffix or path.name}'; expected one of {', '.join(SUFFIXES)} (or .gz)")


def _agreed(sample: pl.DataFrame, reading: Reading, source: str, shown: Shown | None) -> Schema:
    schema = guess(sample, reading.columns, source)
    if shown is not None:
        shown(schema.render(source))
    return schema


def _delimited(path: Path, reading: Reading, bad: BadRows, shown: Shown | None) -> tuple[Schema, pl.DataFrame]:
    first = header_of(path, Layout("\n", quoted=False))[0]
    separator = max(("\t", ",", ";", "|"), key=first.count)
    layout = Layout(separator)
    schema = _agreed(sample_delimited(path, layout, SAMPLE_ROWS), reading, str(path), shown)
    fields = []
    for role, column in schema.columns.items():
        if role == "time" and schema.unit is not None:
            moment = partial(in_milliseconds, unit=schema.unit)
            fields.append(Field(column, role, pl.Int64, parse=moment, expected=MOMENT))
        else:
            dtype = pl.Float64 if role in ("rating", "weight") else pl.String
            fields.append(Field(column, role, dtype, needed=role in ("user", "item")))
    return schema, read_delimited(path, fields, layout, bad)


def _json(path: Path, reading: Reading, bad: BadRows, shown: Shown | None) -> tuple[Schema, pl.DataFrame]:
    head = [record for _, record in islice(records(path, BadRows(10**9)), SAMPLE_ROWS)]
    if not head:
        raise DataError(f"{path} holds no record; expected one JSON object a line")
    names = list(dict.fromkeys(name for record in head for name in record))
    columns = {name: _sample_column([record.get(name) for record in head]) for name in names}
    schema = _agreed(pl.DataFrame(columns), reading, str(path), shown)
    keys = []
    for role, column in schema.columns.items():
        if role == "time" and schema.unit is not None:
            keys.append(Key(column, role, partial(_moment, unit=schema.unit), pl.Int64, MOMENT))
        elif role in ("rating", "weight"):
            keys.append(Key(column, role, as_number, pl.Float64, "a number"))
        elif role == "category":
            keys.append(Key(column, role, _texts, pl.List(pl.String), "text or a list of text"))
        elif role in OF_ITEMS:
            keys.append(Key(column, role, _one_text, pl.String, "text or a list of text"))
        else:
            keys.append(Key(column, role, as_text, pl.String, "text", needed=role in ("user", "item")))
    return schema, read_records(path, keys, bad)


def _sample_column(values: Sequence[Any]) -> pl.Series:
    """Values of one key; mixed kinds as text."""
    try:
        return pl.Series(values, strict=True)
    except (TypeError, pl.exceptions.PolarsError):
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _moment(value: Any, unit: TimeUnit) -> int:
    if isinstance(value, str) and unit in ("iso", "days"):
        moment = datetime.fromisoformat(value.strip())
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(zoned.timestamp() * 1000)
    return round(as_number(value) * PER_MILLISECOND.get(unit, 1.0))


def _texts(value: Any) -> list[str]:
    """A list of texts, or one text with bars between its parts."""
    return [as_text(entry) for entry in value] if isinstance(value, list) else as_text(value).split("|")


def _one_text(value: Any) -> str | None:
    """Text, or the first text of a list (several pictures, a description in parts)."""
    if isinstance(value, list):
        return as_text(value[0]) if value else None
    return as_text(value)


def _query(text: str) -> pl.DataFrame:
    """The rows that a DuckDB query gives; the query is the user's own and is run as it stands."""
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError.needing("a DuckDB query", "data") from None
    try:
        with duckdb.connect() as connection:
            answer = connection.sql(text)
            if answer is None:
                raise DataError("the query gives no rows; it must end with a SELECT")
            table: pl.DataFrame = answer.pl()
            return table
    except duckdb.Error as failure:
        raise DataError(f"the query cannot be answered: {str(failure).splitlines()[0]}") from None


def _frame(
    table: pl.DataFrame | pl.LazyFrame, reading: Reading, source: str, bad: BadRows, shown: Shown | None
) -> tuple[Schema, pl.DataFrame | pl.LazyFrame]:
    """A typed table: Parquet (scanned, never read whole unless rows must be checked) or the answer of a query."""
    try:
        sample = table.lazy().head(SAMPLE_ROWS).collect()
    except (pl.exceptions.PolarsError, OSError) as failure:
        raise DataError(f"{source} cannot be read: {str(failure).splitlines()[0]}") from None
    schema = _agreed(sample, reading, source, shown)
    table = table.select(pl.col(column).alias(role) for role, column in schema.columns.items())
    table = table.with_columns(
        pl.col(role).cast(pl.String) for role in ("title", "text", "image") if role in schema.columns
    )
    if "time" in schema.columns and (
        schema.unit != "milliseconds" or not sample[schema.columns["time"]].dtype.is_integer()
    ):
        table = _checked_times(table.lazy().collect(), schema, source, bad)
    return schema, table


def _checked_times(table: pl.DataFrame, schema: Schema, source: str, bad: BadRows) -> pl.DataFrame:
    written = table["time"]
    moments = in_milliseconds(written, schema.unit)
    wrong = moments.is_null() & written.is_not_null()
    for row in wrong.arg_true():
        bad.add(
            DataError(
                f"{source}, row {row + 1}, column '{schema.columns['time']}': found {written[row]!r}, expected {MOMENT}"
            )
        )
    return table.with_columns(time=moments).filter(~wrong)


def _with_clock(events: pl.DataFrame | pl.LazyFrame, schema: Schema) -> tuple[pl.DataFrame | pl.LazyFrame, Clock]:
    if "time" not in schema.columns or schema.unit == "order":
        return events, "order"
    if schema.unit == "days":
        return events, "day"
    days = events.lazy().select((pl.col("time") % _DAY == 0).all()).collect().item()
    return events, "day" if days else "unix"


def _items(events: pl.DataFrame | pl.LazyFrame, schema: Schema) -> pl.DataFrame | None:
    """The first known title, category, … of each item, in the order of the items' first event."""
    known = [role for role in OF_ITEMS if role in schema.columns]
    if not known:
        return None
    first = [pl.col(role).drop_nulls().first() for role in known]
    table = events.lazy().group_by("item", maintain_order=True).agg(first).collect()
    if "category" in known and table["category"].dtype != pl.List:
        table = table.with_columns(pl.col("category").cast(pl.String).str.split("|").fill_null([]))
    if "text" in known or "title" not in known:
        return table
    category = pl.col("category").list.join(", ") if "category" in known else pl.lit("")
    sentence = pl.when(category != "").then(pl.concat_str(pl.lit(". "), category)).otherwise(pl.lit(""))
    return table.with_columns(text=pl.concat_str("title", sentence))


__all__ = ["OF_EVENTS", "QUERY", "SUFFIXES", "read_table"]
