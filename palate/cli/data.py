"""``palate data``: what is in a data set, and the own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from palate.cli.reading import AS_IT_IS, ReadingChoices, read

if TYPE_CHECKING:
    from palate.data.summary import Summary

app = cyclopts.App(name="data", help="What is in a data set; its own format; its split with the leak check.")
app.command("palate.cli.split:split_command", name="split")


@app.command
def show(
    data: str,
    /,
    *,
    reading: ReadingChoices = AS_IT_IS,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """What is in DATA: sizes, times, repeats, popularity, columns, licence.

    Parameters
    ----------
    data
        A data set's name, such as ml-100k or world, a path to a file or folder, or duckdb:QUERY.
    as_json
        Print JSON (schema palate.data/1) instead of tables.
    """
    from palate.data.summary import summarise

    summary = summarise(read(data, reading))
    if as_json:
        print(json.dumps(summary.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(summary)


@app.command
def convert(data: str, out: Path, /, *, reading: ReadingChoices = AS_IT_IS) -> None:
    """Write DATA to the folder OUT in the own format: three Parquet files and dataset.toml.

    Parameters
    ----------
    data
        A data set's name, a path to a file or folder, or duckdb:QUERY.
    out
        The folder to write; an earlier data set there is replaced, anything else is refused.
    """
    from palate.data.folder import write_folder

    dataset = read(data, reading)
    write_folder(dataset, out)
    print(
        f"{out}: {dataset.n_interactions:,} events of {dataset.n_users:,} users with {dataset.n_items:,} items; "
        f"look with: palate data show {out}"
    )


def _print(summary: Summary) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = summary.title or summary.name
    console.print(f"[bold]{title}[/bold] ({summary.name})" if title != summary.name else f"[bold]{title}[/bold]")
    sizes = Table(show_header=False, box=None, padding=(0, 2))
    span = (
        "only the order is known" if summary.first is None else f"{summary.first} to {summary.last} ({summary.clock})"
    )
    for name, value in (
        ("users", f"{summary.users:,}"),
        ("items", f"{summary.items:,}" + (f", {summary.no_events:,} without an event" if summary.no_events else "")),
        ("events", f"{summary.events:,}"),
        ("density", f"{summary.density:.3%}"),
        ("time", span),
        ("repeats", f"{summary.repeated_targets:.1%} of last events, {summary.repeated_events:.1%} of all"),
        ("popularity", f"Gini {summary.gini:.2f} (0 = all items equal, 1 = one has everything)"),
        ("positive", str(summary.about["positive"])),
        ("duplicates", str(summary.about["duplicates"])),
        ("ties", str(summary.about["ties"])),
        ("licence", str(summary.about["licence"])),
        ("source", str(summary.about["source"]) or "unknown"),
        *(("note", str(note)) for note in summary.about["notes"] if len(str(note)) < 200),
        *([("simulated", "yes: readers and events are invented")] if summary.about["simulated"] else []),
    ):
        sizes.add_row(name, value)
    console.print(sizes)
    console.print(_quantile_table(summary))
    console.print(_columns_table(summary))
    popular = Table(title="Most met", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for item, count in summary.popular:
        popular.add_row(f"{count:,}", item)
    console.print(popular)
    for warning in summary.warnings:
        console.print(f"[yellow]Note:[/yellow] {warning}")


def _quantile_table(summary: Summary) -> Any:
    from rich.table import Table

    table = Table(title="Events", title_justify="left", box=None, padding=(0, 2))
    table.add_column("")
    for name in summary.per_user:
        table.add_column(name, justify="right")
    for name, quantiles in (("a user", summary.per_user), ("an item", summary.per_item)):
        table.add_row(name, *(f"{value:,.1f}" if name == "mean" else f"{value:,.0f}" for value in quantiles.values()))
    return table


def _columns_table(summary: Summary) -> Any:
    from rich.table import Table

    table = Table(title="Columns", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for name, columns in summary.columns.items():
        said = []
        for column, dtype in columns.items():
            share = summary.filled.get(f"{name}.{column}", 1.0)
            said.append(f"{column} {dtype}" + (f" ({share:.0%})" if share < 0.995 else ""))
        table.add_row(name, ", ".join(said))
    return table
