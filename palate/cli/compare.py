"""``palate compare``: which of these runs is better, for whom and at what cost; and what is not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def compare(
    *runs: Path,
    protocol: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    part: Annotated[str | None, Parameter(name="--slice")] = None,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Compare RUNs that answered the same questions: a table, a sentence, paired tests, a plot.

    Reports that palate evaluate wrote are used; a run without one is evaluated first.

    Parameters
    ----------
    runs
        Two or more run folders.
    protocol
        full-ranking, candidates, rating or preference-axes; by default the first that fits the systems.
    settings
        One setting of the protocol as key=value.
    part
        Compare on one slice of the cases alone: cold-items-among-cold (cold targets among cold items: what claims about
        cold items rest on), cold-items, warm-items, head-items, tail-items, short-histories or long-histories.
    json
        Write figures and comparisons to this file (schema palate.report/1).
    plot
        Draw the comparison into this .png or .svg; compare.png (compare-SLICE.png) beside the first run when not
        given. Of preference-axes it has a panel for each of the five axes.
    """
    from dataclasses import replace

    from palate import experiment
    from palate.cli.evaluate import protocol_named, show
    from palate.core.errors import MisuseError
    from palate.evaluation.comparison import compare as paired
    from palate.evaluation.plot import SUFFIXES, draw_leaderboard
    from palate.evaluation.slices import of_slice
    from palate.runs import FittedRun

    # Of ``compare runs/*``, where an earlier comparison has left its picture.
    runs = tuple(run for run in runs if run.suffix not in SUFFIXES or run.is_dir())
    if len(runs) < 2:
        raise MisuseError("name at least two run folders to compare")
    chosen = protocol_named(protocol, settings)
    reports = [experiment.report_of(FittedRun.open(run), chosen) for run in runs]
    if len({report.name for report in reports}) < len(reports):  # folders of one name in different places
        reports = [replace(report, name=str(run)) for report, run in zip(reports, runs, strict=True)]
    if part is not None:
        reports = [of_slice(report, part) for report in reports]
    comparisons = paired(reports)
    show(reports, comparisons, json=json)
    plot = plot or runs[0].parent / (f"compare-{part}.png" if part else "compare.png")
    draw_leaderboard(reports, plot, comparisons)
    print(f"plot → {plot}")
