"""``palate names``: how a run names its items or users, how healthy the names are, and what begins alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    import numpy as np

    from palate.core.protocols import ItemTokenizer, UserTokenizer
    from palate.evaluation.index_health import IndexHealth
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
        told = index_health(fitted, parts["user_index"])
        print(json.dumps(asdict(told), indent=2) if as_json else f"{fitted.name} {told.table()}")
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


def index_health(fitted: FittedRun, index: UserTokenizer) -> IndexHealth:
    """Of a run's user index; on the world with the tastes that were planted."""
    from palate.data.world import planted
    from palate.evaluation.index_health import index_health as measured

    truth = planted(fitted.dataset)
    loved = None if truth is None else truth.truth.readers.taste[:, :-1] > 0
    return measured(index.numbers, loved, getattr(index, "facts", {}))


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
