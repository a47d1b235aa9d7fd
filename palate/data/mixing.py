"""How tasks share an epoch: by their examples, by weights, or by their examples evened out.

The last is the temperature of Raffel et al. 2020 (arXiv 1910.10683, 3.5.2): shares follow n^(1/T), so that T = 1 is
proportional to the examples and a large T gives each task the same. A task with fewer examples than its share is gone
through several times, each time in a new order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray


def shares(
    sizes: Mapping[int, int], weights: Mapping[int, float] | None = None, temperature: float = 1.0
) -> dict[int, float]:
    """The share of each task with examples, which are ``sizes`` of them: ``weights`` where they are given (a task
    without one weighs 1), else by size and ``temperature``."""
    known = {task: n for task, n in sizes.items() if n}
    raw = {task: weights.get(task, 1.0) if weights is not None else n ** (1 / temperature) for task, n in known.items()}
    total = sum(raw.values())
    return {task: value / total for task, value in raw.items()} if total else {}


def quotas(parts: npt.ArrayLike, n: int, lot: float = 0.5) -> IntArray:
    """``n`` parted in proportion to ``parts``: whole numbers that sum to ``n``, each less than 1 from its part. Drawn
    ``lot`` between 0 and 1 makes their means the parts themselves (systematic sampling)."""
    ends = n * np.cumsum(np.asarray(parts, dtype=np.float64))
    ends = ends / max(float(ends[-1]), 1e-300) * n if len(ends) else ends
    ends[-1:] = n
    return np.diff(np.floor(np.concatenate([[0.0], ends]) + lot)).astype(np.int64)
