"""The own format: a folder with ``interactions.parquet``, ``items.parquet``, ``users.parquet`` and ``dataset.toml``.

The events name users and items by their outside ids, in the order of histories, so the folder can be read by anything
that reads Parquet. It is written aside and renamed: a killed process or a full disk leaves what was there. Reading
checks every file's checksum before a row is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from palate.core.dataset import About, Clock, Dataset
from palate.core.errors import DataError

SCHEMA = "palate.dataset/1"
MANIFEST = "dataset.toml"
_TABLES = ("interactions", "items", "users")


def is_folder(path: Path) -> bool:
    """Whether ``path`` claims to be in the own format."""
    return (path / MANIFEST).is_file()


def write_folder(dataset: Dataset, folder: str | Path) -> Path:
    """Write the dataset whole or not at all. Replaces an earlier dataset, and nothing else."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and (is_folder(folder) or not any(folder.iterdir()))):
        raise DataError(f"{folder} holds something else; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        events = dataset.interactions
        named = events.select(
            user=dataset.users["user"].gather(events["user_row"]),
            item=dataset.items["item"].gather(events["item_row"]),
        )
        tables = {
            "interactions": named.hstack(events.drop("user_row", "item_row")),
            "items": dataset.items,
            "users": dataset.users,
        }
        for name, table in tables.items():
            table.write_parquet(aside / f"{name}.parquet")
        (aside / MANIFEST).write_text(_toml(dataset, aside), encoding="utf-8")
        for path in aside.iterdir():
            _flush(path)
        _put(aside, folder)
    except OSError as failure:
        raise DataError(f"{folder} cannot be written: {failure.strerror or failure}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def read_folder(folder: str | Path) -> Dataset:
    """The dataset that was written there, equal in every table. Raises ``DataError`` when a file is damaged."""
    folder = Path(folder)
    manifest = _manifest(folder)
    for name, checksum in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{folder}: the file '{name}' of its {MANIFEST} is missing; convert the data again")
        if _checksum(path) != checksum:
            raise DataError(f"{folder}: '{name}' is damaged (its checksum differs); convert the data again")
    tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
    events = tables["interactions"]
    rows = {}
    for kind in ("user", "item"):
        ids = tables[f"{kind}s"][kind]
        places = pl.DataFrame({kind: ids, "row": np.arange(len(ids), dtype=np.int32)})
        found = events.select(kind).join(places, on=kind, how="left", maintain_order="left")["row"]
        if found.null_count():
            stranger = events[kind][int(found.is_null().arg_true()[0])]
            raise DataError(
                f"{folder}: interactions.parquet names the {kind} '{stranger}', which {kind}s.parquet lacks"
            )
        rows[f"{kind}_row"] = found
    table = pl.DataFrame(rows).hstack(events.drop("user", "item"))
    about = manifest.get("about", {})
    known = {field.name for field in fields(About)}
    said: dict[str, Any] = {
        key: tuple(value) if key == "notes" else value for key, value in about.items() if key in known
    }
    return Dataset(
        manifest["name"], table, tables["items"], tables["users"], manifest["time"], replace(About(), **said)
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise DataError(f"{path} cannot be opened: {failure.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise DataError(f"{path} is damaged: {failure}") from None
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {manifest.get('schema')!r} is not {SCHEMA!r}")
    wanted = {f"{name}.parquet" for name in _TABLES}
    if set(manifest.get("files", ())) != wanted or not isinstance(manifest.get("name"), str):
        raise DataError(f"{path} is damaged: it must have a name and list the files {', '.join(sorted(wanted))}")
    if manifest.get("time") not in get_args(Clock):
        raise DataError(f"{path}: time = {manifest.get('time')!r}, expected one of {', '.join(get_args(Clock))}")
    return manifest


def _toml(dataset: Dataset, aside: Path) -> str:
    """Readable TOML. A JSON string without raw control characters is a TOML basic string as well."""
    about = asdict(dataset.about)
    lines = [
        f"schema = {_text(SCHEMA)}",
        f"name = {_text(dataset.name)}",
        "# unix = exact moments, day = dates only, order = only the order is known",
        f"time = {_text(dataset.clock)}",
        f"users = {dataset.n_users}",
        f"items = {dataset.n_items}",
        f"events = {dataset.n_interactions}",
        "",
        "[about]",
    ]
    for key, value in about.items():
        if isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        elif isinstance(value, (tuple, list)):
            lines.append(f"{key} = [{', '.join(_text(entry) for entry in value)}]")
        else:
            lines.append(f"{key} = {_text(value)}")
    lines += ["", "[files]"]
    lines += [f"{_text(f'{name}.parquet')} = {_text(_checksum(aside / f'{name}.parquet'))}" for name in _TABLES]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _put(aside: Path, folder: Path) -> None:
    """Put the finished folder in place; an earlier one moves aside first and is removed last."""
    if not folder.exists():
        os.replace(aside, folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rmdir(old)
    os.replace(folder, old)
    try:
        os.replace(aside, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
