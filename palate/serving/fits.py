"""Fits in a folder, finished or under way: what each is, and its log while it is written."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from palate.core.errors import UnknownIdError, nearest
from palate.systems import TABLE
from palate.training.log import FILE

State = Literal["finished", "learning", "quiet"]

MOST = 200
"""Fits that are listed, the newest first."""
LINES = 2000
"""Lines of a log that one answer holds."""
QUIET_SECONDS = 120.0
"""An unfinished fit that has written nothing for so long may have been stopped."""
TITLES = {row.name: row.title for row in TABLE}
_NUMBERS = ("loss", "valid", "seconds", "best")


@dataclass(frozen=True)
class FitCard:
    """One fit. ``learning`` wrote something in the last two minutes; ``quiet`` did not and is not finished.

    began, changed  seconds since 1970
    epochs          the most it may take; None where it learns in one go
    """

    name: str
    system: str
    title: str
    data: str
    state: State
    began: float
    changed: float
    seeds: list[int]
    epochs: int | None
    served: bool


@dataclass(frozen=True)
class LogLine:
    """One line of a training log: an epoch with its loss, a look at validation, or the end."""

    step: int
    at: float
    epoch: int | None = None
    loss: float | None = None
    valid: float | None = None
    seconds: float | None = None
    best: float | None = None
    stopped: str | None = None


@dataclass(frozen=True)
class FitLog:
    """Lines from ``first`` on; ask again with ``after=next``.

    ``began`` is the time of the first line of all, None while there is none: where it is another than before, the log
    was begun anew and is asked from 0. A log that has become shorter starts again from 0 by itself.
    """

    fit: str
    seed: int
    state: State
    began: float | None
    first: int
    next: int
    lines: list[LogLine]


class Fits:
    """The fits whose folders lie in ``folder``. Names are compared with what lies there and never become a path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cards(self, served: set[Path]) -> list[FitCard]:
        """The newest fits; ``served`` are the real folders of the runs that answer here."""
        found = [self._card(name, folder, served) for name, folder in self._folders().items()]
        return sorted((card for card in found if card), key=lambda card: (-card.changed, card.name))[:MOST]

    def log(self, name: str, seed: int | None, after: int) -> FitLog:
        """The log of a fit's seed (the newest where None) from line ``after`` on. Raises ``UnknownIdError``."""
        folders = self._folders()
        if name not in folders:
            raise UnknownIdError(f"there is no fit '{name[:80]}' here{nearest(name, folders)[:120]}")
        folder = folders[name]
        seeds = _seeds(folder)
        if seed is None:
            seed = seeds[-1] if seeds else 0
        path = folder / f"seed-{seed}-training" / FILE
        try:
            written = path.read_text(encoding="utf-8", errors="replace").splitlines() if seed in seeds else []
        except OSError:
            written = []
        first = after if after <= len(written) else 0
        read = [_line(text) for text in written[first : first + LINES]]
        end = first + len(read)
        if read and read[-1] is None and end == len(written):
            end -= 1  # half a line: it is being written and is whole next time
        top = _line(written[0]) if written else None
        began = None if top is None else top.at
        return FitLog(name, seed, _state(folder), began, first, end, [line for line in read if line is not None])

    def _folders(self) -> dict[str, Path]:
        try:
            return {one.name: one for one in sorted(self._folder.iterdir()) if (one / "plan.json").is_file()}
        except OSError:
            return {}

    def _card(self, name: str, folder: Path, served: set[Path]) -> FitCard | None:
        try:
            plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
            system, training = str(plan["system"]), plan.get("config", {}).get("training")
            epochs = training.get("epochs") if isinstance(training, dict) else None
            return FitCard(
                name, system, TITLES.get(system, system), _name_of(str(plan["data"])), _state(folder),
                (folder / "plan.json").stat().st_mtime, _changed(folder), _seeds(folder),
                epochs if isinstance(epochs, int) else None, folder.resolve() in served,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None  # being written, or no plan of ours


def _name_of(data: str) -> str:
    """The last part of a path: where files lie on this machine is nobody's business."""
    return data.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _seeds(folder: Path) -> list[int]:
    """Seeds whose training has begun."""
    names = (path.name.removeprefix("seed-").removesuffix("-training") for path in folder.glob("seed-*-training"))
    return sorted(int(name) for name in names if name.isdigit())


def _changed(folder: Path) -> float:
    written = [
        folder / "plan.json",
        folder / "run.json",
        *folder.glob("seed-*"),
        *folder.glob(f"seed-*-training/{FILE}"),
    ]
    times = []
    for path in written:
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def _state(folder: Path) -> State:
    if (folder / "run.json").is_file():
        return "finished"
    return "learning" if time.time() - _changed(folder) < QUIET_SECONDS else "quiet"


def _line(text: str) -> LogLine | None:
    try:
        said: dict[str, Any] = json.loads(text)
        numbers = {key: said[key] for key in _NUMBERS if isinstance(said.get(key), (int, float))}
        epoch = said.get("epoch")
        stopped = said.get("stopped")
        return LogLine(
            int(said["step"]), float(said["at"]), epoch if isinstance(epoch, int) else None,
            stopped=str(stopped) if stopped else None, **numbers,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
