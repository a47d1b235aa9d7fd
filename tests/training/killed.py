"""A small fit that a test kills: SASRec on a planted log, saved at every step, in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from palate.core.run import Run, Silent
from palate.core.training import TrainingConfig
from palate.models.sequential.sasrec import SASRec, SASRecConfig
from palate.training import checkpoint
from tests.models.sequence_logs import successor_recall, successors

Death = Literal["never", "half a file", "before the rename"]
DEATH_AT = 5
"""The checkpoint during whose writing a child dies that is to die while writing."""


class Slow(Silent):
    """Says when training has begun, and leaves time to be killed between steps."""

    def __init__(self, begun: Event) -> None:
        self.begun = begun

    def start(self, what: str, total: int | None) -> None:
        self.begun.set()

    def advance(self, steps: int = 1, **figures: float) -> None:
        time.sleep(0.01)


def train(folder: str, begun: Event, death: Death = "never") -> None:
    """Fit, or go on fitting, in ``folder/run``; the weights and the facts of a finished fit go to ``folder``."""
    torch.set_num_threads(1)
    die_while_writing(death)
    config = SASRecConfig(
        width=8, length=10, batch_size=32, dropout=0.3, loss="sampled-softmax", negatives=5,
        training=TrainingConfig(epochs=6, learning_rate=0.01, warmup_steps=10, judge_every=2, patience=2),
    )  # fmt: skip
    run = Run(seed=3, folder=Path(folder) / "run", resume=True, checkpoint_seconds=0, progress=Slow(begun))
    system = SASRec(config).fit(successors(), run, judge=successor_recall)
    assert system.network is not None
    np.savez(Path(folder) / "weights.npz", **{n: t.numpy() for n, t in system.network.state_dict().items()})


def die_while_writing(death: Death) -> None:
    """Let this process kill itself in the middle of its ``DEATH_AT``-th checkpoint."""
    if death == "never":
        return
    writes = 0
    if death == "before the rename":
        plain_replace = os.replace

        def replace(aside: str, path: Path) -> None:
            nonlocal writes
            writes += Path(path).name == checkpoint.FILE
            if writes == DEATH_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            plain_replace(aside, path)

        checkpoint.os.replace = replace  # type: ignore[attr-defined]
        return
    import safetensors.torch as safetensors

    plain_save = safetensors.save_file

    def save_file(tensors: dict[str, torch.Tensor], path: str, metadata: dict[str, str]) -> None:
        nonlocal writes
        writes += 1
        plain_save(tensors, path, metadata=metadata)
        if writes == DEATH_AT:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.save_file = save_file
