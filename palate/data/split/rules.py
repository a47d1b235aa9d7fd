"""Names → rules, and the two verbs: split by a rule, and check a split. A rule is its settings, frozen and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from palate.core.config import Config, configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, LeakError, nearest
from palate.core.split import Split
from palate.data.split import checks
from palate.data.split.cold import ColdItems, ColdUsers, CrossDomain
from palate.data.split.last_events import FewShot, LeaveOneOut
from palate.data.split.temporal import Temporal


class Rule(Protocol):
    """What a rule can do: split, and prove what is special about its splits."""

    name: ClassVar[str]

    def make(self, dataset: Dataset) -> Split:
        """The split, not yet checked."""

    def proofs(self, split: Split) -> dict[str, str]:
        """Further checks: the name of each → the sentence that says what it saw. Raises ``LeakError``."""

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The settings."""


RULES: Mapping[str, type[Config]] = {
    rule.name: rule for rule in (LeaveOneOut, Temporal, ColdItems, ColdUsers, FewShot, CrossDomain)
}


def rule_named(name: str, settings: Mapping[str, object] | None = None) -> Rule:
    """The rule object of a name and its settings. Raises ``ConfigError`` that names the nearest rule or setting."""
    if name not in RULES:
        raise ConfigError(f"no split rule '{name}'{nearest(name, RULES)}")
    return configure(RULES[name], settings, where=f"split rule '{name}'")  # type: ignore[return-value]


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
        **rule_named(split.rule, split.settings).proofs(split),
    }
