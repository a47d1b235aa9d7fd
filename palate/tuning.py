"""Search over settings on validation: the same number of trials and the same time a trial for every system.

Each system's file names what is worth searching in ``SPACE``; a setting outside it stays at the plan's value. Trials
are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011; optuna), the first is the plan itself.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

from palate.core.config import nest
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, MissingExtraError, TrainingError
from palate.core.protocols import Judge
from palate.core.run import Run, Silent
from palate.core.space import Choice, Range, SearchSpace
from palate.runs import Plan
from palate.systems import build, system


def space_of(name: str) -> SearchSpace:
    """What the system's file says is worth searching."""
    space: SearchSpace = getattr(import_module(system(name).path.partition(":")[0]), "SPACE", {})
    if not space:
        raise ConfigError(f"{name} names no settings to search; fit it without --tune")
    return space


def search(plan: Plan, train: Dataset, judge: Judge | None, run: Run, n_trials: int) -> tuple[Plan, dict[str, Any]]:
    """The plan with the best settings of ``n_trials`` fits (seed 0), and a record of every trial.

    ``run.budget_seconds`` bounds each trial. A trial whose loss is not a number counts as the worst.
    """
    if judge is None:
        raise ConfigError("this split has no validation cases to tune on; choose another --split or drop --tune")
    try:
        import optuna
    except ImportError:
        raise MissingExtraError.needing("--tune", "tune") from None
    space = space_of(plan.system)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=run.seed))
    trials: list[dict[str, Any]] = []
    run.progress.start(f"tuning {plan.system}", n_trials)
    for number in range(n_trials):
        trial = study.ask()
        chosen = {} if number == 0 else {key: _propose(trial, key, kind) for key, kind in space.items()}
        recommender = build(plan.system, _merged(plan.config, chosen))
        try:
            recommender.fit(train, replace(run, seed=0, folder=None, progress=Silent()), judge)
            value = judge(recommender)
        except TrainingError:
            value = float("-inf")
        if chosen:
            study.tell(trial, value if value > float("-inf") else 0.0)
        trials.append({"settings": chosen, "valid": value if value > float("-inf") else None})
        run.progress.advance(1, best=max(t["valid"] or 0.0 for t in trials))
    run.progress.finish()
    best = max(trials, key=lambda t: t["valid"] if t["valid"] is not None else float("-inf"))
    record = {"trials": trials, "best": best, "budget_seconds_a_trial": run.budget_seconds}
    return plan.model_copy(update={"config": _merged(plan.config, best["settings"])}), record


def _propose(trial: Any, key: str, kind: Range | Choice) -> Any:
    if isinstance(kind, Choice):
        return trial.suggest_categorical(key, list(kind.values))
    if kind.whole:
        return trial.suggest_int(key, int(kind.low), int(kind.high), log=kind.log)
    return trial.suggest_float(key, kind.low, kind.high, log=kind.log)


def _merged(config: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    merged = dict(config)
    for key, value in nest(chosen).items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    return merged
