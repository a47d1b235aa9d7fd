"""The loop: batches in, steps out, the best weights at the end. A system gives it a module, batches and a loss.

``kill -9`` at any moment, then ``Run(resume=True)``, gives the same numbers to the bit as an uninterrupted run: the
checkpoint holds weights, optimiser, random state and position, and batches are a pure function of (seed, epoch).
Random numbers come from a forked state, so nothing global is touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from palate.core.errors import TrainingError
from palate.core.run import Run
from palate.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from palate.training.log import TrainingLog
from palate.training.settings import TrainingConfig


class Batches(Protocol):
    """Training data as batches; ``epoch`` must be a pure function of its arguments."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Any]: ...


@dataclass
class Outcome:
    """How training went. ``judged`` holds (epoch, value) of every look at validation."""

    steps: int = 0
    epochs: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = 0
    stopped: str = "all epochs done"
    judged: list[tuple[int, float]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What a saved system remembers of its training."""
        best = self.best if math.isfinite(self.best) else None
        return {
            "steps": self.steps, "epochs": self.epochs, "seconds": round(self.seconds, 3), "best": best,
            "best_epoch": self.best_epoch, "stopped": self.stopped,
        }  # fmt: skip


@contextmanager
def seeded(run: Run) -> Iterator[None]:
    """Random numbers that follow from ``run.seed`` inside, and the caller's own again after."""
    devices = [torch.device(run.device)] if run.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(run.seed)
        yield


def optimise(
    module: nn.Module,
    batches: Batches,
    loss: Callable[[Any], Tensor],
    run: Run,
    config: TrainingConfig,
    judge: Callable[[], float] | None = None,
) -> Outcome:
    """Optimise ``module`` until patience, epochs, budget or ``run.max_steps`` ends it; the best weights stay inside.

    ``loss(batch)`` is a mean over the batch's positions. ``judge()`` is called with the module in ``eval`` mode;
    without it the last weights are kept. Raises ``TrainingError`` when a loss is not a number.
    Call inside ``seeded(run)`` together with the construction of the module.
    """
    loop = _Loop(module, batches, loss, run, config, judge)
    loop.restore()
    try:
        loop.run_epochs()
    finally:
        loop.log.close()
        run.progress.finish()
    loop.keep_best()
    return loop.outcome


class _Loop:
    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        loss: Callable[[Any], Tensor],
        run: Run,
        config: TrainingConfig,
        judge: Callable[[], float] | None,
    ) -> None:
        self.module, self.batches, self.loss, self.run, self.config, self.judge = (
            module, batches, loss, run, config, judge,
        )  # fmt: skip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.outcome = Outcome()
        self.step_in_epoch = 0
        self.looks_without_best = 0
        self.best_weights: dict[str, Tensor] = {}
        self.log = TrainingLog(run.folder)
        self.started = self.saved_at = time.monotonic()
        self.earlier_seconds = 0.0

    # -- the walk ----------------------------------------------------------------------------------------------------

    def run_epochs(self) -> None:
        total = self.config.epochs * len(self.batches)
        if self.run.max_steps is not None:
            total = min(total, self.run.max_steps)
        self.run.progress.start("training", total)
        self.run.progress.advance(self.outcome.steps)
        while self.outcome.epochs < self.config.epochs and not self._over():
            self.module.train()
            mean = self._epoch()
            if self.step_in_epoch < len(self.batches):
                break
            self.step_in_epoch = 0
            self.outcome.epochs += 1
            self.log.write(self.outcome.steps, epoch=self.outcome.epochs, loss=mean, seconds=self.seconds)
            if self.judge is not None and self.outcome.epochs % self.config.judge_every == 0:
                self._look()
            self._save_when_due()
        self.module.eval()
        self.outcome.seconds = self.seconds
        self.log.write(self.outcome.steps, stopped=self.outcome.stopped, **{"best": self.outcome.best})

    def _epoch(self) -> float:
        """The rest of the present epoch; returns the mean loss of its steps."""
        total, steps = 0.0, 0
        for batch in self.batches.epoch(self.outcome.epochs, skip=self.step_in_epoch):
            value = self._step(batch)
            total, steps = total + value, steps + 1
            self.run.progress.advance(1, loss=value)
            if self.step_in_epoch < len(self.batches):
                self._save_when_due()
            if self._over():
                break
        return total / max(steps, 1)

    def _step(self, batch: Any) -> float:
        config = self.config
        if config.warmup_steps:
            share = min(1.0, (self.outcome.steps + 1) / config.warmup_steps)
            for group in self.optimiser.param_groups:
                group["lr"] = config.learning_rate * share
        self.optimiser.zero_grad(set_to_none=True)
        with self._precision():
            loss = self.loss(batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {self.outcome.steps + 1}; try a smaller training.learning_rate "
                f"(now {config.learning_rate:g})"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimiser.step()
        self.outcome.steps += 1
        self.step_in_epoch += 1
        return value

    def _look(self) -> None:
        """Judge the present weights on validation; remember them when they are the best so far."""
        assert self.judge is not None
        self.module.eval()
        with torch.no_grad():
            value = self.judge()
        self.outcome.judged.append((self.outcome.epochs, value))
        self.log.write(self.outcome.steps, epoch=self.outcome.epochs, valid=value)
        self.run.progress.advance(0, valid=value)
        if value > self.outcome.best:
            self.outcome.best, self.outcome.best_epoch, self.looks_without_best = value, self.outcome.epochs, 0
            self.best_weights = {name: w.detach().clone() for name, w in self.module.state_dict().items()}
        else:
            self.looks_without_best += 1

    def _over(self) -> bool:
        if self.looks_without_best >= self.config.patience:
            self.outcome.stopped = f"no better for {self.config.patience} looks at validation"
        elif self.run.max_steps is not None and self.outcome.steps >= self.run.max_steps:
            self.outcome.stopped = f"stopped after {self.run.max_steps} steps as asked"
        elif self.run.budget_seconds is not None and self.seconds >= self.run.budget_seconds:
            self.outcome.stopped = f"the budget of {self.run.budget_seconds:g} s is spent"
        else:
            return False
        return True

    # -- what survives a kill ------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.earlier_seconds + time.monotonic() - self.started

    def keep_best(self) -> None:
        if self.best_weights:
            self.module.load_state_dict(self.best_weights)

    def _save_when_due(self) -> None:
        if self.run.folder is None or time.monotonic() - self.saved_at < self.run.checkpoint_seconds:
            return
        self.saved_at = time.monotonic()
        outcome = self.outcome
        place = {
            "steps": outcome.steps, "epochs": outcome.epochs, "step_in_epoch": self.step_in_epoch,
            "best": outcome.best if math.isfinite(outcome.best) else None, "best_epoch": outcome.best_epoch,
            "judged": outcome.judged, "looks_without_best": self.looks_without_best, "seconds": self.seconds,
            "steps_an_epoch": len(self.batches), "seed": self.run.seed, "config": self.config.model_dump(mode="json"),
        }  # fmt: skip
        save_checkpoint(self.run.folder, Checkpoint(self.module, self.optimiser, self.best_weights, place))

    def restore(self) -> None:
        """Go back to the checkpoint in ``run.folder`` when the run resumes and there is one."""
        if not self.run.resume or self.run.folder is None:
            return
        checkpoint = Checkpoint(self.module, self.optimiser, {}, {})
        expected = {"seed": self.run.seed, "steps_an_epoch": len(self.batches)}
        if not load_checkpoint(self.run.folder, checkpoint, expected):
            return
        place = checkpoint.place
        self.best_weights = checkpoint.best_weights
        self.outcome.steps, self.outcome.epochs = place["steps"], place["epochs"]
        self.outcome.best = -math.inf if place["best"] is None else place["best"]
        self.outcome.best_epoch = place["best_epoch"]
        self.outcome.judged = [(epoch, value) for epoch, value in place["judged"]]
        self.step_in_epoch, self.looks_without_best = place["step_in_epoch"], place["looks_without_best"]
        self.earlier_seconds = place["seconds"]
        self.log.rewind(self.outcome.steps)

    def _precision(self) -> Any:
        if self.run.precision == "bf16":
            return torch.autocast(torch.device(self.run.device).type, dtype=torch.bfloat16)
        return nullcontext()
