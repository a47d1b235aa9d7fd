"""Nothing global is touched: random states, precision, threads, gradients, warnings, logging, the working folder."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.core import store
from palate.core.protocols import Continues
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.split import Split
from tests.contract.questions import small


def state() -> dict[str, Any]:
    """Everything a library could leave behind, as values that can be compared."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": (kind, np.asarray(keys).tolist(), rest),
        "python random": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.is_inference_mode_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
        "numpy errors": np.geterr(),
        "working folder": Path.cwd(),
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "environment": dict(os.environ),
        "module path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
    }


@pytest.fixture
def unusual(name: str, split: Split) -> Iterator[None]:
    """Settings that nobody would make by chance, so that a system that sets its own each time is seen.

    What scipy and torch set up once a process, when parts of them are imported, is not ours: the first fit does that.
    """
    small(name).fit(split.train, Run(max_steps=1))
    level = logging.root.level
    numpy_state, python_state = np.random.get_state(), random.getstate()
    logging.root.setLevel(17)
    with np.errstate(under="warn"), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("error", BytesWarning)
        torch.manual_seed(123456789)
        np.random.seed(987654321)
        random.seed(192837465)
        yield
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    logging.root.setLevel(level)


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.usefixtures("unusual")
def test_nothing_global_is_touched(
    name: str, gradients: bool, split: Split, questions: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through fit, judge, recommend, score, save, load and continue_fit, also for a caller who wants no gradients."""
    train = split.train
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for setter in ("set_num_threads", "set_num_interop_threads", "set_default_dtype"):
        monkeypatch.setattr(torch, setter, lambda value, setter=setter: pytest.fail(f"torch.{setter} was called"))
    with torch.set_grad_enabled(gradients):
        before = state()
        system = small(name).fit(train, Run(seed=1, max_steps=2), lambda system: 0.0)
        system.recommend(questions, 5)
        system.score(questions, questions.histories)
        system.save(tmp_path / "saved")
        again = store.load(tmp_path / "saved")
        again.recommend(questions, 5)
        if isinstance(again, Continues):
            again.continue_fit(train, Run(max_steps=1))
        after = state()
    for what, value in before.items():
        assert after[what] == value, f"{what} changed"
    assert not list(home.iterdir()), "nothing is written where nobody asked for it"


def test_nothing_is_printed(name: str, split: Split, questions: Requests, capfd: pytest.CaptureFixture[str]) -> None:
    small(name).fit(split.train, Run(max_steps=2)).recommend(questions, 5)
    assert capfd.readouterr() == ("", "")


def test_callers_random_state_does_not_matter(name: str, split: Split, questions: Requests) -> None:
    """Two fits of one seed agree whatever was drawn in between."""
    first = small(name).fit(split.train, Run(seed=4, max_steps=2)).recommend(questions, 5)
    torch.rand(7)
    random.random()
    np.random.random(3)
    second = small(name).fit(split.train, Run(seed=4, max_steps=2)).recommend(questions, 5)
    assert first.scores.tobytes() == second.scores.tobytes()
