"""What a fit costs: seconds, peak memory, parameters."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from palate.core import store
from palate.core.config import Config
from palate.core.protocols import Recommender


class Cost(Config):
    """fit_seconds: wall clock of ``fit``, looks at validation included. peak_mb: the process's peak while fitting."""

    fit_seconds: float
    peak_mb: float
    parameters: int

    @staticmethod
    def over_seeds(costs: Sequence[Cost]) -> dict[str, float]:
        """Mean seconds of a seed, the highest peak, the parameters of one system."""
        return {
            "fit_seconds": round(sum(cost.fit_seconds for cost in costs) / len(costs), 3),
            "peak_mb": max(cost.peak_mb for cost in costs),
            "parameters": max(cost.parameters for cost in costs),
        }


class Watch:
    """Seconds and peak memory between the beginning and the end of a ``with watched()``."""

    def __init__(self) -> None:
        _forget_peak()
        self.started = time.monotonic()
        self.seconds = self.peak_mb = 0.0

    def stop(self) -> None:
        self.seconds = time.monotonic() - self.started
        self.peak_mb = peak_mb()

    def cost(self, recommender: Recommender, folder: Path) -> Cost:
        """The cost of the system that was fitted meanwhile and saved in ``folder``.

        A fit that was resumed counts the seconds before the interruption too: training remembers them.
        """
        training = getattr(recommender, "facts", {}).get("training", {})
        seconds = max(self.seconds, float(training.get("seconds", 0.0)))
        return Cost(
            fit_seconds=round(seconds, 3), peak_mb=round(self.peak_mb, 1), parameters=parameters(recommender, folder)
        )


@contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch()
    try:
        yield watch
    finally:
        watch.stop()


def peak_mb() -> float:
    """Peak resident memory of this process in MB (10^6 bytes), since the last ``Watch`` began where Linux tells."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def parameters(recommender: Recommender, folder: Path) -> int:
    """Learnt numbers: those of the network, else of the arrays that were saved in ``folder``."""
    network = getattr(recommender, "network", None)
    if network is not None:
        return sum(tensor.numel() for tensor in network.parameters())
    return sum(array.size for array in store.open_folder(folder).arrays().values())


def warm_up(recommender: Recommender) -> None:
    """Load what the first gradient fit of a process would otherwise load on its own bill."""
    if hasattr(recommender, "network"):
        import torch

        torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
        try:
            import torch.utils.tensorboard
        except ImportError:
            return


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux: the peak of the whole process stands
