"""How a network is optimised: settings of gradient systems, under ``training``, and of what else is taught here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, field_validator

from palate.core.config import Config


class TrainingConfig(Config):
    """AdamW with gradient clipping, warm-up and early stopping on validation."""

    epochs: int = Field(200, ge=1)
    """At most so many passes over the training data."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(0, ge=0)
    """The learning rate grows linearly from 0 over so many steps."""
    schedule: Literal["constant", "inverse-root", "linear", "cosine"] = "constant"
    """How the learning rate goes on: with the inverse square root of the steps, or to 0 at the end of all epochs (or of
    the time budget, where that comes first)."""
    rates: dict[str, NonNegativeFloat] = {}
    """Learning rate of the weights whose names begin so, as a share of ``learning_rate``, the longest name deciding;
    written as ``training.rates.t5.tokens=5``."""
    clip_norm: float = Field(5.0, ge=0)
    """Gradients are scaled down to this total norm; 0 = never."""
    judge_every: int = Field(1, ge=1)
    """Epochs between two looks at validation."""
    patience: int = Field(10, ge=1)
    """Looks without a new best after which training stops; the best weights are kept."""

    @field_validator("rates", mode="before")
    @classmethod
    def _whole_names(cls, given: Any) -> Any:
        """Names of weights have dots, which settings read as sections."""
        return dict(_flat(given)) if isinstance(given, Mapping) else given

    def rate(self, step: int, total: int, spent: float = 0.0) -> float:
        """The learning rate of ``step`` (from 1 on) where all epochs are ``total`` steps and the share ``spent`` of the
        time budget is gone."""
        warm = max(self.warmup_steps, 1)
        if step < warm:
            return self.learning_rate * step / warm
        if self.schedule == "inverse-root":
            return self.learning_rate * math.sqrt(warm / step)
        done = min(max((step - warm) / max(total - warm, 1), spent), 1.0)
        left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]
        return self.learning_rate * left

    def careful(self, parts: Mapping[str, object], share: float) -> Self:
        """The same with ``share`` as the rate of those ``parts``, by how the names of their weights begin, that know
        something before; what is drawn from nothing learns at the full rate. ``rates`` decides over both."""
        known = {name for name, part in parts.items() if getattr(part, "pretrained", "no") != "no"}
        return self.model_copy(update={"rates": dict.fromkeys(sorted(known), share) | self.rates})

    @property
    def follows_its_end(self) -> bool:
        """Whether another number of epochs would be another fit from the first step on."""
        return self.schedule in ("linear", "cosine")


def _flat(given: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
