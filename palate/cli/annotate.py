"""``palate annotate``: tables of what events, items and users say, written by a chat model or without any."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from palate.cli.reading import AS_IT_IS, ReadingChoices, read

if TYPE_CHECKING:
    from palate.annotation.chat import ChatAnnotator
    from palate.annotation.extractive import Extractive
    from palate.annotation.imported import Imported
    from palate.annotation.ledger import Entry
    from palate.annotation.tasks import Row, Task
    from palate.core.dataset import Dataset
    from palate.core.split import Split
    from palate.core.written import WrittenTable

Kind = Literal[
    "intention", "preference", "step-preferences", "item-profile", "user-profile", "item-attributes", "user-traits"
]


def annotate(
    kind: Kind,
    /,
    *,
    data: str,
    names: Annotated[tuple[str, ...], Parameter(name="--name", negative="")] = (),
    out: Path | None = None,
    annotator: str = "extractive",
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    split: str = "leave-one-out",
    split_settings: Annotated[tuple[str, ...], Parameter(name="--split-set", negative="")] = (),
    rows: int | None = None,
    ledger: Path | None = None,
    budget_tokens: int | None = None,
    budget_money: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    reading: ReadingChoices = AS_IT_IS,
) -> None:
    """Write a table of records about the train part of a split.

    Parameters
    ----------
    kind
        What is written: one record for each reviewed event (intention), each event (step-preferences: what the user
        would search for next), each item (item-profile, item-attributes) or each user (the others). A user-profile is
        written from item profiles, so a chat model writes those first.
    data
        A data set's name or a path.
    names
        An attribute of item-attributes or a trait of user-traits, such as author or "liked author"; more by repeating.
        Those that llmrec asks for by default.
    out
        The folder of the table; annotations/KIND-DATA when not given.
    annotator
        extractive (no model), chat, or imported (records that somebody else wrote, taken from a file).
    settings
        One setting of the annotator as key=value, such as chat.name=endpoint, chat.url=http://localhost:8000/v1, or
        file=profiles.jsonl; preset=NAME for a named set of them.
    split
        The rule that says which events teach; no other event is read.
    split_settings
        One setting of that rule as key=value.
    rows
        Only the first so many rows.
    ledger
        Where everything a model wrote is kept; OUT.sqlite when not given.
    budget_tokens
        Tokens that all calls of the ledger together may use.
    budget_money
        Money that they may cost, by the prices in chat.money_read and chat.money_written.
    retry_failed
        Ask again for records that could not be read.
    dry_run
        Ask nothing and keep nothing: print what it would cost and three prompts as they are sent, or what would be
        taken.
    quiet
        Show no progress.
    """
    from palate.annotation.chat import ChatAnnotator
    from palate.annotation.imported import Imported
    from palate.annotation.rows import check_rows, profiled_first, rows_of
    from palate.annotation.tasks import task_of
    from palate.cli.progress import watcher
    from palate.core.config import parse_settings
    from palate.core.errors import MisuseError
    from palate.core.written import PROVENANCE
    from palate.data.split import split as split_by

    if rows is not None and rows < 1:
        raise MisuseError("--rows takes a number from 1 on")
    if names and kind not in ("item-attributes", "user-traits"):
        raise MisuseError(f"--name says what is asked in item-attributes and user-traits; {kind} has fields of its own")
    names = tuple(dict.fromkeys(names))
    task = task_of(kind, names)
    taken = sorted(PROVENANCE & {*names})
    if taken:
        raise MisuseError(
            f"--name {taken[0]}: the table has a column of that name beside the records; say it otherwise"
        )
    made = split_by(read(data, reading), split, **parse_settings(split_settings))
    out = out or Path("annotations") / f"{kind}-{Path(data).name or data}"
    limits = {"budget_tokens": budget_tokens, "budget_money": budget_money}
    writer = _writer(annotator, parse_settings(settings), ledger or out.with_name(f"{out.name}.sqlite"), limits)
    if isinstance(writer, Imported):
        if retry_failed or budget_tokens is not None or budget_money is not None:
            raise MisuseError("imported asks nobody: --retry-failed and budgets are for --annotator chat")
        _take(kind, writer, made, rows, None if dry_run else out)
        return
    asked = rows_of(kind, made.train, rows, names)
    first = profiled_first(kind, made.train, rows) if isinstance(writer, ChatAnnotator) else []
    proof = check_rows([*first, *asked], made.train, made)
    if isinstance(writer, ChatAnnotator):
        if dry_run:
            _show(task, asked, first, writer, made.train)
            return
        writer.progress = watcher(quiet=quiet)
        if retry_failed:
            with writer.open() as kept:
                kept.forget_failures()
        if first:
            asked = rows_of(kind, made.train, rows, of_items=writer.told_of(made.train, [row.of for row in first]))
        table, said = _by_chat(task, asked, writer, made, proof)
    else:
        table = _without_model(task, asked, writer, made.train, {"split": made.hash, "proof": proof})
        said = "no model was asked"
        if dry_run:
            print(f"{len(asked):,} records; {said}, so nothing is spent")
            return
    table.save(out)
    print(f"{len(table):,} records by {writer.label} → {out}\n{proof}\n{said}")


def _writer(
    name: str, settings: dict[str, Any], ledger: Path, limits: dict[str, Any]
) -> ChatAnnotator | Extractive | Imported:
    from palate.core.config import Part, nest
    from palate.systems import component

    given = nest(settings)
    if name == "chat":
        given = {**{key: limit for key, limit in limits.items() if limit is not None}} | given
    if name in ("chat", "imported"):
        given = {"ledger": str(ledger)} | given
    preset = given.pop("preset", None)
    made: ChatAnnotator | Extractive | Imported = component("annotator", Part(name=name, preset=preset, settings=given))
    return made


def _take(kind: str, writer: Imported, split: Split, most: int | None, out: Path | None) -> None:
    """The records of a file, as a table in ``out``; where that is None only what would be taken is said."""
    from palate.annotation.imported import KINDS, WARNING
    from palate.annotation.tasks import task_of
    from palate.core.errors import DataError
    from palate.core.provenance import UNKNOWN
    from palate.core.written import WrittenTable

    taken = writer.take(kind, split.train, keep=out is not None)
    rows = sorted(taken.of)[:most]
    good = sum(taken.of[row].record is not None for row in rows)
    if not good:
        raise DataError(f"no record of {split.dataset.name} is good; {taken.said()}")
    about = KINDS[kind]
    n = split.train.n_items if about == "item" else split.train.n_users
    of_all = f"of the {n:,} {about}s of {split.dataset.name}"
    if out is None:
        print(f"{good:,} records {of_all} would be taken; {WARNING}\n{taken.said()}")
        return
    facts = {"split": split.hash, "proof": WARNING, "taken": dict(taken.counts), "source": taken.source}
    columns = _columns(task_of(kind), [taken.of[row] for row in rows], UNKNOWN)
    WrittenTable(kind, rows, columns, UNKNOWN, facts).save(out)
    print(f"{good:,} records {of_all} → {out}\n{WARNING}\n{taken.said()}")


def _show(task: Task, rows: list[Row], first: list[Row], writer: ChatAnnotator, train: Dataset) -> None:
    """What it would cost, and three prompts of each task as they would be sent."""
    from palate.annotation.rehearsal import rehearse
    from palate.annotation.structured import LADDER

    with writer.open() as ledger:
        told, spent = rehearse(task, rows, writer.chat, ledger, train=train, first=first), ledger.spent
    print(f"{spent.tokens:,} tokens and {spent.money:.4g} of money are spent so far")
    if first:
        print("user profiles are written from item profiles, which come first; both costs:")
    for one in told:
        found = one.found
        print(
            f"{one.task.name}: {found.rows:,} rows, {found.missing:,} records are missing\n"
            f"likely: {found.likely.tokens:,} tokens, {found.likely.money:.4g} of money\n"
            f"at most: {found.most.tokens:,} tokens, {found.most.money:.4g} of money (every attempt and repair counted)"
        )
    for one in told:
        for number, request in enumerate(one.prompts, 1):
            print(f"\n--- prompt {number} of {one.found.rows:,}: {one.task.prompt}, form {one.form}")
            for message in request.messages:
                print(f"[{message.role}]\n{message.content}")
            for tool in request.tools:
                print(f"[tool {tool.name}: {tool.description}]\n{json.dumps(dict(tool.parameters))}")
            if request.schema is not None:
                print(f"[schema of the answer]\n{json.dumps(dict(request.schema))}")
    below = LADDER[LADDER.index(told[0].form) + 1 :]
    if below:
        print(f"\nwhere the server refuses the form {told[0].form}, it is asked as {' and then as '.join(below)}")


def _by_chat(task: Task, rows: list[Row], writer: ChatAnnotator, split: Split, proof: str) -> tuple[WrittenTable, str]:
    from palate.core.written import WrittenTable

    entries = writer.entries(task, rows)
    with writer.open() as ledger:
        spent, counts = ledger.spent, ledger.counts()
    columns = _columns(task, entries, writer.label)
    facts = {"split": split.hash, "proof": proof, "spent": asdict(spent), "calls": counts}
    said = (
        f"{spent.tokens:,} tokens and {spent.money:.4g} of money spent in all; calls: "
        f"{', '.join(f'{count:,} {state}' for state, count in sorted(counts.items())) or 'none'}; "
        f"{writer.unreadable:,} records could not be read"
    )
    if writer.refused:
        said += f"; the questions of {writer.refused:,} of them were refused: {writer.refusal}"
    return WrittenTable(task.name, [row.of for row in rows], columns, split.train.fingerprint, facts), said


def _columns(task: Task, entries: Sequence[Entry], author: str) -> dict[str, list[str]]:
    """The columns of a table of what the ledger holds."""
    names = list(task.record.model_fields)
    return {name: [_text((entry.record or {}).get(name, "")) for entry in entries] for name in names} | {
        "written by": [author] * len(entries), "model": [entry.model for entry in entries],
        "prompt": [entry.prompt for entry in entries], "hash": [entry.key for entry in entries],
        "time": [entry.time for entry in entries],
        "cost": [f"{entry.usage.tokens} tokens, {entry.usage.money:.6g} of money" for entry in entries],
        "problem": [entry.problem for entry in entries], "step": [entry.step for entry in entries],
    }  # fmt: skip


def _without_model(
    task: Task, rows: list[Row], writer: Extractive, train: Dataset, facts: dict[str, str]
) -> WrittenTable:
    import numpy as np

    from palate.annotation.rows import events_of
    from palate.core.written import WrittenTable

    of, names = np.array([row.of for row in rows], dtype=np.int64), tuple(task.record.model_fields)
    written: dict[str, Callable[[], Sequence[Any]]] = {
        "intention": lambda: writer.intentions(train, of),
        "preference": lambda: writer.preferences(train, events_of(train, of)),
        "step-preferences": lambda: writer.step_preferences(train, of),
        "item-profile": lambda: writer.item_profiles(train, of),
        "user-profile": lambda: writer.user_profiles(train, of, writer.item_profiles(train, np.arange(train.n_items))),
        "item-attributes": lambda: writer.item_attributes(train, of, names),
        "user-traits": lambda: writer.user_traits(train, of, names),
    }
    records = written[task.name]()
    if task.name in ("item-attributes", "user-traits"):
        columns = {name: [record.values[place] for record in records] for place, name in enumerate(names)}
        empty = [name for name, texts in columns.items() if not any(texts)]
        if empty:
            print(
                f"nothing is known of {', '.join(empty)}: rules read columns of the item table, and 'themes' of texts"
            )
    else:
        columns = {name: [_text(getattr(record, name)) for record in records] for name in names}
    columns["written by"] = [record.author for record in records]
    return WrittenTable(task.name, of.tolist(), columns, train.fingerprint, facts)


def _text(value: Any) -> str:
    """A column is text; several sentences stand in lines."""
    return value if isinstance(value, str) else "\n".join(value)
