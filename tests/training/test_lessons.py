"""A fit of several lessons: how a time budget is shared between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.training.shell import FIRST_SHARE, GradientSystem, Lesson
from tests.models.coloured_logs import log_of


class TwiceConfig(Config):
    training: TrainingConfig = TrainingConfig(epochs=100, learning_rate=0.1)


class Number(nn.Module):
    def __init__(self, config: TwiceConfig) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))


class Seconds:
    """A clock that only moves when something takes time; 10 batches an epoch, each a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __len__(self) -> int:
        return 10

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[int]:
        yield from range(skip, 10)


class Twice(GradientSystem[TwiceConfig, Number]):
    """Two lessons; ``shares`` are theirs of the budget."""

    config_type, network_type = TwiceConfig, Number
    shares = (FIRST_SHARE, 1.0)
    clock: Seconds

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        def loss(batch: int) -> Tensor:
            self.clock.now += 1
            return self.fitted().place.square()

        return Lesson(self.clock, loss)

    def lessons(self, train: Dataset, run: Run) -> Iterator[Lesson]:
        for share in self.shares:
            lesson = self.lesson(train, run)
            yield Lesson(lesson.batches, lesson.loss, share=share)


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Twice]:
    def made(shares: tuple[float, float], seconds: float | None, judged: float = 0.0) -> Twice:
        system, system.shares = Twice(), shares  # type: ignore[misc]
        system.clock = Seconds()
        monkeypatch.setattr("palate.training.loop.time.monotonic", lambda: system.clock.now)

        def judge(_: object) -> float:
            system.clock.now += judged
            return 0.0

        return system.fit(log_of(np.zeros((1, 2), int)), Run(budget_seconds=seconds), judge if judged else None)

    return made


def test_a_budget_leaves_time_for_the_lesson_that_follows(fit: Callable[..., Twice]) -> None:
    system = fit((FIRST_SHARE, 1.0), 40)
    (after,) = system.facts["training after that"]
    assert (system.facts["training"]["steps"], after["steps"]) == (30, 10)


def test_a_lesson_for_which_no_time_is_left_is_left_out_and_the_first_one_kept(fit: Callable[..., Twice]) -> None:
    for system in (fit((1.0, 1.0), 40), fit((FIRST_SHARE, 1.0), 40, judged=15.0)):
        (after,) = system.facts["training after that"]
        assert system.facts["training"]["steps"] > 0
        assert after["steps"] == 0
        assert after["stopped"] == "left out: the time budget was spent before it"
        assert system.network is not None
