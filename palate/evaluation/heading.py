"""What the reports of all protocols have in common: the cases of all seeds, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from palate.core.errors import ConfigError, DataError
from palate.core.split import Split

SIMULATED = "simulated"


def all_seeds(cases: pl.DataFrame | Iterable[pl.DataFrame], name: str, nothing: str) -> pl.DataFrame:
    """One table of all seeds of run ``name``, from one table or one a seed.

    Raises ``DataError`` with the words of ``nothing`` where a table is empty, ``ConfigError`` where two have one seed.
    """
    tables = [cases] if isinstance(cases, pl.DataFrame) else list(cases)
    if not tables or not all(table.height for table in tables):
        raise DataError(f"run '{name}' {nothing}")
    together = pl.concat(tables)
    if together.select("seed", "case").is_duplicated().any():
        raise ConfigError(f"run '{name}': two tables of cases have the same seed")
    return together


def heading(cases: pl.DataFrame, split: Split, protocol: object, marks: Sequence[str]) -> dict[str, Any]:
    """What a report of any protocol says of its data, split and seeds; ``simulated`` is marked where the data are."""
    about = split.dataset.about
    return {
        "data": split.dataset.name,
        "split": split.rule,
        "split_hash": split.hash,
        "protocol": str(protocol),
        "seeds": tuple(cases["seed"].unique().sort().to_list()),
        "cases": cases,
        "marks": tuple(dict.fromkeys([*([SIMULATED] if about.simulated else []), *marks])),
    }
