"""``palate evaluate``: ask fitted runs the test cases, once, and write down every answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from palate.core.report import Report
    from palate.evaluation.comparison import Comparisons
    from palate.evaluation.protocols import AnyProtocol


def evaluate(
    *runs: Path,
    protocol: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    unverified: bool = False,
    json: Path | None = None,
) -> None:
    """Judge one or more RUNs on the test part of their split and keep the report in each run.

    Parameters
    ----------
    runs
        Run folders that palate fit wrote.
    protocol
        full-ranking (the target among all items), candidates (among drawn ones, for papers that measure so), rating
        (predicted against given ratings), or preference-axes (how well words of a request are followed); by default
        the first that fits the system.
    settings
        One setting of the protocol as key=value, such as history=train, mask_history=false, n=100.
    unverified
        Let a system without a manifest through; its figures carry the mark "unverified".
    json
        Write the figures to this file (schema palate.report/1).
    """
    from palate import experiment
    from palate.core.errors import MisuseError
    from palate.runs import FittedRun

    if not runs:
        raise MisuseError("name at least one run folder, such as runs/sasrec-world")
    chosen = protocol_named(protocol, settings)
    show([experiment.evaluate(FittedRun.open(run), chosen, unverified=unverified) for run in runs], json=json)


def protocol_named(name: str | None, settings: Sequence[str]) -> AnyProtocol | None:
    """The protocol of that name with some settings changed; None where none is named and nothing is set."""
    from palate.core.config import configure, parse_settings
    from palate.core.errors import ConfigError, nearest
    from palate.evaluation.protocols import Candidates, FullRanking, PreferenceAxes, Rating

    if name is None:
        if not settings:
            return None
        name = "full-ranking"
    kinds: dict[str, Any] = {
        "full-ranking": FullRanking, "candidates": Candidates, "rating": Rating, "preference-axes": PreferenceAxes
    }  # fmt: skip
    if name not in kinds:
        raise ConfigError(f"there is no protocol '{name}'{nearest(name, kinds)}")
    return configure(kinds[name], parse_settings(settings), where=name)


def show(reports: Sequence[Report], comparisons: Comparisons | None = None, *, json: Path | None = None) -> None:
    """Print the leaderboard and its slices, and write the JSON when asked."""
    from rich.console import Console

    from palate.core.store import write_json
    from palate.evaluation.reports import to_json
    from palate.evaluation.tables import axes_tables, leaderboard, of_axes, slice_table

    console = Console()
    if of_axes(reports):
        console.print(axes_tables(reports, comparisons))
        if json is not None:
            write_json(json, to_json(reports, comparisons))
            console.print(f"figures → {json}", highlight=False)
        return
    console.print(leaderboard(reports, comparisons))
    if any(report.slices for report in reports):
        console.print()
        console.print(slice_table(reports))
    if json is not None:
        write_json(json, to_json(reports, comparisons))
        console.print(f"figures → {json}", highlight=False)
