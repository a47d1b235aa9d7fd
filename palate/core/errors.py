"""Every error a user can cause, in one tree. The command line prints the message as one line; anything else is a bug.

PalateError
├── DataError           a file, a row or a table cannot be used as it is
├── ConfigError         a setting is unknown or has the wrong value
├── MisuseError         a command was given options that make no sense together
├── LeakError           something would see data it must not see
├── StoreError          a saved folder is damaged, foreign or missing
├── UnknownIdError      an outside id that the dataset does not hold
├── ComparisonError     these runs cannot be compared fairly
├── TrainingError       the numbers of a training run went wrong
├── DownloadError       a file could not be fetched whole
├── EndpointError       a model's server did not answer, or answered nonsense
│   └── RefusedError    it takes no question like this one; others may go well
├── FormError           a chat model takes no tools, or no schema of its answer
├── BudgetError         the next call of a model could cost more than is left
└── MissingExtraError   an optional package is needed for this
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palate.core.chat import Usage


class PalateError(Exception):
    """Something the user can mend; the message is one sentence that says how."""


class DataError(PalateError):
    """A file, row or table cannot be used. ``at`` builds the message that names file, line, column and value."""

    @classmethod
    def at(
        cls,
        path: str | Path,
        expected: str,
        *,
        line: int | None = None,
        column: str | None = None,
        value: object = None,
    ) -> DataError:
        """The standard sentence: ``ratings.csv, line 7, column 'rating': found 'five', expected a number``."""
        where = str(path)
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", column '{column}'"
        found = "" if value is None else f"found {str(value)[:80]!r}, "
        return cls(f"{where}: {found}expected {expected}")


class ConfigError(PalateError):
    """A setting is unknown or has a value that cannot be right."""


class MisuseError(PalateError):
    """Options of a command that make no sense; the command line ends with 2."""


class LeakError(PalateError):
    """A model, a table or a split would see what it must predict."""


class StoreError(PalateError):
    """A saved folder is damaged, was not written by Palate, or is not there."""


class UnknownIdError(PalateError):
    """An outside id is not in the dataset."""


class ComparisonError(PalateError):
    """Two runs were not judged on the same questions."""


class TrainingError(PalateError):
    """A loss became NaN or infinite, or a checkpoint belongs to another fit."""


class DownloadError(PalateError):
    """A file could not be fetched whole, or its checksum is wrong."""


class EndpointError(PalateError):
    """A model's server could not be reached, refused, or went on giving wrong answers.

    ``lost`` is what its attempts may have cost at most, None where nobody counted.
    """

    def __init__(self, message: str, lost: Usage | None = None) -> None:
        super().__init__(message)
        self.lost = lost


class RefusedError(EndpointError):
    """A model's server does not take this question: too long, or against its rules. Another may go well."""


class FormError(PalateError):
    """A chat model takes no tools, or no schema of its answer; ask it in another form. ``lost`` as above."""

    def __init__(self, message: str, lost: Usage | None = None) -> None:
        super().__init__(message)
        self.lost = lost


class BudgetError(PalateError):
    """The next call could cost more than what is left of a budget; what was written so far is kept."""


class MissingExtraError(PalateError):
    """An optional package is needed; the message names the command that installs it."""

    @classmethod
    def needing(cls, what: str, extra: str) -> MissingExtraError:
        return cls(f"{what} needs an optional package: pip install 'palate[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'dropout'?``, else the list of what is known."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"
