"""P5: prompts as written by hand, scores by hand, every kind of name, planted blocks, caps, saved maps, growth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("tokenizers")

from palate.backbones.text_tokenizer import TextTokenizer
from palate.core import store
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, TrainingError
from palate.core.protocols import Grows
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.models.generative.p5 import P5, SEQUENTIAL, P5Config, Speech
from palate.parts.packing import Packing
from palate.parts.t5 import T5Config, paced
from palate.systems import build, component
from tests.models.sequence_logs import successors, timed_log

NETWORK = T5Config(width=32, layers=1, heads=2, head_width=16, forward_width=64, dropout=0.0)
TRAINING = TrainingConfig(epochs=1000, learning_rate=5e-3, warmup_steps=10, clip_norm=1.0)
KINDS = ("random", "independent", "sequential", "title", "semantic", "collaborative", "hybrid")


def described(train: Dataset) -> Dataset:
    """With titles of several words, two of them alike, and a category tree."""
    n = train.n_items
    titles = [f"Volume {row % 7} of the {'red' if row % 2 else 'blue'} book {row // 2}" for row in range(n)]
    titles[n - 1] = titles[0]
    tree = [["books", f"kind {row % 3}", f"shelf {row % 6}"] for row in range(n)]
    return replace(train, items=train.items.with_columns(pl.Series("title", titles), pl.Series("category", tree)))


FORWARD = NETWORK.model_copy(update={"reads": "forward"})


def p5(kind: str = "random", names: dict[str, Any] | None = None, **settings: Any) -> P5:
    part = Part(name=kind, settings=names or {})
    config = P5Config(**{"tokenizer": part, "network": NETWORK, "training": TRAINING, "batch_size": 64, **settings})
    return P5(config, tokenizer=component("tokenizer", part))


def everything(requests: Requests, n_items: int) -> Ragged:
    b = len(requests)
    return Ragged.from_lengths(np.tile(np.arange(n_items), b), np.full(b, n_items))


def table(system: P5, requests: Requests, n_items: int) -> np.ndarray:
    return system.score(requests, everything(requests, n_items)).reshape(len(requests), n_items)


@pytest.fixture(scope="module")
def log() -> Dataset:
    return described(successors())


@pytest.fixture(scope="module")
def taught(log: Dataset) -> P5:
    """Random numbers, taught well enough to be right; tests must not change it."""
    return p5(tasks=("sequential",)).fit(log, Run(max_steps=200))


@pytest.fixture(scope="module")
def begun(log: Dataset) -> P5:
    """Random numbers, hardly taught; tests must not change it."""
    return p5().fit(log, Run(max_steps=1))


QUESTIONS = Requests.of([[3, 4, 5], [], [7], [9, 10], [], [2, 99, 3], [11, 12]],
                        user_rows=np.array([4, 5, -1, 10_000, -1, 0, 7]))  # fmt: skip
"""Known and unknown users, with and without a history, one with an item that is not known."""


# -- prompts --


def text_of(system: P5, requests: Requests) -> tuple[list[str], list[list[int]], Speech]:
    """Each prompt as text and its word numbers, in the order of the questions."""
    speech = system.speech
    lengths = requests.histories.lengths
    prompts = speech.asking.prompts(
        speech.asking.templates.asked(lengths == 0),
        speech.asking.user(np.asarray(requests.user_rows), system.fitted().met.numpy()),
        requests.histories.flat().astype(np.int64),
        lengths,
    )
    back = np.argsort(prompts.order.numpy())
    rows = Ragged.from_lengths(prompts.tokens.numpy(), prompts.lengths.numpy())[back]
    words = Ragged.from_lengths(prompts.words.numpy(), prompts.lengths.numpy())[back]
    return system.text.spell(rows), [row.tolist() for row in words], speech


def test_a_prompt_reads_as_it_was_written(begun: P5) -> None:
    codes = begun.tokenizer.codes
    names = [f"item_{codes.spell(row)}" for row in range(codes.n_items)]
    asked = Requests.of([[3, 4], [], [7]], user_rows=np.array([14, 5, -1]))
    texts, words, _ = text_of(begun, asked)
    assert SEQUENTIAL[0] == "{user} went from one to the next : {history} and then to"
    assert texts[0] == f"user_14 went from one to the next :{names[3]}{names[4]} and then to"
    assert texts[1] == " what should we recommend touser_5 ?"
    assert texts[2] == f" someone went from one to the next :{names[7]} and then to"
    # One word number a word, in order, the end of the prompt the last; names here have three tokens, item_ and two
    # pairs of digits, all of one word.
    assert sorted(set(words[0])) == list(range(14))
    assert words[0].count(8) == words[0].count(9) == (begun.speech.naming.tokens[3] >= 0).sum() - 1 >= 3


def test_numbers_split_into_pairs_and_unrelated_names_share_pieces(begun: P5) -> None:
    codes = begun.tokenizer.codes
    tokens = begun.text.read(["item_1023", "user_7", "item_12345"])
    assert [begun.text.spell(Ragged.of([[token] for token in row])) for row in tokens] == [
        ["item_", "10", "23"], ["user_", "7"], ["item_", "12", "34", "5"],
    ]  # fmt: skip
    pieces = begun.speech.naming.tokens[:, 1:3].unique()
    assert len(pieces) < 2 * codes.n_items - 5


@pytest.mark.parametrize("kind", ["independent", "semantic", "hybrid", "collaborative"])
def test_new_words_are_one_token_and_one_word(log: Dataset, kind: str) -> None:
    system = p5(kind).fit(log, Run(max_steps=1))
    codes, (_, words, speech) = system.tokenizer.codes, text_of(system, Requests.of([[3, 4]], user_rows=np.array([1])))
    np.testing.assert_array_equal((speech.naming.tokens >= 0).sum(1), codes.lengths + 2)
    assert words[0].count(8) == codes.lengths[3] + 1
    assert words[0].count(9) == codes.lengths[4] + 1


def test_words_of_a_title_are_told_apart(log: Dataset) -> None:
    system = p5("title").fit(log, Run(max_steps=1))
    texts, words, _ = text_of(system, Requests.of([[3]], user_rows=np.array([1])))
    assert "item_[Volume 3 of the red book 1]" in texts[0]
    assert sorted(set(words[0])) == list(range(12 + 7)), "item_[Volume 3 of the red book 1] is seven words"


# -- learning and answering --


def test_learns_what_comes_next(taught: P5) -> None:
    assert successor_recall(taught) > 0.7


def successor_recall(system: P5) -> float:
    """How often the best item after every history of three is the one that follows."""
    histories = [[(a + i) % 30 for i in range(3)] for a in range(30)]
    found = system.recommend(Requests.of(histories), 1).item_rows[:, 0]
    return float((found == (np.arange(30) + 3) % 30).mean())


@pytest.mark.parametrize("tasks", [("sequential",), ("straightforward",), ("sequential", "straightforward")])
def test_windows_are_taught_at_every_place_as_each_prefix_alone_would_be(log: Dataset, tasks: tuple[str, ...]) -> None:
    system = p5(tasks=tasks, network=FORWARD, length=4, nameless=0.0).fit(log, Run(max_steps=1))
    lesson = system.lesson(log, Run())
    batch = next(iter(lesson.batches.epoch(0)))
    assert int(batch.counts.sum()) == len(batch.targets) == len(batch.read)
    network, rows = system.fitted().eval(), torch.repeat_interleave(torch.arange(len(batch.counts)), batch.counts)
    names, told, tokens = system.speech.naming.tokens[batch.targets], 0.0, batch.prompts.tokens
    starts = torch.cumsum(batch.prompts.lengths, 0) - batch.prompts.lengths
    for place, row in enumerate(rows.tolist()):
        here = slice(int(starts[row]), int(starts[row] + batch.read[place]))
        prompt = replace(
            batch.prompts, tokens=tokens[here], words=batch.prompts.words[here], lengths=batch.read[place : place + 1]
        )  # fmt: skip
        memory, packing = network.read(prompt)
        told += float(network.t5.speaker(memory, packing).say(names[None, place : place + 1]).detach())
    assert lesson.loss(batch).item() == pytest.approx(-told / int((names >= 0).sum()), rel=1e-4)


def test_a_network_that_reads_forward_learns_what_comes_next(log: Dataset) -> None:
    system = p5(tasks=("sequential",), network=FORWARD, batch_size=16).fit(log, Run(max_steps=200))
    assert successor_recall(system) > 0.7


def test_paces_follow_the_network_that_is_there_and_settings_decide_over_them(log: Dataset) -> None:
    training = TRAINING.model_copy(update={"rates": {"t5.tokens": 2.0}})
    network = NETWORK.model_copy(update={"layers": 3, "paced": True})
    system = p5(training=training, network=network).fit(log, Run(max_steps=1))
    shares = paced(TRAINING, system.fitted().t5.config).rates
    assert len(shares) == 1 + 3 * 3
    assert system.training.rates == shares | {"t5.tokens": 2.0}
    assert system.config.training == training
    assert p5().fit(log, Run(max_steps=1)).training == TRAINING


def test_scores_are_log_probabilities_summed_by_hand(taught: P5) -> None:
    """Each prompt read alone, each name said at once, a softmax over the whole vocabulary."""
    network, speech = taught.fitted(), taught.speech
    asked = Requests.of([[3, 4, 5], [9], [1, 2]], user_rows=np.array([4, -1, 7]))
    scores = table(taught, asked, 30)
    names = speech.naming.tokens
    with torch.no_grad():
        for row, history in enumerate(asked.histories):
            prompts = speech.asking.prompts(
                np.array([speech.asking.templates.silent]),
                speech.asking.user(asked.user_rows[row : row + 1], network.met.numpy()),  # type: ignore[index]
                history, np.array([len(history)]),
            )  # fmt: skip
            memory = network.t5.encode(prompts.tokens, Packing(prompts.lengths), network.words(prompts.words))  # type: ignore[misc]
            memory, packing = memory.repeat(30, 1), Packing(prompts.lengths.repeat(30))
            shares = (network.t5.states(names, memory, packing) @ network.t5.table.T).log_softmax(-1)
            said = shares.gather(2, names.clamp(min=0)[..., None])[..., 0].masked_fill(names < 0, 0)
            np.testing.assert_allclose(scores[row], said.sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_name_answers_items_and_each_once(log: Dataset, kind: str) -> None:
    system = p5(kind).fit(log, Run(max_steps=3))
    codes = system.tokenizer.codes
    assert len({codes.spell(row) for row in range(codes.n_items)}) == codes.n_items == 30
    for k in (5, 40):
        rankings = system.recommend(QUESTIONS, k)
        for answer in rankings.item_rows:
            given = answer[answer >= 0]
            assert len(given) == len(set(given.tolist())) == min(k, 30)
            assert given.max() < 30
    assert rankings.exact, "a beam as wide as the catalogue"
    order = np.argsort(-table(system, QUESTIONS, 30), axis=1, kind="stable")
    np.testing.assert_array_equal(rankings.item_rows[:, :30], order)


def test_strangers_are_told_apart_by_what_they_met_alone(taught: P5) -> None:
    asked = Requests.of([[3, 4], [3, 4], [3, 4], [3, 4], []], user_rows=np.array([-1, 10_000, 4, 5, -1]))
    scores = table(taught, asked, 30)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    np.testing.assert_allclose(scores[0], table(taught, Requests.of([[3, 4]]), 30)[0], rtol=1e-5)
    assert not np.allclose(scores[0], scores[2])
    assert not np.allclose(scores[2], scores[3])


def test_one_of_whom_nothing_is_known_is_shown_what_people_meet(log: Dataset, taught: P5) -> None:
    asked = Requests.of([[], [3], [500], []], user_rows=np.array([-1, -1, 10_000, 3]))
    counts = log.item_counts
    best = np.argsort(-counts, kind="stable")[:5]
    found = taught.recommend(asked, 5)
    np.testing.assert_array_equal(found.item_rows[[0, 2]], [best, best])
    scores = table(taught, asked, 31)
    np.testing.assert_allclose(np.exp(scores[0, :30]), (counts + 1) / (counts + 1).sum(), rtol=1e-4)
    assert np.isnan(scores[:, 30]).all()
    np.testing.assert_allclose(scores[1], table(taught, asked[1:2], 31)[0], rtol=1e-5)
    limited = replace(
        asked, candidates=Ragged.of([best[2:4], [7, 8], best[:1], [1]]), leave_out=Ragged.of([best[2:3], [], [], []])
    )
    found = taught.recommend(limited, 2).item_rows
    assert found[0].tolist() == [best[3], -1]
    assert set(found[1].tolist()) == {7, 8}
    assert found[2].tolist() == [best[0], -1]


def test_users_without_an_event_are_strangers(log: Dataset) -> None:
    silent = log.keeping(log.user_rows != 9)
    system = p5().fit(silent, Run(max_steps=3))
    scores = table(system, Requests.of([[3, 4], [3, 4]], user_rows=np.array([9, -1])), 30)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


@pytest.mark.parametrize("tasks", [("sequential",), ("straightforward",), ("sequential", "straightforward")])
def test_the_tasks_that_are_taught_are_those_that_are_drawn(log: Dataset, tasks: tuple[str, ...]) -> None:
    system = p5(tasks=tasks).fit(log, Run(max_steps=1))
    texts = []
    for batch in system.lesson(log, Run()).batches.epoch(0):
        texts += system.text.spell(Ragged.from_lengths(batch.prompts.tokens.numpy(), batch.prompts.lengths.numpy()))
    unread = sum("item_" not in text for text in texts)
    first = log.n_users  # each user's first event has nothing before it
    straight = (len(texts) - first) / 3  # five templates of fifteen
    expected = {("sequential",): first, ("straightforward",): len(texts)}.get(tasks, first + straight)
    assert unread == pytest.approx(expected, rel=0 if len(tasks) == 1 else 0.1)
    asked = Requests.of([[3, 4], [5, 6]], user_rows=np.array([2, 2]))
    assert np.allclose(*table(system, asked, 30)) == (tasks == ("straightforward",))


def test_whole_words_matter_and_are_learnt(log: Dataset) -> None:
    plain, whole = p5(whole_words=False).fit(log, Run(max_steps=2)), p5().fit(log, Run(max_steps=2))
    assert plain.fitted().words is None
    rows = whole.fitted().words
    assert rows is not None
    fresh = p5().fit(log, Run(max_steps=0)).fitted().words
    moved = (rows.weight - fresh.weight).abs().sum(1) > 0  # type: ignore[union-attr]
    assert moved[:10].all()
    assert not moved[100:].any()
    before = table(whole, QUESTIONS[:1], 30)
    with torch.no_grad():
        rows.weight[:10] += 1.0
    assert not np.allclose(table(whole, QUESTIONS[:1], 30), before)


# -- the index decides --


def blocks(seed: int = 0) -> tuple[Dataset, Requests, np.ndarray]:
    """Sixty items in six blocks whose rows tell nothing; a user stays within one block nine times of ten. And the
    questions that the next event of each user answers."""
    rng = np.random.default_rng(seed)
    items = rng.permutation(60).reshape(6, 10)
    histories = []
    for _ in range(300):
        own = rng.permutation(items[rng.integers(6)])[:7]
        stray = rng.random(7) < 0.1
        histories.append(np.where(stray, rng.integers(0, 60, 7), own).tolist())
    times = [[60_000 * i for i in range(6)]] * 300
    train = timed_log([history[:6] for history in histories], times, 60)
    asked = Requests.of([history[:6] for history in histories], user_rows=np.arange(300)).leaving_out_history()
    return train, asked, np.array([history[6] for history in histories])


def hits(system: P5, asked: Requests, targets: np.ndarray) -> float:
    return float((system.recommend(asked, 10).item_rows == targets[:, None]).any(1).mean())


def test_collaborative_names_beat_random_ones_at_equal_steps() -> None:
    train, asked, targets = blocks()
    run = Run(max_steps=40)
    shared = p5("collaborative", {"clusters": 6, "leaf": 10}, length=6, tasks=("sequential",)).fit(train, run)
    drawn = p5("random", length=6, tasks=("sequential",)).fit(train, run)
    assert hits(shared, asked, targets) > hits(drawn, asked, targets) + 0.15


def test_the_saved_map_belongs_to_the_weights(taught: P5, log: Dataset, tmp_path: Path) -> None:
    taught.save(tmp_path / "p5")
    again = store.load(tmp_path / "p5")
    first, second = taught.recommend(QUESTIONS, 10), again.recommend(QUESTIONS, 10)
    np.testing.assert_array_equal(first.item_rows, second.item_rows)
    assert first.scores.tobytes() == second.scores.tobytes()
    again.tokenizer.fit(log, Run(seed=1))
    assert successor_recall(again) < 0.2 < successor_recall(taught) - 0.4


def test_a_cap_below_the_length_of_titles_finds_nothing(log: Dataset) -> None:
    capped = p5("title", name_tokens=5).fit(log, Run(max_steps=2))
    assert (capped.recommend(QUESTIONS, 10).item_rows == -1).all()
    assert np.isnan(table(capped, QUESTIONS, 30)).all()
    lengths = (capped.speech.naming.tokens >= 0).sum(1).numpy()
    middle = int(np.median(lengths))
    some = p5("title", name_tokens=middle).fit(log, Run(max_steps=2))
    found = some.recommend(QUESTIONS, 30).item_rows
    assert set(found[found >= 0].tolist()) == set(np.flatnonzero(lengths <= middle).tolist())
    assert 0 < (lengths <= middle).sum() < 30


# -- growth and disk --


def grown(log: Dataset, n: int = 2) -> Dataset:
    new = pl.DataFrame({"item": [f"new {row}" for row in range(n)], "title": [f"Late book {row}" for row in range(n)],
                        "category": [["books", "kind 9", "shelf 9"]] * n})  # fmt: skip
    return replace(log, items=pl.concat([log.items, new], how="diagonal"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_item_is_answered_at_once_and_a_retired_one_no_more(log: Dataset, kind: str, tmp_path: Path) -> None:
    system = p5(kind).fit(log, Run(max_steps=2))
    assert isinstance(system, Grows)
    before = table(system, QUESTIONS[:1], 30)
    system.add_items(grown(log))
    scores = table(system, QUESTIONS[:1], 32)
    assert np.isfinite(scores).all()
    # A new word takes its share of every softmax, so the old ones are a little less likely than before.
    np.testing.assert_allclose(scores[:, :30], before, atol=0.5)
    assert {30, 31} <= set(system.recommend(QUESTIONS, 32).item_rows[0].tolist())
    system.retire_items(np.array([31, 4]))
    assert not {31, 4} & set(system.recommend(QUESTIONS, 32).item_rows.ravel().tolist())
    system.save(tmp_path / "p5")
    again = store.load(tmp_path / "p5")
    np.testing.assert_array_equal(again.recommend(QUESTIONS, 32).item_rows, system.recommend(QUESTIONS, 32).item_rows)
    again.retire_items(np.array([4]), back=True)
    np.testing.assert_allclose(table(again, QUESTIONS[:1], 31), scores[:, :31], rtol=1e-5)


@pytest.mark.parametrize("kind", ["random", "independent"])
def test_only_what_is_new_is_read_when_the_catalogue_changes(
    log: Dataset, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = p5(kind).fit(log, Run(max_steps=1))
    system.recommend(QUESTIONS, 5)
    read: list[str] = []
    encoded = TextTokenizer._encoded
    monkeypatch.setattr(TextTokenizer, "_encoded", lambda self, texts: (read.extend(texts), encoded(self, texts))[1])

    def news() -> set[str]:
        system.recommend(QUESTIONS, 5)
        found = {text for text in read if text.startswith(("item_", "user_"))}
        read.clear()
        return found

    system.retire_items(np.array([4]))
    assert news() == set()
    system.retire_items(np.array([4]), back=True)
    assert news() == set()
    system.add_items(grown(log))
    assert news() == {"item_" + system.tokenizer.codes.spell(row) for row in (30, 31)}
    monkeypatch.undo()
    fresh_copy = P5(system.config, tokenizer=system.tokenizer)
    fresh_copy.network, fresh_copy.facts, fresh_copy.text = system.network, system.facts, system.text
    assert fresh_copy.recommend(QUESTIONS, 9).scores.tobytes() == system.recommend(QUESTIONS, 9).scores.tobytes()


def test_goes_on_with_a_grown_catalogue(log: Dataset) -> None:
    system = p5("independent").fit(log, Run(max_steps=60))
    before = system.recommend(QUESTIONS[:1], 1).item_rows
    system.continue_fit(grown(log), Run(max_steps=1))
    assert len(system.fitted().t5.tokens.weight) == system.text.size
    np.testing.assert_array_equal(system.recommend(QUESTIONS[:1], 1).item_rows, before)
    assert np.isfinite(table(system, QUESTIONS[:1], 32)).all()


def test_a_killed_fit_goes_on_to_the_same_bits(log: Dataset, tmp_path: Path) -> None:
    whole = p5().fit(log, Run(max_steps=30))
    p5().fit(log, Run(max_steps=17, folder=tmp_path))
    resumed = p5().fit(log, Run(max_steps=30, folder=tmp_path, resume=True))
    assert whole.recommend(QUESTIONS, 5).scores.tobytes() == resumed.recommend(QUESTIONS, 5).scores.tobytes()


# -- a published T5 --


def checkpoint(folder: Path, tied: bool = True, **more: Any) -> Any:
    """A small T5 with a tokenizer of pieces as a hub would give them; more rows than tokens, as published ones have."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = [
        "item",
        "user",
        "_",
        "▁",
        *"0123456789",
        "▁item",
        "▁user",
        "▁and",
        "▁then",
        "▁next",
        "▁someone",
        *"abcdefghij",
    ]
    scores = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        *((word, -float(len(words) - at)) for at, word in enumerate(words)),
    ]
    inner = Tokenizer(models.Unigram(scores, unk_id=2))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(scores) + 5, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3, dropout_rate=0.1,
        tie_word_embeddings=tied, feed_forward_proj="relu" if tied else "gated-gelu", **more,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.T5ForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    # Published files still hold this one, which no T5 reads.
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.randn(32, 3)
    if not tied:  # as version 1.1 was published: a head of its own, and logits that are not scaled
        weights["lm_head.weight"] = weights["shared.weight"].clone()
    save_file(weights, folder / "model.safetensors")
    if not tied:
        written = json.loads((folder / "config.json").read_text())
        written.pop("scale_decoder_outputs", None)
        (folder / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": False}))
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_published_t5_is_the_beginning(log: Dataset, tied: bool, tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "hub", tied)
    settings = {"checkpoint": str(tmp_path / "hub"), "whole_words": False}
    system = p5("independent", **settings).fit(log, Run(max_steps=0))
    assert system.fitted().t5.config.layers == 2
    theirs.resize_token_embeddings(system.text.size, mean_resizing=False)
    rows = system.fitted().t5
    with torch.no_grad():
        theirs.get_input_embeddings().weight.copy_(rows.tokens.weight)
        theirs.lm_head.weight = torch.nn.Parameter(rows.table.clone())
        asked = Requests.of([[3, 4]], user_rows=np.array([2]))
        names = system.speech.naming.tokens
        text = "user_2 went from one to the next :" + "".join(f" item_<item_{row}>" for row in (3, 4)) + " and then to"
        ids = [*(token for part in _split(text) for token in system.text.read([part]).flat().tolist()), system.text.end]
        given = torch.cat([torch.zeros(30, 1, dtype=torch.int64), names[:, :-1].clamp(min=0)], 1)
        out = theirs(input_ids=torch.tensor([ids]).expand(30, -1), decoder_input_ids=given).logits.log_softmax(-1)
    said = out.gather(2, names.clamp(min=0)[..., None])[..., 0].masked_fill(names < 0, 0).sum(1)
    np.testing.assert_allclose(table(system, asked, 30)[0], said, rtol=2e-3, atol=2e-3)
    system = p5("random", **settings).fit(log, Run(max_steps=2))
    system.save(tmp_path / "saved")
    again = store.load(tmp_path / "saved")
    assert again.recommend(QUESTIONS, 5).scores.tobytes() == system.recommend(QUESTIONS, 5).scores.tobytes()


def _split(text: str) -> list[str]:
    """Phrases as the prompt's table has them."""
    user, rest = text.split(" ", 1)
    before, rest = rest.split(" item_", 1)
    history, after = rest.split(" and", 1)
    return [user, before, *(f"item_{name}" for name in history.split(" item_")), f"and{after}"]


def test_another_kind_of_network_is_refused(log: Dataset, tmp_path: Path) -> None:
    checkpoint(tmp_path, num_decoder_layers=1)
    with pytest.raises(TrainingError, match="this checkpoint is no T5 that can be read here"):
        p5(checkpoint=str(tmp_path)).fit(log, Run(max_steps=1))
    written = json.loads((tmp_path / "config.json").read_text()) | {"num_decoder_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(written | {"scale_decoder_outputs": False}))
    with pytest.raises(TrainingError, match="this checkpoint is no T5 that can be read here"):
        p5(checkpoint=str(tmp_path)).fit(log, Run(max_steps=1))
    with pytest.raises(ConfigError, match="there is no folder"):
        p5(checkpoint=str(tmp_path / "no-such")).fit(log, Run(max_steps=1))


def test_the_table_builds_it_with_the_names_that_are_asked_for() -> None:
    for kind in KINDS:
        system = build("p5", {"tokenizer": kind}, "tiny")
        assert isinstance(system, P5)
        assert type(system.tokenizer).__name__.lower() == kind
    with pytest.raises(ConfigError, match="there is no tokenizer 'colaborative'; did you mean 'collaborative'"):
        build("p5", {"tokenizer": "colaborative"})
