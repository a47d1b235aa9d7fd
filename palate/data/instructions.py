"""Instructions put together from phrases that were tokenized once: any number of them is one gather, without text.

A template is an instruction and the response to it, with places to fill in: the name, title or description of an item,
a history as names or as titles, what a user looks for or likes. Every piece of a template and everything that fills a
place is a phrase: a row of a table of token ids. Shapes: M phrases, W templates, n examples, b of a batch, S tokens,
E events, N items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged

PLACES = ("history", "titles", "name", "title", "description", "wish", "preference")
"""What a template may ask to be filled in: ``{history}`` …; the first two are lists."""
HISTORY = -1 - PLACES.index("history")
"""That place as a slot of a template."""
NEWCOMER = len(PLACES)
"""What a template without any place asks for: somebody whose history is empty."""

_PLACE = re.compile(r"\{(\w+)\}")


class Template(NamedTuple):
    """An instruction and its response, both with places."""

    ask: str
    answer: str


@dataclass(frozen=True, eq=False)
class Templates:
    """W templates as rows of phrase numbers, with ``-1 - p`` for the place ``PLACES[p]``.

    task      ``[W]`` the task of each
    needs     ``[W]`` which places it has, a bit each
    """

    asks: Ragged
    answers: Ragged
    task: IntArray
    needs: IntArray

    @classmethod
    def of(cls, tasks: Sequence[Sequence[Template]], pieces: Sequence[str], *, mark: int, end: int) -> Self:
        """``pieces`` are phrases 0, 1, …, all of ``pieces_of(tasks)`` among them. Phrase ``mark`` stands between
        instruction and response, ``end`` after the response."""
        number = {piece: row for row, piece in enumerate(pieces)}
        places = {place: -1 - p for p, place in enumerate(PLACES)}

        def slots(text: str) -> list[int]:
            return [places[part] if is_place else number[part] for part, is_place in _parts(text)]

        flat = [(task, template) for task, some in enumerate(tasks) for template in some]
        needs = [sum({1 << (-1 - slot) for part in one for slot in slots(part) if slot < 0}) for _, one in flat]
        silent = [not any(slot < 0 for slot in slots(one.ask)) for _, one in flat]
        return cls(
            Ragged.of([[*slots(one.ask), mark] for _, one in flat]),
            Ragged.of([[*slots(one.answer), end] for _, one in flat]),
            np.array([task for task, _ in flat], dtype=np.int64),
            np.array(needs, dtype=np.int64) + np.where(silent, 1 << NEWCOMER, 0),
        )

    @cached_property
    def openings(self) -> Ragged:
        """``[W]`` each instruction up to its history, that included; empty where it has none."""
        return Ragged(self.asks.values, self.asks.starts, self.asks.starts + self._opened)

    @cached_property
    def endings(self) -> Ragged:
        """``[W]`` the rest of each."""
        return Ragged(self.asks.values, self.asks.starts + self._opened, self.asks.stops)

    @cached_property
    def _opened(self) -> IntArray:
        rows = [row.tolist() for row in self.asks]
        return np.array([row.index(HISTORY) + 1 if HISTORY in row else 0 for row in rows], dtype=np.int64)

    def fitting(self, task: int, known: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """``[w]`` the templates of a task, and ``[n, w]`` whose places are all ``known`` ``[n]`` of which example."""
        own = np.flatnonzero(self.task == task)
        return own, (self.needs[own] & ~known[:, None]) == 0

    def drawn(self, rng: np.random.Generator, task: int, known: IntArray) -> IntArray:
        """``[n]`` one template for each example, each that fits being as likely as any other."""
        own, fits = self.fitting(task, known)
        return own[np.where(fits, rng.random(fits.shape), -1.0).argmax(1)]


def pieces_of(tasks: Sequence[Sequence[Template]]) -> list[str]:
    """What templates say themselves, between their places; each once."""
    parts = (part for some in tasks for one in some for text in one for part in _parts(text))
    return list(dict.fromkeys(piece for piece, is_place in parts if not is_place))


def beginnings_of(tasks: Sequence[Sequence[Template]]) -> set[str]:
    """Those of ``pieces_of`` with which instructions begin."""
    firsts = (_parts(one.ask)[0] for some in tasks for one in some if one.ask)
    return {piece for piece, is_place in firsts if not is_place}


def _parts(text: str) -> list[tuple[str, bool]]:
    """Pieces and places in order. What fills a place begins with its own space, so pieces end without one."""
    split = _PLACE.split(text)
    parts = [(part if place % 2 else part.rstrip(), bool(place % 2)) for place, part in enumerate(split)]
    return [(part, is_place) for part, is_place in parts if part]


@dataclass(frozen=True, eq=False)
class Examples:
    """n examples. What an example does not know is below 0.

    item        ``[n]`` the item that is asked or told about
    start, stop ``[n]`` the history: positions in a list of events
    wish        ``[n]`` which text says what the user looks for
    preference  ``[n]`` which text says what the user likes
    """

    item: IntArray
    start: IntArray
    stop: IntArray
    wish: IntArray
    preference: IntArray

    @classmethod
    def about(
        cls,
        item: IntArray,
        start: IntArray | None = None,
        stop: IntArray | None = None,
        wish: IntArray | None = None,
        preference: IntArray | None = None,
    ) -> Self:
        """What is not given is unknown, and a history is empty."""
        nothing, none = np.zeros(len(item), dtype=np.int64), np.full(len(item), -1, dtype=np.int64)
        item = np.asarray(item, dtype=np.int64)
        return cls(
            item, nothing if start is None else start, nothing if stop is None else stop,
            none if wish is None else wish, none if preference is None else preference,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, rows: IntArray) -> Examples:
        return Examples(**{name: column[rows] for name, column in vars(self).items()})

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Self:
        return cls(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, eq=False)
class Phrasebook:
    """Everything that can be said, as phrases.

    tokens     M rows of token ids; an empty one is a text that is not known
    first      by place: the phrase of item 0 (text 0 of wishes and preferences), and after it those of the others
    separator  between the entries of a list
    start      before each instruction, -1 = nothing
    templates  in the numbers of these phrases
    """

    tokens: Ragged
    first: Mapping[str, int]
    separator: int
    start: int
    templates: Templates

    @cached_property
    def told(self) -> npt.NDArray[np.bool_]:
        """``[M]`` phrases that say something."""
        return self.tokens.lengths > 0

    def values(self, events: IntArray) -> IntArray:
        """``[M + 4 E]`` every phrase, then the list of all ``events`` (item rows) as names and as titles, each entry
        after a separator: what runs of ``fillings`` are cut from."""
        lists = [np.arange(len(self.tokens), dtype=np.int64)]
        for place in ("name", "title"):
            entries = np.full(2 * len(events), self.separator, dtype=np.int64)
            entries[1::2] = self.first.get(place, 0) + events
            lists.append(entries)
        return np.concatenate(lists)

    def fillings(self, examples: Examples, n_events: int) -> tuple[IntArray, IntArray]:
        """``[n, places]`` where in ``values`` that which fills each place begins and ends; empty where not known."""
        m = len(self.tokens)
        starts = np.zeros((len(examples), len(PLACES)), dtype=np.int64)
        stops = starts.copy()
        some = examples.stop > examples.start
        for p, before in enumerate((m, m + 2 * n_events)):
            starts[:, p] = np.where(some, before + 2 * examples.start + 1, 0)
            stops[:, p] = np.where(some, before + 2 * examples.stop, 0)
        rows = {
            "name": examples.item, "title": examples.item, "description": examples.item, "wish": examples.wish,
            "preference": examples.preference,
        }  # fmt: skip
        for p, place in enumerate(PLACES):
            if place in rows and place in self.first:
                known = rows[place] >= 0
                starts[:, p] = np.where(known, self.first[place] + rows[place], 0)
                stops[:, p] = starts[:, p] + known
        return starts, stops

    def known(self, examples: Examples, events: IntArray) -> IntArray:
        """``[n]`` which places can be filled, a bit each; a list of titles only where all of them are known."""
        starts, stops = self.fillings(examples, len(events))
        single = (stops[:, 2:] > starts[:, 2:]) & self.told[starts[:, 2:]]
        lists = stops[:, :2] > starts[:, :2]
        untitled = ~self.told[self.first["title"] + events] if "title" in self.first else np.ones(len(events), bool)
        before = np.concatenate([[0], np.cumsum(untitled)])
        lists[:, 1] &= before[examples.stop] == before[examples.start]
        bits = np.concatenate([lists, single, (examples.stop == examples.start)[:, None]], axis=1)
        return (bits << np.arange(bits.shape[1])).sum(1)

    def lengths(self, chosen: IntArray, examples: Examples, events: IntArray) -> IntArray:
        """``[n]`` tokens of instruction and response with template ``chosen`` ``[n]``; nothing is put together."""
        ends = np.concatenate([[0], np.cumsum(self.tokens.lengths[self.values(events)])])
        total = np.zeros(len(chosen), dtype=np.int64)
        filled = self.fillings(examples, len(events))
        for slots in (self.templates.asks, self.templates.answers):
            runs, offsets = _runs(slots[chosen], *filled)
            total += np.diff(np.concatenate([[0], np.cumsum(ends[runs[1]] - ends[runs[0]])])[offsets])
        return total + (self.tokens.lengths[self.start] if self.start >= 0 else 0)

    def asked(self, chosen: IntArray, examples: Examples, values: IntArray, n_events: int) -> Ragged:
        """The tokens of the instructions; ``values`` of the same events."""
        return self._spelled(self._begun(self._said(self.templates.asks[chosen], examples, values, n_events)))

    def opened(self, chosen: IntArray, examples: Examples, values: IntArray, n_events: int) -> tuple[Ragged, Ragged]:
        """The tokens of the instructions up to the end of their histories, and after how many of them each item of a
        history ends."""
        slots = self.templates.openings[chosen]
        said = self._begun(self._said(slots, examples, values, n_events))
        n_items = examples.stop - examples.start
        before = slots.lengths - 1 + (self.start >= 0)
        nth = np.arange(n_items.sum()) - np.repeat(np.cumsum(n_items) - n_items, n_items)
        ends = np.concatenate([[0], np.cumsum(self.tokens.lengths[said.flat()])])
        first = said.offsets()[:-1]
        last = np.repeat(first + before, n_items) + 2 * nth + 1  # between two items stands a separator
        return self._spelled(said), Ragged.from_lengths(ends[last] - np.repeat(ends[first], n_items), n_items)

    def ended(self, chosen: IntArray, examples: Examples, values: IntArray, n_events: int) -> Ragged:
        """The tokens of the instructions after their histories."""
        return self._spelled(self._said(self.templates.endings[chosen], examples, values, n_events))

    def answered(self, chosen: IntArray, examples: Examples, values: IntArray, n_events: int) -> Ragged:
        """The tokens of the responses, with the end."""
        return self._spelled(self._said(self.templates.answers[chosen], examples, values, n_events))

    def _begun(self, said: Ragged) -> Ragged:
        if self.start < 0:
            return said
        return Ragged.from_lengths(np.full(len(said), self.start), np.ones(len(said), np.int64)).joined(said)

    def _said(self, slots: Ragged, examples: Examples, values: IntArray, n_events: int) -> Ragged:
        """Phrase numbers."""
        (starts, stops), offsets = _runs(slots, *self.fillings(examples, n_events))
        parts = Ragged(values, starts, stops)
        return Ragged.from_offsets(parts.flat(), parts.offsets()[offsets])

    def _spelled(self, said: Ragged) -> Ragged:
        tokens = self.tokens[said.flat()]
        return Ragged.from_offsets(tokens.flat(), tokens.offsets()[said.offsets()])


def _runs(slots: Ragged, starts: IntArray, stops: IntArray) -> tuple[tuple[IntArray, IntArray], IntArray]:
    """Where what each slot says begins and ends, flat; and the offsets of the rows among them."""
    flat, row = slots.flat(), slots.row_numbers()
    place = np.where(flat < 0, -1 - flat, 0)
    begin = np.where(flat < 0, starts[row, place], flat)
    return (begin, np.where(flat < 0, stops[row, place], flat + 1)), slots.offsets()
