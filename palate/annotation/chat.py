"""The annotator that asks a chat model, through the ledger: what it wrote once is never asked for again.

The counterpart of ``extractive`` for everything that reads what a language model writes (the intentions of LC-Rec,
Zheng et al. 2024, arXiv 2311.09049; the profiles of RLMRec, Ren et al. 2024, arXiv 2310.15950; the choices, attributes
and traits of LLMRec, Wei et al. 2024, arXiv 2311.00423). A record that the model could not write in two attempts has
empty lines, like one of which nothing is known, and is counted in ``unreadable``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field

from palate.annotation.choices import chosen
from palate.annotation.ledger import Budget, Entry, Ledger
from palate.annotation.rows import (
    attribute_rows,
    choice_rows,
    events_of,
    events_read,
    intention_rows,
    item_rows,
    step_rows,
    trait_rows,
    user_rows,
)
from palate.annotation.steps import kept, names_read, window
from palate.annotation.tasks import Row, Task, profile_told, task_of
from palate.annotation.writing import write
from palate.core import store
from palate.core.annotations import (
    Choice,
    Intention,
    ItemAttributes,
    ItemProfile,
    Preference,
    StepPreferences,
    UserProfile,
    UserTraits,
)
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.fence import Fence
from palate.core.protocols import ChatModel
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Progress, Silent


class ChatAnnotatorConfig(Config):
    chat: Part = Part(name="scripted")
    """The chat model: ``chat=endpoint``, ``chat=hub`` …"""
    ledger: str = Field("annotations.sqlite", min_length=1)
    """The file in which everything written is kept."""
    budget_tokens: int | None = Field(None, ge=1)
    """What all calls of the ledger together may use."""
    budget_money: float | None = Field(None, gt=0)
    """In the money of the chat model's prices."""
    parallel: int = Field(4, ge=1)
    """Questions at once."""
    offline: bool = False
    """Take records from the ledger alone; one that is missing is an error."""


class ChatAnnotator:
    """The annotator. ``unreadable`` counts records that the model did not manage to write, ``refused`` those of them
    whose question its server did not take in any form; ``refusal`` is the reason of the first. ``asked`` has, by name,
    version and hash of a prompt, the model and how many of its records were read in which way."""

    config_type = ChatAnnotatorConfig

    def __init__(
        self, config: ChatAnnotatorConfig | None = None, *, chat: ChatModel, progress: Progress | None = None
    ) -> None:
        self.config, self.chat = config or ChatAnnotatorConfig(), chat
        self.parts = {"chat": chat}
        self.fence: Fence | None = None
        self.progress = progress or Silent()
        self.unreadable, self.refused, self.refusal = 0, 0, ""
        self.asked: dict[str, dict[str, Any]] = {}

    @property
    def label(self) -> str:
        return self.chat.label

    def open(self) -> Ledger:
        """The ledger, with the budget of the settings."""
        return Ledger(
            Path(self.config.ledger).expanduser(), Budget(self.config.budget_tokens, self.config.budget_money)
        )

    def entries(self, task: Task, rows: Sequence[Row]) -> list[Entry]:
        """What the model wrote about each row, in their order."""
        with self.open() as ledger:
            found = write(
                task, rows, self.chat, ledger, parallel=self.config.parallel, offline=self.config.offline,
                progress=self.progress,
            )  # fmt: skip
        told = self.asked.setdefault(task.prompt, {"model": self.chat.version, "author": self.label, "records": {}})
        told["records"] = dict(Counter(told["records"]) + Counter(entry.step for entry in found))
        self.unreadable += sum(entry.record is None for entry in found)
        refused = [entry.problem for entry in found if entry.record is None and entry.step.endswith(" refused")]
        self.refused, self.refusal = self.refused + len(refused), self.refusal or next(iter(refused), "")
        return found

    def intentions(self, train: Dataset, events: IntArray) -> list[Intention]:
        """One record an event; its lines are empty where nobody wrote a review, and nobody is asked about it."""
        events = np.asarray(events, dtype=np.int64)
        rows = intention_rows(train, events)
        said = self._said("intention", train, [row if row.fields["review"] else None for row in rows])
        return [
            Intention(event, int(train.user_rows[event]), int(train.item_rows[event]), one.get("wish", ""),
                      one.get("traits", ""), self.label)
            for event, one in zip(events.tolist(), said, strict=True)
        ]  # fmt: skip

    def preferences(self, train: Dataset, histories: Ragged) -> list[Preference]:
        rows = user_rows(train, histories)
        said = self._said("preference", train, rows)
        return [
            Preference(row.of, one.get("brief", ""), one.get("long_term", ""), one.get("short_term", ""), self.label)
            for row, one in zip(rows, said, strict=True)
        ]

    def step_preferences(self, dataset: Dataset, events: IntArray) -> list[StepPreferences]:
        """One record an event; without sentences where too few keep the contract."""
        events = np.asarray(events, dtype=np.int64)
        said = self._said("step-preferences", dataset, step_rows(dataset, events))
        named = names_read(dataset, window(dataset, events))
        return [
            StepPreferences(event, int(dataset.user_rows[event]), kept(one.get("sentences", ()), names), self.label)
            for event, one, names in zip(events.tolist(), said, named, strict=True)
        ]

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        rows = item_rows(train, items)
        return [
            ItemProfile(row.of, *profile_told(one), self.label)
            for row, one in zip(rows, self._said("item-profile", train, rows), strict=True)
        ]

    def told_of(self, train: Dataset, items: Sequence[int]) -> list[ItemProfile]:
        """A profile for every item, in the order of their rows: written for these, empty for the others."""
        found = {one.item_row: one for one in self.item_profiles(train, np.array(items, dtype=np.int64))}
        return [found.get(item, ItemProfile(item, "", "", self.label)) for item in range(train.n_items)]

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        """One record a user; of one without an event nothing is known, and nobody is asked."""
        users = np.asarray(users, dtype=np.int64)
        rows = user_rows(train, events_of(train, users), of_items)
        said = self._said("user-profile", train, [row if row.events else None for row in rows])
        return [
            UserProfile(user, *profile_told(one), self.label) for user, one in zip(users.tolist(), said, strict=True)
        ]

    def item_attributes(self, train: Dataset, items: IntArray, names: Sequence[str]) -> list[ItemAttributes]:
        """One record an item."""
        rows = attribute_rows(train, items, names)
        return [
            ItemAttributes(row.of, tuple(one.get(name, "") for name in names), self.label)
            for row, one in zip(rows, self._said("item-attributes", train, rows, names), strict=True)
        ]

    def user_traits(self, train: Dataset, users: IntArray, names: Sequence[str]) -> list[UserTraits]:
        """One record a user; of one without an event nothing is known, and nobody is asked."""
        rows = trait_rows(train, users, names)
        said = self._said("user-traits", train, [row if row.events else None for row in rows], names)
        return [
            UserTraits(row.of, tuple(one.get(name, "") for name in names), self.label)
            for row, one in zip(rows, said, strict=True)
        ]

    def choices(self, train: Dataset, users: IntArray, offered: IntArray) -> list[Choice]:
        """One record a user, among the items ``offered`` ``[n, C]``; nobody is asked who has no choice."""
        rows = choice_rows(train, users, offered)
        said = self._said("choice", train, [row if len(row.fields["candidates"]) > 1 else None for row in rows])
        among = [[item for item in some if item >= 0] for some in offered.tolist()]
        return [
            Choice(row.of, *chosen(one, some), self.label) for row, one, some in zip(rows, said, among, strict=True)
        ]

    def _said(
        self, kind: str, train: Dataset, rows: Sequence[Row | None], names: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """The fields of each record; none for a row that is not asked about, or could not be read. Raises ``LeakError``
        where a prompt shows an event of ``train`` that is behind the fence."""
        asked = [row for row in rows if row is not None]
        if self.fence is not None:
            self.fence.check(train, events_read(asked))
        found = iter(self.entries(task_of(kind, names), asked))
        return [{} if row is None else dict(next(found).record or {}) for row in rows]

    def save(self, folder: Path) -> None:
        """Settings, the chat model's, and what was asked; the ledger stays where it is."""
        chat: Any = self.chat
        store.save(folder, self, config=self.config, facts={"asked": self.asked}, parts={"chat": chat})

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        annotator = stored.begun(cls)
        annotator.asked = dict(stored.facts.get("asked", {}))
        return annotator
