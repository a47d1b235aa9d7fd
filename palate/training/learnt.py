"""What of a system learns and what is frozen, counted by part: what the paradigm of a run is, in numbers.

A part is called by the field that names it (``backbone``), what was put into a frozen one by its kind
(``backbone.adapters``, ``backbone.prompt``, ``backbone.new-rows``), the system's own weights ``network``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from palate.core.errors import TrainingError

INSIDE = {".lora_": "adapters", ".prompt": "prompt", ".rows": "new-rows"}
"""What is put into a model → how its weights are called."""


def by_part(network: nn.Module, parts: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every weight of ``network`` with the part it belongs to."""
    owner: dict[int, str] = {}
    for field, part in parts.items():
        try:
            model = getattr(part, "model", None)
        except TrainingError:  # its network was never made
            continue
        if isinstance(model, nn.Module):
            for name, parameter in model.named_parameters():
                kinds = (kind for mark, kind in INSIDE.items() if mark in f".{name}")
                kind = next(kinds, "")
                owner[id(parameter)] = f"{field}.{kind}" if kind else field
    for parameter in network.parameters():
        yield owner.get(id(parameter), "network"), parameter


def learnt(network: nn.Module, parts: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """``{"learnt": {part: numbers}, "frozen": {part: numbers}}``."""
    counts: dict[str, Counter[str]] = {"learnt": Counter(), "frozen": Counter()}
    for part, parameter in by_part(network, parts):
        counts["learnt" if parameter.requires_grad else "frozen"][part] += parameter.numel()
    return {state: dict(numbers) for state, numbers in counts.items()}
