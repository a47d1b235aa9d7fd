"""Real data sets are found through ``PALATE_DATA``; a test that needs one is skipped where it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def real() -> Callable[[str], Path]:
    """The folder of a real data set, or a skip that says where it was sought."""

    def found(name: str) -> Path:
        shared = os.environ.get("PALATE_DATA", "")
        folder = Path(shared) / name
        if not shared or not folder.is_dir():
            pytest.skip(f"needs the data set '{name}' in PALATE_DATA={shared!r}")
        return folder

    return found
