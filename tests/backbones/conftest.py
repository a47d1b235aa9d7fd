"""A cache of its own for every test, and encoders that count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from palate.core.protocols import FloatArray


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counting:
    """Letters counted; remembers what it was asked."""

    def __init__(self, version: str = "letters/1") -> None:
        self.version = version
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.asked += texts
        return np.array([[text.count(letter) for letter in "aeiou"] for text in texts], dtype=np.float32)


@pytest.fixture
def counting() -> Counting:
    return Counting()
