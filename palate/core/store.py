"""Saved folders: a manifest, settings as JSON, arrays as safetensors, a sub-folder a part. No pickle, ever.

A folder is written aside and renamed, so a killed process leaves the previous one intact. Reading checks the schema,
the class and the checksum of every file, those of its parts included, before any weight is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from palate.core.config import Config, configure
from palate.core.errors import StoreError, nearest

T = TypeVar("T")
SCHEMA = "palate.store/1"
NO_DATA = "none"
"""The ``fitted_on`` of what was made from pure item text: no interaction was seen."""

SETTINGS = ("config.json", "facts.json")
"""Files that every saved folder has."""

_ENTRIES = {"class": str, "fitted_on": str, "files": dict, "parts": dict}


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
    parts: tuple[str, ...] = ()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        from safetensors.numpy import load_file

        path = self.folder / "arrays.safetensors"
        return load_file(path) if path.exists() else {}

    def part(self, name: str) -> Any:
        """The part that was saved under ``name``, loaded by the class its own manifest names."""
        if name not in self.parts:
            raise StoreError(f"{self.folder} holds no part '{name}'{nearest(name, self.parts)}")
        return load(self.folder / name)

    def begun(self, kind: Callable[..., T]) -> T:
        """A ``kind`` with the saved settings and parts: what its arrays and facts are then put into."""
        config_type: type[Config] = kind.config_type  # type: ignore[attr-defined]
        config, parts = configure(config_type, self.config), {name: self.part(name) for name in self.parts}
        try:
            return kind(config, **parts)
        except TypeError as failure:  # a part is missing, or is none of its
            raise StoreError(f"{self.folder} does not hold the parts of what it says it is: {failure}") from failure


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
    aside = _beside(folder)
    try:
        aside.mkdir(parents=True)
        write_json(aside / "config.json", config.model_dump(mode="json") if config is not None else {})
        write_json(aside / "facts.json", dict(facts or {}))
        if arrays:
            _write_arrays(aside / "arrays.safetensors", arrays)
        for name, part in (parts or {}).items():
            part.save(aside / name)
        kind = type(thing)
        manifest = {
            "schema": SCHEMA,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "fitted_on": fitted_on,
            "files": {path.name: _checksum(path) for path in sorted(aside.iterdir()) if path.is_file()},
            "parts": {name: _checksum(aside / name / "manifest.json") for name in sorted(parts or {})},
        }
        write_json(aside / "manifest.json", {**manifest, "checksum": _seal(manifest)})
        replace_folder(aside, folder)
    except OSError as failure:
        raise _not_written(folder, failure) from failure
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def open_folder(folder: str | Path) -> Stored:
    """Check a saved folder and read its settings; no weight is read yet. Raises ``StoreError`` in one sentence."""
    folder = Path(folder)
    manifest = _check(folder)
    settings = {}
    for name in SETTINGS:
        try:
            settings[name] = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as failure:
            raise StoreError(f"{folder / name} is damaged: {failure}") from None
        if not isinstance(settings[name], dict):
            raise StoreError(f"{folder / name} is damaged: it does not hold a mapping")
    return Stored(
        folder=folder,
        kind=manifest["class"],
        fitted_on=manifest["fitted_on"],
        config=settings["config.json"],
        facts=settings["facts.json"],
        parts=tuple(manifest["parts"]),
    )


def _check(folder: Path) -> dict[str, Any]:
    """The manifest, after every file and every part was held against it."""
    manifest = read_manifest(folder)
    files, parts = manifest["files"], manifest["parts"]
    for name in (*SETTINGS, *files):
        path = folder / name
        if name not in files or Path(name).name != name or not path.is_file():
            raise StoreError(f"{folder}: the file '{name}' of its manifest is missing; save it again or fetch it anew")
        if _checksum(path) != files[name]:
            raise StoreError(f"{folder}: '{name}' is damaged (its checksum differs); save it again or fetch it anew")
    strangers = {path.name for path in folder.iterdir() if path.suffix == ".safetensors"} - set(files)
    if strangers:
        raise StoreError(f"{folder}: '{sorted(strangers)[0]}' is not in its manifest")
    for name, checksum in parts.items():
        path = folder / name / "manifest.json"
        if Path(name).name != name or not path.is_file() or _checksum(path) != checksum:
            raise StoreError(f"{folder}: its part '{name}' is missing or another; save it again or fetch it anew")
        _check(folder / name)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved folder. Raises ``StoreError`` when there is none or it is not ours."""
    _finish_replacing(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        raise StoreError(f"{folder} is not a saved Palate folder: it has no manifest.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as failure:
        raise StoreError(f"{path} is damaged: {failure}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise StoreError(f"{path}: schema {found!r} is not {SCHEMA!r}; this folder was not written by this Palate")
    for entry, kind in _ENTRIES.items():
        if not isinstance(manifest.get(entry), kind):
            raise StoreError(f"{path} is damaged: its entry '{entry}' is missing or of the wrong type")
    if _seal(manifest) != manifest.get("checksum"):
        raise StoreError(f"{path} is damaged (its checksum differs); save it again or fetch it anew")
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
    # A module may hold others under its own name (np, json): only a class that lives there counts.
    reader = getattr(found, "load", None)
    if not (isinstance(found, type) and found.__module__ == module and callable(reader)):
        raise StoreError(f"{folder}: '{kind}' is nothing that can be loaded")
    return reader(folder)


def write_json(path: Path, content: object) -> None:
    """Readable JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename: a killed process or a full disk leaves the previous file."""
    aside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except OSError as failure:
        raise _not_written(path, failure) from failure
    finally:
        aside.unlink(missing_ok=True)


def replace_folder(aside: Path, folder: Path) -> None:
    """Put the finished folder ``aside`` where ``folder`` is or will be."""
    _finish_replacing(folder)
    if not folder.exists():
        os.replace(aside, folder)
        return
    if not (folder.is_dir() and ((folder / "manifest.json").exists() or not any(folder.iterdir()))):
        raise StoreError(f"{folder} holds something else; choose another folder")
    old = _old(folder)
    os.replace(folder, old)
    os.replace(aside, folder)
    shutil.rmtree(old, ignore_errors=True)


def _finish_replacing(folder: Path) -> None:
    """Folders cannot be exchanged in one step: after a kill between the two renames, the previous one comes back."""
    old = _old(folder)
    if old.is_dir():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, folder)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")


def _beside(path: Path) -> Path:
    """A new hidden name in the same directory, so that a rename moves no bytes."""
    return path.with_name(f".{path.name}-{secrets.token_hex(6)}")


def _not_written(path: Path, failure: OSError) -> StoreError:
    return StoreError(f"cannot write {path}: {failure.strerror or failure}; what was there before is untouched")


def _write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as failure:  # a full disk
        raise OSError(str(failure)) from failure


def _seal(manifest: Mapping[str, Any]) -> str:
    """The checksum of a manifest, its own entry apart."""
    content = {entry: value for entry, value in manifest.items() if entry != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
