"""The search over settings: its first point, its space, its log on disk, what it leaves untouched."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, TrainingError
from palate.core.protocols import Recommender
from palate.core.run import Run
from palate.core.space import Choice, Range
from palate.data.build import dataset_from
from palate.models.collaborative import ease
from palate.runs import Plan
from palate.systems import TABLE, System, build
from palate.tuning import _at, search, space_of

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def train() -> Dataset:
    import polars as pl

    rng = np.random.default_rng(3)
    log = pl.DataFrame({"user": rng.integers(0, 12, 80), "item": rng.integers(0, 9, 80), "time": np.arange(80)})
    return dataset_from("tiny", log)


def plan_of(name: str = "ease", **settings: Any) -> Plan:
    return Plan(system=name, config=build(name, settings).config.model_dump(mode="json"), data="tiny")


def likes_decay(recommender: Recommender) -> float:
    """Best at reg 100 with a half-life of ten events."""
    half_life = recommender.config.half_life_events  # type: ignore[attr-defined]
    off = abs(np.log(recommender.config.reg / 100))  # type: ignore[attr-defined]
    return float(-off - (3.0 if half_life is None else abs(np.log(half_life / 10))))


class Killed(BaseException):
    """Stands for the end of the process."""


class DiesAfter:
    """A judge that is killed at its question number ``questions``, counted from 0."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self, recommender: Recommender) -> float:
        if not self.left:
            raise Killed
        self.left -= 1
        return likes_decay(recommender)


def without_seconds(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: trial[key] for key in ("settings", "valid")} for trial in record["trials"]]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "tuning.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (Range(1, 3), [1, 3, 2.5], [0.9, 3.1, None, "2", True, float("nan")]),
        (Range(1, 3, whole=True), [1, 2, 3.0], [2.5]),
        (Range(1, 3, optional=True), [None, 2.0], [0]),
        (Choice((16, "a")), [16, "a"], [1, None, "b"]),
        (Choice((1, 0)), [1], [True]),
        (Choice((True, False)), [False], [0]),
    ],
)
def test_a_space_knows_what_it_holds(kind: Range | Choice, inside: list[Any], outside: list[Any]) -> None:
    assert all(kind.holds(value) for value in inside)
    assert not any(kind.holds(value) for value in outside)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_default_lies_in_the_space_of_its_system(row: System) -> None:
    settings = row.config().model_dump(mode="json")
    assert [key for key, kind in space_of(row.name).items() if not kind.holds(_at(settings, key))] == []


@pytest.mark.parametrize("name", ["ease", "item-knn", "als", "popularity"])
def test_trials_come_with_and_without_decay(name: str, train: Dataset) -> None:
    key = next(key for key in space_of(name) if key.startswith("half_life"))
    _, record = search(plan_of(name), train, lambda recommender: 0.5, Run(), 9)
    values = [trial["settings"][key] for trial in record["trials"][1:]]
    kind = space_of(name)[key]
    assert None in values
    assert any(value is not None for value in values)
    assert all(kind.holds(value) for value in values)


def test_the_first_trial_is_the_plan_and_wins_ties(train: Dataset) -> None:
    seen: list[dict[str, Any]] = []

    def judge(recommender: Recommender) -> float:
        seen.append(recommender.config.model_dump(mode="json"))
        return 0.5

    plan = plan_of(reg=77.0, most_items=123)
    best, record = search(plan, train, judge, Run(), 3)
    assert seen[0] == plan.config
    assert record["trials"][0]["settings"] == {}
    assert record["best"] == record["trials"][0]
    assert best == plan
    assert all(config["most_items"] == 123 for config in seen)
    assert len({config["reg"] for config in seen}) == 3


def asked_of_optuna(plan: Plan, train: Dataset, monkeypatch: pytest.MonkeyPatch, judge: Any = likes_decay) -> Any:
    """The optuna trials of a search of two."""
    made: list[Any] = []
    create = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **said: made.append(create(**said)) or made[0])
    search(plan, train, judge, Run(), 2)
    return made[0].trials


def test_the_estimator_is_told_the_plan_itself(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = asked_of_optuna(plan_of(reg=77.0, half_life_events=5.0), train, monkeypatch)
    assert first.params == {"reg": 77.0, "half_life_events": 5.0, "half_life_events:on": True}
    assert first.value == pytest.approx(-np.log(100 / 77) - np.log(2))
    assert second.params["reg"] != 77.0


def test_a_plan_outside_the_space_is_told_without_that_value(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = asked_of_optuna(plan_of(reg=1.0), train, monkeypatch)
    assert first.params == {"half_life_events:on": False}
    assert first.value is not None


def test_a_better_point_is_found_and_put_into_the_plan(train: Dataset) -> None:
    plan = plan_of(reg=2000.0)
    best, record = search(plan, train, likes_decay, Run(), 12)
    assert record["best"]["valid"] == max(trial["valid"] for trial in record["trials"])
    assert record["best"]["valid"] > record["trials"][0]["valid"]
    assert best.config == plan.config | record["best"]["settings"]
    assert best.model_copy(update={"config": plan.config}) == plan


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_trial_without_a_number_is_the_worst(how: str, train: Dataset, tmp_path: Path) -> None:
    def judge(recommender: Recommender) -> float:
        if recommender.config.reg != 300.0:  # type: ignore[attr-defined]
            if how == "nan":
                return float("nan")
            raise TrainingError("the loss became NaN")
        return -5.0

    best, record = search(plan_of(), train, judge, Run(), 3, folder=tmp_path)
    assert [trial["valid"] for trial in record["trials"]] == [-5.0, None, None]
    assert best == plan_of()
    assert search(plan_of(), train, judge, Run(resume=True), 3, folder=tmp_path) == (best, record)


@pytest.mark.parametrize("rest", [b"", b'{"search": "cut o'])
@pytest.mark.parametrize("n_trials", [4, 14])
def test_a_killed_search_goes_on_as_if_it_had_not_been(
    n_trials: int, rest: bytes, train: Dataset, tmp_path: Path
) -> None:
    whole, record = search(plan_of(), train, likes_decay, Run(), n_trials)
    killed_after = n_trials - 2
    with pytest.raises(Killed):
        search(plan_of(), train, DiesAfter(killed_after), Run(), n_trials, folder=tmp_path)
    assert len(lines(tmp_path)) == killed_after
    with (tmp_path / "tuning.jsonl").open("ab") as file:
        file.write(rest)
    before = [line["seconds"] for line in lines(tmp_path)[:killed_after]] if not rest else None
    # a judge that dies at its third question proves that the first trials are not fitted again
    resumed, again = search(plan_of(), train, DiesAfter(2), Run(resume=True), n_trials, folder=tmp_path)
    assert resumed == whole
    assert without_seconds(again) == without_seconds(record)
    assert again["best"]["settings"] == record["best"]["settings"]
    assert [line["number"] for line in lines(tmp_path)] == list(range(n_trials))
    if before is not None:
        assert [trial["seconds"] for trial in again["trials"][:killed_after]] == before


def test_a_finished_search_is_read_not_made_again(train: Dataset, tmp_path: Path) -> None:
    done = search(plan_of(), train, likes_decay, Run(), 3, folder=tmp_path)
    assert search(plan_of(), train, DiesAfter(0), Run(resume=True), 3, folder=tmp_path) == done


def test_a_search_is_not_written_over(train: Dataset, tmp_path: Path) -> None:
    search(plan_of(), train, likes_decay, Run(), 2, folder=tmp_path)
    with pytest.raises(ConfigError, match="holds a search already"):
        search(plan_of(), train, likes_decay, Run(), 2, folder=tmp_path)
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize("other", ["plan", "space", "number", "budget", "seed", "data"])
def test_another_search_is_refused(other: str, train: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(plan_of(), train, likes_decay, Run(), 2, folder=tmp_path)
    plan, n_trials, run = plan_of(), 2, Run(resume=True)
    if other == "plan":
        plan = plan_of(reg=20.0)
    elif other == "space":
        monkeypatch.setattr(ease, "SPACE", {"reg": Range(10, 3000)})
    elif other == "number":
        n_trials = 3
    elif other == "data":
        train = replace(train, interactions=train.interactions.head(70))
    else:
        run = replace(run, **{"budget": {"budget_seconds": 9.0}, "seed": {"seed": 1}}[other])
    with pytest.raises(ConfigError, match="belongs to a search with other settings") as refused:
        search(plan, train, likes_decay, run, n_trials, folder=tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["not json\n", "[]\n", "{}\n"])
def test_a_damaged_line_is_named(damage: str, train: Dataset, tmp_path: Path) -> None:
    search(plan_of(), train, likes_decay, Run(), 2, folder=tmp_path)
    path = tmp_path / "tuning.jsonl"
    first, *_ = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(first + damage, encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2"):
        search(plan_of(), train, likes_decay, Run(resume=True), 2, folder=tmp_path)


def test_seconds_are_kept(train: Dataset) -> None:
    _, record = search(plan_of(), train, likes_decay, Run(), 3)
    assert all(trial["seconds"] > 0 for trial in record["trials"])
    assert record["seconds"] == pytest.approx(sum(trial["seconds"] for trial in record["trials"]))


class Watcher:
    def __init__(self) -> None:
        self.started: list[tuple[str, int | None]] = []
        self.steps = self.finished = 0

    def start(self, what: str, total: int | None) -> None:
        self.started.append((what, total))

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps += steps

    def finish(self) -> None:
        self.finished += 1


@pytest.mark.parametrize("dies", [False, True])
def test_only_the_search_itself_is_watched(dies: bool, train: Dataset) -> None:
    watcher = Watcher()  # als reports its own progress where somebody watches
    if dies:
        with pytest.raises(Killed):
            search(plan_of("als"), train, DiesAfter(0), Run(progress=watcher), 2)
    else:
        search(plan_of("als"), train, lambda recommender: 0.5, Run(progress=watcher), 2)
    assert watcher.started == [("tuning als", 2)]
    assert watcher.steps == (0 if dies else 2)
    assert watcher.finished == 1


@pytest.mark.parametrize("dies", [False, True])
def test_nothing_global_is_touched(dies: bool, train: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    numbers = np.random.get_state()[1].tolist()  # type: ignore[index]
    root = logging.getLogger().level
    try:
        if dies:
            with pytest.raises(Killed):
                search(plan_of(), train, DiesAfter(0), Run(), 2)
        else:
            search(plan_of(), train, likes_decay, Run(), 2)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
        assert np.random.get_state()[1].tolist() == numbers  # type: ignore[index]
        assert logging.getLogger().level == root
        assert capfd.readouterr().err == ""
    finally:
        optuna.logging.set_verbosity(before)


def test_what_cannot_be_searched_is_refused(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no validation cases"):
        search(plan_of(), train, None, Run(), 2)
    with pytest.raises(ConfigError, match="at least one trial"):
        search(plan_of(), train, likes_decay, Run(), 0)
    monkeypatch.setattr(ease, "SPACE", {})
    with pytest.raises(ConfigError, match="names no settings"):
        search(plan_of(), train, likes_decay, Run(), 2)
