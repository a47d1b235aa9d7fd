"""``palate systems``: every system, what it is, what it needs."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import Parameter


def systems(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """List every system: family, paper, tags, needs, presets.

    Parameters
    ----------
    as_json
        Print JSON instead of a table.
    """
    from dataclasses import asdict

    from palate.systems import TABLE

    if as_json:
        print(json.dumps([asdict(row) for row in TABLE], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(TABLE)} systems", title_justify="left", header_style="bold")
    for column in ("name", "family", "paper", "tags", "needs", "presets"):
        table.add_column(column, no_wrap=column in ("name", "family"))
    for row in TABLE:
        tags = (*row.tags, *(() if row.pretrained == "no" else (f"pretrained {row.pretrained}",)))
        table.add_row(
            row.name, row.family, row.paper, ", ".join(tags), ", ".join(row.needs) or "events",
            ", ".join(row.presets) or "–",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print("Fit one:  palate fit sasrec --data world")
