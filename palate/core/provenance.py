"""Proof of what a saved folder has seen: its manifest names the interactions it was fitted on."""

from __future__ import annotations

from pathlib import Path

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
