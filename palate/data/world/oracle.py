"""Oracles: the next event predicted by someone who knows part of the truth. A system can pass one by luck only.

An oracle knows some of ``popularity``, ``taste``, ``stated`` (only the themes the preference sentence names),
``circle``, ``motif`` and ``order``, and follows the rules of ``simulate`` with what it knows; what it does not know is
left out of the choice. Its score is measured as systems are: the last event of each reader, all items but those in
the history, expected rank under ties.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from palate.data.world.assemble import World
from palate.data.world.catalogue import Rows
from palate.data.world.readers import BOOKS, FILMS
from palate.data.world.simulate import CHOICE, CHOICE_COLD, affinity

ALL = (*CHOICE, "order")
_BLOCK, _CELLS = 256, 1 << 22  # readers scored at once, and cells of a table of events and items


def last_events(world: World) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """The target of each reader ``[U]`` (row of the last item read) and what was read before ``[U, N]``."""
    data = world.dataset
    stops = np.searchsorted(data.user_rows, np.arange(data.n_users), side="right")
    targets = data.item_rows[stops - 1].astype(np.int64)
    before = np.zeros((data.n_users, data.n_items), dtype=bool)
    before[data.user_rows, data.item_rows] = True
    before[np.arange(data.n_users), targets] = False
    return targets, before


def oracle_scores(world: World, knows: Collection[str] = ALL) -> npt.NDArray[np.float64]:
    """``[U, N]`` chance of each item as the reader's last event, as far as the oracle can tell; 0 once read."""
    data = world.dataset
    stops = np.searchsorted(data.user_rows, np.arange(data.n_users), side="right")
    previous = data.item_rows[stops - 2].astype(np.int64)
    _, before = last_events(world)
    blocks = []
    for first in range(0, data.n_users, _BLOCK):
        user = np.arange(first, min(first + _BLOCK, data.n_users))
        blocks.append(_chances(world, user, previous[user], before[user], knows))
    return np.concatenate(blocks)


def recall_at_10(
    scores: npt.NDArray[np.float64],
    targets: Rows,
    left_out: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """``[U]`` chance that the target is in the top 10; ties share their places. ``among [N]`` limits the items."""
    scores = np.where(left_out, -np.inf, scores)
    if among is not None:
        scores = np.where(among, scores, -np.inf)
    own = np.take_along_axis(scores, targets[:, None], 1)
    above, equal = (scores > own).sum(1), (scores == own).sum(1)
    return np.clip((10 - above) / equal, 0, 1)


def noise_chances(world: World, knows: Collection[str] = ALL) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Positions ``[E]`` in the log of all events but each reader's last two, and how likely each is noise as far as the
    oracle can tell from what had been read before it: a guide for whoever looks for noise. Later events are not read,
    and a planned event counts as a fresh choice, though readers follow a list of wishes; so chances lie a little high.
    """
    data = world.dataset
    users, items = data.user_rows.astype(np.int64), data.item_rows.astype(np.int64)
    starts = np.searchsorted(users, np.arange(data.n_users + 1))
    found, chances = [], []
    step = max(1, min(_BLOCK, _CELLS // (world.config.events_high * data.n_items)))
    for first in range(0, data.n_users, step):
        here = slice(starts[first], starts[min(first + step, data.n_users)])
        user, item = users[here], items[here]
        begun = starts[user] - here.start
        met = np.zeros((len(user) + 1, data.n_items), dtype=np.int32)
        met[np.arange(1, len(user) + 1), item] = 1
        met = met.cumsum(0)
        read = met[:-1] > met[begun]
        previous = np.where(begun == np.arange(len(user)), -1, np.concatenate([[-1], item[:-1]]))
        row, who = np.arange(len(user)), world.truth.readers
        early = (row - begun < who.length[user] // 2) & bool(world.config.films)
        planned, warm, _, _ = _choices(
            world, user, np.where(early, who.begins[user], who.group[user]), previous, read, knows
        )
        noise = world.config.noise / np.maximum(warm.sum(1), 1)
        chance = noise / (noise + (1 - world.config.noise) * planned[row, item])
        asked = starts[user + 1] - here.start - row > 2
        found.append(here.start + row[asked])
        chances.append(chance[asked])
    return np.concatenate(found), np.concatenate(chances)


def _chances(
    world: World, user: Rows, previous: Rows, read: npt.NDArray[np.bool_], knows: Collection[str]
) -> npt.NDArray[np.float64]:
    """``[b, N]`` of the last event: planned, noise or a cold item."""
    config = world.config
    group = world.truth.readers.group[user]
    planned, warm, cold, utility_cold = _choices(world, user, group, previous, read, knows)
    chance = (1 - config.noise) * planned + config.noise * warm / warm.sum(1, keepdims=True)
    late = config.cold_last * cold.any(1, keepdims=True)
    return (1 - late) * chance + late * _softmax(utility_cold, cold)


def _choices(
    world: World,
    user: Rows,
    group: npt.NDArray[np.integer],
    previous: Rows,
    read: npt.NDArray[np.bool_],
    knows: Collection[str],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """All ``[b, N]``: the chance of each item as a planned event after ``previous`` (-1 = the first one) to readers to
    whom the domains ``group`` are open, the warm and the cold items that may come, and the utility of cold ones."""
    traits, who = world.truth.items, world.truth.readers
    film, group = world.catalogue.is_film, group[:, None]
    item = np.broadcast_to(np.arange(len(traits.cold)), read.shape)
    if "stated" in knows:
        who = replace(who, taste=_stated(world))
    parts = affinity(world.config, who, world.catalogue, traits, user, item)
    knows = {"taste" if name == "stated" else name for name in knows}
    known = {name: parts[name].astype(np.float64) for name in CHOICE if name in knows}
    utility = sum(known.values(), np.zeros(read.shape))
    utility_cold = sum((known[name] for name in CHOICE_COLD if name in known), np.zeros(read.shape))
    open_ = ~read & ~(film & (group == BOOKS)) & ~(~film & (group == FILMS))
    warm, cold = open_ & ~traits.cold, open_ & traits.cold
    chance = _softmax(utility, warm)
    if "order" in knows:
        chance = _read_in_order(world, chance, read)
        later = previous >= 0
        chance[later] = _follow(world, previous[later], read[later], chance[later])
    return chance, warm, cold, utility_cold


def _stated(world: World) -> npt.NDArray[np.float32]:
    """``[U, 27]`` the taste a sentence gives away: the two wanted themes and the avoided one."""
    who = world.truth.readers
    stated, everyone = np.zeros_like(who.taste), np.arange(len(who))
    stated[everyone[:, None], who.wants] = 1.0
    stated[everyone, who.avoids] = -1.0
    stated[:, -1] = 0.0  # avoids is -1 where nothing is stated
    return stated


def _softmax(utility: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    weights = np.exp(utility - utility.max(1, keepdims=True)) * mask
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)


def _read_in_order(
    world: World, chance: npt.NDArray[np.float64], read: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """A wish for a later volume falls on the first unread one: move its chance there, last volumes first."""
    chance, before = chance.copy(), world.truth.items.before_in_series
    position = np.array([record.series_position or 0 for record in world.catalogue.records])
    for row in np.argsort(-position, kind="stable"):
        if before[row] >= 0:
            moved = np.where(read[:, before[row]], 0.0, chance[:, row])
            chance[:, row] -= moved
            chance[:, before[row]] += moved
    return chance


def _follow(
    world: World, previous: Rows, read: npt.NDArray[np.bool_], chance: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    traits, everyone = world.truth.items, np.arange(len(previous))
    author, series = traits.next_by_author[previous], traits.next_in_series[previous]
    first = traits.before_in_series[author]
    in_order = (first < 0) | read[everyone, first]
    for after, share, allowed in (
        (author, world.config.next_by_author, in_order),
        (series, world.config.next_in_series, np.ones(len(previous), dtype=bool)),
    ):
        step = share * ((after >= 0) & ~read[everyone, after] & allowed)
        chance = chance * (1 - step)[:, None]
        chance[everyone, after] += step
    return chance
