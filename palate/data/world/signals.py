"""Is each planted signal there? One contrast a signal: clearly above 0 where it is planted, about 0 where shuffled.

Most contrasts compare the readers' own trait with a stranger's (the next reader in the table), so that anything both
share, such as popular themes, cancels. ``ceilings`` says how far an oracle gets with each signal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.world.assemble import World
from palate.data.world.catalogue import THEMES, Rows
from palate.data.world.oracle import ALL, last_events, oracle_scores, recall_at_10
from palate.data.world.reviews import OPENINGS
from palate.data.world.simulate import CHOICE, COLD, RELEASE_MS, affinity

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ceiling:
    """Recall@10 of an oracle: over all last events, the warm ones, and the cold ones among the cold items only."""

    knows: tuple[str, ...]
    every: float
    warm: float
    cold_among_cold: float


def presence(world: World) -> dict[str, float]:
    """Every contrast by name."""
    return {name: measure(world) for name, measure in CONTRASTS.items()}


def taste(world: World) -> float:
    """Loved minus avoided themes an event has for its reader, beyond what it has for a stranger."""
    user, item = _events(world)
    loved = world.truth.readers.taste[:, :-1]
    own = (loved[user] * world.truth.themes[item]).sum(1).mean()
    return float(own - (loved[_stranger(user, len(loved))] * world.truth.themes[item]).sum(1).mean())


def circle(world: World) -> float:
    """Share of events inside the reader's circle, beyond a stranger's share."""
    user, item = _events(world)
    warm = world.truth.cause != COLD
    readers, items = world.truth.readers.circle, world.truth.items.circle[item[warm]]
    return float((readers[user[warm]] == items).mean() - (readers[_stranger(user[warm], len(readers))] == items).mean())


def motif(world: World) -> float:
    """Share of a fan's events with the favourite motif, beyond another fan's share."""
    user, item = _events(world)
    fans = np.flatnonzero(world.truth.readers.motif >= 0)
    if len(fans) < 2:
        return 0.0
    place = np.full(len(world.truth.readers), -1)
    place[fans] = np.arange(len(fans))
    kept = place[user] >= 0
    favourite, shown = world.truth.readers.motif, world.truth.items.motif[item[kept]]
    other = fans[_stranger(place[user[kept]], len(fans))]
    return float((favourite[user[kept]] == shown).mean() - (favourite[other] == shown).mean())


def order(world: World) -> float:
    """After a volume that has a next one: share of events that are it, beyond the same events in random order."""
    user, item = _events(world)
    shuffled = np.lexsort((np.random.default_rng(0).random(len(item)), user))
    return _follows(world, user, item) - _follows(world, user, item[shuffled])


def tone(world: World) -> float:
    """Correlation of the stars with the stars the opening of the review speaks of."""
    texts, stars = world.dataset.interactions["review"], world.dataset.interactions["rating"].to_numpy()
    spoken = np.zeros(len(stars))
    for star, openings in OPENINGS.items():
        for opening in openings:
            spoken[texts.str.starts_with(opening).to_numpy()] = star
    return float(np.corrcoef(spoken, stars)[0, 1])


def review_wants(world: World) -> float:
    """Share of loved themes among those a reader's reviews name, beyond a stranger's share."""
    user, _ = _events(world)
    loved = world.truth.readers.taste[:, :-1] > 0
    named = named_themes(world.dataset.interactions["review"])
    other = _stranger(user, len(loved))
    return float((named & loved[user]).sum() - (named & loved[other]).sum()) / max(1, named.sum())


def preferences(world: World) -> float:
    """Taste for the themes the sentence wishes for minus taste for those it refuses, halved, beyond a stranger's."""
    sentences = world.dataset.users["preference"].str.splitn(".", 2).struct
    taste_ = world.truth.readers.taste[:, :-1]
    other = taste_[_stranger(np.arange(len(taste_)), len(taste_))]
    contrast = 0.0
    for part, sign in (("field_0", 0.5), ("field_1", -0.5)):
        named = named_themes(sentences.field(part).fill_null(""))
        contrast += sign * float((named * (taste_ - other)).sum()) / max(1, named.sum())
    return contrast


def noise(world: World) -> float:
    """How much likelier a planned event looks than a noise event to one who knows the truth: AUC - 0.5."""
    user, item = _events(world)
    parts = affinity(
        world.config, world.truth.readers, world.catalogue, world.truth.items, user.astype(np.int64), item[:, None]
    )
    score = np.stack([parts[name][:, 0] for name in CHOICE]).astype(np.float64).sum(axis=0)
    rank = np.empty(score.shape)
    rank[np.argsort(score, kind="stable")] = np.arange(1, score.size + 1)
    noisy = world.truth.noise
    n_noise, n_planned = noisy.sum(), (~noisy).sum()
    below = rank[~noisy].sum() - n_planned * (n_planned + 1) / 2
    return float(below / max(1, n_noise * n_planned) - 0.5)


def popularity(world: World) -> float:
    """Share of events on the tenth of the warm items with the greatest appeal, beyond a tenth."""
    _, item = _events(world)
    traits = world.truth.items
    warm = np.flatnonzero(~traits.cold)
    top = warm[np.argsort(-traits.appeal[warm])][: len(warm) // 10]
    return float(np.isin(item, top).mean() - len(top) / len(warm))


CONTRASTS: dict[str, Callable[[World], float]] = {
    "taste": taste,
    "circle": circle,
    "order": order,
    "motif": motif,
    "reviews: tone": tone,
    "reviews: wants": review_wants,
    "preferences": preferences,
    "noise": noise,
    "popularity": popularity,
}


def ceilings(world: World) -> list[Ceiling]:
    """What oracles reach: popularity, with the rules of order, with one more signal each, and with everything."""
    base = ("popularity", "order")
    asked = [base[:1], base, *((*base, name) for name in ("stated", "taste", "circle", "motif")), ALL]
    targets, before = last_events(world)
    cold_item = world.truth.items.cold
    cold = cold_item[targets]
    rows = []
    for knows in asked:
        scores = oracle_scores(world, knows)
        every = recall_at_10(scores, targets, before)
        among = recall_at_10(scores[cold], targets[cold], before[cold], cold_item)
        among_cold = float(among.mean()) if cold.any() else float("nan")
        rows.append(Ceiling(tuple(knows), float(every.mean()), float(every[~cold].mean()), among_cold))
    return rows


def cold_targets(world: World) -> tuple[int, int]:
    """How many readers' last event is a cold item, and how many cold events lie before the release (none may)."""
    targets, _ = last_events(world)
    times = world.dataset.interactions["time"].to_numpy()
    early = world.truth.items.cold[world.dataset.item_rows] & (times < RELEASE_MS)
    return int(world.truth.items.cold[targets].sum()), int(early.sum())


def named_themes(texts: object) -> Flags:
    """``[n, 26]`` which themes each text names, in the words in which readers ask for them. Takes a text column."""
    found = [texts.str.contains(rf"\b{phrase}\b").to_numpy() for phrase, _ in THEMES.values()]  # type: ignore[attr-defined]
    return np.stack(found, axis=1)


def _events(world: World) -> tuple[Rows, Rows]:
    return world.dataset.user_rows.astype(np.int64), world.dataset.item_rows.astype(np.int64)


def _stranger(user: Rows, n: int) -> Rows:
    return (user + 1) % n


def _follows(world: World, user: Rows, item: Rows) -> float:
    after = world.truth.items.next_in_series[item[:-1]]
    asked = (user[1:] == user[:-1]) & (after >= 0)
    return float((after == item[1:])[asked].mean()) if asked.any() else 0.0
