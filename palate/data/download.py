"""Files over HTTP: resumed where they were cut off, checked, and put in place only when whole.

A download lies beside its place as ``<name>.part`` with the validator of its first answer in ``<name>.part.json``.
It is continued with ``Range`` and ``If-Range``, so a file that changed on the server starts anew, as it does where the
server ignores ``Range``. A checksum that is not known is recorded at the first download, in ``checksums.json``.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import DownloadError
from palate.core.run import Progress, Silent
from palate.core.store import write_json

CHUNK_BYTES = 1 << 18
RECORDED = "checksums.json"
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be better a moment later."""


@dataclass(frozen=True)
class Patience:
    """How long to try. tries: attempts without any progress; wait_seconds: before the second, doubled each time."""

    tries: int = 5
    wait_seconds: float = 1.0
    timeout_seconds: float = 30.0


class _PassingError(Exception):
    """The connection failed in a way that another attempt may mend."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    patience: Patience = Patience(),
) -> Path:
    """The file at ``url``, whole and checked, at ``path``. A file that is there already is not fetched again.

    sha256: what it must be; None = what was recorded at an earlier download, else it is recorded now.
    Raises ``DownloadError`` in one sentence; ``path`` is never touched by a failed download.
    """
    if path.exists():
        return path
    progress = progress or Silent()
    path.parent.mkdir(parents=True, exist_ok=True)
    part, notes = _beside(path)
    failures = 0
    progress.start(f"download {path.name}", None)
    try:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                _fetch(url, part, notes, progress, patience.timeout_seconds)
                break
            except _PassingError as problem:
                grew = part.exists() and part.stat().st_size > before
                failures = 1 if grew else failures + 1
                if failures >= patience.tries:
                    raise DownloadError(
                        f"{url}: {problem}, after {failures} tries; what has come is kept, ask again to go on"
                    ) from None
                time.sleep(patience.wait_seconds * 2 ** (failures - 1))
    finally:
        progress.finish()
    _accept(url, path, part, notes, sha256)
    return path


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")


def _fetch(url: str, part: Path, notes: Path, progress: Progress, timeout: float) -> None:
    """One attempt: append what is missing to ``part``. Returns when the file is whole."""
    have = part.stat().st_size if part.exists() else 0
    validator = _validator(notes) if have else None
    request = urllib.request.Request(url, headers={"User-Agent": "palate", "Accept-Encoding": "identity"})
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            resumed = answer.status == 206 and _starts_at(answer) == have
            if not resumed:
                write_json(notes, {"validator": answer.headers.get("ETag") or answer.headers.get("Last-Modified")})
            _write(answer, part, have if resumed else 0, progress)
    except urllib.error.HTTPError as failure:
        if failure.code == 416 and have:
            # The server has nothing beyond what is here: either it is whole, or it is another file.
            if failure.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise _PassingError("the part that was here does not belong to the file") from None
        if failure.code in _PASSING:
            raise _PassingError(f"the server answers {failure.code} {failure.reason}") from None
        raise DownloadError(f"{url}: the server answers {failure.code} {failure.reason}") from None
    except urllib.error.URLError as failure:
        raise _PassingError(f"no connection ({failure.reason})") from None
    except (OSError, http.client.HTTPException) as failure:
        if isinstance(failure, OSError) and failure.errno is not None and failure.filename is not None:
            raise DownloadError(f"{part}: cannot be written: {failure.strerror}") from None
        raise _PassingError(f"the connection broke ({failure})") from None


def _validator(notes: Path) -> str | None:
    """What the server called the file that ``part`` began with; a weak ETag cannot promise equal bytes."""
    try:
        found = json.loads(notes.read_text(encoding="utf-8")).get("validator")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) and not found.startswith("W/") else None


def _starts_at(answer: Any) -> int | None:
    """The first byte of a partial answer: ``Content-Range: bytes 100-199/200``."""
    unit, _, span = (answer.headers.get("Content-Range") or "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _write(answer: Any, part: Path, have: int, progress: Progress) -> None:
    length = answer.headers.get("Content-Length")
    expected = have + int(length) if length and length.isdigit() else None
    with part.open("r+b" if have else "wb") as stream:
        stream.seek(have)
        stream.truncate()
        written = have
        while block := answer.read(CHUNK_BYTES):
            try:
                stream.write(block)
            except OSError as failure:
                raise DownloadError(f"{part}: cannot be written: {failure.strerror}") from None
            written += len(block)
            progress.advance(len(block), megabytes=written / 1e6)
        stream.flush()
        os.fsync(stream.fileno())
    if expected is not None and written < expected:
        raise _PassingError(f"cut off after {written:,} of {expected:,} bytes")


def _accept(url: str, path: Path, part: Path, notes: Path, sha256: str | None) -> None:
    """Check the whole file and put it in place; a wrong one is thrown away."""
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    recorded = _recorded(path.parent)
    wanted = sha256 or recorded.get(url)
    if wanted is not None and found != wanted:
        part.unlink()
        notes.unlink(missing_ok=True)
        raise DownloadError(f"{url}: the file's checksum is {found[:16]}… and not {wanted[:16]}…; it was thrown away")
    write_json(path.parent / RECORDED, {**recorded, url: found})
    os.replace(part, path)
    notes.unlink(missing_ok=True)


def _recorded(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / RECORDED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
