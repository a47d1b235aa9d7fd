"""A saved table of records: who wrote what about which row, with the proof of what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from palate.core import store
from palate.core.texts import packed, unpacked

if TYPE_CHECKING:
    import polars as pl


PROVENANCE = {"row", "written by", "model", "prompt", "hash", "time", "cost", "problem", "step"}
"""Columns that say how a record came about, or whom it is about."""


@dataclass(frozen=True, eq=False)
class WrittenTable:
    """Records of one kind, column by column; every column is text.

    kind       ``intention``, ``item-profile`` … (``palate.annotation.tasks.KINDS``)
    rows       row of an event, item or user → ``[n]``
    columns    name → ``[n]`` texts: the record's fields, then ``written by``, and ``model``, ``prompt``, ``hash``,
               ``time``, ``cost``, ``problem``, ``step`` (how it was read) where it comes from a ledger
    fitted_on  the fingerprint of the train part that prompts have read; ``provenance unknown`` where nobody can say
    facts      what it cost, which split, what was proved
    """

    kind: str
    rows: Sequence[int]
    columns: Mapping[str, Sequence[str]]
    fitted_on: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> pl.DataFrame:
        """``row`` and the columns."""
        import polars as pl

        return pl.DataFrame(
            {"row": pl.Series(list(self.rows), dtype=pl.Int64), **{k: list(v) for k, v in self.columns.items()}}
        )

    def save(self, folder: Path) -> None:
        arrays: dict[str, np.ndarray[Any, Any]] = {"rows": np.array(self.rows, dtype=np.int64)}
        for name, texts in self.columns.items():
            arrays[f"{name}.text"], arrays[f"{name}.bytes"] = packed(texts)
        facts = {"kind": self.kind, "columns": list(self.columns), **self.facts}
        store.save(folder, self, arrays=arrays, facts=facts, fitted_on=self.fitted_on)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        arrays, facts = stored.arrays(), dict(stored.facts)
        columns = {name: unpacked(arrays[f"{name}.text"], arrays[f"{name}.bytes"]) for name in facts.pop("columns")}
        return cls(facts.pop("kind"), arrays["rows"].tolist(), columns, stored.fitted_on, facts)
