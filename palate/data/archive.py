"""Archives unpacked with care: nothing outside the folder, no links, no devices, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from palate.core.errors import DataError

MAX_BYTES = 64 << 30
"""More than the largest public set unpacked; an archive that claims more is a trap."""


def extract(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar file into ``folder``, which must not exist. One folder around everything is taken off.

    Raises ``DataError`` before anything is written when a name would leave the folder or is no plain file.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, aside)
        elif tarfile.is_tarfile(archive):
            _untar(archive, aside)
        else:
            raise DataError(f"{archive} is neither a zip nor a tar file; fetch it again")
        os.replace(_inner(aside), folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as failure:
        raise DataError(f"{archive} is damaged ({failure}); fetch it again") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _inner(aside: Path) -> Path:
    """The only folder at the top, else the top itself."""
    entries = [entry for entry in aside.iterdir() if entry.name != "__MACOSX"]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else aside


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        for entry in entries:
            # The upper half of these bits is the Unix mode; a link there would be followed by later entries.
            if (entry.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"{archive}: '{entry.filename}' is a link; refused")
            _check(archive, entry.filename)
        _check_size(archive, sum(entry.file_size for entry in entries))
        for entry in entries:
            if entry.is_dir():
                continue
            with packed.open(entry) as source:
                _write(source, folder, entry.filename)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        members = packed.getmembers()
        for member in members:
            if not (member.isfile() or member.isdir()):
                raise DataError(f"{archive}: '{member.name}' is no plain file; refused")
            _check(archive, member.name)
        _check_size(archive, sum(member.size for member in members))
        for member in members:
            source = packed.extractfile(member)
            if source is not None:
                with source:
                    _write(source, folder, member.name)


def _write(source: IO[bytes], folder: Path, name: str) -> None:
    """Only the bytes: no owner, no rights, no times of the archive."""
    target = folder / PurePosixPath(name.replace("\\", "/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def _check(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or drive or ".." in path.parts:
        raise DataError(f"{archive}: '{name}' would be written outside the folder; refused")


def _check_size(archive: Path, n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise DataError(f"{archive} would unpack to {n_bytes >> 30:,} GiB; refused")
