"""``palate data split``: which events teach, which are asked, and the proof that nothing leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from palate.cli.reading import AS_IT_IS, ReadingChoices, read

if TYPE_CHECKING:
    from palate.core.split import Cases, Split


def split_command(
    data: str,
    /,
    *,
    rule: str = "leave-one-out",
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    reading: ReadingChoices = AS_IT_IS,
) -> None:
    """Split DATA by a rule, check it for leaks and show the sizes and what each check saw.

    Parameters
    ----------
    data
        A data set's name, such as ml-100k or world, a path to a file or folder, or duckdb:QUERY.
    rule
        leave-one-out, temporal, cold-items, cold-users, few-shot or cross-domain.
    settings
        One setting of the rule as key=value, such as test_from=1998-03-01; may be given often.
    out
        Keep the split in this folder: the rule, its settings, the asked events, the hash.
    as_json
        Print JSON (schema palate.split/1) instead of a table.
    """
    from palate.core.config import parse_settings
    from palate.data import split as splits

    chosen = splits.rule_named(rule, parse_settings(settings))  # a wrong setting is said before anything is read
    made = splits.apply(read(data, reading), chosen)
    if out is not None:
        splits.save(out, made)
    if as_json:
        print(json.dumps(as_document(made), indent=2, ensure_ascii=False))
        return
    _print(made)
    if out is not None:
        print(f"split → {out}")


def as_document(split: Split) -> dict[str, Any]:
    """The split in numbers, as ``--json`` prints it."""
    train = split.train
    return {
        "schema": "palate.split/1",
        "data": split.dataset.name,
        "rule": split.rule,
        "settings": dict(split.settings),
        "hash": split.hash,
        "train": {
            "events": train.n_interactions,
            "users": int((train.histories.lengths > 0).sum()),
            "items": int((train.item_counts > 0).sum()),
        },
        "valid": _sizes(split, split.valid),
        "test": _sizes(split, split.test),
        "proof": dict(split.proof),
    }


def _sizes(split: Split, cases: Cases) -> dict[str, int | float]:
    """Counts of a part's cases, users, targets, and how many targets train never shows."""
    lengths = cases.requests.histories.lengths
    return {
        "cases": len(cases),
        "users": len(set(cases.user_rows.tolist())),
        "items": len(set(cases.targets.tolist())),
        "cold_targets": int(split.cold_items[cases.targets].sum()),
        "mean_history": round(float(lengths.mean()), 1) if len(cases) else 0.0,
    }


def _print(split: Split) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    document = as_document(split)
    settings = "".join(f" {key}={value}" for key, value in document["settings"].items())
    console = Console()
    console.print(f"[bold]{escape(split.dataset.name)}[/bold] split by {split.rule}{escape(settings)}", highlight=False)
    table = Table(box=None, padding=(0, 2))
    for name in ("", "events", "users", "items", "cold targets", "mean history"):
        table.add_column(name, justify="right" if name else "left")
    train = document["train"]
    table.add_row("train", f"{train['events']:,}", f"{train['users']:,}", f"{train['items']:,}", "", "")
    for part in ("valid", "test"):
        sizes = document[part]
        counts = (f"{sizes[key]:,}" for key in ("cases", "users", "items", "cold_targets", "mean_history"))
        table.add_row(part, *counts)
    console.print(table)
    proof = Table(title="No leak found", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for check, saw in document["proof"].items():
        proof.add_row(check, escape(saw))
    console.print(proof)
    console.print(f"hash {split.hash}", highlight=False)
