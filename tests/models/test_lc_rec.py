"""LC-Rec: scores by hand, naming and telling by heart, what is taught and what not, planted text, growth, the hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("transformers")

from palate.annotation.extractive import Extractive
from palate.backbones.text_model import padded
from palate.core import store
from palate.core.annotations import Intention, Preference
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.protocols import Grows
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.instruction_batches import Alone, InstructionBatch, InstructionBatches
from palate.data.instructions import Examples
from palate.data.sources import load
from palate.data.split import leave_one_out
from palate.models.generative import lc_rec
from palate.models.generative.lc_rec import EVERY_TASK, LCRec, LCRecConfig, item_words
from palate.parts.decode import CausalSpeaker, beam_search
from palate.parts.instructions import ASKING, TASKS, TaskName, Words, pools_of
from palate.systems import build
from tests.backbones import checkpoints

NAMES = {"name": "rq-vae", "size": 8, "levels": 2, "width": 8, "hidden": [16], "encoder": "tf-idf",
         "least_usage": 0, "training": {"epochs": 20}}  # fmt: skip
NANO = {"name": "nano", "width": 32, "heads": 2, "layers": 1, "forward_width": 64, "vocabulary": 320, "steps": 0}
TRAINING = {"epochs": 1000, "learning_rate": 5e-3, "warmup_steps": 10, "clip_norm": 1.0}
KINDS = ("red sea", "white sand", "old moons", "dark wolves")


def log(n_items: int = 12, n_users: int = 30, seed: int = 0, **columns: Any) -> Dataset:
    """Readers who stay with the titles of one kind; reviews that say so."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n_items) % len(KINDS)
    rows = []
    for user in range(n_users):
        own = np.flatnonzero(kind == user % len(KINDS))
        rows += [(user, item) for item in rng.choice(own, rng.integers(2, 7))]
    items = {
        "item": [f"i{row}" for row in range(n_items)],
        "title": [f"{KINDS[k]} {row}" for row, k in enumerate(kind)],
        "text": [f"A book about the {KINDS[k]}, read at night." for k in kind],
        "category": [[KINDS[k].split()[1]] for k in kind],
    } | columns
    table = pl.DataFrame(
        {
            "user_row": pl.Series([user for user, _ in rows], dtype=pl.Int32),
            "item_row": pl.Series([item for _, item in rows], dtype=pl.Int32),
            "time": pl.Series(range(len(rows)), dtype=pl.Int64),
            "review": [f"I enjoyed the {KINDS[kind[item]]}." for _, item in rows],
        }
    )
    users = pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]})
    return Dataset("small", table, pl.DataFrame({k: v for k, v in items.items() if v is not None}), users)


def lc(**settings: Any) -> LCRec:
    return build("lc-rec", {"tokenizer": NAMES, "backbone": NANO, "training": TRAINING, **settings})  # type: ignore[return-value]


@pytest.fixture(scope="module")
def begun() -> LCRec:
    """Hardly taught; tests must not change it."""
    return lc(prefixes=4, batch_size=32).fit(log(), Run(max_steps=3))


def batches_of(system: LCRec, train: Dataset) -> InstructionBatches:
    system._words = Words.of(
        train, *item_words(train, system.config.description), system.annotator, system.config.tasks
    )
    return system.lesson(train, Run()).batches  # type: ignore[return-value]


def everything(requests: Requests, n_items: int) -> Ragged:
    return Ragged.from_lengths(np.tile(np.arange(n_items), len(requests)), np.full(len(requests), n_items))


def by_hand(system: LCRec, asked: tuple[torch.Tensor, torch.Tensor], names: np.ndarray) -> np.ndarray:
    """``[B, N, K, V]`` log-probabilities of every name's tokens, one sequence at a time, without padding or cache."""
    tokens, seen = asked
    out = []
    with torch.no_grad():
        for row, real in zip(tokens, seen, strict=True):
            prompt = row[real]
            whole = torch.stack([torch.cat([prompt, torch.tensor(name)]) for name in names])
            logits = system.backbone.model(input_ids=whole, use_cache=False).logits
            out.append(logits[:, len(prompt) - 1 : -1].log_softmax(-1))
    return torch.stack(out).numpy()


def summed(said: np.ndarray, names: np.ndarray) -> np.ndarray:
    """``[B, N]`` the log-probability of each name."""
    picked = np.take_along_axis(said, np.broadcast_to(names, (len(said), *names.shape))[..., None], -1)
    return picked[..., 0].sum(-1)


QUESTIONS = Requests.of([[3, 7, 11], [], [0], [1, 5, 9, 1], [99, 2], list(range(12)) * 4], user_rows=np.arange(6) - 2)


# -- answering ---------------------------------------------------------------------------------------------------------


def test_a_wide_beam_is_scoring_everything_and_scores_are_those_of_the_model(begun: LCRec) -> None:
    n = 12
    names = begun._names()
    wanted = summed(by_hand(begun, begun.asked(QUESTIONS), names), names)
    scores = begun.score(QUESTIONS, everything(QUESTIONS, n)).reshape(len(QUESTIONS), n)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
    rankings = begun.recommend(QUESTIONS, n)
    assert rankings.exact
    assert (np.sort(rankings.item_rows, axis=1) == np.arange(n)).all(), "each item once, and nothing else"
    np.testing.assert_allclose(rankings.scores, -np.sort(-wanted, axis=1), rtol=1e-4, atol=1e-4)
    assert np.isnan(begun.score(QUESTIONS, Ragged.of([[12], [13], [], [], [], []]))).all()


def test_a_narrow_beam_finds_real_items_that_differ(begun: LCRec) -> None:
    narrow = LCRec(begun.config.model_copy(update={"beam": 3}), **begun.parts)
    narrow.network = begun.network
    found = narrow.recommend(QUESTIONS.leaving_out_history(), 3)
    for row, history in zip(found.item_rows, QUESTIONS.histories, strict=True):
        given = row[row >= 0]
        assert len(np.unique(given)) == len(given)
        assert not set(given) & set(history.tolist())
    assert (found.item_rows[:5] >= 0).all()
    assert (found.item_rows[5] == -1).all(), "nothing is left"


def test_several_wordings_are_their_normalised_geometric_mean(begun: LCRec) -> None:
    many = LCRec(begun.config.model_copy(update={"templates": 3}), **begun.parts)
    many.network = begun.network
    names = begun._names()
    logs = np.mean([by_hand(begun, begun.asked(QUESTIONS, t), names) for t in range(3)], axis=0)
    wanted = summed(logs - np.log(np.exp(logs).sum(-1, keepdims=True)), names)
    scores = many.score(QUESTIONS, everything(QUESTIONS, 12)).reshape(len(QUESTIONS), 12)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
    rankings = many.recommend(QUESTIONS, 12)
    np.testing.assert_allclose(rankings.scores, -np.sort(-wanted, axis=1), rtol=1e-4, atol=1e-4)
    assert not np.allclose(scores, begun.score(QUESTIONS, everything(QUESTIONS, 12)).reshape(scores.shape), atol=1e-4)


def test_questions_read_as_written_by_hand(begun: LCRec) -> None:
    codes, lm = begun.tokenizer.codes, begun.backbone
    tokens, seen = begun.asked(QUESTIONS)
    assert (seen[:, -1]).all(), "padded on the left"
    assert (tokens[~seen] == lm.tokenizer.pad).all()
    read = lm.spell(Ragged.of([row[real].tolist() for row, real in zip(tokens, seen, strict=True)]))

    def listed(rows: list[int]) -> str:
        return ",".join(codes.spell(row) for row in rows)

    first = f"These items were chosen one after another:{listed([3, 7, 11])}. Which one comes next?\nResponse:"
    assert read[0] == first
    assert read[1] == "A new user asks for a first item. Which one do you suggest?\nResponse:"
    assert listed([2]) in read[4], "an item added later is not read"
    assert read[5].count("<a_") == 20, "the last twenty"
    assert listed((list(range(12)) * 4)[-20:]) in read[5]
    assert tokens[0][seen[0]][0] == lm.tokenizer.start
    assert (tokens[0] >= begun.backbone._first_size).sum() == 2 * 3, "each code is one added token"


# -- what is taught ----------------------------------------------------------------------------------------------------


def test_only_the_response_has_a_loss(begun: LCRec) -> None:
    batch = next(batches_of(begun, log()).epoch(0)).alone
    assert batch is not None
    labels = batch.tokens.masked_fill(~batch.taught, -100)
    with torch.no_grad():
        theirs = begun.backbone.model(input_ids=batch.tokens, attention_mask=batch.real.long(), labels=labels).loss
        loss = begun.loss(InstructionBatch(batch, None))
        torch.testing.assert_close(loss, theirs)
        assert (~batch.real).any()
        other = batch.tokens.masked_fill(~batch.real, 7)
        assert float(begun.loss(InstructionBatch(replace(batch, tokens=other), None))) == float(loss), (
            "padding is neither read nor taught"
        )
        row = int(batch.taught.sum(1).argmax())
        changed = batch.tokens.clone()
        changed[row, int(batch.taught[row].nonzero().max())] = 7
        assert abs(float(begun.loss(InstructionBatch(replace(batch, tokens=changed), None))) - float(loss)) > 1e-4
    # What the instructions say is predicted nowhere: their tokens are no target of the loss.
    said = batch.real & ~batch.taught
    with torch.no_grad():
        rest = begun.backbone.model(input_ids=batch.tokens, labels=batch.tokens.masked_fill(~said, -100)).loss
    assert abs(float(rest) - float(loss)) > 1e-3


def test_a_loss_in_parts_is_the_loss(begun: LCRec, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(batches_of(begun, log()).epoch(0))
    table = begun.backbone.model.get_input_embeddings().rows
    whole = begun.loss(batch)
    (gradient,) = torch.autograd.grad(whole, table)
    monkeypatch.setattr(lc_rec, "LOGITS", 5 * 400)
    parts = begun.loss(batch)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, table)[0], gradient)


def test_branches_have_the_loss_of_the_questions_they_stand_for(begun: LCRec) -> None:
    system = lc(tasks=["seqrec"]).fit(log(), Run(max_steps=1))
    batch = next(batches_of(system, log()).epoch(0))
    rows = batch.branched
    assert rows is not None
    depth = (rows.tokens.shape[1] - rows.trunk) // rows.read.shape[1]

    def told(part: Alone) -> tuple[float, int]:
        with torch.no_grad():
            said = int(part.taught.sum())
            return system.loss(InstructionBatch(part, None)).item() * said, said

    parts = [] if batch.alone is None else [told(batch.alone)]
    for row, read in enumerate(rows.read.tolist()):
        for one, n_read in enumerate(read):
            here = slice(rows.trunk + one * depth, rows.trunk + (one + 1) * depth)
            tokens, taught = rows.tokens[row, here], rows.taught[row, here]
            if taught.any():  # else the row has fewer questions
                asked = [*rows.tokens[row, :n_read].tolist(), *tokens[: int(taught.nonzero().min())].tolist()]
                parts.append(told(Alone.of(Ragged.of([asked]), Ragged.of([tokens[taught].tolist()]), 0)))
    total, n = (sum(column) for column in zip(*parts, strict=True))
    with torch.no_grad():
        assert system.loss(batch).item() == pytest.approx(total / n, rel=1e-5)


def test_no_event_of_validation_or_test_is_taught() -> None:
    """By ids: each target, each history, each intention and preference stands in the train part; and by words: what
    only the other parts' reviews say is in no text."""
    whole = load("world-test")
    split = leave_one_out(whole)
    later = np.zeros(whole.n_interactions, dtype=bool)
    later[np.concatenate([split.valid.events, split.test.events])] = True
    marked = pl.when(pl.Series(later)).then(pl.lit("I wish for zzyzx pylons.")).otherwise(pl.col("review"))
    train = leave_one_out(replace(whole, interactions=whole.interactions.with_columns(review=marked))).train
    system = lc(prefixes=None)
    words = Words.of(train, *item_words(train, system.config.description), system.annotator, EVERY_TASK)
    assert not any("zzyzx" in text for text in words.texts)
    system.tokenizer.fit(train, Run())
    system.backbone.prepare([*words.texts, *system.said()], Run(), None)
    book = system._book(system._names(), [TASKS[task] for task in EVERY_TASK], words)
    pools = pools_of(train, book, words, EVERY_TASK, length=20, prefixes=None, fused=10.0)
    met = set(zip(train.user_rows.tolist(), train.item_rows.tolist(), strict=True))
    last = {user: int(row[-1]) for user, row in enumerate(train.histories)}
    asked_after = {
        user: {*split.valid.targets[split.valid.requests.user_rows == user].tolist(),
               *split.test.targets[split.test.requests.user_rows == user].tolist()}
        for user in range(train.n_users)
    }  # fmt: skip
    assert {EVERY_TASK[pool.task] for pool in pools if len(pool)} == set(EVERY_TASK)
    for pool in pools:
        task, some = EVERY_TASK[pool.task], pool.examples
        if task in ("item2index", "index2item"):
            continue
        users = train.user_rows[some.stop - (some.stop == train.n_interactions)]
        if task == "preferenceobtain":
            users = train.user_rows[some.start]
            assert (some.item == -1).all()
        assert (some.stop <= train.n_interactions).all()
        assert (train.user_rows[some.start] == users).all(), "a history is one user's"
        for user, item, start, stop in zip(users, some.item, some.start, some.stop, strict=True):
            read = train.item_rows[start:stop].tolist()
            assert all((user, one) in met for one in read)
            assert len(read) <= 20
            if pool.together:  # each event after the first is a target
                assert train.user_rows[stop] == user
                continue
            if task == "preferenceobtain":
                assert stop == train.histories.stops[user] - 1, "what is liked is told without the last event"
                continue
            assert train.item_rows[stop] == item, "the target is the training event after the history"
            assert int(item) not in asked_after[user] - {one for owner, one in met if owner == user}
            if task == "itemsearch":
                assert item == last[user]
    assert sum(len(pool) for pool in pools if EVERY_TASK[pool.task] == "seqrec") == train.n_interactions


class Asked(Extractive):
    """Remembers which events it was shown."""

    def intentions(self, train: Dataset, events: np.ndarray) -> list[Intention]:
        self.searched = events
        return super().intentions(train, events)

    def preferences(self, train: Dataset, histories: Ragged) -> list[Preference]:
        self.told = histories
        return super().preferences(train, histories)


def test_what_is_liked_is_written_without_the_event_that_is_searched_for() -> None:
    train, annotator = log(), Asked()
    words = Words.of(train, *item_words(train, LCRecConfig().description), annotator, EVERY_TASK)
    last = train.histories.stops - 1
    assert annotator.searched.tolist() == last.tolist()
    assert [row.tolist() for row in annotator.told] == [
        list(range(start, stop)) for start, stop in zip(train.histories.starts, last, strict=True)
    ]
    assert words.searched.tolist() == last.tolist()
    assert words.liking.tolist() == list(range(train.n_users))
    assert words.first_of(np.array([2, 5]), np.array([5, 3, 2, 9])).tolist() == [2, -1, 0, -1]


def test_naming_and_telling_can_be_learnt_by_heart() -> None:
    """Three of the six tasks at once, over a catalogue of twelve items and one event: title → code of each item, and
    every token of every response."""
    train = log(n_users=1, text=[f"Book {row} about the {KINDS[row % 4]}." for row in range(12)])
    train = train.keeping(np.arange(train.n_interactions) < 1)
    tasks = ("seqrec", "item2index", "index2item")
    system = lc(tasks=tasks, batch_size=12).fit(train, Run(max_steps=700))
    batches = batches_of(system, train)
    right, total = 0, 0
    with torch.no_grad():
        for epoch in range(1000, 1006):
            for batch in (one.alone for one in batches.epoch(epoch)):
                assert batch is not None
                said = system.backbone.model(input_ids=batch.tokens, use_cache=False).logits[:, :-1].argmax(-1)
                taught = batch.taught[:, 1:]
                right += int((said == batch.tokens[:, 1:])[taught].sum())
                total += int(taught.sum())
    assert right > 0.99 * total
    titled = [t for t, one in enumerate(TASKS["item2index"]) if "{description}" not in one.ask]
    for template in titled:
        assert by_text(system, train, template).tolist() == list(range(12)), TASKS["item2index"][template].ask


@pytest.mark.slow
@pytest.mark.parametrize("task", EVERY_TASK)
def test_each_task_can_be_learnt_by_heart(task: TaskName) -> None:
    """Twenty items, twenty readers of two each: to every question, whatever its words, the system writes a right answer
    token for token. Where several are right (a newcomer's first item, two ways to put a taste), any will do."""
    train = readers_of_two()
    tasks = list(dict.fromkeys(("seqrec", task)))
    training = TRAINING | {"schedule": "cosine"}
    deeper = NANO | {"layers": 2}
    system = lc(tasks=tasks, backbone=deeper, batch_size=20, prefixes=1, fused=1.0, training=training)
    system.fit(train, Run(max_steps=2500))
    batches = batches_of(system, train)
    right: dict[tuple[int, ...], set[int]] = {}
    for batch in (one.alone for epoch in range(500) for one in batches.epoch(epoch)):
        assert batch is not None
        for row, places in zip(batch.tokens.tolist(), batch.taught, strict=True):
            for place in places.nonzero()[:, 0].tolist():
                right.setdefault(tuple(row[:place]), set()).add(row[place])
    assert len(right) > 300
    wrong = total = 0
    with torch.no_grad():
        for batch in (one.alone for epoch in range(30) for one in batches.epoch(epoch)):
            assert batch is not None
            said = system.backbone.model(input_ids=batch.tokens, use_cache=False).logits.argmax(-1).tolist()
            for row, places, best in zip(batch.tokens.tolist(), batch.taught, said, strict=True):
                taught = places.nonzero()[:, 0].tolist()
                wrong += sum(best[place - 1] not in right[tuple(row[:place])] for place in taught)
                total += len(taught)
    assert wrong == 0, f"{wrong} of {total} tokens"


def readers_of_two() -> Dataset:
    """Each of twenty readers met an item and the one after it; no two items and no two reviews say the same."""
    said = [f"{one} {other}" for one in ("red", "green", "blue", "black", "white") for other in KINDS]
    train = log(20, 20, title=said, text=[f"Of the {words}, {row}." for row, words in enumerate(said)])
    users = np.repeat(np.arange(20), 2)
    items = (users + np.tile([0, 1], 20)) % 20
    table = {
        "user_row": pl.Series(users, dtype=pl.Int32), "item_row": pl.Series(items, dtype=pl.Int32),
        "time": pl.Series(range(40), dtype=pl.Int64), "review": [f"I enjoyed the {said[item]}." for item in items],
    }  # fmt: skip
    return replace(train, interactions=pl.DataFrame(table))


def by_text(system: LCRec, train: Dataset, template: int) -> np.ndarray:
    """``[N]`` the item that the system names by each item's text."""
    words = Words.of(train, *item_words(train, system.config.description), system.annotator, ())
    book = system._book(system._names(), [TASKS["item2index"]], words)
    items = np.arange(train.n_items)
    asked = book.asked(np.full(len(items), template), Examples.about(items), book.values(items[:0]), 0)
    speaker = CausalSpeaker(system.backbone.model, *padded(asked, system.backbone.tokenizer.pad, "left"))
    return beam_search(speaker, system.speech.naming.trie, len(items), beam=4, k=1).items[:, 0].numpy()


def test_tasks_without_words_are_left_out_and_said() -> None:
    train = log(title=None, category=None)
    silent = replace(train, interactions=train.interactions.drop("review"))
    system = lc().fit(silent, Run(max_steps=1))
    assert set(system.facts["left out"]) == {"itemsearch"}
    assert "review" in system.facts["left out"]["itemsearch"]
    assert system.facts["examples an epoch"]["fusionseqrec"] > 0, "descriptions are enough"
    assert system.facts["written by"] == "extractive"
    assert system.facts["pretrained"] == "no"
    bare = replace(silent, items=silent.items.drop("text").with_columns(title=pl.Series(["the same"] * 12)))
    assert set(lc(fused=0.0).fit(bare, Run(max_steps=1)).facts["left out"]) == {
        "fusionseqrec", "itemsearch", "preferenceobtain",
    }  # fmt: skip
    alone = lc(tasks=["seqrec"]).fit(train, Run(max_steps=1))
    assert list(alone.facts["examples an epoch"]) == ["seqrec"]
    assert alone.facts["left out"] == {}


def test_behaviour_is_learnt_in_any_case_and_texts_by_the_alignment_tasks() -> None:
    """Readers stay with one kind: both systems find it. Only the one with the alignment tasks knows what a title is."""
    train = log(n_items=24, n_users=60)
    kind = np.arange(24) % 4
    questions = Requests.of([[k, k + 4, k + 8] for k in range(4)])
    names = NAMES | {"text": {"fields": ["category"]}}
    told = {}
    for tasks in (EVERY_TASK, ("seqrec",)):
        system = lc(tokenizer=names, tasks=list(tasks), batch_size=16, prefixes=1).fit(train, Run(max_steps=800))
        scores = system.score(questions, everything(questions, 24)).reshape(4, 24)
        above = [(scores[k][kind == k][:, None] > scores[k][kind != k]).mean() for k in range(4)]
        assert np.mean(above) > 0.85, tasks
        told[len(tasks)] = (kind[by_text(system, train, 0)] == kind).mean()
    assert told[6] > 0.9
    assert told[1] < 0.6, "by lot a quarter"


def rarely_met() -> Dataset:
    """16 items that readers of one kind share, and 8 that one newcomer each has met: only texts tell of what kind."""
    rng = np.random.default_rng(0)
    train = log(n_items=24, n_users=88)
    rows = []
    for user in range(80):
        rows += [(user, item) for item in rng.choice(np.arange(user % 4, 16, 4), rng.integers(2, 5), replace=False)]
    rows += [(80 + item, 16 + item) for item in range(8)]
    users, items = (pl.Series([row[side] for row in rows], dtype=pl.Int32) for side in (0, 1))
    times = pl.Series(range(len(rows)), dtype=pl.Int64)
    return replace(train, interactions=pl.DataFrame({"user_row": users, "item_row": items, "time": times}))


def test_the_alignment_tasks_place_items_that_are_hardly_met() -> None:
    """Names that say nothing, one token each. What was never met beside others finds its readers by its title."""
    train, kind = rarely_met(), np.arange(24) % 4
    questions = Requests.of([[k, k + 4] for k in range(4)] + [[k + 8, k + 4] for k in range(4)])
    found = {}
    for tasks in (("seqrec", "item2index", "index2item"), ("seqrec",)):
        training = TRAINING | {"learning_rate": 2e-3}
        system = lc(tokenizer={"name": "independent"}, tasks=list(tasks), batch_size=16, fused=0.0, training=training)
        scores = system.fit(train, Run(max_steps=750)).score(questions, everything(questions, 24)).reshape(8, 24)
        for part, rows in (("met", np.arange(16)), ("rare", np.arange(16, 24))):
            own = [(kind[rows] == j % 4, scores[j][rows]) for j in range(8)]
            found[len(tasks), part] = np.mean([(s[ours][:, None] > s[~ours]).mean() for ours, s in own])
    assert min(found[3, "met"], found[1, "met"]) > 0.9, "what was met together both know"
    assert found[3, "rare"] > 0.85
    assert found[1, "rare"] < 0.75, "by lot a half"


# -- growing, saving, other models -------------------------------------------------------------------------------------


def grown(train: Dataset) -> Dataset:
    more = pl.DataFrame({"item": ["new"], "title": ["red sea again"], "text": ["A book about the red sea."],
                         "category": [["sea"]]})  # fmt: skip
    return replace(train, items=pl.concat([train.items, more], how="diagonal_relaxed"))


def test_saved_is_loaded_and_the_catalogue_grows(begun: LCRec, tmp_path: Path) -> None:
    begun.save(tmp_path / "one")
    system = store.load(tmp_path / "one")
    assert isinstance(system, Grows)
    before, here = system.recommend(QUESTIONS, 12), begun.recommend(QUESTIONS, 12)
    np.testing.assert_array_equal(before.item_rows, here.item_rows)
    assert before.scores.tobytes() == here.scores.tobytes()
    names = system._names()
    state = torch.get_rng_state()
    system.add_items(grown(log()))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(system._names()[:12], names)
    after = system.recommend(QUESTIONS, 13)
    assert (after.item_rows == 12).any(1).all(), "reached at once"
    system.retire_items(np.array([12, 3]))
    left = system.recommend(QUESTIONS, 13)
    assert not np.isin(left.item_rows, [12, 3]).any()
    assert np.isnan(system.score(QUESTIONS[:1], Ragged.of([[12, 3]]))).all()
    system.retire_items(np.array([3]), back=True)
    assert (system.recommend(QUESTIONS, 13).item_rows == 3).any(1).all()
    system.save(tmp_path / "two")
    again = store.load(tmp_path / "two")
    np.testing.assert_array_equal(again.recommend(QUESTIONS, 12).item_rows, system.recommend(QUESTIONS, 12).item_rows)


def test_it_goes_on_with_what_it_has_learnt() -> None:
    system = lc().fit(log(), Run(max_steps=5))
    before = {name: one.detach().clone() for name, one in system.backbone.model.named_parameters()}
    names = system._names()
    later = grown(log())
    assert system.continue_fit(later, Run(max_steps=1)) is system
    np.testing.assert_array_equal(system._names()[:12], names)
    for name, one in system.backbone.model.named_parameters():
        moved = (one[: len(before[name])] - before[name]).abs().max()
        assert float(moved.detach()) <= 2e-3, f"{name} began anew"
    assert np.isfinite(system.score(QUESTIONS[:1], Ragged.of([[12]]))).all()


def test_names_of_plain_text_are_read_by_the_models_own_tokenizer() -> None:
    system = lc(tokenizer="random").fit(log(), Run(max_steps=2))
    rankings = system.recommend(QUESTIONS, 12)
    assert (np.sort(rankings.item_rows, axis=1) == np.arange(12)).all()
    naming = system.speech.naming
    ends = naming.tokens[torch.arange(12), (naming.tokens >= 0).sum(1) - 1]
    assert (ends == system.backbone.tokenizer.end).all()


@pytest.mark.parametrize("tune", ["lora", "new-rows"])
def test_a_frozen_base_stays_and_codes_learn(tune: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    checkpoints.causal(tmp_path / "hub")
    part = {"name": "hub", "model": str(tmp_path / "hub"), "tune": tune}
    system = lc(backbone=part, text_tokens=8, title_tokens=4, length=4).fit(log(), Run(max_steps=4))
    assert system.facts["pretrained"] == "LM"
    fresh = checkpoints.causal(tmp_path / "again")
    base = {name.replace(".base_layer", ""): one for name, one in system.backbone.model.named_parameters()}
    for name, one in fresh.named_parameters():
        own = base.get(name, base.get(name.replace("embed_tokens.weight", "embed_tokens.table.weight")))
        if own is None:
            own = base[name.replace("lm_head.weight", "lm_head.head.weight")]
        assert torch.equal(own, one), name
    rows = [one for name, one in system.backbone.model.named_parameters() if name.endswith("rows")]
    assert len(rows) == 2, "input and output rows of the codes"
    assert all(one.requires_grad for one in rows)
    system.save(tmp_path / "saved")
    again = store.load(tmp_path / "saved")
    assert again.recommend(QUESTIONS, 5).scores.tobytes() == system.recommend(QUESTIONS, 5).scores.tobytes()


@pytest.mark.parametrize("kind", ["rq-vae", "title"])
def test_a_tokenizer_that_begins_every_text_with_a_space_reads_an_instruction_as_one(kind: str, tmp_path: Path) -> None:
    checkpoints.llama_of_letters(tmp_path / "hub")
    names = NAMES if kind == "rq-vae" else {"name": kind}
    part = {"name": "hub", "model": str(tmp_path / "hub")}
    system = lc(backbone=part, tokenizer=names, tasks=("seqrec",), batch_size=8).fit(log(), Run(max_steps=1))
    codes, gap = system.tokenizer.codes, "" if kind == "rq-vae" else " "
    tokens, seen = system.asked(Requests.of([[3, 7]]))
    history = f"{gap}{codes.spell(3)},{gap}{codes.spell(7)}"
    said = f"<s> These items were chosen one after another:{history}. Which one comes next?\nResponse:"
    letters = system.backbone.tokenizer.inner

    def written(ids: torch.Tensor) -> str:
        return "".join(letters.id_to_token(token) for token in ids.tolist()).replace("▁", " ")

    assert written(tokens[0][seen[0]]) == said
    name = system.speech.naming.tokens[3]
    assert written(name[name >= 0]).removesuffix("</s>") == gap + codes.spell(3)


def test_an_encoder_and_decoder_is_refused(tmp_path: Path) -> None:
    checkpoints.seq2seq(tmp_path / "t5")
    with pytest.raises(ConfigError, match="needs a decoder-only language model"):
        lc(backbone={"name": "hub", "model": str(tmp_path / "t5")}).fit(log(), Run(max_steps=1))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="tasks must hold seqrec"):
        LCRecConfig(tasks=("item2index",))
    with pytest.raises(ValueError, match="each task once"):
        LCRecConfig(tasks=("seqrec", "seqrec"))
    assert set(EVERY_TASK) == set(TASKS)
    assert all(len(templates) >= 7 for templates in TASKS.values())
    assert ASKING == 10
    assert len({template for some in TASKS.values() for template in some}) == sum(map(len, TASKS.values()))
