"""Search over settings on validation: the same number of trials and the same time a trial for every system.

Each system's file names what is worth searching in ``SPACE``; a setting outside it stays at the plan's value. The first
trial is the plan itself, the others are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011; optuna)
that knows every trial before. FOLDER/tuning.jsonl holds one line a finished trial, so a killed search can go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from palate.core.config import override
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, MissingExtraError, TrainingError
from palate.core.fence import Fence, fenced
from palate.core.protocols import Judge
from palate.core.run import Run, Silent
from palate.core.space import Choice, Range, SearchSpace
from palate.runs import Plan
from palate.systems import build, system

WORST = float("-inf")


def space_of(name: str) -> SearchSpace:
    """What the system's file says is worth searching."""
    space: SearchSpace = getattr(import_module(system(name).path.partition(":")[0]), "SPACE", {})
    if not space:
        raise ConfigError(f"{name} names no settings to search; fit it without --tune")
    return space


def search(
    plan: Plan,
    train: Dataset,
    judge: Judge | None,
    run: Run,
    n_trials: int,
    *,
    folder: Path | None = None,
    fence: Fence | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan with the best settings of ``n_trials`` fits (seed 0), and a record of every trial.

    What a chat model is shown within a trial must lie inside the ``fence``. ``run.budget_seconds`` bounds each trial.
    A trial whose loss is not a number counts as the worst; of equals the earlier wins. With ``folder`` each finished
    trial is written to its ``tuning.jsonl``; with ``run.resume`` those trials are told to the estimator instead of
    fitted again, and the search goes on as if it had never stopped.
    Raises ``ConfigError`` when the folder holds a search already and ``run.resume`` is off, or holds another search.
    """
    if judge is None:
        raise ConfigError("this split has no validation cases to tune on; choose another --split or drop --tune")
    if n_trials < 1:
        raise ConfigError(f"a search needs at least one trial, not {n_trials}")
    space = space_of(plan.system)
    log = None if folder is None else _Log(folder / "tuning.jsonl", _identity(plan, space, train, run, n_trials))
    earlier = [] if log is None else log.open(resume=run.resume)
    trials: list[dict[str, Any]] = []
    with _study(run.seed) as study:
        run.progress.start(f"tuning {plan.system}", n_trials)
        try:
            for number in range(n_trials):
                trial, chosen = _ask(study, plan, space, first=number == 0)
                if number < len(earlier):
                    done = earlier[number]
                    if done["settings"] != chosen:
                        raise ConfigError(f"{folder}/tuning.jsonl was begun by another sampler; choose another --out")
                else:
                    done = _fit(plan, chosen, train, judge, run, fence)
                    if log is not None:
                        log.append(number, done)
                study.tell(trial, _value(done))
                trials.append(done)
                run.progress.advance(1, best=max(one["valid"] or 0.0 for one in trials))
        finally:
            run.progress.finish()
    best = max(trials, key=_value)
    seconds = sum(one["seconds"] for one in trials)
    record = {"trials": trials, "best": best, "seconds": seconds, "budget_seconds_a_trial": run.budget_seconds}
    return (_with(plan, best["settings"]) if best["settings"] else plan), record


@contextmanager
def _study(seed: int) -> Iterator[Any]:
    """A study that has seen nothing; optuna's own log is quiet until the study is done, then as it was."""
    try:
        import optuna
    except ImportError:
        raise MissingExtraError.needing("--tune", "tune") from None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(verbosity)


def _ask(study: Any, plan: Plan, space: SearchSpace, *, first: bool) -> tuple[Any, dict[str, Any]]:
    """The next trial and the settings it changes: none at first, where the estimator is given the plan's own values.

    A value of the plan outside the space is no part of that first point: it cannot be proposed, and a stand-in
    would be credited with what it never earned.
    """
    if not first:
        trial = study.ask()
        return trial, {key: _propose(trial, key, kind) for key, kind in space.items()}
    settings = build(plan.system, plan.config).config.model_dump(mode="json")
    own = {key: _at(settings, key) for key, kind in space.items() if kind.holds(_at(settings, key))}
    study.enqueue_trial(_parameters(own, space))
    trial = study.ask()
    for key in own:
        _propose(trial, key, space[key])
    return trial, {}


def _propose(trial: Any, key: str, kind: Range | Choice) -> Any:
    if isinstance(kind, Choice):
        return trial.suggest_categorical(key, list(kind.values))
    if kind.optional and not trial.suggest_categorical(_switch(key), [False, True]):
        return None
    if kind.whole:
        return trial.suggest_int(key, int(kind.low), int(kind.high), log=kind.log)
    return trial.suggest_float(key, kind.low, kind.high, log=kind.log)


def _parameters(settings: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Settings as the estimator sees them: an optional one is a switch, and a value where that is on."""
    parameters = {key: value for key, value in settings.items() if value is not None}
    for key, value in settings.items():
        kind = space[key]
        if isinstance(kind, Range) and kind.optional:
            parameters[_switch(key)] = value is not None
    return parameters


def _switch(key: str) -> str:
    return f"{key}:on"


def _at(settings: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; a section that is None has None throughout."""
    value: Any = settings
    for name in key.split("."):
        value = None if value is None else value[name]
    return value


def _fit(
    plan: Plan, chosen: Mapping[str, Any], train: Dataset, judge: Judge, run: Run, fence: Fence | None
) -> dict[str, Any]:
    """Fit and judge one trial. ``valid`` is None where there is no number; seconds cover fitting and judging."""
    started = monotonic()
    recommender = build(plan.system, _with(plan, chosen).config)
    try:
        with fenced(recommender, fence):
            recommender.fit(train, replace(run, seed=0, folder=None, resume=False, progress=Silent()), judge)
        value = float(judge(recommender))
    except TrainingError:
        value = WORST
    valid = value if isfinite(value) else None
    return {"settings": dict(chosen), "valid": valid, "seconds": monotonic() - started}


def _value(trial: Mapping[str, Any]) -> float:
    return WORST if trial["valid"] is None else trial["valid"]


def _with(plan: Plan, chosen: Mapping[str, Any]) -> Plan:
    config = override(build(plan.system, plan.config).config, chosen, where=plan.system)
    return plan.model_copy(update={"config": config.model_dump(mode="json")})


def _identity(plan: Plan, space: SearchSpace, train: Dataset, run: Run, n_trials: int) -> str:
    """A hash of everything that decides which trials a search makes and how good they are."""
    decides = {
        "plan": plan.model_dump(mode="json"), "train": train.fingerprint, "n_trials": n_trials, "seed": run.seed,
        "space": {key: asdict(kind) for key, kind in space.items()},
        "run": [run.budget_seconds, run.max_steps, run.precision],
    }  # fmt: skip
    return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Log:
    """The finished trials of one search, a JSON line each, marked with the search they belong to."""

    path: Path
    identity: str

    def open(self, *, resume: bool) -> list[dict[str, Any]]:
        """The trials there are, in order. A last line without its end was cut off by a kill and is removed."""
        if not self.path.exists():
            return []
        if not resume:
            raise ConfigError(f"{self.path} holds a search already; choose another --out, or add --resume to go on")
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        trials = [self._read(line, number) for number, line in enumerate(whole.splitlines())]
        if len(whole) < len(text):
            os.truncate(self.path, len(whole))
        return trials

    def append(self, number: int, trial: Mapping[str, Any]) -> None:
        """Add a trial; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"search": self.identity, "number": number, **trial}, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            said = json.loads(line)
            search, place = said["search"], said["number"]
            trial = {key: said[key] for key in ("settings", "valid", "seconds")}
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{self.path}, line {number + 1} is no trial of a search; choose another --out") from None
        if search != self.identity:
            raise ConfigError(
                f"{self.path} belongs to a search with other settings, data, budget or number of trials; "
                "choose another --out"
            )
        if place != number:
            raise ConfigError(f"{self.path}, line {number + 1} is trial {place} out of place; choose another --out")
        return trial
