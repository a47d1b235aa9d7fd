"""``palate systems``: every system, what it is, what it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from palate.systems import System


def systems(
    *,
    tag: Annotated[tuple[str, ...], Parameter(name="--tag", negative="")] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """List every system: family, paper, tags, what learns and what is frozen, needs, presets, whether it works here.

    Parameters
    ----------
    tag
        Only those with this tag, such as text, prompting or fine-tuning/lora; may be given often.
    as_json
        Print JSON instead of a table.
    """
    from dataclasses import asdict

    from palate.systems import TABLE
    from palate.taxonomy import tagged

    rows = tagged(TABLE, tag)
    if as_json:
        print(json.dumps([asdict(row) | {"missing": row.missing} for row in rows], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for family in dict.fromkeys(row.family for row in rows):
        table.add_row(f"[bold]{family}[/]")
        for row in (row for row in rows if row.family == family):
            table.add_row(f"  [cyan]{row.name}[/]", f"{row.paper}\n[dim]{describe(row)}[/]")
    console = Console()
    console.print(f"{len(rows)} systems. Each needs events; what else it needs is said beside it.\n", highlight=False)
    console.print(table, highlight=False)
    all_work = "" if any(row.missing for row in rows) else "\nAll of them work on this machine."
    console.print(
        f"{all_work}\nFit one:    palate fit sasrec --data world\n"
        "A preset:   palate fit sasrec --data world --preset tiny",
        highlight=False,
    )


def describe(row: System) -> str:
    """Tags, what learns and what is frozen, what it needs, its presets, and what is missing here for it to work."""
    said = [", ".join(row.tags)]
    if row.learns:
        said.append(f"learns {', '.join(row.learns)}")
    if row.frozen:
        said.append(f"frozen {', '.join(row.frozen)}")
    if row.pretrained != "no":
        said.append(f"pretrained {row.pretrained}")
    if row.needs:
        said.append(f"needs {', '.join(row.needs)}")
    if row.presets:
        said.append(f"presets {', '.join(row.presets)}")
    if row.missing:
        said.append(f"[red]does not work here: {', '.join(row.missing)} is not installed[/]")
    return " · ".join(said)
