"""Fair timing: two ways to the same answer, interleaved in one process, medians, and the matmul rate of the same run.

Nothing here knows Palate. The number of threads is that of the process (``python -m benchmarks`` sets two).
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

SCHEMA = "palate.bench/1"
REPEATS = 7

Call = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """One line of ``palate bench``. ``ratio`` = seconds / reference_seconds, always: below 1 is faster.

    reference   which plain code, and how fast it ran beside the matmul rate of the same run
    peak_mb     the most memory the process held while our side ran (MB, data included)
    """

    name: str
    ratio: float
    reference: str
    seconds: float
    reference_seconds: float
    peak_mb: float

    def __post_init__(self) -> None:
        if abs(self.ratio * self.reference_seconds - self.seconds) > 1e-3 * self.seconds:
            raise ValueError(f"{self.name}: ratio {self.ratio} is not {self.seconds} / {self.reference_seconds}")


class DisagreementError(Exception):
    """Two ways that must give equal results do not; then no time means anything."""


def must(agrees: object, what: str) -> None:
    """Raise ``DisagreementError`` unless ``agrees``: checked also where asserts are switched off."""
    if not agrees:
        raise DisagreementError(what)


def compare(
    name: str, ours: Call, references: Mapping[str, Call], *, repeats: int = REPEATS, gflop: float | None = None
) -> Result:
    """Time ``ours`` against the fastest of the references: medians of ``repeats`` interleaved rounds.

    gflop   the matmul work inside (10⁹ operations), which puts each reference's rate beside a bare matmul's, so that
            a slow reference shows
    """
    calls = {"": ours, **references}
    peak_mb = peak_memory(ours)
    for call in references.values():
        call()
    taken: dict[str, list[float]] = {key: [] for key in calls}
    order = list(calls)
    for i in range(repeats):
        for key in order[i % len(order) :] + order[: i % len(order)]:
            taken[key].append(timed(calls[key]))
    seconds = {key: statistics.median(times) for key, times in taken.items()}
    fastest = min(references, key=lambda key: seconds[key])
    return result(name, seconds[""], fastest, seconds[fastest], peak_mb=peak_mb, gflop=gflop)


def result(
    name: str, seconds: float, reference: str, reference_seconds: float, *, peak_mb: float, gflop: float | None = None
) -> Result:
    """A ``Result`` whose reference says its rate beside the matmul rate of this run."""
    rate = f", {gflop / reference_seconds:.0f} GFLOP/s" if gflop else ""
    said = f"{reference}{rate} (matmul {matmul_rate():.0f} GFLOP/s)"
    return Result(name, seconds / reference_seconds, said, seconds, reference_seconds, peak_mb)


def timed(call: Call) -> float:
    """Seconds of one call."""
    # Worker threads of the call before may still be spinning; the next one should not pay for them.
    time.sleep(0.02)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@cache
def matmul_rate(size: int = 1536) -> float:
    """GFLOP/s of a square float32 matmul in this run: the better of NumPy and torch, best of seven."""
    import torch

    left = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    out = np.empty_like(left)
    left_tensor, out_tensor = torch.from_numpy(left), torch.from_numpy(out)
    taken = [timed(lambda: np.matmul(left, left, out=out)) for _ in range(REPEATS)]
    taken += [timed(lambda: torch.mm(left_tensor, left_tensor, out=out_tensor)) for _ in range(REPEATS)]
    return 2 * size**3 / min(taken) / 1e9


def peak_memory(call: Call) -> float:
    """MB the process held at most while ``call`` ran; where the high-water mark cannot be reset, until now."""
    mark = Path("/proc/self/clear_refs")
    try:
        mark.write_text("5")
    except OSError:
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    call()
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def as_dict(results: Sequence[Result]) -> dict[str, object]:
    """The schema ``palate.bench/1``."""
    return {"schema": SCHEMA, "results": [asdict(line) for line in results]}


def as_json(results: Sequence[Result]) -> str:
    return json.dumps(as_dict(results), indent=2) + "\n"


def as_line(line: Result) -> str:
    return (
        f"{line.name}: ratio {line.ratio:.2f} = {line.seconds * 1e3:,.2f} ms / {line.reference_seconds * 1e3:,.2f} ms "
        f"against {line.reference}; {line.peak_mb:,.0f} MB"
    )
