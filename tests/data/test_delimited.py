"""Separated fields: right values, and for a wrong one the exact file, line, column and value."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import DataError
from palate.data.delimited import CSV, Field, Layout, read_delimited
from palate.data.reading import BadRows

FIELDS = [
    Field("user", "user", needed=True),
    Field("item", "item", pl.Int64, needed=True),
    Field("rating", "rating", pl.Float64),
    Field("note", "note"),
]


def written(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 20])
def test_values(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    text = '\ufeffuser,item,rating,note\r\nann,1,4.5,"a, ""b""\r\nc"\r\n\r\n bob ,-2,,\r\ncéd,3, 1e1 ,"q"'
    table = read_delimited(written(tmp_path, text, name), FIELDS, chunk_bytes=chunk_bytes)
    assert table["user"].to_list() == ["ann", " bob ", "céd"]
    assert table["item"].to_list() == [1, -2, 3]
    assert table["rating"].to_list() == [4.5, None, 10.0]
    assert table["note"].to_list() == ['a, "b"\nc', "", "q"]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
@pytest.mark.parametrize(
    ("row", "line", "column", "value", "expected"),
    [
        ("ann,x1,5,", 6, "item", "x1", "a whole number"),
        ("ann,1.5,5,", 6, "item", "1.5", "a whole number"),
        ("ann,1,five,", 6, "rating", "five", "a number"),
        ("ann,1,nan,", 6, "rating", "nan", "a number"),
        (",1,5,", 6, "user", "", "text"),
        ("ann,,5,", 6, "item", "", "a whole number"),
        ("ann,1,5", 6, None, "ann,1,5", "4 fields"),
        ("ann,1,5,a,b", 6, None, "ann,1,5,a,b", "4 fields"),
        ('ann,1,"5', 6, None, 'ann,1,"5', "quotes that are closed"),
        ('ann,1,5,"swallows the rest', 6, None, 'ann,1,5,"swallows the rest', "quotes that are closed"),
        ('"ann",one,5,', 6, "item", "one", "a whole number"),
    ],
)
def test_a_bad_row_is_named_exactly(
    tmp_path: Path,
    name: str,
    chunk_bytes: int,
    row: str,
    line: int,
    column: str | None,
    value: str | None,
    expected: str,
) -> None:
    """The second record spans lines 3 and 4 and line 5 is blank, so the bad record begins on line 6."""
    text = f'user,item,rating,note\nbob,1,2,\ncid,2,,"two\nlines"\n\n{row}\n'
    path = written(tmp_path, text, name)
    with pytest.raises(DataError) as problem:
        read_delimited(path, FIELDS, chunk_bytes=chunk_bytes)
    said = str(problem.value)
    assert said.startswith(f"{path}, line {line}")
    assert ("column" in said) == (column is not None)
    assert column is None or f"column '{column}'" in said
    assert not value or repr(value) in said
    assert expected in said
    assert said.count("\n") == 0


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item,raiting,note\n")
    with pytest.raises(DataError, match="line 1: no column 'rating'; did you mean 'raiting'"):
        read_delimited(path, FIELDS)


def test_skip_bad_leaves_out_and_lists(tmp_path: Path) -> None:
    text = "user,item,rating,note\nann,1,5,\nann,x,5,\nbob,2,4,\nbob,3\ncid,4,3,\n"
    bad = BadRows(2)
    table = read_delimited(written(tmp_path, text), FIELDS, bad=bad)
    assert table["item"].to_list() == [1, 2, 4]
    assert [note.split("log.csv, ")[1].split(":")[0] for note in bad.notes] == ["line 3, column 'item'", "line 5"]
    with pytest.raises(DataError, match=r"more than 1 rows cannot be read; the next is .*log\.csv, line 5"):
        read_delimited(written(tmp_path, text), FIELDS, bad=BadRows(1))


def test_an_empty_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty; expected the columns user, item"):
        read_delimited(written(tmp_path, ""), FIELDS)


def test_a_header_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    table = read_delimited(written(tmp_path, "user,item,rating,note\n"), FIELDS)
    assert table.schema == {"user": pl.String, "item": pl.Int64, "rating": pl.Float64, "note": pl.String}
    assert table.height == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv cannot be opened: No such file"):
        read_delimited(tmp_path / "no.csv", FIELDS)


@pytest.mark.parametrize("chunk_bytes", [4, 1 << 20])
def test_wrong_encoding_names_the_line(tmp_path: Path, chunk_bytes: int) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"user,item,rating,note\nann,1,5,\nb\xe9a,1,5,\n")
    with pytest.raises(DataError, match=r"line 3: found .* expected text in utf-8"):
        read_delimited(path, FIELDS, chunk_bytes=chunk_bytes)
    table = read_delimited(path, FIELDS, Layout(encoding="iso-8859-1"))
    assert table["user"].to_list() == ["ann", "béa"]


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "user,item,rating,note\n" + "ann,1,5,\n" * 1000, "log.csv.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"damaged or cut off .*fetch it again"):
        read_delimited(path, FIELDS)


def test_separators_of_two_letters_without_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, '1::The "Cat" (1990)::a|b\n2::Dog::\n', "movies.dat")
    layout = Layout("::", ("id", "title", "genres"), quoted=False)
    table = read_delimited(path, [Field("title", "title"), Field("genres", "genres")], layout)
    assert table.rows() == [('The "Cat" (1990)', "a|b"), ("Dog", "")]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00\ufeff"), max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12), st.integers(1, 40))
def test_what_csv_writes_is_read_back(rows: list[tuple[str, str]], chunk_bytes: int) -> None:
    import tempfile

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(text.getvalue().encode())
        table = read_delimited(path, [Field("a", "a"), Field("b", "b")], CSV, chunk_bytes=chunk_bytes)
    assert table.rows() == rows


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text('ab,"\n', max_size=5), max_size=12), st.integers(1, 40))
def test_any_text_is_split_as_the_csv_module_splits_it(cells: list[str], chunk_bytes: int) -> None:
    """Records, and the lines they begin on, are those of Python's reader, while every record closes its quotes.

    A stray quote can be understood in several ways; then it is enough that reading ends and names lines of the file.
    """
    import tempfile

    body = "\n".join(cells)
    lines = ["a,b", *body.split("\n")]
    reader = csv.reader(io.StringIO("a,b\n" + body, newline=""))
    next(reader)
    *_, sentinel = csv.reader(io.StringIO(f"a,b\n{body}\nS,S", newline=""))
    begin, good, wrong, closed = 1, [], [], sentinel == ["S", "S"]
    for record in reader:
        closed &= "".join(lines[begin : reader.line_num]).count('"') % 2 == 0
        if len(record) == 2:
            good.append(tuple(record))
        elif record:
            wrong.append(begin + 1)
        begin = reader.line_num
    bad = BadRows(1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(("a,b\n" + body).encode())
        table = read_delimited(path, [Field("a", "a"), Field("b", "b")], CSV, bad, chunk_bytes=chunk_bytes)
    named = sorted(int(str(problem).split("line ")[1].split(":")[0]) for problem in bad.found)
    if closed:
        assert table.rows() == good
        assert named == wrong
    else:
        assert all(2 <= line <= len(lines) for line in named)
