"""The options that say how data are read, the same for every command that reads any."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from palate.core.dataset import Dataset


@Parameter(name="*")
@dataclass(frozen=True)
class ReadingChoices:
    """How the data are read."""

    positive: str | None = None
    "Which events count, such as 'rating>=4' or 'kind=buy'; several with a comma."
    min_count: int = 0
    "Keep users and items with at least so many events, again and again until all have (k-core)."
    users: int | None = None
    "Keep so many users, drawn from those that are left, always the same ones; the data set's name says so."
    duplicates: Literal["keep", "first", "last"] = "keep"
    "Of several events of one user with one item: keep all, the first or the last."
    skip_bad: int = 0
    "Allow so many unreadable rows; they are listed."
    column: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "What a column of a table of any layout means, such as user=customer_id; may be given often."

    def options(self) -> dict[str, Any]:
        """Only what was asked for, as ``palate.data.sources.load`` takes it."""
        from palate.core.errors import ConfigError

        columns = {}
        for assignment in self.column:
            role, equals, column = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--column {assignment}: write MEANING=COLUMN, such as user=customer_id")
            columns[role.strip()] = column.strip()
        as_it_is = vars(ReadingChoices())
        chosen = {key: value for key, value in vars(self).items() if key != "column" and value != as_it_is[key]}
        return {**chosen, **({"columns": columns} if columns else {})}


AS_IT_IS = ReadingChoices()


def read(data: str, reading: ReadingChoices) -> Dataset:
    """The data set; how an unknown table is read, and which rows were left out, is said on stderr."""
    from palate.cli.progress import watcher
    from palate.data.sources import load

    dataset = load(data, shown=say, progress=watcher(), **reading.options())
    for note in dataset.about.notes:
        if note.startswith("left out "):
            say(note)
    return dataset


def say(text: str) -> None:
    print(text, file=sys.stderr)
