"""``palate fit``: one system on one data set, with one seed or several, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from palate.cli.reading import AS_IT_IS, ReadingChoices, read


def fit(
    system: str,
    /,
    *,
    data: str | None = None,
    out: Path | None = None,
    preset: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    split: str | None = None,
    split_settings: Annotated[tuple[str, ...], Parameter(name="--split-set", negative="")] = (),
    seeds: int | None = None,
    budget: float | None = None,
    tune: int = 0,
    start: Annotated[Path | None, Parameter(name="--from")] = None,
    resume: bool = False,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] | None = None,
    quiet: bool = False,
    reading: ReadingChoices = AS_IT_IS,
) -> None:
    """Fit SYSTEM and write a run folder.

    Parameters
    ----------
    system
        A name from ``palate systems``, or a recipe: a .toml file that says all below.
    data
        A data set's name, such as ml-100k or world, or a path to a file or folder.
    out
        The run folder; runs/SYSTEM-DATA when not given, runs/RECIPE for a recipe.
    preset
        A named set of settings of the system.
    settings
        One setting as key=value; may be given often. Keys may be dotted: training.epochs=20.
    split
        The rule that says which events teach and which are asked; leave-one-out when not given.
    split_settings
        One setting of that rule as key=value.
    seeds
        Fit so many times, with seeds 0, 1, …; all stay inside the one run. Once when not given.
    budget
        Minutes that training may take, for each seed.
    tune
        Search so many settings on validation first.
    start
        An earlier run to continue, where the system can.
    resume
        Go on with a run that was interrupted, to the same numbers.
    device
        cpu, cuda, or auto.
    precision
        fp32, the default, or bf16 where the machine is faster with it.
    quiet
        Show no progress.
    """
    from palate import experiment
    from palate.cli.progress import watcher
    from palate.core.config import parse_settings
    from palate.core.errors import MisuseError
    from palate.core.provenance import told_of
    from palate.core.run import Run
    from palate.recipes import Recipe, read_recipe
    from palate.runs import FittedRun

    if tune < 0 or (budget is not None and budget <= 0):
        raise MisuseError("--tune takes a number of trials and --budget minutes; neither can be negative")
    is_recipe = system.endswith(".toml")
    asked = read_recipe(Path(system)) if is_recipe else Recipe(system=system)
    asked = asked.also(
        data=data, preset=preset, settings=parse_settings(settings), split=split,
        split_settings=parse_settings(split_settings), seeds=seeds, budget=budget, precision=precision,
    )  # fmt: skip
    if asked.data is None:
        raise MisuseError("--data is missing: the name of a data set, such as world, or a path")
    earlier = None if start is None else FittedRun.open(start)
    plan = experiment.make_plan(
        asked.system, asked.data, preset=asked.preset, settings=asked.settings, seeds=asked.seeds, split=asked.split,
        split_settings=asked.split_settings, reading=reading.options(), start=earlier,
    )  # fmt: skip
    out = out or Path("runs") / (Path(system).stem if is_recipe else f"{system}-{Path(asked.data).name or asked.data}")
    run = Run(
        device=pick_device(device), precision=asked.precision, resume=resume,
        budget_seconds=None if asked.budget is None else 60 * asked.budget,
        progress=watcher(asked.system, quiet=quiet),
    )  # fmt: skip
    split_made = experiment.make_split(plan, read(asked.data, reading), start=earlier)
    fitted = experiment.fit(plan, out, run, tune=tune, start=earlier, split=split_made)
    cost = fitted.facts["cost"]
    print(
        f"{fitted.row.title} on {asked.data}: {len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''}, "
        f"{cost['fit_seconds']:.1f} s each, {cost['parameters']:,} parameters → {out}\n"
        f"next: palate evaluate {out}"
    )
    for told in told_of(fitted.facts["asked"]):
        print(told)
    if fitted.facts["marks"]:
        print(f"every figure of this run is marked: {', '.join(fitted.facts['marks'])}")
    if asked.published:
        told = ", ".join(f"{name} {value:g}" for name, value in asked.published.items())
        print(f"published: {told} ({asked.source or asked.paper})")


def pick_device(asked: str) -> str:
    """``auto`` → cuda where there is one."""
    import torch

    from palate.core.errors import MisuseError

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked != "cpu" and not (asked.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        raise MisuseError(
            f"--device {asked}: this machine offers {'cpu, cuda' if torch.cuda.is_available() else 'cpu'}"
        )
    return asked
