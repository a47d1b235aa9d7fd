"""What a fit leaves to look at: one JSON line an event, and TensorBoard files when that package is installed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from palate.core.store import write_text

FILE = "log.jsonl"


class TrainingLog:
    """``folder/log.jsonl`` and ``folder/tensorboard``; with ``folder=None`` nothing is written."""

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / FILE
        self.board: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, **figures: object) -> None:
        """One event at ``step``; a number that is not finite is written as null."""
        if self.path is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "at": round(time.time(), 3), **clean}) + "\n")
        if self.board is not None:
            for name, value in clean.items():
                if isinstance(value, (int, float)) and name in ("loss", "valid"):
                    self.board.add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Forget the lines after ``step``: a resumed run writes them again."""
        if self.path is None or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (json.JSONDecodeError, KeyError):
                continue  # the line that a kill cut off
        write_text(self.path, "".join(kept))

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
