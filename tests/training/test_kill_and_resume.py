"""kill -9 of a real process at any moment, then resume: the same weights to the bit as without the kill."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.training import checkpoint, log
from tests.training import killed

PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def processes() -> Any:
    """Fresh processes that need no import of torch of their own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.killed", "torch.utils.tensorboard"])
    return context


@pytest.fixture(scope="module")
def uninterrupted(processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert to_the_end(processes, folder) == 0
    return folder


def start(processes: Any, folder: Path, death: killed.Death = "never") -> Any:
    """A child that has begun to train."""
    begun = processes.Event()
    child = processes.Process(target=killed.train, args=(str(folder), begun, death))
    child.start()
    assert begun.wait(PATIENCE_SECONDS)
    return child


def to_the_end(processes: Any, folder: Path, death: killed.Death = "never") -> int:
    child = start(processes, folder, death)
    child.join(PATIENCE_SECONDS)
    return child.exitcode


def weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "weights.npz") as stored:
        return dict(stored)


def told(folder: Path) -> Iterator[dict[str, Any]]:
    """The log without what depends on the clock."""
    for line in (folder / "run" / log.FILE).read_text().splitlines():
        yield {key: value for key, value in json.loads(line).items() if key not in ("at", "seconds")}


def assert_same_fit(folder: Path, uninterrupted: Path) -> None:
    expected = weights(uninterrupted)
    found = weights(folder)
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name]), f"'{name}' differs after resuming"
    assert list(told(folder)) == list(told(uninterrupted))
    assert not list((folder / "run").glob(f"{checkpoint.ASIDE}*")), "what a killed process left aside is swept"


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(processes: Any, uninterrupted: Path, tmp_path: Path, seed: int) -> None:
    draws = random.Random(seed)
    kills = 0
    for _ in range(8):
        child = start(processes, tmp_path)
        child.join(draws.uniform(0, 0.5))
        child.kill()
        child.join(PATIENCE_SECONDS)
        if child.exitcode == 0:  # it was done before the kill came
            break
        assert child.exitcode == -signal.SIGKILL
        kills += (tmp_path / "run" / checkpoint.FILE).exists()
    assert kills >= 1, "no kill came after a checkpoint: the test shows nothing"
    assert to_the_end(processes, tmp_path) == 0
    assert_same_fit(tmp_path, uninterrupted)


@pytest.mark.parametrize("death", ["half a file", "before the rename"])
def test_killed_while_a_checkpoint_is_written(
    processes: Any, uninterrupted: Path, tmp_path: Path, death: killed.Death
) -> None:
    for _ in range(3):
        assert to_the_end(processes, tmp_path, death) == -signal.SIGKILL
        assert list((tmp_path / "run").glob(f"{checkpoint.ASIDE}*")), "it was to die with a file aside"
    assert to_the_end(processes, tmp_path) == 0
    assert_same_fit(tmp_path, uninterrupted)


def test_resuming_what_is_finished_changes_nothing(processes: Any, uninterrupted: Path) -> None:
    before, lines = weights(uninterrupted), list(told(uninterrupted))
    assert to_the_end(processes, uninterrupted) == 0
    after = weights(uninterrupted)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert list(told(uninterrupted)) == lines
