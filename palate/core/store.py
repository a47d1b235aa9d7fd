"""Saved folders: a manifest, settings as JSON, arrays as safetensors, a sub-folder a part. No pickle, ever.

A folder is written aside and renamed, so a killed process leaves the previous one intact. Reading checks the schema,
the class and the checksum of every file before any weight is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from palate.core.config import Config
from palate.core.errors import StoreError

SCHEMA = "palate.store/1"
NO_DATA = "none"
"""The ``fitted_on`` of what was made from pure item text: no interaction was seen."""


class Savable(Protocol):
    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Stored:
    """A folder that passed every check."""

    folder: Path
    kind: str
    fitted_on: str
    config: dict[str, Any]
    facts: dict[str, Any]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        from safetensors.numpy import load_file

        path = self.folder / "arrays.safetensors"
        return load_file(path) if path.exists() else {}

    def part(self, name: str) -> Any:
        """The part that was saved under ``name``, loaded by the class its own manifest names."""
        return load(self.folder / name)


def save(
    folder: str | Path,
    thing: object,
    *,
    config: Config | None = None,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    facts: Mapping[str, Any] | None = None,
    parts: Mapping[str, Savable] | None = None,
    fitted_on: str = NO_DATA,
) -> None:
    """Write ``thing`` into ``folder``, whole or not at all. ``fitted_on`` is the fingerprint of its training data."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_json(aside / "config.json", config.model_dump(mode="json") if config is not None else {})
        write_json(aside / "facts.json", dict(facts or {}))
        if arrays:
            from safetensors.numpy import save_file

            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()}, aside / "arrays.safetensors"
            )
        for name, part in (parts or {}).items():
            part.save(aside / name)
        kind = type(thing)
        manifest = {
            "schema": SCHEMA,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "fitted_on": fitted_on,
            "files": {path.name: _checksum(path) for path in sorted(aside.iterdir()) if path.is_file()},
            "parts": sorted(parts or {}),
        }
        write_json(aside / "manifest.json", manifest)
        replace_folder(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def open_folder(folder: str | Path) -> Stored:
    """Check a saved folder and read its settings; no weight is read yet. Raises ``StoreError`` in one sentence."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, checksum in manifest["files"].items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise StoreError(f"{folder}: the file '{name}' of its manifest is missing; save it again or fetch it anew")
        if _checksum(path) != checksum:
            raise StoreError(f"{folder}: '{name}' is damaged (its checksum differs); save it again or fetch it anew")
    strangers = {path.name for path in folder.iterdir() if path.suffix == ".safetensors"} - set(manifest["files"])
    if strangers:
        raise StoreError(f"{folder}: '{sorted(strangers)[0]}' is not in its manifest")
    return Stored(
        folder=folder,
        kind=manifest["class"],
        fitted_on=manifest["fitted_on"],
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        facts=json.loads((folder / "facts.json").read_text(encoding="utf-8")),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved folder. Raises ``StoreError`` when there is none or it is not ours."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise StoreError(f"{folder} is not a saved Palate folder: it has no manifest.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as failure:
        raise StoreError(f"{path} is damaged: {failure}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise StoreError(f"{path}: schema {found!r} is not {SCHEMA!r}; this folder was not written by this Palate")
    missing = {"class", "fitted_on", "files"} - set(manifest)
    if missing or not isinstance(manifest["files"], dict) or not isinstance(manifest["class"], str):
        raise StoreError(f"{path} is damaged: {', '.join(sorted(missing)) or 'an entry has the wrong type'}")
    return manifest


def load(folder: str | Path) -> Any:
    """The system, tokenizer or vectors saved in ``folder``. Only classes inside this package are ever loaded."""
    folder = Path(folder)
    kind = read_manifest(folder)["class"]
    module, _, name = kind.partition(":")
    if not module.startswith("palate.") or not name.isidentifier():
        raise StoreError(f"{folder}: refuses to load '{kind}', which is not part of Palate")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise StoreError(f"{folder}: '{kind}' is not part of this Palate") from None
    if not callable(getattr(found, "load", None)):
        raise StoreError(f"{folder}: '{kind}' is nothing that can be loaded")
    return found.load(folder)


def write_json(path: Path, content: object) -> None:
    """Readable JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename: a killed process or a full disk leaves the previous file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def replace_folder(aside: Path, folder: Path) -> None:
    """Put the finished folder ``aside`` where ``folder`` is or will be."""
    if not folder.exists():
        os.replace(aside, folder)
        return
    if not (folder.is_dir() and ((folder / "manifest.json").exists() or not any(folder.iterdir()))):
        raise StoreError(f"{folder} holds something else; choose another folder")
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    os.rmdir(old)
    os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
