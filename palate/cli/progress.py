"""How long work is shown: a live bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from palate.core.run import Progress, Silent

PLAIN_SECONDS = 10.0


def watcher(label: str = "", *, quiet: bool = False) -> Progress:
    """A progress for this process: a bar when stderr is a terminal, else plain lines; silent when asked.

    ``label`` stands before the name of the work, such as the system that learns.
    """
    if quiet:
        return Silent()
    label = f"{label}: " if label else ""
    return Bar(label) if sys.stderr.isatty() else Lines(label)


class Bar:
    """rich's bar with rate, figures such as the loss, and time left."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._bar: Any = None
        self._task: Any = None
        self._figures: dict[str, float] = {}

    def start(self, what: str, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.finish()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[figures]}"), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task(f"{self.label}{what}", total=total, rate="", figures="")
        self._figures = {}

    def advance(self, steps: int = 1, **figures: float) -> None:
        if self._bar is None:
            return
        self._figures |= figures
        speed = self._bar.tasks[0].speed
        self._bar.update(
            self._task, advance=steps, rate=f"{speed:.1f}/s" if speed else "",
            figures="  ".join(f"{name} {value:.4g}" for name, value in self._figures.items()),
        )  # fmt: skip

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Lines:
    """For logs and pipes: one line every ten seconds."""

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._what, self._total, self._done = "", None, 0
        self._figures: dict[str, float] = {}
        self._began = self._said = 0.0

    def start(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done, self._figures = what, total, 0, {}  # type: ignore[assignment]
        self._began = self._said = time.monotonic()

    def advance(self, steps: int = 1, **figures: float) -> None:
        self._done += steps
        self._figures |= figures
        now = time.monotonic()
        if now - self._said < PLAIN_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._began)
        left = f", at most {(self._total - self._done) / rate:.0f} s left" if self._total and rate else ""
        figures_said = "".join(f", {name} {value:.4g}" for name, value in self._figures.items())
        of = f"/{self._total}" if self._total else ""
        print(
            f"{self.label}{self._what}: {self._done}{of}, {rate:.1f}/s{figures_said}{left}", file=sys.stderr, flush=True
        )

    def finish(self) -> None:
        return
