"""How a network is optimised; part of every gradient system's settings, under ``training``. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
    decay: Literal["none", "cosine"] = "none"
    """After that the learning rate stays, or falls to 0 along a cosine until the last of the planned epochs."""
    rates: dict[str, float] = {}
    """Learning rate of the weights whose names begin so, as a share of ``learning_rate``."""
    clip_norm: float = Field(5.0, ge=0)
    """Gradients are scaled down to this total norm; 0 = never."""
    judge_every: int = Field(1, ge=1)
    """Epochs between two looks at validation."""
    patience: int = Field(10, ge=1)
    """Looks without a new best after which training stops; the best weights are kept."""
