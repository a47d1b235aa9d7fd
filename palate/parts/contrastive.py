"""The contrastive loss of two towers: what comes next against a shared pool of other items, by cosine.

InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with a learnt temperature as in CLIP (Radford et al. 2021, arXiv
2103.00020, section 2.3). A negative that is the target, or reads like it, is no negative and is left out; where most of
the pool reads like the target the vectors have collapsed, and leaving out would make the loss 0 without anything
learnt: such positions keep their negatives, and an alarm rings when it lasts.
Shapes: P positions, R negatives of the pool, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.errors import TrainingError

WARMEST = math.log(100)
"""The largest log-scale: cosines are never multiplied by more than 100."""


class Scale(nn.Module):
    """``exp(t)``: what cosines are multiplied by, learnt, and clamped to [1, 100] whenever it is read."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.log.clamp_(0.0, WARMEST)
        return self.log.exp()


@dataclass
class Alarm:
    """Raises ``TrainingError`` once more than ``cap`` of the negatives read like their targets for ``steps`` steps."""

    cap: float
    steps: int
    share: float = 0.0
    """Of negatives that read like their target, in the last step."""
    ringing: int = 0
    """Steps in a row above the cap."""

    def hear(self, share: float) -> None:
        self.share = share
        self.ringing = self.ringing + 1 if share > self.cap else 0
        if self.ringing >= self.steps:
            raise TrainingError(
                f"item vectors have collapsed: {share:.0%} of the negatives were level with their target for "
                f"{self.ringing} steps; give items texts that differ, or a smaller training.learning_rate"
            )

    @property
    def collapsed(self) -> bool:
        return self.ringing > 0


def info_nce(
    states: Tensor,
    targets: Tensor,
    pool: Tensor,
    scale: Tensor,
    *,
    target_rows: Tensor,
    pool_rows: Tensor,
    threshold: float = 0.99,
    cap: float = 0.5,
) -> tuple[Tensor, float]:
    """``-log exp(s⁺) / (exp(s⁺) + Σ exp(s⁻))``, mean over positions, with ``s = scale · cos``; and the share of other
    items' vectors whose cosine to the target exceeds ``threshold``.

    ``states``, ``targets`` ``[P, D]``, ``pool`` ``[R, D]``; ``target_rows`` ``[P]`` and ``pool_rows`` ``[R]`` say which
    items they are. A position of which more than ``cap`` of the pool exceeds the threshold keeps all of it but the
    target itself.
    """
    with torch.autocast(states.device.type, enabled=False):  # a cosine times 100 needs its last digits
        return _info_nce(states, targets, pool, scale, target_rows, pool_rows, threshold, cap)


def _info_nce(
    states: Tensor, targets: Tensor, pool: Tensor, scale: Tensor, target_rows: Tensor, pool_rows: Tensor,
    threshold: float, cap: float,
) -> tuple[Tensor, float]:  # fmt: skip
    targets, pool = F.normalize(targets.float(), dim=-1), F.normalize(pool.float(), dim=-1)
    states = F.normalize(states.float(), dim=-1)
    same = target_rows[:, None] == pool_rows
    with torch.no_grad():
        alike = (targets @ pool.T > threshold) & ~same
        others = (~same).sum(1).clamp(min=1)
        crowded = alike.sum(1) > cap * others
        share = float(alike.sum() / others.sum()) if len(targets) else 0.0
    left_out = same | (alike & ~crowded[:, None])
    positive = scale * (states * targets).sum(-1)
    negative = (scale * (states @ pool.T)).masked_fill(left_out, -math.inf)
    return F.cross_entropy(
        torch.cat([positive[:, None], negative], 1), torch.zeros(len(states), dtype=torch.long, device=states.device)
    ), share


def draw_pool(eligible: Tensor, size: int) -> Tensor:
    """``[R]`` distinct items of ``eligible`` ``[n]``, uniform, at most ``size``; from torch's present random state."""
    if size >= len(eligible):
        return eligible
    return eligible[torch.randperm(len(eligible), device=eligible.device)[:size]]
