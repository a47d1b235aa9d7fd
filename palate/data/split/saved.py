"""Splits on disk: which rule, which data, which events are asked; made anew and checked when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import StoreError
from palate.core.split import Split
from palate.data.split.rules import apply, rule_named

KIND = f"{Split.__module__}:{Split.__qualname__}"


def save(folder: str | Path, split: Split) -> None:
    """Write what is needed to make the split again from its dataset, and the positions of the asked events.

    The events themselves stay with the dataset; other tools read the positions from ``arrays.safetensors``.
    """
    facts = {
        "rule": split.rule,
        "settings": dict(split.settings),
        "hash": split.hash,
        "proof": dict(split.proof),
        "dataset": split.dataset.name,
        "train": split.train.fingerprint,
    }
    arrays = {"valid_events": split.valid.events, "test_events": split.test.events}
    store.save(folder, split, arrays=arrays, facts=facts, fitted_on=split.dataset.fingerprint)


def load(folder: str | Path, dataset: Dataset) -> Split:
    """The split saved there, made again from ``dataset`` and checked for leaks.

    Raises ``StoreError`` when the folder is no split, is damaged, belongs to other data, or no longer gives the same
    questions.
    """
    stored = store.open_folder(folder)
    if stored.kind != KIND:
        raise StoreError(f"{folder} holds no split but a {stored.kind.rpartition(':')[2]}")
    if stored.fitted_on != dataset.fingerprint:
        raise StoreError(
            f"{folder} is a split of other interactions (dataset '{stored.facts['dataset']}') than those of dataset "
            f"'{dataset.name}' given here; split it again"
        )
    made = apply(dataset, rule_named(stored.facts["rule"], stored.facts["settings"]))
    asked = stored.arrays()
    same = all(
        np.array_equal(asked[f"{name}_events"], cases.events)
        for name, cases in (("valid", made.valid), ("test", made.test))
    )
    if not same or made.hash != stored.facts["hash"]:
        raise StoreError(
            f"{folder}: rule '{made.rule}' now gives another split than the one saved there; split the dataset again"
        )
    return made
