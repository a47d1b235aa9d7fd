"""Prompts put together by gathers against prompts written one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palate.core.ragged import Ragged
from palate.data.batches import PrefixBatches
from palate.data.phrases import Asking, Phrases, PromptBatch, PromptBatches, Templates, pieces
from tests.models.sequence_logs import successors

WAYS = ["hello {user}", "who is {user} now", "{user} has {history}", "{history} then", "after {history} for {user} now"]
"""The first two read no history."""
SILENT = 2
N_USERS, N_ITEMS = 120, 30


def table(n_users: int = N_USERS, n_items: int = N_ITEMS, seed: int = 0) -> tuple[Asking, list[list[tuple[int, int]]]]:
    """Phrases of random tokens and words, and the same as lists of (token, word)."""
    rng = np.random.default_rng(seed)
    said = pieces(WAYS)
    rows = []
    for _ in range(len(said) + 1 + n_users + 1 + n_items):
        n = int(rng.integers(1, 5))
        words = np.concatenate([[0], np.cumsum(rng.integers(0, 2, n - 1))])
        rows.append([(int(token), int(word)) for token, word in zip(rng.integers(0, 1000, n), words, strict=True)])
    tokens, words_of = (Ragged.of([[pair[part] for pair in row] for row in rows]) for part in (0, 1))
    first = len(said) + 1
    asking = Asking(
        Phrases.of(tokens, words_of), Templates.of(WAYS, said, last=len(said)), first, first + n_users + 1
    )  # fmt: skip
    return asking, rows


def written(
    rows: list[list[tuple[int, int]]], way: int, user: int, history: list[int], n_users: int = N_USERS
) -> list[tuple[int, int]]:
    """One prompt, phrase after phrase; ``user`` -1 is nobody."""
    said = pieces(WAYS)
    first = len(said) + 1
    phrases = []
    for part in WAYS[way].replace("{", "\n{").replace("}", "}\n").split("\n"):
        if part == "{user}":
            phrases.append(first + (user if user >= 0 else n_users))
        elif part == "{history}":
            phrases += [first + n_users + 1 + item for item in history]
        elif part.strip():
            phrases.append(said.index(part.strip()))
    prompt, words = [], 0
    for phrase in (*phrases, len(said)):
        prompt += [(token, words + word) for token, word in rows[phrase]]
        words += rows[phrase][-1][1] + 1
    return prompt


def split(
    asking: Asking, chosen: np.ndarray, users: np.ndarray, histories: list[list[int]]
) -> list[list[tuple[int, int]]]:
    """The prompts in the order of the questions."""
    items, lengths = np.array([i for row in histories for i in row], dtype=np.int64), np.array([*map(len, histories)])
    prompts = asking.prompts(chosen, asking.user(users, np.ones(N_USERS, dtype=bool)), items, lengths)
    assert (prompts.lengths[1:] <= prompts.lengths[:-1]).all()
    pairs = torch.stack([prompts.tokens, prompts.words], 1).split(prompts.lengths.tolist())
    found: list[list[tuple[int, int]]] = [[] for _ in histories]
    for place, rows in zip(prompts.order.tolist(), pairs, strict=True):
        found[place] = [(int(token), int(word)) for token, word in rows]
    return found


def test_prompts_are_what_one_would_write() -> None:
    rng = np.random.default_rng(1)
    asking, rows = table()
    histories = [rng.integers(0, N_ITEMS, rng.integers(0, 12)).tolist() for _ in range(200)]
    users, chosen = rng.integers(-1, N_USERS, 200), rng.integers(0, len(WAYS), 200)
    found = split(asking, chosen, users, histories)
    for place, prompt in enumerate(found):
        assert prompt == written(rows, chosen[place], users[place], histories[place])


def test_pieces_are_said_once_and_in_order() -> None:
    assert pieces(WAYS) == ["hello", "who is", "now", "has", "then", "after", "for"]


def test_phrases_count_words_from_their_own_first() -> None:
    phrases = Phrases.of(Ragged.of([[5, 6, 7], [], [8]]), Ragged.of([[1, 1, 2], [], [4]]))
    assert [row.tolist() for row in phrases.words] == [[0, 0, 1], [], [0]]
    assert phrases.n_words.tolist() == [2, 0, 1]
    whole = Phrases.joined([phrases, Phrases.of(Ragged.of([[9, 9]]))])
    assert [row.tolist() for row in whole.words] == [[0, 0, 1], [], [0], [0, 0]]
    assert whole.n_words.tolist() == [2, 0, 1, 1]


def test_strangers_are_nobody() -> None:
    asking, _ = table()
    known = np.ones(N_USERS, dtype=bool)
    known[3] = False
    found = asking.user(np.array([0, 3, -1, N_USERS - 1, N_USERS, N_USERS + 50]), known) - asking.first_user
    assert found.tolist() == [0, N_USERS, N_USERS, N_USERS - 1, N_USERS, N_USERS]


def test_templates_without_a_history_speak_of_those_who_have_none() -> None:
    asking, _ = table()
    templates, empty = asking.templates, np.arange(3000) % 3 == 0
    assert templates.silent == SILENT
    drawn = templates.drawn(np.random.default_rng(0), empty)
    assert set(drawn[empty].tolist()) == {0, 1}
    np.testing.assert_allclose(np.bincount(drawn[~empty]) / (~empty).sum(), 1 / len(WAYS), atol=0.05)
    assert templates.asked(np.array([True, False])).tolist() == [0, SILENT]
    reading = Templates.of(WAYS[2:], pieces(WAYS), last=0)
    assert reading.asked(np.array([True, False])).tolist() == [0, 0]
    assert reading.drawn(np.random.default_rng(0), empty).max() == 2
    mute = Templates.of(WAYS[:2], pieces(WAYS), last=0)
    assert mute.asked(np.array([True, False])).tolist() == [0, 0]


# -- batches --


def batches(seed: int = 0, nameless: float = 0.25) -> PromptBatches:
    train = successors()
    prefixes = PrefixBatches(train, length=4, batch_size=64, seed=seed)
    return PromptBatches(prefixes, table()[0], np.ones(N_USERS, dtype=bool), nameless=nameless, seed=seed)


def as_lists(batch: PromptBatch) -> list[list[int]]:
    p = batch.prompts
    return [p.tokens.tolist(), p.words.tolist(), p.lengths.tolist(), batch.targets.tolist()]


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    once = [as_lists(batch) for batch in batches().epoch(3)]
    assert len(once) == len(batches()) > 5
    assert [as_lists(batch) for batch in batches().epoch(3, skip=4)] == once[4:]
    assert [as_lists(batch) for batch in batches().epoch(4)] != once
    assert [as_lists(batch) for batch in batches(seed=1).epoch(3)] != once


@pytest.mark.parametrize(("nameless", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_every_event_is_a_target_after_its_own_prefix(nameless: float, expected: float) -> None:
    train, (_, rows) = successors(), table()
    targets_of: dict[tuple[tuple[int, int], ...], set[int]] = {}
    nobody: set[tuple[tuple[int, int], ...]] = set()
    for user, history in enumerate(train.histories):
        for place, target in enumerate(history.tolist()):
            read = history[max(place - 4, 0) : place].tolist()
            for way in range(len(WAYS)):
                for who in (user, -1):
                    prompt = tuple(written(rows, way, who, read))
                    targets_of.setdefault(prompt, set()).add(target)
                    if who < 0:
                        nobody.add(prompt)
    targets, unnamed = [], 0
    for batch in batches(nameless=nameless).epoch(0):
        pairs = torch.stack([batch.prompts.tokens, batch.prompts.words], 1).split(batch.prompts.lengths.tolist())
        for rows_of, target in zip(pairs, batch.targets.tolist(), strict=True):
            prompt = tuple((int(token), int(word)) for token, word in rows_of)
            assert target in targets_of[prompt]
            targets.append(target)
            unnamed += prompt in nobody
    assert sorted(targets) == sorted(train.item_rows.tolist())
    says_user = 1 - 1 / len(WAYS) * (np.asarray(train.histories.lengths) - 1).sum() / len(targets)
    assert unnamed / len(targets) == pytest.approx(1 - says_user * (1 - expected), abs=0.05)
