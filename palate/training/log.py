"""What a fit leaves to look at: one JSON line an event, and TensorBoard files when that package is installed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from palate.core.store import write_text

FILE = "log.jsonl"
BOARD = "tensorboard"


class TrainingLog:
    """``folder/log.jsonl`` and ``folder/tensorboard``; with ``folder=None`` nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.lines = 0
        self.board: Any = None

    def begin(self, lines: int = 0, step: int = 0) -> None:
        """Keep the first so many lines and nothing after ``step``: a resumed run writes the rest again."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if path.exists() else []
        write_text(path, "".join(kept))
        self.lines = len(kept)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(self.folder / BOARD), purge_step=step + 1)

    def write(self, step: int, **figures: object) -> None:
        """One event at ``step``; a number that is not finite is written as null."""
        if self.folder is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        self.lines += 1
        with (self.folder / FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "at": round(time.time(), 3), **clean}) + "\n")
        if self.board is not None:
            for name, value in clean.items():
                if isinstance(value, (int, float)) and name in ("loss", "valid"):
                    self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the TensorBoard file."""
        if self.board is not None:
            self.board.close()
