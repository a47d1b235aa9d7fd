"""A training run on disk: one safetensors file, written aside and renamed, so there is always a whole one.

It holds what is learnt (weights that receive gradients, and buffers), the best of it so far, the optimiser's moments
and the random state; numbers that are no tensors travel as JSON in the file's own header. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from palate.core.errors import TrainingError

FILE = "checkpoint.safetensors"
SCHEMA = "palate.checkpoint/1"
ASIDE = ".checkpoint-"


@dataclass
class Checkpoint:
    """``place`` is where the loop stands; ``identity`` says which fit this is: flat names to plain values."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    best_weights: dict[str, Tensor]
    place: dict[str, Any]
    identity: dict[str, Any]


def learnt(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that receive gradients and the saved buffers, a tied weight once. Views, not copies."""
    kept = module.state_dict()
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    names += [name for name, _ in module.named_buffers() if name in kept]
    return {name: kept[name] for name in names}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names, types, shapes and values."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder/checkpoint.safetensors``, whole or not at all."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"module/{name}": tensor for name, tensor in learnt(checkpoint.module).items()}
    tensors |= {f"best/{name}": tensor for name, tensor in checkpoint.best_weights.items()}
    for index, state in checkpoint.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in state.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    device = _cuda_device(checkpoint.module)
    if device is not None:
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    header = {
        "schema": SCHEMA,
        "digest": digest(tensors),
        "identity": json.dumps(checkpoint.identity),
        "place": json.dumps(checkpoint.place),
    }
    aside = folder / f"{ASIDE}{secrets.token_hex(6)}"
    try:
        save_file(tensors, aside, metadata=header)
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(aside, folder / FILE)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def load_checkpoint(folder: Path, checkpoint: Checkpoint) -> bool:
    """Fill ``checkpoint`` from ``folder`` and set the random state. False when there is none.

    Raises ``TrainingError`` when the file is damaged or belongs to another fit (its identity differs).
    """
    path = folder / FILE
    if not path.exists():
        return False
    header, tensors = _read(path)
    _check_identity(path, json.loads(header["identity"]), checkpoint.identity)
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "optimiser": {}, "random": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensor.clone()  # out of the mapped file, aligned as torch would
    own = learnt(checkpoint.module)
    wrong = sorted(set(own) ^ set(groups["module"])) or [n for n in own if own[n].shape != groups["module"][n].shape]
    if wrong:
        raise TrainingError(f"{path} belongs to another network ('{wrong[0]}' does not fit); choose another folder")
    checkpoint.module.load_state_dict(groups["module"], strict=False)
    checkpoint.best_weights = groups["best"]
    checkpoint.place = json.loads(header["place"])
    state = checkpoint.optimiser.state_dict()
    state["state"] = {}
    for name, tensor in groups["optimiser"].items():
        index, _, moment = name.partition("/")
        state["state"].setdefault(int(index), {})[moment] = tensor
    checkpoint.optimiser.load_state_dict(state)
    torch.set_rng_state(groups["random"]["cpu"])
    if "cuda" in groups["random"]:
        torch.cuda.set_rng_state(groups["random"]["cuda"], _cuda_device(checkpoint.module) or "cuda")
    return True


def forget_checkpoint(folder: Path) -> None:
    """Remove an earlier run's checkpoint, so that nobody resumes it by mistake."""
    (folder / FILE).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while writing left aside."""
    for left in folder.glob(f"{ASIDE}*"):
        left.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as failure:
        raise TrainingError(f"{path} is damaged ({failure}); delete it to start again") from None
    if header.get("schema") != SCHEMA:
        raise TrainingError(f"{path} is not a Palate checkpoint; delete it to start again")
    if header.get("digest") != digest(tensors):
        raise TrainingError(f"{path} is damaged (its checksum differs); delete it to start again")
    return header, tensors


def _check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            raise TrainingError(
                f"{path} belongs to another fit ({key} was {found.get(key)}, is {wanted.get(key)}); "
                "choose another folder, or do not resume"
            )


def _cuda_device(module: nn.Module) -> torch.device | None:
    return next((p.device for p in module.parameters() if p.is_cuda), None)
