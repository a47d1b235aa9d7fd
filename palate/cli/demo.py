"""``palate demo``: the whole story in minutes: fit a handful of systems, compare them, see what they recommend."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from palate.core.errors import MisuseError
from palate.core.store import write_text

if TYPE_CHECKING:
    from rich.console import Console

    from palate.core.dataset import Dataset
    from palate.core.split import Split
    from palate.runs import FittedRun

SYSTEMS = ("popularity", "item-knn", "ease", "lightgcn", "sasrec", "text-cosine")
"""One of each kind: counting, neighbours, linear, graph, attention over the order, and texts where items have any."""
MARK = "demo.txt"
READERS = 2
LATELY, SHOWN = 6, 5


def demo(
    *,
    data: str = "world",
    out: Path | None = None,
    budget: float | None = None,
    quiet: bool = False,
    serve: Annotated[bool, Parameter(negative="")] = False,
    port: int = 8000,
) -> None:
    """Fit a handful of systems on DATA, print the leaderboard with intervals, and show what two people would get.

    Parameters
    ----------
    data
        A data set's name (world, ml-100k, …) or a path; world is built in and simulated.
    out
        Where the runs are written; runs/demo-DATA when not given. An earlier demo there is replaced.
    budget
        Minutes that one system may take.
    quiet
        Show no progress.
    serve
        At the end open the runs in a browser's reach, as palate serve does.
    port
        Where --serve listens; 0 takes a free one.
    """
    from rich.console import Console

    from palate import experiment
    from palate.cli.progress import watcher
    from palate.cli.reading import AS_IT_IS, read
    from palate.core.run import Run
    from palate.evaluation.comparison import compare
    from palate.evaluation.plot import draw_leaderboard
    from palate.evaluation.protocols import MAIN
    from palate.evaluation.tables import leaderboard
    from palate.systems import system

    console, began = Console(), time.monotonic()
    out = out or Path("runs") / f"demo-{Path(data).name or data}"
    split = experiment.make_split(experiment.make_plan("popularity", data), read(data, AS_IT_IS))
    introduce(console, split)
    replace_earlier(out)
    fitted: list[FittedRun] = []
    for name in systems_for(split.dataset):
        plan, title = experiment.make_plan(name, data), system(name).title
        how = Run(progress=watcher(title, quiet=quiet), budget_seconds=None if budget is None else 60 * budget)
        run = experiment.fit(plan, out / name, how, split=split)
        console.print(f"  fitted {title:<12} {run.facts['cost']['fit_seconds']:7.1f} s", highlight=False)
        fitted.append(run)
    reports = [experiment.evaluate(run, split=split) for run in fitted]
    comparisons = compare(reports)
    console.print()
    console.print(leaderboard(reports, comparisons))
    draw_leaderboard(reports, out / "leaderboard.png", comparisons)
    show_readers(console, split, fitted)
    palate = how_to_call()
    console.print(
        f"\nDone in {time.monotonic() - began:.0f} s. Runs and the plot leaderboard.png lie in {out}.\n"
        f"Ask for more:  {palate} recommend {out}/sasrec --user {split.dataset.user_ids[0]} --why\n"
        f"Fit another:   {palate} fit hstu --data {data}   (all of them: {palate} systems)",
        highlight=False, markup=False,
    )  # fmt: skip
    figures = {run.folder: report.metrics[MAIN].value for run, report in zip(fitted, reports, strict=True)}
    folders = sorted(figures, key=lambda folder: -figures[folder])
    if not serve:
        opening = f"{palate} serve {' '.join(map(str, folders))}"
        console.print(f"Open them all: {opening}", highlight=False, markup=False, soft_wrap=True)
        return
    from palate.cli.serve import serve as answer

    answer(folders[0], *folders[1:], port=port)


def systems_for(dataset: Dataset) -> list[str]:
    """Those of ``SYSTEMS`` that have what they need."""
    from palate.backbones.item_text import ItemText
    from palate.systems import system

    texts = bool({*ItemText().fields} & {*dataset.items.columns})
    return [name for name in SYSTEMS if texts or "item text" not in system(name).needs]


def introduce(console: Console, split: Split) -> None:
    """What the data are and what is asked, in plain words."""
    data = split.dataset
    kind = "simulated readers of real books" if data.about.simulated else data.about.title or "real data"
    console.print(
        f"[bold]{data.name}[/]: {kind}; {data.n_users:,} people, {data.n_items:,} items, "
        f"{data.n_interactions:,} events. Each system learns from {split.train.n_interactions:,} of them and must then "
        f"find the last item of {len(split.test):,} people among all that they had not met. R@10 says how often it is "
        f"among the ten best guesses; NDCG@10 also counts how high it stands. Beside each figure stands its 95 % "
        f"interval over people.\n",
        highlight=False,
    )


def show_readers(console: Console, split: Split, fitted: Sequence[FittedRun]) -> None:
    """Two people, what they met lately, what came next, and what each system would have put first."""
    from rich.markup import escape
    from rich.table import Table

    titles = split.dataset.titles
    chosen = [round(len(split.test) * (i + 1) / (READERS + 1)) for i in range(READERS)]
    systems = [(run.row.title, run.system(run.plan.seeds[0], verify=False)) for run in fitted]
    for case in chosen:
        asked = split.test[case : case + 1]
        requests, target = asked.requests.leaving_out_history(), int(asked.targets[0])
        met = [titles[row] for row in requests.histories.row(0)]
        user = split.dataset.user_ids[int(asked.user_rows[0])]
        console.print(f"\n[bold]{escape(user)}[/], {len(met)} items so far; lately:", highlight=False)
        console.print(f"  {escape(' · '.join(met[-LATELY:]))}", highlight=False)
        console.print(
            f"Next came [bold green]{escape(titles[target])}[/]. The systems would have said:", highlight=False
        )
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column()
        for title, recommender in systems:
            rows = recommender.recommend(requests, SHOWN).item_rows[0]
            said = [f"[bold green]{escape(titles[row])}[/]" if row == target else escape(titles[row]) for row in rows]
            table.add_row(title, " · ".join(said))
        console.print(table, highlight=False)


def replace_earlier(out: Path) -> None:
    """Remove the runs of an earlier demo in ``out``; runs that a demo did not write are never touched."""
    mark = out / MARK
    if mark.exists():
        for name in SYSTEMS:
            shutil.rmtree(out / name, ignore_errors=True)
    elif any((out / name).exists() for name in SYSTEMS):
        raise MisuseError(f"{out} holds runs that no demo wrote; choose another --out")
    write_text(mark, "Runs of palate demo lie here; the next demo replaces them.\n")


def how_to_call() -> str:
    """What a person types to call this program: ``palate``, or its path where the shell would not find it."""
    return "palate" if shutil.which("palate") else sys.argv[0]
