"""Who reads what, when, and how they rate it.

A reader's next event is, in this order of chance: a cold item (only as one of the last two events), noise (any item),
the next volume of the series just read, the author's next book, else a free choice by appeal + taste + circle + motif.
A free choice of a later volume turns into the first volume not yet read, so series are read in order.

Readers are simulated in chunks of fixed size, all readers of a chunk at once, with a generator of their own: memory
does not grow with the number of readers and the result does not depend on anything but the seed.
Shapes: b readers of a chunk, M items weighed, T events of the longest history, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from palate.data.world.catalogue import SLOTS, Catalogue, Rows
from palate.data.world.dials import WorldConfig
from palate.data.world.readers import BOOKS, FILMS, MOTIFS, Readers

Floats = npt.NDArray[np.float32]
Parts = dict[str, Floats]
Flags = npt.NDArray[np.bool_]

CAUSES: tuple[str, ...] = ("free", "series", "author", "noise", "cold")
FREE, SERIES, AUTHOR, NOISE, COLD = range(len(CAUSES))

CHOICE = ("popularity", "taste", "circle", "motif")
# nobody has read a cold item yet, so nothing but its text and its cover can speak for it
CHOICE_COLD = ("taste", "motif")

CHUNK = 2048  # readers simulated at once; part of the version, since each chunk has its own generator
LATE = 2  # events of each reader after the release of the cold items
START_MS = 1_577_836_800_000  # 2020-01-01T00:00:00Z
RELEASE_MS = 1_696_118_400_000  # 2023-10-01T00:00:00Z: no cold item has an event before
END_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z


@dataclass(frozen=True, eq=False)
class ItemTraits:
    """The hidden side of the items."""

    circle: npt.NDArray[np.int16]  # [N]
    motif: npt.NDArray[np.int16]  # [N]
    appeal: Floats  # [N] log of the Zipf weight
    cold: Flags  # [N]
    next_in_series: Rows  # [N] row or -1
    next_by_author: Rows  # [N] row or -1
    before_in_series: Rows  # [N] row or -1


@dataclass(frozen=True, eq=False)
class Events:
    """Sorted by reader, then time."""

    user_rows: npt.NDArray[np.int32]  # [E]
    item_rows: npt.NDArray[np.int32]  # [E]
    times: npt.NDArray[np.int64]  # [E] ms
    ratings: Floats  # [E] 1 to 5
    cause: npt.NDArray[np.int8]  # [E] position in CAUSES


def item_traits(config: WorldConfig, items: Catalogue) -> ItemTraits:
    """Circle, motif, appeal and coldness of each item, drawn independently of its text."""
    rng = np.random.default_rng([config.seed, 2])
    n = len(items)
    series, author = items.chain("series"), items.chain("author")
    followed = np.zeros(n, dtype=bool)
    followed[series[series >= 0]] = True
    # a cold item stands alone: were it a volume, the series would give it away or be broken by it
    alone = np.flatnonzero((series < 0) & ~followed)
    cold = np.zeros(n, dtype=bool)
    for domain in (False, True):
        pool = alone[items.is_film[alone] == domain]
        n_cold = round(config.cold_share * (items.is_film == domain).sum())
        cold[rng.permutation(pool)[:n_cold]] = True
    author = items.chain("author", skip=cold)
    # the author's next book is a matter of books outside a series or of the first volume of another one
    author = np.where(author == series, -1, author)
    before = np.full(n, -1, dtype=np.int64)
    before[series[series >= 0]] = np.flatnonzero(series >= 0)
    return ItemTraits(
        circle=rng.integers(config.circles, size=n).astype(np.int16),
        motif=rng.integers(len(MOTIFS), size=n).astype(np.int16),
        appeal=_appeal(config, before, rng),
        cold=cold,
        next_in_series=series,
        next_by_author=author,
        before_in_series=before,
    )


def _appeal(config: WorldConfig, before: Rows, rng: np.random.Generator) -> Floats:
    """``[N]`` log of the Zipf weight: standalone items and whole series are ranked, and a series shares its weight.

    Wishes for later volumes fall on the first one, so without sharing the longest series would be the most read. It
    is shared by the square root of the volumes: a long series is still more visible than a single book.
    """
    start = np.arange(len(before))
    while (before[start] >= 0).any():
        start = np.where(before[start] >= 0, before[start], start)
    firsts, group, volumes = np.unique(start, return_inverse=True, return_counts=True)
    rank = rng.permutation(len(firsts)) + 1
    return (-config.popularity * np.log(rank[group]) - 0.5 * np.log(volumes[group])).astype(np.float32)


def affinity(config: WorldConfig, who: Readers, items: Catalogue, traits: ItemTraits, user: Rows, item: Rows) -> Parts:
    """How much readers ``user [b]`` are drawn to items ``item [b, M]``, one array ``[b, M]`` for each signal."""
    slots = items.theme_slots[item]
    taste = sum(who.taste[user[:, None], slots[..., slot]] for slot in range(SLOTS))
    return {
        "taste": np.asarray(config.taste * taste, dtype=np.float32),
        "circle": np.float32(config.circle) * (traits.circle[item] == who.circle[user][:, None]),
        "motif": np.float32(config.motif) * (traits.motif[item] == who.motif[user][:, None]),
        "popularity": traits.appeal[item],
    }


def simulate(config: WorldConfig, items: Catalogue, who: Readers, traits: ItemTraits) -> Events:
    """All events of all readers."""
    pools = (_pool(traits, ~traits.cold), _pool(traits, traits.cold))
    chunks = []
    for number, first in enumerate(range(0, len(who), CHUNK)):
        user = np.arange(first, min(first + CHUNK, len(who)))
        chunks.append(
            _Chunk(config, items, who, traits, user, np.random.default_rng([config.seed, 3, number])).run(pools)
        )
    return Events(*(np.concatenate([getattr(c, name) for c in chunks]) for name in Events.__dataclass_fields__))


@dataclass(frozen=True)
class _Pool:
    """Items to choose from, with the cumulated appeal from which a large catalogue is sampled."""

    rows: Rows
    cumulated: npt.NDArray[np.float64]


def _pool(traits: ItemTraits, mask: Flags) -> _Pool:
    rows = np.flatnonzero(mask)
    weights = np.cumsum(np.exp(traits.appeal[rows].astype(np.float64)))
    return _Pool(rows, weights / weights[-1] if len(rows) else weights)


@dataclass(eq=False)
class _Chunk:
    """The readers ``user [b]`` and the state of their reading."""

    config: WorldConfig
    items: Catalogue
    who: Readers
    traits: ItemTraits
    user: Rows
    rng: np.random.Generator

    def run(self, pools: tuple[_Pool, _Pool]) -> Events:
        length = self.who.length[self.user]
        T = int(length.max())
        warm, cold_pool = pools
        everyone = np.arange(len(self.user))
        # an event uses up at most two wishes: the one it came from and the one it fulfils
        # with two domains half of the wishes may have to wait, so every item is ranked
        wish, open_wish = self._preferred(warm, len(warm.rows) if self.config.films else 2 * T + 8, CHOICE)
        wish, open_wish = self._in_any_order(wish, open_wish, length)
        cold, open_cold = self._preferred(cold_pool, LATE, CHOICE_COLD)
        read = np.full((len(self.user), T), -1, dtype=np.int64)
        cause = np.full((len(self.user), T), -1, dtype=np.int8)
        for t in range(T):
            past, active = read[:, :t], t < length
            if t:
                open_wish &= wish != read[:, t - 1 : t]
            early = t < length // 2
            place = (open_wish & ~self._closed(wish, early)).argmax(axis=1)
            item, why = self._first_unread(past, wish[everyone, place]), np.full(len(self.user), FREE)
            item, why = self._follow(past, item, why)
            item, why = self._noise(past, warm, early, item, why)
            if cold.shape[1]:
                item, why = self._late(past, cold, open_cold, t - length, item, why)
            open_wish[everyone, place] &= why != FREE
            read[:, t], cause[:, t] = np.where(active, item, -1), np.where(active, why, -1)
        if self.config.shuffled == "order":
            read, cause = self._shuffle_order(read, cause)
        return self._events(read, cause, length)

    def _preferred(self, pool: _Pool, k: int, by: tuple[str, ...]) -> tuple[Rows, Flags]:
        """The ``k`` items each reader would choose first, best first ``[b, k]``, and which of them may be chosen."""
        b, shuffled = len(self.user), self.config.shuffled
        sampled = len(pool.rows) > self.config.candidates
        if sampled:
            drawn = np.sort(self.rng.random((b, self.config.candidates)), axis=1)  # sorted keys search much faster
            even = shuffled == "popularity" or "popularity" not in by
            place = (drawn * len(pool.rows)).astype(np.int64) if even else np.searchsorted(pool.cumulated, drawn)
            item = pool.rows[place]
        else:
            item = np.broadcast_to(pool.rows, (b, len(pool.rows)))
        parts = affinity(self.config, self.who, self.items, self.traits, self.user, item)
        if shuffled in parts:
            # the control: each reader responds as strongly, but to a private shuffle that nobody shares
            parts[shuffled] = self.rng.permuted(np.broadcast_to(parts[shuffled], item.shape), axis=1)
        elif sampled:
            parts["popularity"] = np.zeros(item.shape, dtype=np.float32)  # the candidates were drawn by it
        score = sum(parts[name] for name in by) + self.rng.gumbel(size=item.shape).astype(np.float32)
        closed = self._closed(item, np.zeros(b, dtype=bool))
        if sampled:
            closed[:, 1:] |= item[:, 1:] == item[:, :-1]
        score = np.where(closed, -np.inf, score)
        k = min(k, item.shape[1])
        best = np.argpartition(-score, k - 1, axis=1)[:, :k] if k else np.zeros((b, 0), dtype=np.int64)
        order = np.argsort(-np.take_along_axis(score, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        return np.take_along_axis(item, best, 1), np.isfinite(np.take_along_axis(score, best, 1))

    def _in_any_order(self, wish: Rows, open_wish: Flags, length: Rows) -> tuple[Rows, Flags]:
        """Shuffle the wishes a reader has events for: else the best come first and the last events say least."""
        place = np.arange(wish.shape[1])
        within = place < (length * (1 - self.config.noise) * 0.75)[:, None]
        order = np.argsort(np.where(within, self.rng.random(wish.shape), 1 + place), axis=1)
        return np.take_along_axis(wish, order, 1), np.take_along_axis(open_wish, order, 1)

    def _closed(self, item: Rows, early: Flags) -> Flags:
        """Items of a domain the reader does not use, or not yet while ``early [b]``; ``item`` ``[b, M]`` or ``[b]``."""
        if not self.config.films:
            return np.zeros(item.shape, dtype=bool)
        group = np.where(early, self.who.begins[self.user], self.who.group[self.user])
        group = group.reshape(-1, *[1] * (item.ndim - 1))
        film = self.items.is_film[item]
        return (film & (group == BOOKS)) | (~film & (group == FILMS))

    def _first_unread(self, read: Rows, item: Rows) -> Rows:
        """Each item, or the first unread volume before it in its series."""
        while True:
            before = self.traits.before_in_series[item]
            step = ~_seen(read, before)
            if not step.any():
                return item
            item = np.where(step, before, item)

    def _follow(self, read: Rows, item: Rows, why: Rows) -> tuple[Rows, Rows]:
        coin = self.rng.random((len(self.user), 2))
        if not read.shape[1]:
            return item, why
        last = read[:, -1]
        series, author = self.traits.next_in_series[last], self.traits.next_by_author[last]
        by_author = (coin[:, 1] < self.config.next_by_author) & (author >= 0) & ~_seen(read, author)
        # an author's next book that is a later volume would break the order of its series
        first = self.traits.before_in_series[author]
        by_author &= (first < 0) | _seen(read, first)
        in_series = (coin[:, 0] < self.config.next_in_series) & (series >= 0) & ~_seen(read, series)
        item, why = np.where(by_author, author, item), np.where(by_author, AUTHOR, why)
        return np.where(in_series, series, item), np.where(in_series, SERIES, why)

    def _noise(self, read: Rows, warm: _Pool, early: Flags, item: Rows, why: Rows) -> tuple[Rows, Rows]:
        noisy = self.rng.random(len(self.user)) < self.config.noise
        # of a few even draws the first that is open and unread; three closed draws in a row leave the event as it was
        tries = warm.rows[self.rng.integers(len(warm.rows), size=(len(self.user), 8))]
        for column in range(8):
            drawn = tries[:, column]
            fits = noisy & ~_seen(read, drawn) & ~self._closed(drawn, early)
            item, why = np.where(fits, drawn, item), np.where(fits, NOISE, why)
            noisy &= ~fits
        return item, why

    def _late(
        self, read: Rows, cold: Rows, open_cold: Flags, from_end: Rows, item: Rows, why: Rows
    ) -> tuple[Rows, Rows]:
        """The reader's favourite cold item (or the second, once read), by chance, as one of the last two events."""
        chance = np.where(from_end == -1, self.config.cold_last, np.where(from_end == -2, self.config.cold_before, 0))
        column = np.minimum(_seen(read, cold[:, 0]).astype(np.int64), cold.shape[1] - 1)
        favourite = np.arange(len(self.user)), column
        drawn = (self.rng.random(len(self.user)) < chance) & open_cold[favourite] & ~_seen(read, cold[favourite])
        return np.where(drawn, cold[favourite], item), np.where(drawn, COLD, why)

    def _shuffle_order(self, read: Rows, cause: npt.NDArray[np.int8]) -> tuple[Rows, npt.NDArray[np.int8]]:
        """The control of sequence: the same events in random order; cold events and padding stay in place."""
        fixed = (cause == COLD) | (cause < 0)
        key = self.rng.random(read.shape)
        # among the places that are not fixed, the j-th place takes the event with the j-th smallest key
        places = np.argsort(fixed, axis=1, kind="stable")
        events = np.argsort(np.where(fixed, np.inf, key), axis=1, kind="stable")
        moved_read, moved_cause = read.copy(), cause.copy()
        free = np.take_along_axis(~fixed, places, 1)
        for source, target in ((read, moved_read), (cause, moved_cause)):
            values = np.where(free, np.take_along_axis(source, events, 1), np.take_along_axis(source, places, 1))
            np.put_along_axis(target, places, values, axis=1)
        return moved_read, moved_cause

    def _events(self, read: Rows, cause: npt.NDArray[np.int8], length: Rows) -> Events:
        real = cause >= 0
        T = read.shape[1]
        place = np.arange(T)
        late = place >= (length - LATE)[:, None]
        joined = START_MS + self.rng.random((len(self.user), 1)) * 0.6 * (RELEASE_MS - START_MS)
        early = joined + self.rng.random(read.shape) * (RELEASE_MS - joined)
        after = RELEASE_MS + self.rng.random(read.shape) * (END_MS - RELEASE_MS)
        times = np.sort(np.where(late, np.where(real, after, np.inf), early), axis=1)
        times = np.where(real, times, 0).astype(np.int64) + place  # one millisecond a place: no ties
        user = np.broadcast_to(self.user[:, None], read.shape)
        item = np.where(real, read, 0)
        ratings = self._ratings(item, cause)
        return Events(
            user_rows=user[real].astype(np.int32),
            item_rows=item[real].astype(np.int32),
            times=times[real],
            ratings=ratings[real],
            cause=cause[real],
        )

    def _ratings(self, item: Rows, cause: npt.NDArray[np.int8]) -> Floats:
        """1 to 5, by how well the item meets taste, circle and motif, with a reader's and a day's mood."""
        parts = affinity(self.config, self.who, self.items, self.traits, self.user, item)
        felt = sum(parts[name] for name in ("taste", "circle", "motif") if name != self.config.shuffled)
        mood = self.rng.normal(0, 0.3, (len(self.user), 1)) + self.rng.normal(0, 0.6, item.shape)
        followed = 0.4 * ((cause == SERIES) | (cause == AUTHOR))
        return np.clip(np.rint(2.7 + 0.4 * felt + followed + mood), 1, 5).astype(np.float32)


def _seen(read: Rows, item: Rows) -> Flags:
    """``[b]`` whether each reader has read its item; a missing item (-1) counts as seen."""
    if not read.shape[1]:
        return item < 0
    return (read == item[:, None]).any(axis=1) | (item < 0)
