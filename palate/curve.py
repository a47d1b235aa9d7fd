"""How little data is enough: the share of the train part that teaches against what the test part says.

The figure that Kang et al. (arXiv 2305.06474) draw for predicted ratings, for any system. Shares are nested: what
teaches at 1 % teaches at 5 % too. Histories of questions stay whole, so what is compared is what was learnt, not what
is told; a system that reads only what is told is a flat line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, MisuseError
from palate.core.fence import Fence, fenced
from palate.core.provenance import marks_of
from palate.core.report import Interval
from palate.core.run import Progress, Run, Silent
from palate.core.split import Split
from palate.core.store import write_json
from palate.evaluation.metrics import shown
from palate.experiment import judge_of
from palate.runs import Plan
from palate.systems import build, system

SCHEMA = "palate.curve/1"
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Point:
    """One line of the figure at one share, all seeds: ``events`` that taught, the figure over users and seeds, and that
    of each seed. ``name`` is the line's: a system may stand in a figure with several settings."""

    name: str
    system: str
    share: float
    events: int
    seeds: tuple[int, ...]
    figure: Interval
    of_seeds: tuple[float, ...]


COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#555555")
"""Okabe & Ito's, which people with any colour vision tell apart; markers say the same again."""
MARKERS = "osD^vP*"
DODGE = 1.02
"""Intervals at one share stand so far apart."""


@dataclass(frozen=True)
class Curve:
    """Every point, and what was asked: ``questions`` is the hash or rule of the test part, ``marks`` are words that
    every figure must carry. ``precision`` and ``budget_seconds`` of each fit, None without one."""

    metric: str
    data: str
    split: str
    questions: str
    points: tuple[Point, ...]
    marks: tuple[str, ...] = ()
    precision: str = "fp32"
    budget_seconds: float | None = None

    @property
    def headline(self) -> str:
        """Which data and questions, with every mark."""
        marked = f" ({', '.join(self.marks)})" if self.marks else ""
        return f"{self.data}{marked} · {self.questions}"

    def write(self, path: Path) -> None:
        """JSON of the schema ``palate.curve/1``."""
        write_json(path, {"schema": SCHEMA, **asdict(self)})


def some_of(train: Dataset, share: float, seed: int = 0) -> Dataset:
    """A share of the events, at least one, drawn at random; a smaller share of the same seed is part of a larger."""
    if not 0 < share <= 1:
        raise ConfigError(f"a share of the training data lies above 0 and not above 1, not {share:g}")
    if share == 1:
        return train
    n = max(1, round(share * train.n_interactions))
    return train.keeping(np.sort(np.random.default_rng(seed).permutation(train.n_interactions)[:n]))


def data_efficiency(
    plans: Mapping[str, Plan],
    split: Split,
    run: Run,
    shares: Sequence[float] = SHARES,
    progress: Progress | None = None,
) -> Curve:
    """Fit every plan on every share with each of its seeds, and ask the same test questions; ``plans`` have names."""
    abilities = {system(plan.system).ability for plan in plans.values()}
    if len(abilities) != 1:
        raise MisuseError("a curve compares systems that recommend, or systems that predict ratings, not both")
    progress = progress or Silent()
    rates = abilities == {"RatingPredictor"}
    ask, questions = _asking(split, rates)
    metric = "rmse" if rates else "ndcg@10"
    progress.start("fitting", len(plans) * len(shares))
    points: list[Point] = []
    marks: dict[str, None] = {"simulated": None} if split.dataset.about.simulated else {}
    for name, plan in plans.items():
        for share in sorted(shares):
            point, own = _point(name, plan, share, split, run, ask, metric)
            points.append(point)
            marks |= dict.fromkeys(own)
            progress.advance(1, **{metric: points[-1].figure.value})
    progress.finish()
    return Curve(
        metric, split.dataset.name, f"{split.rule} {split.hash}", questions, tuple(points), tuple(marks), run.precision,
        run.budget_seconds,
    )  # fmt: skip


def _point(
    name: str, plan: Plan, share: float, split: Split, run: Run, ask: Any, metric: str
) -> tuple[Point, list[str]]:  # fmt: skip
    """A point, and the marks of what was fitted for it."""
    train, judge, fence = some_of(split.train, share), judge_of(plan, split), Fence(split)
    reports: list[Any] = []
    marks: list[str] = []
    for seed in plan.seeds:
        fitted = build(plan.system, plan.config)
        with fenced(fitted, fence):
            fitted.fit(train, replace(run, seed=seed, folder=None), judge)
        reports.append(ask(fitted, seed))
        marks = marks_of(fitted)
    figure, of_seeds = _figure(reports, metric, name)
    return Point(name, plan.system, share, train.n_interactions, plan.seeds, figure, of_seeds), marks


def _asking(split: Split, rates: bool) -> tuple[Any, str]:
    """``(system, seed) → cases``, and which questions they are."""
    from palate.data.ratings import hash_of, rating_cases
    from palate.evaluation.judging import judge_cases
    from palate.evaluation.protocols import FullRanking, Rating
    from palate.evaluation.ratings import judge_ratings

    if rates:
        cases = rating_cases(split)
        return (
            lambda fitted, seed: judge_ratings(fitted, cases, Rating(), train=split.train, seed=seed)
        ), f"{len(cases):,} ratings {hash_of(cases)}"
    return (
        lambda fitted, seed: judge_cases(fitted, split.test, FullRanking(), train=split.train, seed=seed, answers=False)
    ), f"{len(split.test):,} questions of {split.rule}"


def _figure(tables: Sequence[Any], metric: str, name: str) -> tuple[Interval, tuple[float, ...]]:
    """Over users and seeds, and each seed's own."""
    import polars as pl

    from palate.evaluation.ratings import resampled_figures, seeds_of
    from palate.evaluation.uncertainty import RESAMPLES, interval, intervals, per_user, run_number

    if metric == "rmse":
        seeds = seeds_of(pl.concat(tables))
        point, resampled = resampled_figures(seeds, [metric], resamples=RESAMPLES, run=run_number(name))
        each = tuple(float(one.figures(np.ones((1, len(one.users))), [metric])[0, 0]) for one in seeds)
        return interval(float(point[0]), resampled[:, 0], len(seeds[0].users)), each
    values = [per_user(table["user_row"].to_numpy(), table.select(metric).to_numpy())[1] for table in tables]
    return intervals(values, run=run_number(name))[0], tuple(float(value.mean()) for value in values)


def draw(curve: Curve, path: Path) -> None:
    """The curve as a picture: shares on a logarithmic axis, a line a plan and its 95 % interval at each share, side by
    side. Names stand beside the lines in the order in which these end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from palate.evaluation.plot import INK, PALE, SOFT, save_figure

    figure = Figure(figsize=(8.4, 4.4), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(point.name for point in curve.points))
    ends: dict[str, float] = {}
    lines = []
    for place, name in enumerate(names):
        own = [point for point in curve.points if point.name == name]
        values = np.array([point.figure.value for point in own])
        beyond = [values - [point.figure.low for point in own], [point.figure.high for point in own] - values]
        aside = DODGE ** (place - (len(names) - 1) / 2)  # on a logarithmic axis
        lines.append(axes.errorbar(
            [100 * point.share * aside for point in own], values, beyond, label=name, color=COLOURS[place % 7],
            marker=MARKERS[place % 7], markersize=5, linewidth=1.6, elinewidth=1.0,
        ))  # fmt: skip
        ends[name] = float(values[-1])
    axes.set_xscale("log")
    ticks = sorted({100 * point.share for point in curve.points})
    axes.set_xticks(ticks, [f"{tick:g} %" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("share of the train part", color=SOFT)
    better = "less" if shown(curve.metric).less_is_better else "more"
    axes.set_ylabel(f"{shown(curve.metric).pretty}, {better} is better", color=SOFT)
    figure.suptitle("What is reached with how much data?", x=0.01, ha="left", color=INK, fontweight="bold")
    axes.set_title(f"{curve.headline} · bars: 95 % interval", fontsize=9, loc="left", color=SOFT)
    axes.grid(color=PALE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=sorted(lines, key=lambda line: -ends[str(line.get_label())]), loc="outside right center", frameon=False
    )
    save_figure(figure, path)
