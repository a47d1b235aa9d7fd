"""How one run goes: seed, device, precision, progress, budget, where to write. Never part of a model's settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable


class Progress(Protocol):
    """Somebody who watches long work."""

    def start(self, what: str, total: int | None) -> None:
        """Work named ``what`` of ``total`` steps begins."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """``steps`` are done; ``figures`` such as ``loss=…`` are shown beside the bar."""

    def finish(self) -> None:
        """The work that ``start`` named is over."""


@runtime_checkable
class Watched(Protocol):
    """A part that does long work of its own within a fit, and tells ``progress`` of it."""

    progress: Progress


class Silent:
    """Nobody watches."""

    def start(self, what: str, total: int | None) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class Run:
    """seed: every random choice follows from it. folder: None writes nothing. max_steps: stop early, for checks.
    checkpoint_seconds: work that a kill may cost."""

    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    budget_seconds: float | None = None
    max_steps: int | None = None
    folder: Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 20.0
    progress: Progress = field(default_factory=Silent)

    def inside(self, part: str, share: float = 1.0) -> Run:
        """The same run for a part that learns by itself, with a folder of its own and at most a ``share`` of the
        budget."""
        folder = None if self.folder is None else self.folder / part
        budget = None if self.budget_seconds is None else share * self.budget_seconds
        return replace(self, folder=folder, budget_seconds=budget)
