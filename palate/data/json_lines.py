"""One record a line, as JSON or as a Python literal: typed columns, or the exact line and value that is wrong."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.errors import DataError
from palate.data.lines import CHUNK_BYTES, line_chunks
from palate.data.reading import BadRows

Parse = Callable[[str], Any]


@dataclass(frozen=True)
class Key:
    """A value to take from each record. of: turns it into the column's type, or raises ``ValueError``.

    needed: a record without it is a bad row; otherwise a missing or null value is null.
    """

    name: str
    as_: str
    of: Callable[[Any], Any]
    dtype: pl.DataType | type[pl.DataType]
    expected: str
    needed: bool = False


def text(name: str, as_: str, needed: bool = False) -> Key:
    """A key whose value is text; numbers are taken as they are written."""
    return Key(name, as_, as_text, pl.String, "text", needed)


def number(name: str, as_: str, needed: bool = False) -> Key:
    """A key whose value is a number."""
    return Key(name, as_, as_number, pl.Float64, "a number", needed)


def whole(name: str, as_: str, needed: bool = False) -> Key:
    """A key whose value is a whole number; text such as ``1,234`` is one too."""
    return Key(name, as_, as_whole, pl.Int64, "a whole number", needed)


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError


def as_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    found = float(value)
    if not abs(found) < float("inf"):
        raise ValueError
    return found


def as_whole(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        return int(value.replace(",", ""))
    if isinstance(value, (int, float)) and value == int(value):
        return int(value)
    raise ValueError


def json_or_literal(line: str) -> Any:
    """JSON, else a Python literal (``{u'id': u'7'}``), read without running anything."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return literal(line)


def literal(line: str) -> Any:
    """A Python literal, read without running anything. Raises ``ValueError`` for anything else."""
    try:
        return ast.literal_eval(line)
    except (SyntaxError, MemoryError, RecursionError) as failure:
        raise ValueError(str(failure)) from None


def records(
    path: Path, bad: BadRows, parse: Parse = json.loads, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line's number and record; a line that is no record goes to ``bad``. Blank lines are skipped."""
    for lines in line_chunks(path, chunk_bytes=chunk_bytes):
        for line, content in enumerate(lines.texts, lines.first):
            if not content.strip():
                continue
            try:
                record = parse(content.strip())
            except (ValueError, RecursionError):
                bad.add(DataError.at(path, "a whole record on one line", line=line, column=None, value=content))
                continue
            if not isinstance(record, dict):
                bad.add(DataError.at(path, "a record with named values", line=line, column=None, value=content))
                continue
            yield line, record


def read_records(
    path: Path,
    keys: Sequence[Key],
    bad: BadRows | None = None,
    parse: Parse = json.loads,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> pl.DataFrame:
    """The asked values of every record, typed. A record that cannot be read goes to ``bad`` (an error when None)."""
    bad = bad or BadRows()
    schema = {key.as_: key.dtype for key in keys}
    parts = [pl.DataFrame(schema=schema)]
    rows: list[list[Any]] = []
    for line, record in records(path, bad, parse, chunk_bytes=chunk_bytes):
        row = _values(path, line, record, keys, bad)
        if row is not None:
            rows.append(row)
        if len(rows) == 200_000:
            parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
            rows = []
    parts.append(pl.DataFrame(rows, schema=schema, orient="row"))
    return pl.concat(parts, rechunk=True)


def _values(path: Path, line: int, record: dict[str, Any], keys: Sequence[Key], bad: BadRows) -> list[Any] | None:
    values: list[Any] = []
    for key in keys:
        value = record.get(key.name)
        if value is None:
            if key.needed:
                bad.add(DataError.at(path, key.expected, line=line, column=key.name, value="nothing"))
                return None
            values.append(None)
            continue
        try:
            values.append(key.of(value))
        except (ValueError, TypeError, OverflowError):
            bad.add(DataError.at(path, key.expected, line=line, column=key.name, value=value))
            return None
    return values
