"""A training run on disk: one safetensors file, written aside and renamed, so there is always a whole one.

It holds weights, best weights, the optimiser's moments and the random state; numbers that are no tensors travel as
JSON in the file's own header. No pickle.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from palate.core.errors import TrainingError

FILE = "checkpoint.safetensors"
SCHEMA = "palate.checkpoint/1"


@dataclass
class Checkpoint:
    module: nn.Module
    optimiser: torch.optim.Optimizer
    best_weights: dict[str, Tensor]
    place: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder/checkpoint.safetensors``, whole or not at all."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and any(p.is_cuda for p in checkpoint.module.parameters()):
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    # A tied weight appears once: safetensors refuses two names for one storage.
    tensors |= {f"module/{name}": tensor for name, tensor in _distinct(checkpoint.module.state_dict()).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in _distinct(checkpoint.best_weights).items()}
    for index, state in checkpoint.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items()}
    header = {"schema": SCHEMA, "place": json.dumps(checkpoint.place)}
    handle, aside = tempfile.mkstemp(prefix=".checkpoint-", dir=folder)
    os.close(handle)
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, aside, metadata=header)
        with open(aside, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(aside, folder / FILE)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def load_checkpoint(folder: Path, checkpoint: Checkpoint, expected: Mapping[str, Any]) -> bool:
    """Fill ``checkpoint`` from ``folder`` and set the random state. False when there is none.

    Raises ``TrainingError`` when the file is damaged or belongs to another fit (a value of ``expected`` differs).
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if header.get("schema") != SCHEMA:
            raise TrainingError(f"{path} is not a Palate checkpoint; delete it to start again")
        place = json.loads(header["place"])
    except (SafetensorError, json.JSONDecodeError, KeyError) as failure:
        raise TrainingError(f"{path} is damaged ({failure}); delete it to start again") from None
    for key, value in expected.items():
        if place.get(key) != value:
            raise TrainingError(
                f"{path} belongs to another fit ({key} was {place.get(key)}, is {value}); choose another folder"
            )
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "optimiser": {}, "random": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor
    _fill(checkpoint.module, groups["module"], path)
    checkpoint.best_weights = groups["best"]
    checkpoint.place = place
    state = checkpoint.optimiser.state_dict()
    state["state"] = {}
    for name, tensor in groups["optimiser"].items():
        index, _, moment = name.partition("/")
        state["state"].setdefault(int(index), {})[moment] = tensor
    checkpoint.optimiser.load_state_dict(state)
    torch.set_rng_state(groups["random"]["cpu"])
    if "cuda" in groups["random"]:
        torch.cuda.set_rng_state(groups["random"]["cuda"])
    return True


def _distinct(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    seen: dict[int, str] = {}
    return {name: tensor for name, tensor in tensors.items() if seen.setdefault(tensor.data_ptr(), name) == name}


def _fill(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    wrong = [name for name, tensor in weights.items() if name not in own or own[name].shape != tensor.shape]
    if wrong:
        raise TrainingError(f"{path} belongs to another network ('{wrong[0]}' does not fit); choose another folder")
    module.load_state_dict(weights, strict=False)
