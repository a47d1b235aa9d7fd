"""The named rules. A rule is its settings: frozen, checked, and enough to make the same split again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np

from palate.core.config import Config, configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, LeakError, nearest
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests
from palate.core.split import Cases, Split
from palate.data.split import checks


class Rule(Protocol):
    """What a rule can do: split, and prove what is special about its splits."""

    name: ClassVar[str]

    def make(self, dataset: Dataset) -> Split:
        """The split, not yet checked."""

    def proofs(self, split: Split) -> dict[str, str]:
        """Further checks: the name of each → the sentence that says what it saw. Raises ``LeakError``."""

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The settings."""


class LeaveOneOut(Config):
    """The last event of each user is test, the one before it valid, the rest teaches.

    Users with fewer than three events only teach. A test history includes the validation event.
    """

    name: ClassVar[str] = "leave-one-out"

    def make(self, dataset: Dataset) -> Split:
        histories = dataset.histories
        asked = histories[np.flatnonzero(histories.lengths >= 3)]
        valid, test = asked.stops - 2, asked.stops - 1
        teaches = np.ones(dataset.n_interactions, dtype=np.bool_)
        teaches[valid] = teaches[test] = False
        return Split(
            dataset,
            dataset.keeping(teaches),
            valid=cases_after(dataset, valid, asked.starts, valid),
            test=cases_after(dataset, test, asked.starts, test),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        return {
            "training": checks.check_training(split, checks.asked_or_later(split)),
            "users": _too_few(split, fewest=3),
        }


RULES: Mapping[str, type[LeaveOneOut]] = {rule.name: rule for rule in (LeaveOneOut,)}


def rule_named(name: str, settings: Mapping[str, object] | None = None) -> Rule:
    """The rule object of a name and its settings. Raises ``ConfigError`` that names the nearest rule or setting."""
    if name not in RULES:
        raise ConfigError(f"no split rule '{name}'{nearest(name, RULES)}")
    return configure(RULES[name], settings, where=f"split rule '{name}'")


def split(dataset: Dataset, rule: str = "leave-one-out", **settings: object) -> Split:
    """Split by the rule of that name and prove that nothing leaks."""
    return apply(dataset, rule_named(rule, settings))


def leave_one_out(dataset: Dataset) -> Split:
    """Last event of each user = test, second last = valid."""
    return apply(dataset, LeaveOneOut())


def apply(dataset: Dataset, rule: Rule) -> Split:
    """Split by a rule object and prove that nothing leaks. ``DataError`` when nothing is left to ask or learn."""
    if not dataset.n_interactions:
        raise DataError(f"dataset '{dataset.name}' has no events to split")
    made = replace(rule.make(dataset), settings=rule.model_dump(mode="json"))
    if not len(made.test) or not made.train.n_interactions:
        what = "ask" if made.train.n_interactions else "learn from"
        raise DataError(f"split rule '{rule.name}' leaves nothing to {what} in dataset '{dataset.name}'")
    return replace(made, proof=check(made))


def check(split: Split) -> dict[str, str]:
    """Prove again that nothing leaks: name of each check → what it saw. Raises ``LeakError`` in one sentence."""
    if split.rule not in RULES:
        raise LeakError(f"nothing is known about split rule '{split.rule}', so nothing can be proved about its split")
    return {
        "catalogue": checks.check_tables(split),
        "questions": checks.check_questions(split),
        "histories": checks.check_histories(split),
        **rule_named(split.rule, split.settings).proofs(split),
    }


def cases_after(dataset: Dataset, events: IntArray, starts: IntArray, stops: IntArray) -> Cases:
    """Ask for ``events`` after the slices ``starts``-``stops`` of the log; no event is copied."""
    return Cases(
        Requests(
            Ragged(dataset.item_rows, starts, stops),
            history_times=dataset.times,
            user_rows=dataset.user_rows[events].astype(np.int64),
            times=None if dataset.times is None else dataset.times[events],
        ),
        targets=dataset.item_rows[events].astype(np.int64),
        events=events,
    )


def _too_few(split: Split, fewest: int) -> str:
    lengths = split.dataset.histories.lengths
    short = int(((lengths > 0) & (lengths < fewest)).sum())
    n_asked = len(np.unique(split.test.user_rows))
    return f"{n_asked:,} users are asked; {short:,} with fewer than {fewest} events only teach"
