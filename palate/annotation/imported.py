"""The annotator that writes nothing: it takes profiles that somebody else wrote, from a file, through the ledger.

Each record goes through the same type as a chat model's reply (its fields and no other, their lengths, no control
characters); one that is refused is kept with the reason and counted. What nobody knows is said: author, model and
prompt are ``provenance unknown``, and so is every figure of a system that learnt from such records, for they may have
been written from what validation and test ask about (``core.provenance``). An item or a user without a record has empty
texts, like one of which nothing is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from palate.annotation.ledger import Entry, Ledger, now
from palate.annotation.structured import checked, schema_of
from palate.annotation.tasks import TASKS, Task, profile_told
from palate.core import store
from palate.core.annotations import ItemProfile, UserProfile
from palate.core.chat import NOTHING_USED
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, nearest
from palate.core.provenance import UNKNOWN
from palate.core.ragged import IntArray
from palate.data.delimited import Field, Layout, header_of, read_delimited
from palate.data.json_lines import as_text, records
from palate.data.reading import BadRows, find_optional
from palate.data.sources import places

KINDS = {"item-profile": "item", "user-profile": "user"}
"""What can be taken, and whom it is about."""
WARNING = (
    f"{UNKNOWN}: nobody says who wrote these records, how and from what; they may know what validation and test ask"
)
SHOWN = 3
"""Refusals that are told in full."""


class ImportedConfig(Config):
    file: str = ""
    """JSON lines (.jsonl) or a table (.csv, .tsv) with a record a line, plain or .gz: a path, or its place among the
    data sets, such as ``xrec-yelp/tst.jsonl``."""
    item: str = "item"
    """The column with an item's id."""
    user: str = "user"
    """The column with a user's id."""
    fields: dict[str, dict[str, str]] = {}
    """By kind, the column of each field where that is not the field's own name; an empty name says that the file has
    none, and the field stays empty: ``fields.item-profile.summarization=item_summary``."""
    ledger: str = "annotations.sqlite"
    """The file in which everything taken is kept."""

    @model_validator(mode="after")
    def _are_fields(self) -> Self:
        for kind, columns in self.fields.items():
            if kind not in KINDS:
                raise ValueError(f"fields.{kind}: no such record can be taken{nearest(kind, KINDS)}")
            known = TASKS[kind].record.model_fields
            for name in columns:
                if name not in known:
                    raise ValueError(f"fields.{kind}.{name}: a record has no such field{nearest(name, known)}")
        return self


@dataclass(frozen=True)
class Taken:
    """What a file said of the users or items of some data.

    source     the file's name and the beginning of its SHA-256
    of         row → its record; one that was refused where there is no good one
    counts     records ``read``, ``good``, ``again`` (said before, in the same words), ``otherwise`` (said before, in
               other words; the first counts), ``refused``, ``of nobody`` (good, of whom the data do not hold)
    problems   the first refusals
    """

    source: str
    of: Mapping[int, Entry]
    counts: Mapping[str, int]
    problems: tuple[str, ...]

    def said(self) -> str:
        """The counts in one sentence, the refusals in one more each."""
        told = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        return "\n".join([f"{self.source}: {told}", *(f"refused: {problem}" for problem in self.problems)])


class Imported:
    """The annotator. ``taken`` tells, by kind, what the last reading found."""

    config_type = ImportedConfig
    label = UNKNOWN

    def __init__(self, config: ImportedConfig | None = None) -> None:
        self.config = config or ImportedConfig()
        self.taken: dict[str, dict[str, Any]] = {}

    def take(self, kind: str, data: Dataset, *, keep: bool = True) -> Taken:
        """Read the file and put its records of ``kind`` into the ledger, unless not to ``keep`` them.

        Raises ``ConfigError`` for another kind, ``DataError`` where there is no such file or column.
        """
        if kind not in KINDS:
            raise ConfigError(f"imported takes {' or '.join(KINDS)} records, and none of kind '{kind}'")
        path = find(self.config.file)
        task, columns = TASKS[kind], {name: name for name in TASKS[kind].record.model_fields}
        columns |= self.config.fields.get(kind, {})
        with path.open("rb") as stream:
            source = f"{path.name} {hashlib.file_digest(stream, 'sha256').hexdigest()[:12]}"
        bad = BadRows(10**12)
        about = KINDS[kind]
        read, id_column = list(_read(path, bad)), getattr(self.config, about)
        for column in (id_column, *columns.values()):
            if column and read and not any(column in record for _, record in read):
                raise DataError(f"{path}: no record has the column '{column}'{nearest(column, read[0][1])}")
        found = [_entry(task, source, place, record, id_column, columns) for place, record in read]
        entries = [entry for _, entry in found]
        if keep:
            with Ledger(Path(self.config.ledger).expanduser()) as ledger:
                ledger.take(entries)
                kept = ledger.kept([entry.key for entry in entries])
                found = [(one, kept.get(entry.key, entry)) for one, entry in found]
        rows_of = data.item_rows_of if about == "item" else data.user_rows_of
        taken = _sorted(source, found, rows_of([one or "" for one, _ in found], missing="negative"), bad)
        self.taken[kind] = {"source": source, **taken.counts}
        return taken

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        """One record an item; empty texts where the file says nothing of it."""
        return [
            ItemProfile(row, *texts, self.label)
            for row, texts in self._profiles("item-profile", train, np.asarray(items))
        ]

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        """One record a user; empty texts where the file says nothing of the user."""
        return [
            UserProfile(row, *texts, self.label)
            for row, texts in self._profiles("user-profile", train, np.asarray(users))
        ]

    def _profiles(self, kind: str, train: Dataset, rows: IntArray) -> Iterator[tuple[int, tuple[str, str]]]:
        taken = self.take(kind, train)
        for row in rows.tolist():
            entry = taken.of.get(row)
            yield row, profile_told(entry.record or {} if entry else {})

    def save(self, folder: Path) -> None:
        """Settings and what was found. The manifest says that nobody knows what the records were written from."""
        store.save(folder, self, config=self.config, facts={"taken": self.taken}, fitted_on=UNKNOWN)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        annotator = stored.begun(cls)
        annotator.taken = dict(stored.facts["taken"])
        return annotator


def find(file: str) -> Path:
    """The file itself, or the one of that place among the data sets. Raises ``DataError``, or ``ConfigError`` where
    none is named."""
    if not file:
        raise ConfigError("imported needs the file of records: file=FILE, such as file=xrec-yelp/tst.jsonl")
    try:
        asked = Path(file).expanduser()
        tried = [asked, *(place / file for place in places() if not asked.is_absolute())]
        for path in tried:
            there = find_optional(path.parent, path.name)
            if there is not None:
                return there
    except (OSError, RuntimeError) as failure:  # a name that is too long, a home of nobody
        raise DataError(f"'{file[:80]}' cannot be a file of records: {failure}"[:300]) from None
    raise DataError(f"there is no file of records '{file}' (sought {', '.join(map(str, tried))}, plain or .gz)")


def _read(path: Path, bad: BadRows) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each record with its place in the file; what cannot be read goes to ``bad``."""
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        for line, record in records(path, bad):
            yield f"line {line}", record
        return
    if suffix not in (".csv", ".tsv"):
        raise DataError(f"{path}: records are read from .jsonl, .csv or .tsv files (or .gz); convert it")
    layout = Layout("\t" if suffix == ".tsv" else ",")
    names = dict.fromkeys(header_of(path, layout))
    table = read_delimited(path, [Field(name, name) for name in names], layout, bad)
    for number, record in enumerate(table.iter_rows(named=True), 1):
        yield f"record {number}", record


def _entry(
    task: Task, source: str, place: str, record: Mapping[str, Any], id_column: str, columns: Mapping[str, str]
) -> tuple[str | None, Entry]:
    """Whom a record is about (None where it does not say), and the record as the ledger keeps it."""
    said = {name: "" if not column else record[column] for name, column in columns.items()
            if not column or record.get(column) is not None}  # fmt: skip
    value, problem = checked(said, task.record)
    one: str | None = None
    with suppress(ValueError):
        one = as_text(record.get(id_column)).strip() or None
    if one is None:
        value, problem = None, f"'{id_column}': it does not say whom it is about"
    content = [UNKNOWN, task.name, json.dumps(schema_of(task.record), sort_keys=True), one or f"{source} {place}"]
    content.append(json.dumps(said, sort_keys=True, default=str))
    key = hashlib.blake2b("\0".join(content).encode(errors="surrogatepass"), digest_size=16).hexdigest()
    words = None if value is None else value.model_dump()
    return one, Entry(key, words, problem, UNKNOWN, UNKNOWN, now(), NOTHING_USED, 0, f"imported {source} {place}")


def _sorted(source: str, found: Sequence[tuple[str | None, Entry]], rows: IntArray, bad: BadRows) -> Taken:
    """Which record counts for each row, and how many of each kind there are; ``rows`` ``[n]``, -1 = of nobody."""
    counts = {"read": len(found) + len(bad.found), "good": 0, "again": 0, "otherwise": 0, "refused": len(bad.found),
              "of nobody": 0}  # fmt: skip
    first: dict[str, str] = {}
    of: dict[int, Entry] = {}
    problems = [str(problem) for problem in bad.found[:SHOWN]]
    for (one, entry), row in zip(found, rows.tolist(), strict=True):
        if one is None or entry.record is None:
            counts["refused"] += 1
            problems.append(f"{entry.step.removeprefix('imported ')}: {entry.problem}")
            if row >= 0:
                of.setdefault(row, entry)
            continue
        if row < 0:
            counts["of nobody"] += 1
        elif one in first:
            counts["again" if first[one] == entry.key else "otherwise"] += 1
        else:
            first[one], of[row] = entry.key, entry
            counts["good"] += 1
    return Taken(source, of, counts, tuple(problems[:SHOWN]))


def xrec() -> ImportedConfig:
    """The summaries of XRec (HKUDS/XRec): a line a pair, each with a summary of the user and one of the item."""
    return ImportedConfig(
        item="iid", user="uid",
        fields={
            "item-profile": {"summarization": "item_summary", "reasoning": ""},
            "user-profile": {"summarization": "user_summary", "reasoning": ""},
        },
    )  # fmt: skip
