"""``palate curve``: how good systems are with a share of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from palate.cli.reading import AS_IT_IS, ReadingChoices, read


def curve(
    *systems: str,
    data: str,
    shares: str = "0.01,0.05,0.1,0.25,0.5,1",
    preset: str | None = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    split: str = "leave-one-out",
    split_settings: Annotated[tuple[str, ...], Parameter(name="--split-set", negative="")] = (),
    seeds: int = 1,
    budget: float | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    json: Path | None = None,
    plot: Path | None = None,
    quiet: bool = False,
    reading: ReadingChoices = AS_IT_IS,
) -> None:
    """Fit SYSTEMS on growing shares of the train part and ask the same test questions: data efficiency.

    Parameters
    ----------
    systems
        Names from ``palate systems``; all of them recommend, or all predict ratings. Each may have a preset and
        settings of its own: rating-average[user], or quoted 'rating-lm[tiny] head=classification'; or it is a recipe,
        a .toml file, of which system, preset and settings are taken.
    data
        A data set's name or a path.
    shares
        Shares of the train part, with commas.
    preset
        A preset, taken by every system that has it and names none.
    settings
        One setting as key=value, for every system; its own go before it.
    split
        The rule that says which events teach and which are asked.
    split_settings
        One setting of that rule as key=value.
    seeds
        Fit so many times at each share.
    budget
        Minutes that each fit may take.
    device
        cpu, cuda, or auto.
    precision
        fp32, the default, or bf16 where the machine is faster with it.
    json
        Write the points to this file (schema palate.curve/1); curve.json when not given.
    plot
        Draw the curve into this .png or .svg; curve.png when not given.
    quiet
        Show no progress.
    """
    from palate import experiment
    from palate.cli.fit import pick_device
    from palate.cli.progress import watcher
    from palate.core.config import parse_settings
    from palate.core.errors import MisuseError
    from palate.core.run import Run
    from palate.curve import data_efficiency, draw
    from palate.recipes import asked_in_words
    from palate.systems import system

    if not systems:
        raise MisuseError("name at least one system, such as rating-mf")
    try:
        wanted = [float(share) for share in shares.split(",")]
    except ValueError:
        raise MisuseError(f"--shares {shares}: write numbers with commas, such as 0.01,0.1,1") from None
    if budget is not None and budget <= 0:
        raise MisuseError(f"--budget {budget:g}: a fit takes some minutes, more than 0")
    seconds = None if budget is None else 60 * budget
    run = Run(budget_seconds=seconds, device=pick_device(device), precision=precision)
    plans = {}
    for words in systems:
        name, asked = asked_in_words(words)
        if name in plans:
            raise MisuseError(f"'{name}' is named twice; one line of the figure is enough")
        own = asked.preset or (preset if preset in system(asked.system).presets else None)
        plans[name] = experiment.make_plan(
            asked.system, data, preset=own, settings={**parse_settings(settings), **asked.settings}, seeds=seeds,
            split=split, split_settings=parse_settings(split_settings), reading=reading.options(),
        )  # fmt: skip
    made = experiment.make_split(next(iter(plans.values())), read(data, reading))
    found = data_efficiency(plans, made, run, wanted, progress=watcher(quiet=quiet))
    json, plot = json or Path("curve.json"), plot or Path("curve.png")
    found.write(json)
    draw(found, plot)
    print(f"{found.headline} · {found.metric}")
    width = max(len(name) for name in plans)
    for point in found.points:
        span = point.figure
        print(
            f"{point.name:{width}} {point.share:6.1%} {point.events:>9,} events  {span.value:.3f} "
            f"({span.low:.3f} to {span.high:.3f})"
        )
    print(f"points → {json}\nplot → {plot}")
