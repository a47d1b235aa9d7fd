"""Instructions are what their texts say: against plain formatting of strings, a letter a token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.data.instruction_batches import Alone, InstructionBatches, Pool
from palate.data.instructions import Examples, Phrasebook, Template, Templates, pieces_of

TASKS = (
    (
        Template("Seen {history}. Next?", "{name}"),
        Template("Go on after {titles}", "{name}"),
        Template("Begin.", "{name}"),
    ),
    (
        Template("What is {name}?", "{title}: {description}"),
        Template("{name} reads", "{description}"),
        Template("{name} is called", "{title}"),
    ),
    (
        Template("One {wish}; of {preference}", "{name}"),
        Template("{wish} after {history}!", "{name}"),
        Template("{wish}", "{name}"),
    ),
)
NAMES = ["<0>", "<1>", "<2>", "<3>"]
TITLES = ["Zero", "One", "", "Three"]
DESCRIPTIONS = ["none", "", "", "a triad"]
WISHES = ["want more", "want less", "want it", "need it"]
PREFERENCES = ["likes a", "likes b"]
EVENTS = [0, 1, 2, 3, 3, 0, 1]
"""Of two users: the first four, and the rest."""
PAD = 0


def letters(texts: list[str]) -> Ragged:
    """Each letter a token; a text that fills a place begins with its own space."""
    return Ragged.of([[ord(letter) for letter in text] for text in texts])


def spelled(tokens: Ragged) -> list[str]:
    return ["".join(chr(token) for token in row) for row in tokens]


@pytest.fixture
def book() -> Phrasebook:
    pieces = pieces_of(TASKS)
    n = len(pieces)
    spaced = [[f" {text}" if text else "" for text in texts] for texts in (TITLES, DESCRIPTIONS, WISHES, PREFERENCES)]
    phrases = [*pieces, " ->", ",", "$", "^", *NAMES, *(text for texts in spaced for text in texts)]
    first = {"name": n + 4, "title": n + 8, "description": n + 12, "wish": n + 16, "preference": n + 20}
    return Phrasebook(letters(phrases), first, n + 1, n + 3, Templates.of(TASKS, pieces, mark=n, end=n + 2))


@pytest.fixture
def train() -> Dataset:
    table = pl.DataFrame({"user_row": [0] * 4 + [1] * 3, "item_row": EVENTS}, schema_overrides={"item_row": pl.Int32})
    return Dataset("small", table, pl.DataFrame({"item": NAMES}), pl.DataFrame({"user": ["u", "v"]}))


def plain(template: Template, item: int, history: list[int], wish: int, preference: int) -> tuple[str, str]:
    """What an example says, by formatting strings."""
    places = {
        "history": ",".join(NAMES[row] for row in history),
        "titles": ",".join(f" {TITLES[row]}" for row in history),
        "name": NAMES[item] if item >= 0 else "",
        "title": f" {TITLES[item]}",
        "description": f" {DESCRIPTIONS[item]}",
        "wish": f" {WISHES[wish]}",
        "preference": f" {PREFERENCES[preference]}",
    }
    ask, answer = template
    for place, text in places.items():
        ask, answer = (part.replace(f" {{{place}}}", text).replace(f"{{{place}}}", text) for part in (ask, answer))
    return f"^{ask} ->", f"{answer}$"


def needed(template: Template) -> set[str]:
    return {place for place in ("history", "titles", "title", "description", "wish", "preference")
            if f"{{{place}}}" in template.ask + template.answer}  # fmt: skip


CASES = [(3, 0, 3, 2, 1), (1, 4, 6, -1, 0), (0, 2, 2, 0, -1), (2, 0, 2, 1, 1), (0, 0, 1, 3, 0)]


def examples() -> Examples:
    item, start, stop, wish, preference = (np.array(column) for column in zip(*CASES, strict=True))
    return Examples(item, start, stop, wish, preference)


def test_every_instruction_reads_as_formatted_by_hand(book: Phrasebook) -> None:
    events = np.array(EVENTS)
    known = book.known(examples(), events)
    values = book.values(events)
    flat = [template for some in TASKS for template in some]
    seen = 0
    for number, template in enumerate(flat):
        fits = (book.templates.needs[number] & ~known) == 0
        for row, (item, start, stop, wish, preference) in enumerate(CASES):
            history = EVENTS[start:stop]
            has = {
                "history": bool(history), "titles": bool(history) and all(TITLES[one] for one in history),
                "title": bool(TITLES[item]), "description": bool(DESCRIPTIONS[item]), "wish": wish >= 0,
                "preference": preference >= 0,
            }  # fmt: skip
            newcomer = "{" in template.ask or not history
            assert fits[row] == (all(has[place] for place in needed(template)) and newcomer), (template, row)
            if not fits[row]:
                continue
            chosen, one = np.array([number]), examples()[np.array([row])]
            asked = book.asked(chosen, one, values, len(events))
            answered = book.answered(chosen, one, values, len(events))
            assert (spelled(asked)[0], spelled(answered)[0]) == plain(template, item, history, wish, preference)
            assert book.lengths(chosen, one, events)[0] == asked.lengths[0] + answered.lengths[0]
            seen += 1
    assert seen > 20


def test_many_at_once_are_one_by_one(book: Phrasebook) -> None:
    events = np.array(EVENTS)
    values, rows = book.values(events), np.array([0, 4, 3, 0])
    chosen = np.array([0, 6, 4, 7])
    together = spelled(book.asked(chosen, examples()[rows], values, len(events)))
    apart = [spelled(book.asked(chosen[[i]], examples()[rows[[i]]], values, len(events)))[0] for i in range(len(rows))]
    assert together == apart


def test_only_the_response_is_taught() -> None:
    batch = Alone.of(Ragged.of([[5, 6, 7], [8]]), Ragged.of([[1, 2], [3, 4, 9]]), pad=99)
    assert batch.tokens.tolist() == [[5, 6, 7, 1, 2], [8, 3, 4, 9, 99]]
    assert batch.real.int().tolist() == [[1] * 5, [1] * 4 + [0]]
    assert batch.taught.int().tolist() == [[0, 0, 0, 1, 1], [0, 1, 1, 1, 0]]


def pools(n: int = 40) -> list[Pool]:
    rng = np.random.default_rng(0)
    stop = rng.integers(0, 5, n)
    prefixes = Examples.about(rng.integers(0, 4, n), start=np.maximum(stop - 2, 0), stop=stop)
    users = np.repeat(np.arange(n // 8), 8)
    return [
        Pool(0, prefixes, users, of_each=3),
        Pool(1, Examples.about(np.array([0, 1, 3]))),
        Pool(2, Examples.about(rng.integers(0, 4, 6), wish=np.array([0, 2] * 3), preference=np.zeros(6, np.int64) - 1),
             at_most=4, twofold=True),
    ]  # fmt: skip


def alone(batches: InstructionBatches, epoch: int, skip: int = 0) -> list[Alone]:
    found = list(batches.epoch(epoch, skip))
    assert all(batch.branched is None for batch in found)
    return [batch.alone for batch in found if batch.alone is not None]


def test_an_epoch_is_a_pure_function_of_seed_and_epoch(book: Phrasebook, train: Dataset) -> None:
    batches = InstructionBatches(train, book, pools(), batch_size=4, seed=5, pad=PAD)
    n = 3 * 5 + 3 + 4
    assert len(batches) == -(-n // 4)
    whole = alone(batches, 3)
    assert len(whole) == len(batches)
    assert sum(len(batch.tokens) for batch in whole) == n
    again = InstructionBatches(train, book, pools(), batch_size=4, seed=5, pad=PAD)
    for one, other in zip(whole[2:], alone(again, 3, skip=2), strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
    read = [sorted(map(str, (row.tolist() for batch in alone(batches, e) for row in batch.tokens))) for e in (3, 4)]
    assert read[0] != read[1]
    for batch in whole:
        assert (batch.tokens[~batch.real] == PAD).all()
        assert (batch.tokens[batch.real] != PAD).all()


def test_an_epoch_draws_few_of_each_user_and_every_template(book: Phrasebook, train: Dataset) -> None:
    users = np.repeat(np.arange(5), 8)
    prefixes, catalogue, searches = pools()
    numbered = replace(prefixes, examples=replace(prefixes.examples, item=np.arange(40)))
    rng = np.random.default_rng(0)
    drawn = np.concatenate([numbered.drawn(rng).item for _ in range(200)])
    assert (np.bincount(users[drawn]) == 200 * 3).all()
    counts = np.bincount(drawn, minlength=40)
    assert counts.min() > 40, "each of eight events is drawn about 75 times"
    assert len(np.unique(numbered.drawn(rng).item)) == 15
    assert set(np.concatenate([searches.drawn(rng).wish for _ in range(20)])) == {0, 1, 2, 3}, "either text"
    batches = InstructionBatches(train, book, [prefixes, catalogue, searches], batch_size=8, seed=0, pad=PAD)
    chosen = np.concatenate([batches.examples(epoch)[1] for epoch in range(30)])
    assert set(chosen) == {0, 1, 2, 3, 4, 5, 8}, "all but those that need a preference or a history"
    some, templates, _ = batches.examples(0)
    assert ((book.templates.needs[templates] & ~book.known(some, batches.events)) == 0).all()


def test_batches_hold_like_lengths(book: Phrasebook, train: Dataset) -> None:
    batches = InstructionBatches(train, book, pools(400)[:1], batch_size=8, seed=0, pad=PAD, shuffle=50)
    padding = np.mean([float((~batch.real).float().mean()) for batch in alone(batches, 0)])
    mixed = InstructionBatches(train, book, pools(400)[:1], batch_size=8, seed=0, pad=PAD, shuffle=1)
    assert padding < 0.5 * np.mean([float((~batch.real).float().mean()) for batch in alone(mixed, 0)])


def test_branches_are_the_questions_they_stand_for(book: Phrasebook, train: Dataset) -> None:
    """Each branch, read along what it sees, is an instruction of its own with the next event as its response."""
    windows = Examples.about(np.array([EVENTS[3], EVENTS[3]]), start=np.array([0, 1]), stop=np.array([3, 3]))
    batches = InstructionBatches(train, book, [Pool(0, windows, together=True)], batch_size=5, seed=0, pad=PAD)
    assert len(batches) == 1
    (batch,) = batches.epoch(0)
    rows = batch.branched
    assert rows is not None
    assert batch.alone is None
    n_questions, found = [3, 2], []
    depth = (rows.tokens.shape[1] - rows.trunk) // rows.read.shape[1]
    for row, n in enumerate(n_questions):
        for one in range(n):
            here = slice(rows.trunk + one * depth, rows.trunk + (one + 1) * depth)
            tokens, taught, n_read = rows.tokens[row, here], rows.taught[row, here], int(rows.read[row, one])
            assert rows.places[row, here].tolist() == list(range(n_read, n_read + depth))
            end = int(taught.nonzero().max()) + 1
            assert (tokens[end:] == PAD).all()
            asked = [*rows.tokens[row, :n_read].tolist(), *tokens[:end][~taught[:end]].tolist()]
            found.append((asked, tokens[taught].tolist()))
    assert not rows.taught[:, : rows.trunk].any()
    assert not rows.taught[1, rows.trunk + 2 * depth :].any()
    events, values = batches.events, batches.values
    start, stop = np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 2, 3])
    ones = Examples.about(events[stop], start=start, stop=stop)
    _, templates, asked = batches.examples(0)
    assert asked.tolist() == [3, 2]
    said = np.repeat(templates, asked), ones, values, len(events)
    plain = zip(book.asked(*said), book.answered(*said), strict=True)
    assert sorted(found) == sorted((question.tolist(), answer.tolist()) for question, answer in plain)


def test_a_window_longer_than_a_batch_is_a_batch(book: Phrasebook, train: Dataset) -> None:
    windows = Examples.about(np.array([EVENTS[3]] * 2), start=np.array([0, 0]), stop=np.array([3, 3]))
    batches = InstructionBatches(train, book, [Pool(0, windows, together=True)], batch_size=2, seed=0, pad=PAD)
    found = list(batches.epoch(0))
    assert len(found) == len(batches) == 2
    assert all(batch.branched is not None for batch in found)


def test_nothing_to_teach_is_no_batch(book: Phrasebook, train: Dataset) -> None:
    batches = InstructionBatches(train, book, [], batch_size=8, seed=0, pad=PAD)
    assert len(batches) == 0
    assert list(batches.epoch(0)) == []
