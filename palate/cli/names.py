"""``palate names``: how a run names its items or users, how healthy the names are, and what begins alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    seed: int | None = None,
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
    seed
        Which seed of RUN names; the first when not given, and of a user index all of them, with their mean.
    as_json
        Print JSON instead.
    """
    from dataclasses import asdict

    from palate.ask import Asker
    from palate.core.errors import MisuseError
    from palate.runs import FittedRun

    fitted = FittedRun.open(run)
    asker = Asker(fitted, seed=seed)
    parts = getattr(asker.system, "parts", {})
    if "user_index" in parts:
        first, *others = fitted.plan.seeds if seed is None else (seed,)
        indexes = {first: parts["user_index"]}
        for other in others:
            system: Any = fitted.system(other)
            indexes[other] = system.parts["user_index"]
        show_indexes(fitted, indexes, as_json=as_json)
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


def show_indexes(fitted: FittedRun, indexes: Mapping[int, UserTokenizer], *, as_json: bool) -> None:
    """Each seed's user index and, of several on the world, how far they stand above a random one on average."""
    from dataclasses import asdict

    from palate.evaluation.agreement import over_seeds

    health = {seed: index_health(fitted, index) for seed, index in indexes.items()}
    alike = zip(*(one.planted_tastes for one in health.values()), strict=True)
    means = [over_seeds([one.above for one in depth]) for depth in alike] if len(health) > 1 else []
    if as_json:
        told = [{"seed": seed, **asdict(one)} for seed, one in health.items()]
        print(json.dumps({"seeds": told, "mean above a random index": [asdict(one) for one in means]}, indent=2))
        return
    for seed, one in health.items():
        print(f"{fitted.name}{f', seed {seed},' if len(fitted.plan.seeds) > 1 else ''} {one.table()}")
    for depth, mean in enumerate(means, start=1):
        span = f"{mean.value:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}], over users and seeds"
        print(f"mean of {len(health)} seeds, grouped by {depth} code{'s' * (depth > 1)}: above a random index {span}")


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
