"""What every test may rely on: nothing is written to the user's own cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Vectors, taught language models and downloads of the session lie in a folder of its own."""
    before = os.environ.get("PALATE_CACHE")
    os.environ["PALATE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["PALATE_CACHE"]
    else:
        os.environ["PALATE_CACHE"] = before
