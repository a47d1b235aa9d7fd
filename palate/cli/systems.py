"""``palate systems``: every system, what it is, what it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from palate.systems import System


def systems(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List every system: family, paper, tags, needs, presets, and whether it works here.

    Parameters
    ----------
    as_json
        Print JSON instead of a table.
    """
    from dataclasses import asdict

    from palate.systems import TABLE

    if as_json:
        print(json.dumps([asdict(row) | {"missing": row.missing} for row in TABLE], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for family in dict.fromkeys(row.family for row in TABLE):
        table.add_row(f"[bold]{family}[/]")
        for row in (row for row in TABLE if row.family == family):
            table.add_row(f"  [cyan]{row.name}[/]", f"{row.paper}\n[dim]{describe(row)}[/]")
    console = Console()
    console.print(f"{len(TABLE)} systems. Each needs events; what else it needs is said beside it.\n", highlight=False)
    console.print(table, highlight=False)
    all_work = "" if any(row.missing for row in TABLE) else "\nAll of them work on this machine."
    console.print(
        f"{all_work}\nFit one:    palate fit sasrec --data world\n"
        "A preset:   palate fit sasrec --data world --preset tiny",
        highlight=False,
    )


def describe(row: System) -> str:
    """Tags, then what it needs, its presets, and what is missing here for it to work."""
    said = [", ".join(row.tags)]
    if row.pretrained != "no":
        said.append(f"pretrained {row.pretrained}")
    if row.needs:
        said.append(f"needs {', '.join(row.needs)}")
    if row.presets:
        said.append(f"presets {', '.join(row.presets)}")
    if row.missing:
        said.append(f"[red]does not work here: {', '.join(row.missing)} is not installed[/]")
    return " · ".join(said)
