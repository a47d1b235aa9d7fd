"""What a table would cost and what would be asked for it, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from palate.annotation.ledger import Ledger
from palate.annotation.rows import rows_of
from palate.annotation.structured import Form, Structured, formed
from palate.annotation.tasks import TASKS, Row, Task, profile_told
from palate.annotation.writing import Estimate, estimate, key_of
from palate.core.annotations import ItemProfile
from palate.core.chat import ChatRequest
from palate.core.dataset import Dataset
from palate.core.protocols import ChatModel

SHOWN = 3
"""Prompts that are shown of each task."""
NOT_YET = "(the profile of this item, which is not written yet)"
USUAL, LONGEST = "x" * 400, "<" * 2000
"""What stands for such a profile where costs are told: one of usual length, and the one that takes most bytes."""


@dataclass(frozen=True)
class Rehearsal:
    """One task of a table. ``prompts`` are the first as they would be sent: in ``form``, the highest that the model
    says it takes, with its instruction, tools or schema."""

    task: Task
    found: Estimate
    form: Form
    prompts: tuple[ChatRequest, ...]


def rehearse(
    task: Task, rows: Sequence[Row], model: ChatModel, ledger: Ledger, *, train: Dataset, first: Sequence[Row] = ()
) -> list[Rehearsal]:
    """What is asked for ``rows``, and before it for ``first``, the item profiles from which user profiles are written.
    What those will say is not known where they are missing; the costs of the prompts that show them stand in for it."""
    if not first:
        return [_rehearsal(task, rows, model, ledger)]
    profile = TASKS["item-profile"]
    keys = {row.of: key_of(model, profile, row) for row in first}
    kept = ledger.kept(list(keys.values()))

    def told(unwritten: str) -> list[Row]:
        summaries = {
            item: profile_told(kept[key].record or {})[0] if key in kept else unwritten for item, key in keys.items()
        }
        of_items = [ItemProfile(item, summaries.get(item, ""), "", "") for item in range(train.n_items)]
        return rows_of(task.name, train, len(rows), of_items=of_items)

    users = _rehearsal(task, told(NOT_YET), model, ledger)
    likely = estimate(task, told(USUAL), model, ledger).likely
    most = estimate(task, told(LONGEST), model, ledger).most
    return [
        _rehearsal(profile, first, model, ledger),
        replace(users, found=replace(users.found, likely=likely, most=most)),
    ]


def _rehearsal(task: Task, rows: Sequence[Row], model: ChatModel, ledger: Ledger) -> Rehearsal:
    form = Structured(model).form
    prompts = tuple(formed(task.request(row), task.record, form) for row in rows[:SHOWN])
    return Rehearsal(task, estimate(task, rows, model, ledger), form, prompts)
