"""The loop: batches in, steps out, the best weights at the end. A system gives it a module, batches and a loss.

``kill -9`` at any moment, then ``Run(resume=True)``, gives the same numbers to the bit as an uninterrupted run: the
checkpoint holds weights, optimiser, random state and position, and batches are a pure function of (seed, epoch).
Random numbers come from a forked state, so nothing global is touched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from palate.core.errors import ConfigError, TrainingError, nearest
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.training import checkpoint as disk
from palate.training.checkpoint import Checkpoint, digest, learnt
from palate.training.log import TrainingLog


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
    *,
    identity: Mapping[str, object] | None = None,
) -> Outcome:
    """Optimise ``module`` until patience, epochs, budget or ``run.max_steps`` ends it; the best weights stay inside.

    ``loss(batch)`` is a mean over the batch's positions. ``judge()`` is called with the module in ``eval`` mode, and
    once more at the end where the last weights have not been judged; without it the last weights are kept.
    ``identity`` is what else tells this fit from others (settings, data): a checkpoint of another fit is refused.
    Raises ``TrainingError`` when a loss is not a number.
    Call inside ``seeded(run)`` together with the construction of the module.
    """
    loop = Loop(module, batches, loss, run, config, judge, identity)
    loop.restore()
    try:
        loop.run_epochs()
    finally:
        loop.log.close()
        run.progress.finish()
    loop.keep_best()
    return loop.outcome


class Loop:
    """One optimisation. ``optimise`` walks it from end to end."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        loss: Callable[[Any], Tensor],
        run: Run,
        config: TrainingConfig,
        judge: Callable[[], float] | None = None,
        identity: Mapping[str, object] | None = None,
    ) -> None:
        self.module, self.batches, self.loss, self.run, self.config, self.judge = (
            module, batches, loss, run, config, judge,
        )  # fmt: skip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        refuse_half(self.parameters)
        groups = rated(module, config)
        self.shares = [group.pop("share") for group in groups]
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.identity = {} if run.folder is None else self._identity(identity or {})
        self.outcome = Outcome()
        self.step_in_epoch = 0
        self.epoch_loss = 0.0
        self.judged_step = 0
        self.looks_without_best = 0
        self.best_weights: dict[str, Tensor] = {}
        self.log = TrainingLog(run.folder)
        self.started = self.saved_at = time.monotonic()
        self.earlier_seconds = 0.0

    # -- the walk ----------------------------------------------------------------------------------------------------

    def run_epochs(self) -> None:
        """Epochs until something ends them, then a last look at weights that were not judged yet."""
        total = self.config.epochs * len(self.batches)
        if self.run.max_steps is not None:
            total = min(total, self.run.max_steps)
        self.run.progress.start("training", total)
        self.run.progress.advance(self.outcome.steps)
        while self.outcome.epochs < self.config.epochs and not self._over():
            self.module.train()
            self._epoch()
            if self.step_in_epoch < len(self.batches):
                break
            self._end_epoch()
            self._save_when_due()
        self.module.eval()
        # Saved before the last look: a run that goes on from here must not know of it.
        self._save()
        if self.judge is not None and self.judged_step < self.outcome.steps:
            self._look()
        self.outcome.seconds = self.seconds
        if total and not self.outcome.steps and self.run.budget_seconds is not None:
            raise TrainingError("the time budget was spent before a single step of training; allow more minutes")
        self.log.write(self.outcome.steps, stopped=self.outcome.stopped, best=self.outcome.best)

    def _epoch(self) -> None:
        """The rest of the present epoch."""
        for batch in self.batches.epoch(self.outcome.epochs, skip=self.step_in_epoch):
            value = self.step(batch)
            self.outcome.steps += 1
            self.step_in_epoch += 1
            self.epoch_loss += value
            self.run.progress.advance(1, loss=value)
            if self.step_in_epoch < len(self.batches):
                self._save_when_due()
            if self._over():
                break

    def _end_epoch(self) -> None:
        mean = self.epoch_loss / max(self.step_in_epoch, 1)
        self.step_in_epoch, self.epoch_loss = 0, 0.0
        self.outcome.epochs += 1
        self.log.write(self.outcome.steps, epoch=self.outcome.epochs, loss=mean, seconds=self.seconds)
        if self.judge is not None and self.outcome.epochs % self.config.judge_every == 0:
            self._look()

    def step(self, batch: Any) -> float:
        """Forward, backward, clip, one step of the optimiser; the loss."""
        config = self.config
        spent = 0.0 if self.run.budget_seconds is None else self.seconds / max(self.run.budget_seconds, 1e-9)
        rate = config.rate(self.outcome.steps + 1, config.epochs * len(self.batches), spent)
        for group, share in zip(self.optimiser.param_groups, self.shares, strict=True):
            group["lr"] = share * rate
        self.optimiser.zero_grad(set_to_none=True)
        with torch.enable_grad(), self._precision():  # also for a caller who wants none
            loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss became {value} at step {self.outcome.steps + 1}; try a smaller training.learning_rate "
                f"(now {config.learning_rate:g})"
            )
        self.optimiser.step()
        return value

    def _look(self) -> None:
        """Judge the present weights on validation; remember them when they are the best so far."""
        assert self.judge is not None
        self.module.eval()
        with torch.no_grad():
            value = float(self.judge())
        self.judged_step = self.outcome.steps
        self.outcome.judged.append((self.outcome.epochs, value))
        self.log.write(self.outcome.steps, epoch=self.outcome.epochs, valid=value)
        self.run.progress.advance(0, valid=value)
        if value > self.outcome.best:
            self.outcome.best, self.outcome.best_epoch, self.looks_without_best = value, self.outcome.epochs, 0
            self.best_weights = {name: tensor.detach().clone() for name, tensor in learnt(self.module).items()}
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

    def keep_best(self) -> None:
        """Put the best weights back; the last stay where nothing was judged."""
        if self.best_weights:
            self.module.load_state_dict(self.best_weights, strict=False)

    # -- what survives a kill ------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.earlier_seconds + time.monotonic() - self.started

    def _save_when_due(self) -> None:
        if time.monotonic() - self.saved_at >= self.run.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        if self.run.folder is None:
            return
        outcome = self.outcome
        place = {
            "steps": outcome.steps, "epochs": outcome.epochs, "step_in_epoch": self.step_in_epoch,
            "epoch_loss": self.epoch_loss, "best": outcome.best if math.isfinite(outcome.best) else None,
            "best_epoch": outcome.best_epoch, "judged": outcome.judged, "judged_step": self.judged_step,
            "looks_without_best": self.looks_without_best, "seconds": self.seconds, "log_lines": self.log.lines,
        }  # fmt: skip
        disk.save_checkpoint(
            self.run.folder, Checkpoint(self.module, self.optimiser, self.best_weights, place, self.identity)
        )
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Go back to the checkpoint in ``run.folder`` when the run resumes and there is one; else begin afresh."""
        folder = self.run.folder
        if folder is None:
            return
        disk.sweep(folder)
        checkpoint = Checkpoint(self.module, self.optimiser, {}, {}, self.identity)
        if not self.run.resume:
            disk.forget_checkpoint(folder)
        elif disk.load_checkpoint(folder, checkpoint):
            self._go_to(checkpoint)
        self.log.begin(checkpoint.place.get("log_lines", 0), self.outcome.steps)

    def _go_to(self, checkpoint: Checkpoint) -> None:
        place = checkpoint.place
        self.best_weights = checkpoint.best_weights
        self.outcome.steps, self.outcome.epochs = place["steps"], place["epochs"]
        self.outcome.best = -math.inf if place["best"] is None else place["best"]
        self.outcome.best_epoch = place["best_epoch"]
        self.outcome.judged = [(epoch, value) for epoch, value in place["judged"]]
        self.step_in_epoch, self.epoch_loss = place["step_in_epoch"], place["epoch_loss"]
        self.judged_step, self.looks_without_best = place["judged_step"], place["looks_without_best"]
        self.earlier_seconds = place["seconds"]

    def _identity(self, more: Mapping[str, object]) -> dict[str, Any]:
        """Which fit this is. How long it may go on is no part of that, unless its learning rate falls towards the end:
        a resumed run may be given more epochs."""
        free = {"patience"} if self.config.follows_its_end else {"patience", "epochs"}
        told: dict[str, object] = {
            "seed": self.run.seed,
            "precision": self.run.precision,
            **more,
            "training": self.config.model_dump(mode="json", exclude=free),
            "steps an epoch": len(self.batches),
            "hash of the first weights": digest(learnt(self.module)),
        }
        return dict(_flat(told))

    def _precision(self) -> Any:
        if self.run.precision == "bf16":
            return torch.autocast(torch.device(self.run.device).type, dtype=torch.bfloat16)
        return nullcontext()


def rated(module: nn.Module, config: TrainingConfig) -> list[dict[str, Any]]:
    """The parameters that learn, in groups of one ``share`` of the learning rate each; the longest matching name
    decides."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            fitting = [begin for begin in config.rates if name.startswith(begin)]
            groups.setdefault(config.rates[max(fitting, key=len)] if fitting else 1.0, []).append(parameter)
    return [{"params": some, "share": share} for share, some in groups.items() if some]


def check_rates(module: nn.Module, rates: Mapping[str, float]) -> None:
    """Raises ``ConfigError`` for a name in ``rates`` with which no weight begins."""
    weights = [name for name, _ in module.named_parameters()]
    for name in rates:
        if not any(weight.startswith(name) for weight in weights):
            parts = {".".join(weight.split(".")[:2]) for weight in weights}
            raise ConfigError(f"training.rates.{name} fits no weight of this network{nearest(name, parts)}")


def refuse_half(parameters: list[nn.Parameter]) -> None:
    """Raises ``TrainingError`` for weights of half precision: most steps are smaller than what they can tell apart, so
    they would stand still while the loss of the rest falls."""
    if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in parameters):
        raise TrainingError(
            "weights that learn must be fp32: leave the model's precision at fp32 and fit with --precision bf16, "
            "or tune adapters (tune=lora) on a frozen base"
        )


def _flat(nested: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value
