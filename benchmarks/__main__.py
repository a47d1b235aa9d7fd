"""One benchmark in this process: ``python -m benchmarks NAME [--quick] [--json F]``. Threads are set before anything
that counts them is loaded."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path

from benchmarks import BENCHMARKS

THREADS = 2
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[variable] = str(THREADS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="shrink the work: only shows that it runs and agrees")
    parser.add_argument("--json", type=Path, default=None, help="write palate.bench/1 here")
    chosen = parser.parse_args()
    module, _, function = BENCHMARKS[chosen.name].partition(":")
    results = getattr(import_module(module), function)(quick=chosen.quick)

    from benchmarks.harness import as_json, as_line

    for result in results:
        print(as_line(result))
    if chosen.json is not None:
        chosen.json.write_text(as_json(results), encoding="utf-8")


if __name__ == "__main__":
    main()
