"""Pictures of items: drawn for the built-in world, else read from the data's own folder. Nothing is fetched."""

from __future__ import annotations

import threading
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from palate.core.errors import UnknownIdError
from palate.data.sources import WORLDS
from palate.runs import FittedRun

KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
LARGEST = 4 << 20
KEPT = 512
"""Drawn pictures that are remembered; one is about 20 kB."""


class Covers:
    """The pictures of one run's items. ``any`` says whether there may be some."""

    def __init__(self, run: FittedRun) -> None:
        self._run = run
        self._world_name = WORLDS.get(run.plan.data)
        folder = Path(run.plan.data)
        here = "image" in run.items.columns and folder.is_dir()
        self._folder = folder.resolve() if here else None
        self._draw = lru_cache(maxsize=KEPT)(self._drawn)
        self._world: Any = None
        self._making = threading.Lock()

    @property
    def any(self) -> bool:
        return self._world_name is not None or self._folder is not None

    def of(self, row: int) -> tuple[bytes, str]:
        """The picture of an item row of the run's own catalogue, with its media type. Raises ``UnknownIdError``."""
        if row < self._run.items.height:
            if self._world_name is not None:
                return self._draw(row), "image/png"
            if self._folder is not None and (found := self._read(self._folder, row)) is not None:
                return found
        raise UnknownIdError("this item has no picture")

    def _drawn(self, row: int) -> bytes:
        from palate.data.world import world

        with self._making:
            self._world = self._world or world(self._world_name)
        written = BytesIO()
        self._world.cover(row).save(written, "PNG")
        return written.getvalue()

    def _read(self, folder: Path, row: int) -> tuple[bytes, str] | None:
        """A file below the data's folder that its column ``image`` names; None for anything else."""
        named = self._run.items["image"][row]
        if not named:
            return None
        path = (folder / str(named)).resolve()
        kind = KINDS.get(path.suffix.lower())
        if kind is None or not path.is_relative_to(folder) or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_bytes(), kind
