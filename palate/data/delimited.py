"""Tables of separated fields (CSV, TSV, ``::``): typed columns, or the exact line, column and value that is wrong.

Lines without a quote are split all at once; only those with one go through the ``csv`` module.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from palate.core.errors import DataError, nearest
from palate.data.lines import CHUNK_BYTES, Lines, line_chunks
from palate.data.reading import BadRows

EXPECTED: Mapping[type[pl.DataType], str] = {
    pl.Int64: "a whole number",
    pl.Float64: "a number",
    pl.String: "text",
}


@dataclass(frozen=True)
class Field:
    """A column to read. as_: its name afterwards; needed: an empty value is an error.

    parse: text → the column's type, null where that cannot be; expected: what to say then.
    """

    name: str
    as_: str
    dtype: type[pl.DataType] = pl.String
    needed: bool = False
    parse: Callable[[pl.Series], pl.Series] | None = None
    expected: str = ""

    def typed(self, text: pl.Series) -> pl.Series:
        """The text as values; null where it is none."""
        if self.parse is not None:
            return self.parse(text)
        return text if self.dtype == pl.String else text.str.strip_chars().cast(self.dtype, strict=False)


@dataclass(frozen=True)
class Layout:
    """How a file separates its fields. header: the names of the columns, or None when line 1 holds them."""

    separator: str = ","
    header: Sequence[str] | None = None
    quoted: bool = True
    encoding: str = "utf-8"


CSV = Layout()


def read_delimited(
    path: Path,
    fields: Sequence[Field],
    layout: Layout = CSV,
    bad: BadRows | None = None,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> pl.DataFrame:
    """The asked columns of a file, typed. A row that cannot be read goes to ``bad`` (an error when None)."""
    bad = bad or BadRows()
    parts: list[pl.DataFrame] = []
    header = list(layout.header) if layout.header is not None else None
    for lines in line_chunks(path, encoding=layout.encoding, quotes_closed=layout.quoted, chunk_bytes=chunk_bytes):
        if header is None:
            header, lines = _header(lines, layout)
            _check_header(path, header, fields)
        parts.append(typed(path, _records(path, lines, header, layout, bad), fields, bad))
    if header is None:
        raise DataError(f"{path} is empty; expected the columns {', '.join(field.name for field in fields)}")
    empty = pl.DataFrame(schema={field.as_: field.dtype for field in fields})
    return pl.concat([empty, *parts], rechunk=True)


def header_of(path: Path, layout: Layout) -> list[str]:
    """The names in line 1."""
    for lines in line_chunks(path, encoding=layout.encoding, quotes_closed=layout.quoted, chunk_bytes=1 << 16):
        return _header(lines, layout)[0]
    raise DataError(f"{path} is empty")


def sample_delimited(path: Path, layout: Layout, rows: int) -> pl.DataFrame:
    """The first rows as text; rows that cannot be read are left out."""
    for lines in line_chunks(path, encoding=layout.encoding, quotes_closed=layout.quoted, chunk_bytes=1 << 18):
        header, rest = _header(lines, layout)
        whole = Lines(rest.texts[:rows], rest.first)
        return _records(path, whole, header, layout, BadRows(rows)).drop("line #")
    raise DataError(f"{path} is empty; expected the names of the columns in line 1")


def _header(lines: Lines, layout: Layout) -> tuple[list[str], Lines]:
    first = lines.texts[0]
    names = next(csv.reader([first], delimiter=layout.separator)) if layout.quoted else first.split(layout.separator)
    return [name.strip() for name in names], Lines(lines.texts[1:], lines.first + 1)


def _check_header(path: Path, header: Sequence[str], fields: Sequence[Field]) -> None:
    for field in fields:
        if field.name not in header:
            raise DataError(f"{path}, line 1: no column '{field.name}'{nearest(field.name, header)}")


def _records(path: Path, lines: Lines, header: Sequence[str], layout: Layout, bad: BadRows) -> pl.DataFrame:
    """A column of text for every field, and ``line #``: where each record begins. Blank lines are no records."""
    frame = pl.DataFrame({"text": lines.texts}).with_row_index("line #", lines.first)
    plain = frame.filter(frame["text"].str.strip_chars() != "")
    if not layout.quoted:
        return _split_plain(path, plain, header, layout, bad)
    quotes = frame["text"].str.count_matches('"', literal=True).to_numpy().astype(np.int64)
    if not quotes.any():
        return _split_plain(path, plain, header, layout, bad)
    before = np.concatenate([[0], np.cumsum(quotes)[:-1]]) % 2
    # A line belongs to a quoted run when a quote opens in it or is still open from an earlier line.
    in_run = (quotes > 0) | (before == 1)
    plain = frame.filter(~in_run).filter(pl.col("text").str.strip_chars() != "")
    runs = frame.with_columns(run=np.cumsum(before == 0)).filter(in_run)
    quoted = _parse_quoted(path, runs, header, layout, bad)
    return pl.concat([_split_plain(path, plain, header, layout, bad), quoted]).sort("line #")


def _split_plain(path: Path, lines: pl.DataFrame, header: Sequence[str], layout: Layout, bad: BadRows) -> pl.DataFrame:
    separators = lines["text"].str.count_matches(layout.separator, literal=True)
    wrong = separators != len(header) - 1
    if wrong.any():
        for row in lines.filter(wrong).iter_rows(named=True):
            found = row["text"].count(layout.separator) + 1
            bad.add(_wrong_width(path, row["line #"], row["text"], found, header))
        lines = lines.filter(~wrong)
    names = _unique(header)
    if len(header) == 1:
        return lines.select("line #", pl.col("text").alias(names[0]))
    split = lines["text"].str.split_exact(layout.separator, len(header) - 1).struct.rename_fields(names)
    return pl.concat([lines.select("line #"), split.struct.unnest()], how="horizontal")


def _parse_quoted(path: Path, runs: pl.DataFrame, header: Sequence[str], layout: Layout, bad: BadRows) -> pl.DataFrame:
    names = _unique(header)
    rows: list[list[str | int]] = []
    for _, run in runs.group_by("run", maintain_order=True):
        begin = int(run["line #"][0])
        for line, record in _csv_records(run["text"].to_list(), begin, layout.separator):
            if record is None:
                bad.add(DataError.at(path, "a quote that is closed", line=line, value=run["text"][line - begin]))
                continue
            if not record:
                continue
            if len(record) != len(header):
                bad.add(_wrong_width(path, line, layout.separator.join(record), len(record), header))
            else:
                rows.append([line, *record])
    return pl.DataFrame(rows, schema={"line #": pl.UInt32, **dict.fromkeys(names, pl.String)}, orient="row")


def _csv_records(texts: Sequence[str], first: int, separator: str) -> Iterator[tuple[int, list[str] | None]]:
    """The line each record begins on, and its fields; None for a record whose quote is never closed."""
    reader = csv.reader((text + "\n" for text in texts), delimiter=separator)
    begin = 0
    for record in reader:
        last = reader.line_num >= len(texts)
        yield first + begin, None if last and _is_open(texts[begin:], separator) else record
        begin = reader.line_num


def _is_open(texts: Sequence[str], separator: str) -> bool:
    """Whether a quote is still open after these lines, so that the record may have swallowed others."""
    try:
        list(csv.reader((text + "\n" for text in texts), delimiter=separator, strict=True))
    except csv.Error as failure:
        return "end of data" in str(failure)
    return False


def _wrong_width(path: Path, line: int, text: str, found: int, header: Sequence[str]) -> DataError:
    return DataError.at(
        path, f"{len(header)} fields ({', '.join(header)}) and not {found}", line=line, column=None, value=text
    )


def _unique(header: Sequence[str]) -> list[str]:
    """Names of columns may repeat in a file; later ones get a number."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names


def typed(path: Path, records: pl.DataFrame, fields: Sequence[Field], bad: BadRows) -> pl.DataFrame:
    """Records of text as typed columns; a value of the wrong type, or an empty one that is needed, is a bad row."""
    columns: list[pl.Series] = []
    wrong = np.zeros(records.height, dtype=bool)
    wrong_in: list[tuple[Field, np.ndarray]] = []
    for field in fields:
        text = records[field.name]
        column = field.typed(text)
        failed = column.is_null() & ~text.str.strip_chars().is_in([""]).fill_null(True)
        if field.dtype == pl.Float64:
            failed |= ~column.is_finite().fill_null(True)
        if field.needed:
            failed |= text.is_null() | (text.str.strip_chars() == "")
        if failed.any():
            mask = failed.to_numpy()
            wrong_in.append((field, mask))
            wrong |= mask
        columns.append(column.alias(field.as_))
    for row in np.flatnonzero(wrong):
        field = next(field for field, mask in wrong_in if mask[row])
        value = records[field.name][int(row)] or ""
        bad.add(
            DataError.at(
                path,
                field.expected or EXPECTED[field.dtype],
                line=records["line #"][int(row)],
                column=field.name,
                value=value,
            )
        )
    table = pl.DataFrame(columns)
    return table.filter(~wrong) if wrong.any() else table
