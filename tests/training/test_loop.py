"""The one loop: early stopping, budget, clipping, warm-up, logs, damaged and foreign checkpoints."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palate.core.config import configure, override, parse_settings
from palate.core.errors import ConfigError, TrainingError
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.training import checkpoint, log
from palate.training.loop import Loop, Outcome, check_rates, optimise, seeded

FAST = TrainingConfig(epochs=4, learning_rate=0.1, clip_norm=0.0)


class Steps:
    """``n`` batches an epoch; batch i of epoch e is the number 100 e + i."""

    def __init__(self, n: int = 3) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[int]:
        yield from range(100 * epoch + skip, 100 * epoch + self.n)


class Point(nn.Module):
    """One learnt number, one that is frozen, one that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.register_buffer("seen", torch.zeros(()))

    def loss(self, batch: Any) -> Tensor:
        self.seen += 1
        return (self.place - 10).square() + 0 * torch.rand(())


@dataclass
class Watcher:
    heard: list[tuple[Any, ...]] = field(default_factory=list)

    def start(self, what: str, total: int | None) -> None:
        self.heard.append(("start", what, total))

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.heard.append(("advance", steps, sorted(figures)))

    def finish(self) -> None:
        self.heard.append(("finish",))


def fit(
    run: Run | None = None, config: TrainingConfig = FAST, judge: Callable[[Point], float] | None = None, **more: Any
) -> tuple[Point, Outcome]:
    point = Point()
    look = None if judge is None else lambda: judge(point)
    with seeded(run or Run()):
        outcome = optimise(point, Steps(), more.pop("loss", point.loss), run or Run(), config, look, **more)
    return point, outcome


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / log.FILE).read_text().splitlines()]


def test_it_learns_and_says_how_it_went() -> None:
    point, outcome = fit(config=FAST.model_copy(update={"epochs": 200}))
    assert float(point.place.detach()) == pytest.approx(10, abs=0.1)
    assert (outcome.steps, outcome.epochs, outcome.stopped) == (600, 200, "all epochs done")
    assert outcome.facts()["best"] is None
    assert not point.training


def test_early_stopping_keeps_the_best_weights() -> None:
    """Judged best when it first passes 1: the later, closer weights are thrown away."""
    values: list[float] = []

    def judge(point: Point) -> float:
        assert not point.training
        assert not torch.is_grad_enabled()
        values.append(float(point.place))
        return -abs(values[-1] - 1.2)

    config = FAST.model_copy(update={"epochs": 50, "patience": 4})
    point, outcome = fit(config=config, judge=judge)
    best = int(np.argmax([-abs(v - 1.2) for v in values]))
    assert float(point.place.detach()) == values[best]
    assert outcome.best_epoch == best + 1
    assert outcome.epochs == len(values) == best + 5
    assert outcome.stopped == "no better for 4 looks at validation"
    assert outcome.judged == [(i + 1, -abs(v - 1.2)) for i, v in enumerate(values)]
    assert float(point.seen) == 3 * (best + 1), "buffers go back with the weights"


def test_weights_that_no_look_saw_are_judged_at_the_end() -> None:
    looks: list[int] = []

    def judge(point: Point) -> float:
        looks.append(int(point.seen))
        return float(point.place)

    fit(config=FAST.model_copy(update={"judge_every": 3}), judge=judge)
    assert looks == [9, 12]
    looks.clear()
    fit(Run(max_steps=4), judge=judge)
    assert looks == [3, 4]


def test_max_steps_stops_inside_an_epoch() -> None:
    point, outcome = fit(Run(max_steps=5))
    assert (outcome.steps, outcome.epochs, float(point.seen)) == (5, 1, 5)
    assert outcome.stopped == "stopped after 5 steps as asked"


def test_the_budget_ends_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("palate.training.loop.time.monotonic", lambda: now)

    def loss(batch: int) -> Tensor:
        nonlocal now
        now += 1.0
        return point.loss(batch)

    point = Point()
    outcome = optimise(point, Steps(), loss, Run(budget_seconds=7), FAST)
    assert (outcome.steps, outcome.seconds) == (7, 7.0)
    assert outcome.stopped == "the budget of 7 s is spent"


def test_a_loss_that_is_not_a_number_is_one_sentence_and_spoils_no_weight() -> None:
    point = Point()

    def loss(batch: int) -> Tensor:
        return point.loss(batch) * (float("nan") if batch == 101 else 1)

    with pytest.raises(TrainingError, match=r"the loss became nan at step 5; try a smaller training.learning_rate"):
        optimise(point, Steps(), loss, Run(), FAST)
    assert point.place.isfinite()


def test_gradients_are_clipped_to_the_norm() -> None:
    point = Point()
    for clip_norm, expected in ((0.5, 0.5), (0.0, 20.0), (50.0, 20.0)):
        loop = Loop(point, Steps(), point.loss, Run(), TrainingConfig(clip_norm=clip_norm))
        nn.init.zeros_(point.place)
        loop.step(0)
        assert point.place.grad is not None
        assert abs(float(point.place.grad)) == pytest.approx(expected, rel=1e-4)


def test_the_pace_of_some_weights_is_a_setting_and_survives_a_recipe() -> None:
    """Names of weights have dots, as settings of settings do."""
    asked = configure(TrainingConfig, parse_settings(["rates.t5.tokens=5", "rates.words=2"]))
    assert asked.rates == {"t5.tokens": 5.0, "words": 2.0}
    assert configure(TrainingConfig, json.loads(asked.model_dump_json())) == asked
    assert override(asked, parse_settings(["rates.t5.tokens=3"])).rates == {"t5.tokens": 3.0, "words": 2.0}


def test_rates_that_say_nothing_sensible_are_refused() -> None:
    whole = configure(TrainingConfig, parse_settings(["rates.t5=0.5"]))
    with pytest.raises(ConfigError, match=r"setting 'rates\.t5' cannot be .*: it is one number, 0\.5"):
        override(whole, parse_settings(["rates.t5.tokens=5"]))
    with pytest.raises(ConfigError, match="greater than or equal to 0"):
        configure(TrainingConfig, parse_settings(["rates.t5.tokens=-5"]))
    with pytest.raises(
        ConfigError, match=r"training\.rates\.plaice fits no weight of this network; did you mean 'place'\?"
    ):
        check_rates(Point(), {"plaice": 0.5})
    check_rates(Point(), {"pl": 0.5})


def test_warm_up_grows_the_learning_rate_from_nothing() -> None:
    point = Point()
    config = FAST.model_copy(update={"warmup_steps": 4, "epochs": 2})
    loop = Loop(point, Steps(), point.loss, Run(), config)
    rates = []
    plain = loop.step

    def step(batch: Any) -> float:
        value = plain(batch)
        rates.append(loop.optimiser.param_groups[0]["lr"])
        return value

    loop.step = step  # type: ignore[method-assign]
    loop.run_epochs()
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0]),
        ("inverse-root", [0.5, 1.0, 0.5**0.5, 0.5]),
        ("linear", [0.5, 1.0, 2 / 3, 0.0]),
        ("cosine", [0.5, 1.0, 0.75, 0.0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, rates: list[float]) -> None:
    config = TrainingConfig.model_validate({"learning_rate": 1.0, "warmup_steps": 2, "schedule": schedule})
    steps = (1, 2, 4, 8)
    assert [config.rate(step, 8) for step in steps] == pytest.approx(rates)


def test_the_learning_rate_reaches_its_end_with_the_time_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("palate.training.loop.time.monotonic", lambda: now)
    rates = []

    def loss(batch: int) -> Tensor:
        nonlocal now
        now += 1.0
        rates.append(loop.optimiser.param_groups[0]["lr"])
        return point.loss(batch)

    point = Point()
    config = FAST.model_copy(update={"schedule": "linear", "epochs": 100, "learning_rate": 1.0})
    loop = Loop(point, Steps(), loss, Run(budget_seconds=5), config)
    loop.run_epochs()
    assert rates == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2], abs=0.01)


def test_a_fit_that_follows_its_end_is_another_fit_with_more_epochs() -> None:
    for schedule, same in (("constant", True), ("cosine", False)):
        identities = [
            Loop(p := Point(), Steps(), p.loss, Run(folder=Path("nowhere")), config).identity
            for epochs in (2, 3)
            for config in [FAST.model_copy(update={"schedule": schedule, "epochs": epochs})]
        ]
        assert (identities[0] == identities[1]) is same


def test_nothing_global_is_touched() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), torch.get_num_threads()
    fit(judge=lambda point: 0.0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == before[3]
    assert torch.is_grad_enabled()


def test_progress_hears_every_step_and_the_end_even_of_a_failure() -> None:
    watcher = Watcher()
    fit(Run(progress=watcher, max_steps=2))
    assert watcher.heard == [
        ("start", "training", 2), ("advance", 0, []), ("advance", 1, ["loss"]), ("advance", 1, ["loss"]), ("finish",),
    ]  # fmt: skip
    watcher.heard.clear()
    with pytest.raises(TrainingError):
        fit(Run(progress=watcher), loss=lambda batch: torch.tensor(torch.nan, requires_grad=True))
    assert watcher.heard[-1] == ("finish",)


def test_the_log_has_a_line_an_event_and_tensorboard_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(Run(folder=tmp_path), judge=lambda point: float(point.place))
    found = lines(tmp_path)
    assert [sorted(set(line) - {"at", "step"}) for line in found] == [
        *[["epoch", "loss", "seconds"], ["epoch", "valid"]] * 4, ["best", "stopped"],
    ]  # fmt: skip
    assert [line["step"] for line in found] == [3, 3, 6, 6, 9, 9, 12, 12, 12]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / log.BOARD))
    board.Reload()
    assert [event.step for event in board.Scalars("loss")] == [3, 6, 9, 12]
    assert [event.value for event in board.Scalars("valid")] == pytest.approx([line["valid"] for line in found[1:8:2]])


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(Run(checkpoint_seconds=0))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", range(1, 12))
def test_going_on_equals_never_having_stopped(tmp_path: Path, at: int) -> None:
    """Stopped after any step, then resumed: the same weights, judgements and log lines."""

    def judge(point: Point) -> float:
        return -abs(float(point.place) - 0.8)

    whole, expected = fit(Run(folder=tmp_path / "whole"), judge=judge)
    fit(Run(folder=tmp_path / "parts", max_steps=at), judge=judge)
    resumed, outcome = fit(Run(folder=tmp_path / "parts", resume=True), judge=judge)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    assert outcome.judged == expected.judged
    clock = ("at", "seconds")
    told = [
        [{k: v for k, v in line.items() if k not in clock} for line in lines(tmp_path / n)] for n in ("whole", "parts")
    ]
    assert told[0] == told[1]


def test_a_new_run_in_an_old_folder_forgets_the_old_one(tmp_path: Path) -> None:
    fit(Run(folder=tmp_path))
    with pytest.raises(TrainingError):
        fit(Run(folder=tmp_path), loss=lambda batch: torch.tensor(torch.nan, requires_grad=True))
    assert not (tmp_path / checkpoint.FILE).exists()
    assert lines(tmp_path) == []


def test_frozen_weights_are_in_no_checkpoint(tmp_path: Path) -> None:
    fit(Run(folder=tmp_path), judge=lambda point: 0.0)
    from safetensors import safe_open

    with safe_open(tmp_path / checkpoint.FILE, framework="pt") as stored:
        names = set(stored.keys())
    assert {"module/place", "module/seen", "best/place", "random/cpu", "optimiser/0/exp_avg"} <= names
    assert not any("frozen" in name for name in names)


@pytest.mark.parametrize(
    ("run", "config", "more", "said"),
    [
        (Run(seed=1), FAST, {}, "seed was 0, is 1"),
        (Run(precision="bf16"), FAST, {}, "precision was fp32, is bf16"),
        (Run(), TrainingConfig(epochs=4, learning_rate=0.2, clip_norm=0), {}, "training.learning_rate was 0.1, is 0.2"),
        (Run(), FAST, {"identity": {"settings": {"loss": "bpr"}}}, "settings.loss was bce, is bpr"),
    ],
)
def test_the_checkpoint_of_another_fit_is_refused(
    tmp_path: Path, run: Run, config: TrainingConfig, more: dict[str, Any], said: str
) -> None:
    mine = {"identity": {"settings": {"loss": "bce"}}}
    fit(Run(folder=tmp_path), **mine)
    other = Run(seed=run.seed, precision=run.precision, folder=tmp_path, resume=True)
    with pytest.raises(TrainingError, match=rf"checkpoint.safetensors belongs to another fit \({said}\); choose"):
        fit(other, config, **{**mine, **more})


def test_a_resumed_run_may_be_given_more_epochs(tmp_path: Path) -> None:
    fit(Run(folder=tmp_path))
    longer = FAST.model_copy(update={"epochs": 6, "patience": 1})
    point, outcome = fit(Run(folder=tmp_path, resume=True), longer)
    whole, _ = fit(config=longer)
    assert outcome.steps == 18
    assert torch.equal(point.place, whole.place)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def replace_by_weights(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "is damaged"),
        (empty, "is damaged"),
        (flip, "is damaged"),
        (replace_by_weights, "is not a Palate checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    fit(Run(folder=tmp_path))
    damage(tmp_path / checkpoint.FILE)
    with pytest.raises(TrainingError, match=f"{said}.*delete it to start again") as caught:
        fit(Run(folder=tmp_path, resume=True))
    assert "\n" not in str(caught.value)


def test_tied_weights_survive_a_checkpoint(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = nn.Embedding(4, 3)
            self.outside = nn.Linear(3, 4, bias=False)
            self.outside.weight = self.inside.weight

        def loss(self, batch: int) -> Tensor:
            return self.outside(self.inside(torch.tensor([batch % 4]))).square().mean()

    def fit_tied(run: Run) -> Tied:
        with seeded(run):
            tied = Tied()
            optimise(tied, Steps(), tied.loss, run, FAST, lambda: 0.0)
        return tied

    whole = fit_tied(Run())
    fit_tied(Run(folder=tmp_path, max_steps=4))
    resumed = fit_tied(Run(folder=tmp_path, resume=True))
    assert resumed.outside.weight is resumed.inside.weight
    assert torch.equal(resumed.inside.weight, whole.inside.weight)


def test_learning_rates_by_name_are_shares_and_the_longest_name_decides() -> None:
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    module = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("tower", "tower_top", "head")})
    before = {name: float(p.detach()) for name, p in module.named_parameters()}
    config = TrainingConfig(epochs=1, learning_rate=0.1, clip_norm=0.0, rates={"tower": 0.5, "tower_top": 0.1})

    def loss(batch: Any) -> Tensor:
        return sum(p.square().sum() + 3 * p.sum() for p in module.parameters())  # type: ignore[return-value]

    with seeded(Run()):
        optimise(module, Steps(1), loss, Run(), config)
    moved = {name.split(".")[0]: before[name] - float(p.detach()) for name, p in module.named_parameters()}
    assert moved == pytest.approx({"tower": 0.05, "tower_top": 0.01, "head": 0.1}, rel=1e-3)


def test_weights_of_half_precision_are_refused() -> None:
    point = Point()
    point.place.data = point.place.data.bfloat16()
    with pytest.raises(TrainingError, match="weights that learn must be fp32"):
        optimise(point, Steps(), point.loss, Run(), FAST)


def test_a_budget_that_leaves_no_step_is_an_error_and_no_fit() -> None:
    point = Point()
    with pytest.raises(TrainingError, match="spent before a single step"):
        optimise(point, Steps(), point.loss, Run(budget_seconds=0.0), FAST)
