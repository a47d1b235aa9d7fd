"""``palate names``: how a run names its items or users, how healthy the names are, and what begins alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np

    from palate.core.protocols import ItemTokenizer, UserTokenizer
    from palate.runs import FittedRun

FAMILIES, SHOWN = 6, 5
"""Groups of items that begin alike, and titles of each."""


def names(
    run: Path,
    /,
    *,
    find: tuple[str, ...] = (),
    encoder: str | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Show how RUN names its items: use, balance and collisions of the names, and items that begin alike. Of a system
    that names users, such as ulmrec, show their index and, on the world, whether it follows the tastes planted there.

    Parameters
    ----------
    run
        A run folder of a system that says names, such as tiger, p5 or lc-rec.
    find
        Ids or titles whose names are shown.
    encoder
        What makes the vectors that the names are compared with, such as auto or tf-idf; the tokenizer's own by default,
        and none where it has none.
    as_json
        Print JSON instead.
    """
    from dataclasses import asdict

    from palate.ask import Asker
    from palate.core.errors import MisuseError
    from palate.runs import FittedRun

    fitted = FittedRun.open(run)
    asker = Asker(fitted)
    parts = getattr(asker.system, "parts", {})
    if "user_index" in parts:
        told = index_told(fitted, parts["user_index"])
        print(json.dumps(told, indent=2) if as_json else "\n".join(index_lines(fitted.name, told)))
        return
    tokenizer: ItemTokenizer | None = parts.get("tokenizer")
    if tokenizer is None:
        raise MisuseError(f"{fitted.name} is a {fitted.plan.system}, which gives items no names")
    health = tokenizer.health(vectors_of(fitted, tokenizer, encoder))
    codes = tokenizer.codes
    asked = {asker.titles[row]: codes.spell(row) for row in map(asker.item_row, find)}
    if as_json:
        print(json.dumps({"tokenizer": _kind(tokenizer), "health": asdict(health), "names": asked}, indent=2))
        return
    print(f"{fitted.name} names {codes.n_items:,} items by {_kind(tokenizer)}\n\n{health.table()}\n")
    for title, name in asked.items():
        print(f"{title}: {name}")
    if not asked:
        print("Items that begin alike, of the largest groups:")
        for token, rows in families(tokenizer):
            print(f"  {token:<12} {' · '.join(asker.titles[row] for row in rows[:SHOWN])}  ({len(rows)} in all)")


def index_told(fitted: FittedRun, index: UserTokenizer) -> dict[str, Any]:
    """What is known of a user index; on the world its agreement with the planted tastes, by one code and by two."""
    from dataclasses import asdict

    import numpy as np

    from palate.data.world import planted
    from palate.evaluation.agreement import agreement

    numbers = index.numbers
    named = np.flatnonzero(numbers[:, 0] >= 0)
    used = [len(np.unique(level)) for level in numbers[named].T]
    facts = getattr(index, "facts", {})
    told: dict[str, Any] = {
        "users": len(numbers), "named": len(named), "codes in use": used,
        "different": len(np.unique(numbers[named], axis=0)), "read": facts.get("read"), "repair": facts.get("repair"),
        "notes": facts.get("notes", []),
    }  # fmt: skip
    truth = planted(fitted.dataset)
    if truth is not None and len(named) > 1:
        loved = truth.truth.readers.taste[named, :-1] > 0
        told["planted tastes"] = {
            depth: asdict(agreement(np.unique(numbers[named, :depth], axis=0, return_inverse=True)[1].ravel(), loved))
            for depth in range(1, min(2, numbers.shape[1]) + 1)
        }
    return told


def index_lines(name: str, told: dict[str, Any]) -> list[str]:
    """The same for a person."""
    lines = [
        f"{name} names {told['named']:,} of {told['users']:,} users, {told['different']:,} differently; "
        f"codes in use a level: {', '.join(map(str, told['codes in use']))}",
        f"read: {told['read']}",
    ]
    for depth, found in told.get("planted tastes", {}).items():
        above = found["above"]
        lines.append(
            f"planted tastes (simulated), users grouped by {depth} code{'s' * (depth > 1)} ({found['groups']} groups): "
            f"NMI {found['own']:.3f}, random index {found['random']:.3f}, "
            f"above it {above['value']:+.3f} [{above['low']:+.3f}, {above['high']:+.3f}]"
        )
    return [*lines, *(f"note: {note}" for note in told["notes"])]


def vectors_of(fitted: FittedRun, tokenizer: ItemTokenizer, encoder: str | None) -> np.ndarray | None:
    """``[N, D]`` by the named encoder, else by the tokenizer's own; None where there is neither."""
    from palate.backbones.vectors import item_vectors
    from palate.core.config import Part
    from palate.systems import component

    own: Any = getattr(tokenizer, "encoder", None)
    if encoder is None and own is None:
        return None
    chosen = own if encoder is None else component("encoder", Part(name=encoder))
    return item_vectors(fitted.dataset, chosen, getattr(tokenizer.config, "text", None))


def families(tokenizer: ItemTokenizer) -> list[tuple[str, list[int]]]:
    """The largest groups of items whose names have the first token in common that is not everybody's."""
    import numpy as np

    codes = tokenizer.codes
    varied = [at for at in range(codes.tokens.shape[1]) if len(np.unique(codes.tokens[:, at])) > 1]
    firsts = codes.tokens[:, varied[0] if varied else 0]
    tokens, counts = np.unique(firsts[firsts >= 0], return_counts=True)
    largest = tokens[np.argsort(-counts, kind="stable")][:FAMILIES]
    return [(codes.vocabulary[token], np.flatnonzero(firsts == token).tolist()) for token in largest]


def _kind(tokenizer: ItemTokenizer) -> str:
    return type(tokenizer).__name__
