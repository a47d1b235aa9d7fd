"""Speed and memory, each against plain code measured in the same process. ``palate bench`` runs them.

A benchmark is a function ``run(quick: bool) -> list[Result]``; quick shrinks the work so that it only shows that the
benchmark runs and the results agree.
"""

from __future__ import annotations

BENCHMARKS = {
    "sasrec-step": "benchmarks.sasrec_step:run",
    "evaluate": "benchmarks.evaluate:run",
    "load": "benchmarks.load:run",
    "exact-search": "benchmarks.exact_search:run",
    "recommend": "benchmarks.recommend:run",
    "decode": "benchmarks.decode:against_floor",
    "decode-vs-generate": "benchmarks.decode:against_generate",
    "one-reading": "benchmarks.one_reading:run",
    "item-encoding": "benchmarks.item_encoding:run",
    "lite-vs-beam": "benchmarks.lite_vs_beam:run",
    "serving": "benchmarks.serving:run",
    "living-catalogue": "benchmarks.living_catalogue:run",
    "two-tower-serving": "benchmarks.two_tower_serving:run",
}
"""Name → where its function lives. The only list."""
