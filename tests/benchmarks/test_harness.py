"""The harness itself: what it counts as the reference, and the references against each other."""

from __future__ import annotations

import json
import time
from importlib import import_module

import numpy as np
import pytest

from benchmarks import BENCHMARKS, references
from benchmarks.harness import Result, as_json, compare, peak_memory


def test_the_fastest_reference_counts() -> None:
    def slow() -> None:
        time.sleep(0.03)

    def fast() -> None:
        time.sleep(0.002)

    line = compare("naps", lambda: time.sleep(0.01), {"slow": slow, "fast": fast}, repeats=3)
    assert line.reference.startswith("fast (matmul ")
    assert line.reference_seconds < 0.03
    assert line.ratio == line.seconds / line.reference_seconds > 1


def test_a_ratio_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is not"):
        Result("wrong", 0.5, "plain", 2.0, 1.0, 1.0)


def test_json_has_the_six_fields() -> None:
    written = json.loads(as_json([Result("a", 0.5, "plain", 1.0, 2.0, 3.0)]))
    assert written == {
        "schema": "palate.bench/1",
        "results": [
            {"name": "a", "ratio": 0.5, "reference": "plain", "seconds": 1.0, "reference_seconds": 2.0, "peak_mb": 3.0}
        ],
    }


def test_peak_memory_sees_what_was_freed_again() -> None:
    quiet = peak_memory(lambda: None)
    loud = peak_memory(lambda: np.ones(16 << 20).sum())
    assert loud > quiet + 100


def test_references_agree_with_each_other() -> None:
    rng = np.random.default_rng(0)
    queries, items = rng.standard_normal((2, 700, 8)).astype(np.float32)
    targets, left_out = rng.integers(0, 700, 700), rng.integers(0, 700, (700, 5))
    first = references.count_ranks_numpy(queries, items, targets, left_out, chunk=100)
    second = references.count_ranks_torch(queries, items, targets, left_out, chunk=256)
    assert np.abs(first - second).max() <= 1
    rows, scores = references.top_k_stable(queries[:9], items, 10)
    calls = references.search_calls(queries[:9], items, 10)
    assert len(calls) >= 2
    for call in calls.values():
        found, best = call()
        np.testing.assert_array_equal(found, rows)
        np.testing.assert_allclose(best, scores, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_runs_and_its_results_agree(name: str) -> None:
    module, _, function = BENCHMARKS[name].partition(":")
    for line in getattr(import_module(module), function)(quick=True):
        assert line.seconds > 0
        assert line.peak_mb > 0
