"""Palate: the open-source home of recommenders built on language models.

A recommender learns from a ``Dataset`` and answers ``Requests`` with ``Rankings``.
Importing this package loads nothing heavy: every name below is fetched on first use.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

_HOME_OF = {
    "Cases": "palate.core.split",
    "Dataset": "palate.core.dataset",
    "PalateError": "palate.core.errors",
    "Ragged": "palate.core.ragged",
    "Rankings": "palate.core.rankings",
    "Report": "palate.core.report",
    "Requests": "palate.core.requests",
    "Run": "palate.core.run",
    "Split": "palate.core.split",
    "build": "palate.systems",
    "load": "palate.core.store",
}

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
