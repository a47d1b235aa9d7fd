"""Text files as numbered lines, a few megabytes at a time: plain or gzipped, any encoding, exact line numbers."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import polars as pl

from palate.core.errors import DataError

CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a file. first: the number of the first one, counted from 1."""

    texts: pl.Series
    first: int


def open_bytes(path: Path) -> IO[bytes]:
    """The file as bytes, unpacked where its name ends in .gz. Raises ``DataError`` when it is not there."""
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as failure:
        raise DataError(f"{path} cannot be opened: {failure.strerror}") from None


def line_chunks(
    path: Path, *, encoding: str = "utf-8", quotes_closed: bool = False, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Lines]:
    """The lines of a file in order, without line ends or a byte-order mark.

    quotes_closed: never cut where a double quote is open, so that a quoted field with line breaks stays together.
    """
    first, rest = 1, b""
    with open_bytes(path) as stream:
        while True:
            block = _read(stream, path, chunk_bytes)
            rest += block
            cut = rest.rfind(b"\n") + 1 if block else len(rest)
            if block and (cut == 0 or (quotes_closed and rest.count(b'"', 0, cut) % 2)):
                continue
            if cut:
                texts = _split(rest[:cut], path, encoding, first)
                yield Lines(texts, first)
                first += len(texts)
                rest = rest[cut:]
            if not block:
                return


def _read(stream: IO[bytes], path: Path, size: int) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as failure:
        raise DataError(f"{path} is damaged or cut off ({failure}); fetch it again") from None


def _split(block: bytes, path: Path, encoding: str, first: int) -> pl.Series:
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError as failure:
        line = first + block.count(b"\n", 0, failure.start)
        raise DataError.at(
            path, f"text in {encoding}", line=line, value=block[failure.start : failure.start + 8]
        ) from None
    if first == 1:
        text = text.removeprefix("\ufeff")
    text = text.removesuffix("\n")
    return pl.Series("line", [text], dtype=pl.String).str.split("\n").explode().str.strip_suffix("\r")
