"""``palate bench``: speed and memory against plain code, each benchmark in a fresh process with two threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any

import cyclopts

from palate.core.errors import ConfigError, PalateError, nearest
from palate.core.store import write_json

app = cyclopts.App(name="bench", help="Measure speed and memory against plain code in the same run.")

SCHEMA = "palate.bench/1"


@app.default
def bench(
    name: str | None = None,
    *,
    json_file: Annotated[Path | None, cyclopts.Parameter(name="--json")] = None,
    quick: bool = False,
) -> None:
    """Measure one benchmark, or all. Ratio = our seconds / the reference's; below 1 is faster.

    Parameters
    ----------
    name
        One of sasrec-step, evaluate, load, exact-search, recommend; all when not given.
    json_file
        Write the figures here (schema palate.bench/1).
    quick
        Shrink the work: shows only that the benchmarks run and their results agree.
    """
    root = checkout()
    known = _known(root)
    if name is not None and name not in known:
        raise ConfigError(f"no benchmark '{name}'{nearest(name, known)}")
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for chosen in [name] if name is not None else known:
        print(f"measuring {chosen} …", file=sys.stderr)
        lines = _measure(root, chosen, quick=quick)
        if lines is None:
            failed.append(chosen)
        else:
            results += lines
    if results:
        _show(results)
    if json_file is not None:
        write_json(json_file, {"schema": SCHEMA, "results": results})
    if failed:
        raise PalateError(f"no figures for {', '.join(failed)}: the reason is printed above")


def checkout() -> Path:
    """The repository this package runs from, which holds ``benchmarks/``. Raises ``PalateError`` when there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "harness.py").is_file():
        raise PalateError(
            "benchmarks are not part of the installed package; clone the repository, run 'pip install -e .[bench]' "
            "there and ask again"
        )
    return root


def _known(root: Path) -> list[str]:
    spec = spec_from_file_location("benchmarks", root / "benchmarks" / "__init__.py")
    if spec is None or spec.loader is None:
        raise PalateError(f"cannot read the list of benchmarks in {root / 'benchmarks'}")
    table = module_from_spec(spec)
    spec.loader.exec_module(table)
    return list(table.BENCHMARKS)


def _measure(root: Path, name: str, *, quick: bool) -> list[dict[str, Any]] | None:
    """The lines of one benchmark from a process of its own, or None when it failed (its words are on stderr)."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks", name, "--json", str(figures), *(["--quick"] if quick else [])]
        done = subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=False)
        if done.returncode or not figures.is_file():
            return None
        lines: list[dict[str, Any]] = json.loads(figures.read_text(encoding="utf-8"))["results"]
    return lines


def _show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Speed against plain code, medians, two threads", title_justify="left", header_style="bold")
    table.add_column("benchmark")
    for column in ("ratio", "seconds", "reference s", "peak MB"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in results:
        table.add_row(
            f"{line['name']}\n[dim]against {line['reference']}[/dim]",
            f"{line['ratio']:.2f}",
            f"{line['seconds']:.4g}",
            f"{line['reference_seconds']:.4g}",
            f"{line['peak_mb']:,.0f}",
        )
    console = Console()
    console.print(table)
    console.print("ratio = seconds / reference s; below 1 is faster than the reference")
