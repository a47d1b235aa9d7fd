"""Proof of what a saved folder has seen: its manifest names the interactions it was fitted on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from palate.core.dataset import Dataset
from palate.core.errors import LeakError, StoreError
from palate.core.store import NO_DATA, read_manifest

UNVERIFIED = "unverified"
UNKNOWN = "provenance unknown"
"""The ``fitted_on`` of what somebody else wrote, and the mark of every figure made with it: nobody can say by whom, how
and from what, so it may know what validation and test ask about."""


def check_fitted_on(folder: str | Path, train: Dataset, *, allow_unverified: bool = False) -> str | None:
    """Refuse vectors, codes, annotations or models that were fitted on other interactions than ``train``.

    Returns the mark that every figure must carry (``unverified``, that of ``mark_of``, or None). A folder without a
    manifest is refused with ``LeakError``, or marked when ``allow_unverified``.
    """
    folder = Path(folder)
    try:
        fitted_on = read_manifest(folder)["fitted_on"]
    except StoreError as failure:
        if allow_unverified:
            return UNVERIFIED
        raise LeakError(
            f"{folder} does not say what it was fitted on ({failure}); make it again from the train part, "
            f"or allow it and every figure will be marked '{UNVERIFIED}'"
        ) from None
    if fitted_on not in (NO_DATA, UNKNOWN, train.fingerprint):
        raise LeakError(
            f"{folder} was fitted on other interactions ({fitted_on[:12]}…) than this train part "
            f"({train.fingerprint[:12]}…): it may have seen what it must predict; fit it again on this split"
        )
    return mark_of(folder)


def mark_of(folder: str | Path) -> str | None:
    """``provenance unknown`` where the folder, any part of it, or what it is a part of, rests on what somebody else
    wrote: the parts of one fit learn together. Raises ``StoreError`` for a part that no folder can be."""
    whole = Path(folder).absolute()
    while (whole.parent / "manifest.json").exists() and whole.name in read_manifest(whole.parent)["parts"]:
        whole = whole.parent
    return UNKNOWN if _rests_on_unknown(whole) else None


def _rests_on_unknown(folder: Path) -> bool:
    manifest = read_manifest(folder)
    for part in manifest["parts"]:
        if Path(part).name != part or part == "..":
            raise StoreError(f"{folder} names a part '{part}', which lies elsewhere")
    return manifest["fitted_on"] == UNKNOWN or any(_rests_on_unknown(folder / part) for part in manifest["parts"])


def marks_of(system: object) -> list[str]:
    """The same of a system that is not saved: of whoever wrote for it and for its parts."""
    parts = (getattr(system, "parts", None) or {}).values()
    found = {mark for part in parts for mark in marks_of(part)}
    return sorted(found | ({UNKNOWN} if getattr(system, "label", None) == UNKNOWN else set()))


def asked_of(folder: str | Path) -> dict[str, dict[str, Any]]:
    """By name, version and hash of each prompt that the parts of a saved system had answered: the ``model``, the
    ``author`` it is called, and how many ``records`` were read in which way, such as ``schema plain``."""
    found: dict[str, dict[str, Any]] = {}
    for asked in _asked(Path(folder)):
        for prompt, said in asked.items():
            before = found.get(prompt, {"records": {}})
            found[prompt] = {**said, "records": dict(Counter(before["records"]) + Counter(said["records"]))}
    return found


def _asked(folder: Path) -> Iterator[Mapping[str, Any]]:
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    if isinstance(facts.get("asked"), dict):
        yield facts["asked"]
    for part in read_manifest(folder)["parts"]:
        yield from _asked(folder / part)


def told_of(asked: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same in a sentence a prompt."""
    sentences = []
    for prompt, said in sorted(asked.items()):
        ways = ", ".join(f"{count:,} {way}" for way, count in sorted(said["records"].items()))
        sentences.append(f"prompt {prompt}, asked of {said['author']}: {ways or 'no record'}")
    return sentences
