"""Which sentence goes with which item, what steers to what, and which refusal a complaint caused: by force."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from palate.annotation.extractive import Extractive
from palate.annotation.sentiment import Lexicon
from palate.core.annotations import StepPreferences
from palate.core.dataset import Dataset
from palate.core.protocols import FloatArray
from palate.core.ragged import Ragged
from palate.data.preferences import Preferences, complaints, inverted, nearest_of, steering, unit, write
from palate.data.worded import Examples, WordedBatches, lessons, of_events
from palate.data.world import world


@pytest.mark.parametrize(
    ("sentence", "turned"),
    [
        ("Avoid magic.", "Find magic."), ("no war", "search for war"), ("Exclude old maps.", "Search for old maps."),
        ("Nonfiction about war.", None), ("Notes on war.", None), ("Find ships.", None), ("Avoid", None), ("", None),
    ],
)  # fmt: skip
def test_only_whole_first_words_are_turned_round(sentence: str, turned: str | None) -> None:
    assert inverted(sentence) == turned


def record(event: int, *sentences: str) -> StepPreferences:
    return StepPreferences(event, 0, sentences, "somebody")


def test_positive_sentences_may_be_matched_else_refusals_turned_round_else_all() -> None:
    found = Preferences.of(
        [record(4, "Avoid war.", "No tea."), record(2, "Find ships.", "Avoid war."), record(9, "Never mind this.")],
        Lexicon(),
    )
    assert found.events.tolist() == [2, 4, 9]
    said = [[found.texts[place] for place in row] for row in found.eligible]
    assert said == [["Find ships."], ["Find war.", "Search for tea."], ["Never mind this."]]
    assert [[found.texts[place] for place in row] for row in found.held][1] == ["Avoid war.", "No tea."]
    assert found.n_written == 4
    assert found.written_after(np.array([9, 3, 2])).tolist() == [2, -1, 0]
    vectors = unit(np.arange(1.0, 1 + 2 * len(found.texts)).reshape(-1, 2) % 7 - 3)
    wanted = vectors[[found.texts.index("Search for tea."), 0]]
    assert found.matched(np.array([1, -1]), vectors, wanted).tolist() == [found.texts.index("Search for tea."), -1]


def test_the_nearest_is_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    sentences = unit(rng.normal(size=(50, 8)))
    wanted = unit(rng.normal(size=(40, 8)))
    offered = Ragged.of([rng.choice(50, size=rng.integers(0, 6), replace=False) for _ in range(40)])
    plain = [int(row[np.argmax(sentences[row] @ wanted[i])]) if len(row) else -1 for i, row in enumerate(offered)]
    assert nearest_of(offered, sentences, wanted).tolist() == plain


@pytest.mark.parametrize("farthest", [False, True])
def test_steering_pairs_are_the_published_ones(farthest: bool) -> None:
    rng = np.random.default_rng(1)
    items, sentences = unit(rng.normal(size=(12, 6))), unit(rng.normal(size=(30, 6)))
    targets = rng.integers(0, 9, size=40)
    histories = Ragged.of([rng.choice(12, size=3, replace=False) for _ in range(40)])
    pairs = steering(targets, histories, items, sentences, farthest=farthest, places=(1, 2), seed=0)
    here = np.unique(targets)
    assert len(pairs.targets) + pairs.n_dropped == 2 * len(here)
    other = {}
    for i in here:
        rest = here[here != i]
        likeness = items[rest] @ items[i]
        other[int(i)] = int(rest[likeness.argmin() if farthest else likeness.argmax()])
    wanted = {(i, j, int(np.argsort(-(sentences @ items[i]))[1])) for i, j in other.items()}
    wanted |= {(j, i, int(np.argsort(-(sentences @ items[j]))[2])) for i, j in other.items()}
    made = set(zip(pairs.targets.tolist(), pairs.others.tolist(), pairs.sentences.tolist(), strict=True))
    assert made <= wanted
    assert len(wanted - made) <= pairs.n_dropped
    assert (targets[pairs.cases] == pairs.others).all()
    assert (pairs.targets != pairs.others).all(), "no history's own next item is what it is steered to"
    for case, target in zip(pairs.cases, pairs.targets, strict=True):
        assert target not in histories.row(case)


def test_a_complaint_finds_the_nearest_refusal_from_its_event_on() -> None:
    texts = ["Avoid war.", "No tea.", "Find ships.", "Avoid maps."]
    rows = {"user_row": [0, 0, 0, 1], "item_row": [0, 1, 2, 0]}
    log = Dataset(
        "log", pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.Int32)),
        pl.DataFrame({"item": ["a", "b", "c"]}), pl.DataFrame({"user": ["u", "v"]}),
    )  # fmt: skip
    found = Preferences.of(
        [record(0, texts[0]), record(1, texts[2]), record(2, texts[1], texts[3]), record(3, texts[3])], Lexicon()
    )
    vectors = np.eye(len(found.texts), dtype=np.float32)
    near = np.zeros((3, len(found.texts)), dtype=np.float32)
    near[0, found.texts.index(texts[0])] = near[1, found.texts.index(texts[0])] = 1.0
    near[1, found.texts.index(texts[3])] = 0.5
    near[2, found.texts.index(texts[2])] = 1.0
    made = complaints(log, np.array([0, 1, 3]), found, vectors, near)
    assert made.events.tolist() == [0, 1], "of two that caused one refusal the first is kept"
    assert [found.texts[row] for row in made.refusals] == ["Avoid war.", "Avoid maps."], (
        "war was refused before event 1"
    )
    assert [found.texts[row] for row in made.wishes] == ["Find war.", "Find maps."]


def test_examples_take_the_sentence_written_before_their_event() -> None:
    train = world("test").dataset
    preferences = write(train, Extractive(), Lexicon())
    rng = np.random.default_rng(0)
    sentences = unit(rng.normal(size=(len(preferences.texts), 5)))
    examples = of_events(train, preferences, sentences, unit(rng.normal(size=(train.n_items, 5))))
    first = train.histories.starts
    assert (examples.words[first] == -1).all()
    assert (examples.histories.lengths[first] == 0).all()
    for event in (int(first[0]) + 1, int(first[3]) + 5, int(first[7]) + 2):
        offered = preferences.eligible.row(int(np.flatnonzero(preferences.events == event - 1)[0]))
        assert examples.words[event] in offered
        assert examples.targets[event] == train.item_rows[event]
        assert (
            examples.histories.row(event).tolist()
            == train.item_rows[:event][train.user_rows[:event] == train.user_rows[event]].tolist()
        )


def test_batches_are_of_the_seed_and_epoch_and_hold_their_shares() -> None:
    train = world("test").dataset
    n = train.n_interactions
    main = Examples(Ragged(train.item_rows, train.histories.starts[train.user_rows], np.arange(n)),
                    np.arange(n), train.item_rows.astype(np.int64), np.zeros(n, bool))  # fmt: skip
    other = Examples(Ragged.empty(3), np.arange(3), np.arange(3), np.ones(3, bool))

    def batches(**changed: object) -> WordedBatches:
        settings = {"length": 10, "batch_size": 64, "seed": 1, "prefixes": "one", "blank": 0.3, "alone": 0.2}
        return WordedBatches(main, train.user_rows, [(other, 0.5)], **(settings | changed))  # type: ignore[arg-type]

    made = list(batches().epoch(3))
    assert len(made) == len(batches()) == -(-180 // 64)
    again = list(batches().epoch(3, skip=1))
    assert all((a.items == b.items).all() and (a.words == b.words).all() for a, b in zip(made[1:], again, strict=True))
    assert sum(int(batch.against.sum()) for batch in made) == 60
    assert all(int(batch.lengths.max()) <= 10 for batch in made)
    every = [batch for epoch in range(3) for batch in batches(prefixes="all").epoch(epoch)]
    words = np.concatenate([batch.words.numpy()[~batch.against.numpy()] for batch in every])
    lengths = np.concatenate([batch.lengths.numpy()[~batch.against.numpy()] for batch in every])
    assert abs((words < 0).mean() - 0.3) < 0.02
    assert abs((lengths[words >= 0] == 0).mean() - 0.2 - 0.8 * 120 / n) < 0.02
    assert (lengths[words < 0] == 0).mean() < 0.12, "who is asked without words keeps the history"


def by_letters(texts: Sequence[str]) -> FloatArray:
    """Vectors that know a text by its letters."""
    return unit(np.array([[text.lower().count(letter) + 0.01 for letter in "aeioustnrhld"] for text in texts]))


def test_beside_the_events_stand_pairs_that_steer_and_complaints_with_their_opposites() -> None:
    train = world("test").dataset
    items = by_letters(train.titles)
    taught = lessons(
        train, Extractive(), Lexicon(), by_letters, items=items, wanted=items, steered=0.5, complained=0.25
    )
    (steer, steered), (complain, complained) = taught.others
    assert (steered, complained) == (0.5, 0.25)
    pool = np.unique(taught.preferences.eligible.flat())
    for history, words, target in zip(steer.histories, steer.words, steer.targets, strict=True):
        assert target not in history, "or there would be nothing to steer"
        likeness = taught.vectors[pool] @ items[target]
        assert taught.vectors[words] @ items[target] == pytest.approx(likeness.max(), abs=1e-6)
    half = len(complain) // 2
    assert half > 10
    assert not complain.histories.lengths.any()
    assert complain.against.tolist() == [True] * half + [False] * half
    assert complain.targets[:half].tolist() == complain.targets[half:].tolist()
    assert taught.preferences.opposite[complain.words[:half]].tolist() == complain.words[half:].tolist()
    refused = {taught.preferences.texts[row].split()[0].lower() for row in complain.words[:half]}
    assert refused <= {"avoid", "exclude", "no"}
    plain = lessons(train, Extractive(), Lexicon(), by_letters, items=items, wanted=items)
    assert not plain.others
