"""Tables of separated fields (CSV, TSV, ``::``): typed columns, or the exact line, column and value that is wrong.

Lines without a quote are split all at once; only those with one go through the ``csv`` module.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        found = _Found(path, bad.limit)
        parts.append(_typed(_records(lines, header, layout, found), fields, found))
        for _, problem in sorted(found.problems, key=lambda entry: entry[0]):
            bad.add(problem)
    if header is None:
        raise DataError(f"{path} is empty; expected the columns {', '.join(asked.name for asked in fields)}")
    empty = pl.DataFrame(schema={asked.as_: asked.dtype for asked in fields})
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
        return _records(whole, header, layout, _Found(path, rows)).drop("line #")
    raise DataError(f"{path} is empty; expected the names of the columns in line 1")


def _header(lines: Lines, layout: Layout) -> tuple[list[str], Lines]:
    first = lines.texts[0]
    names = next(csv.reader([first], delimiter=layout.separator)) if layout.quoted else first.split(layout.separator)
    return [name.strip() for name in names], Lines(lines.texts[1:], lines.first + 1)


def _check_header(path: Path, header: Sequence[str], fields: Sequence[Field]) -> None:
    for asked in fields:
        if asked.name not in header:
            raise DataError(f"{path}, line 1: no column '{asked.name}'{nearest(asked.name, header)}")


@dataclass(frozen=True)
class _Found:
    """Problems of one stretch of a file, as they are found; of each kind no more than can be listed."""

    path: Path
    limit: int
    problems: list[tuple[int, DataError]] = field(default_factory=list)

    def add(self, line: int, expected: str, value: object, column: str | None = None) -> None:
        self.problems.append((line, DataError.at(self.path, expected, line=line, column=column, value=value)))


def _records(lines: Lines, header: Sequence[str], layout: Layout, found: _Found) -> pl.DataFrame:
    """A column of text for every field, and ``line #``: where each record begins. Blank lines are no records."""
    frame = pl.DataFrame({"text": lines.texts}).with_row_index("line #", lines.first)
    plain = frame.filter(frame["text"].str.strip_chars() != "")
    if not layout.quoted:
        return _split_plain(plain, header, layout, found)
    quotes = frame["text"].str.count_matches('"', literal=True).to_numpy().astype(np.int64)
    if not quotes.any():
        return _split_plain(plain, header, layout, found)
    before = np.concatenate([[0], np.cumsum(quotes)[:-1]]) % 2
    # A line belongs to a quoted run when a quote opens in it or is still open from an earlier line.
    in_run = (quotes > 0) | (before == 1)
    plain = frame.filter(~in_run).filter(pl.col("text").str.strip_chars() != "")
    runs = frame.with_columns(run=np.cumsum(before == 0)).filter(in_run)
    quoted = _parse_quoted(runs, header, layout, found)
    return pl.concat([_split_plain(plain, header, layout, found), quoted]).sort("line #")


def _split_plain(lines: pl.DataFrame, header: Sequence[str], layout: Layout, found: _Found) -> pl.DataFrame:
    separators = lines["text"].str.count_matches(layout.separator, literal=True)
    wrong = separators != len(header) - 1
    if wrong.any():
        for line, text in lines.filter(wrong).head(found.limit + 1).iter_rows():
            found.add(line, _width(header, text.count(layout.separator) + 1), text)
        lines = lines.filter(~wrong)
    names = _unique(header)
    if len(header) == 1:
        return lines.select("line #", pl.col("text").alias(names[0]))
    split = lines["text"].str.split_exact(layout.separator, len(header) - 1).struct.rename_fields(names)
    return pl.concat([lines.select("line #"), split.struct.unnest()], how="horizontal")


def _parse_quoted(runs: pl.DataFrame, header: Sequence[str], layout: Layout, found: _Found) -> pl.DataFrame:
    names = _unique(header)
    rows: list[list[str | int]] = []
    for _, run in runs.group_by("run", maintain_order=True):
        begin = int(run["line #"][0])
        for line, record in _csv_records(run["text"].to_list(), begin, layout.separator):
            if record is None:
                found.add(line, "quotes that are closed around less than 131,072 letters", run["text"][line - begin])
            elif len(record) == len(header):
                rows.append([line, *record])
            elif record:
                found.add(line, _width(header, len(record)), layout.separator.join(record))
    return pl.DataFrame(rows, schema={"line #": pl.UInt32, **dict.fromkeys(names, pl.String)}, orient="row")


def _csv_records(texts: Sequence[str], first: int, separator: str) -> Iterator[tuple[int, list[str] | None]]:
    """The line each record begins on, and its fields; None for one whose quote is never closed or that is too long."""
    reader = csv.reader((text + "\n" for text in texts), delimiter=separator)
    while reader.line_num < len(texts):
        begin = reader.line_num
        try:
            record = next(reader)
        except csv.Error:
            yield first + begin, None
            continue
        last = reader.line_num >= len(texts)
        yield first + begin, None if last and _is_open(texts[begin:], separator) else record


def _is_open(texts: Sequence[str], separator: str) -> bool:
    """Whether a quote is still open after these lines, so that the record may have swallowed others."""
    try:
        list(csv.reader((text + "\n" for text in texts), delimiter=separator, strict=True))
    except csv.Error as failure:
        return "end of data" in str(failure)
    return False


def _width(header: Sequence[str], found: int) -> str:
    return f"{len(header)} fields ({', '.join(header)}) and not {found}"


def _unique(header: Sequence[str]) -> list[str]:
    """Names of columns may repeat in a file; later ones get a number."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names


def _typed(records: pl.DataFrame, fields: Sequence[Field], found: _Found) -> pl.DataFrame:
    """Records of text as typed columns; a value of the wrong type, or an empty one that is needed, is a bad row."""
    columns: list[pl.Series] = []
    wrong = np.zeros(records.height, dtype=bool)
    for asked in fields:
        text = records[asked.name]
        column = asked.typed(text)
        blank = text.str.strip_chars() == ""
        failed = column.is_null() & text.is_not_null() & ~blank
        if asked.dtype == pl.Float64:
            failed |= ~column.is_finite().fill_null(True)
        if asked.needed:
            failed |= text.is_null() | blank
        if failed.any():
            mask = failed.to_numpy()
            # A row with several wrong values is one bad row, named by the first of them.
            for row in np.flatnonzero(mask & ~wrong)[: found.limit + 1].tolist():
                expected = asked.expected or EXPECTED[asked.dtype]
                found.add(records["line #"][row], expected, text[row] or "", asked.name)
            wrong |= mask
        columns.append(column.alias(asked.as_))
    table = pl.DataFrame(columns)
    return table.filter(~wrong) if wrong.any() else table
