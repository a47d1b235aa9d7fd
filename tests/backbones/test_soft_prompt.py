"""A learnt prompt: nothing else learns, no word is added, every path reads it, saved is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from palate.backbones.hub import Hub, HubConfig
from palate.backbones.nano import Nano, NanoConfig
from palate.backbones.soft_prompt import prompt_of
from palate.core import store
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.parts.decode import CausalSpeaker
from palate.parts.item_tower import attend_within
from palate.parts.packing import Packing
from palate.parts.prompting import last_states
from palate.training.checkpoint import digest
from tests.backbones import checkpoints

M, D = 5, 32
TEXTS = ["the red sea", "old books about the moons"]


@pytest.fixture(params=["llama", "gpt2", "t5"])
def lm(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    made = checkpoints.seq2seq if request.param == "t5" else checkpoints.causal
    made(tmp_path / "model", **({} if request.param == "t5" else {"family": request.param}))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Hub(HubConfig(model=str(tmp_path / "model"), tune="prompt", prompt_vectors=M)).prepare([], Run())


def asked(lm: Any, texts: list[str]) -> Ragged:
    return Ragged.of([lm.opening] * len(texts)).joined(lm.read(texts))


def learn(lm: Any, word: int, steps: int = 30) -> list[float]:
    """Every text is to be answered with one word."""
    optimiser = torch.optim.Adam([p for p in lm.model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(steps):
        logits = lm.logits(last_states(lm, asked(lm, TEXTS)))
        loss = torch.nn.functional.cross_entropy(logits, torch.full((len(TEXTS),), word))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_m_times_d_numbers_learn_and_the_loss_falls(lm: Hub) -> None:
    learning = {name: p for name, p in lm.model.named_parameters() if p.requires_grad}
    assert [tuple(p.shape) for p in learning.values()] == [(M, D)]
    frozen = {name: p for name, p in lm.model.named_parameters() if not p.requires_grad}
    before, begun, size = digest(frozen), digest(learning), lm.tokenizer.size
    losses = learn(lm, word=7)
    assert losses[-1] < losses[0] - 0.05, "a drawn network hardly looks back, and yet"
    assert digest(frozen) == before
    assert digest(learning) != begun
    assert lm.tokenizer.size == size == lm.logits(torch.zeros(1, D)).shape[-1], "a prompt is no word"


def test_it_stands_before_the_text_as_if_it_were_words(lm: Hub) -> None:
    """With copies of tokens as its vectors, the states are those of the tokens themselves."""
    words = lm.read(["white sand of old books"]).row(0)[:M]
    prompt = prompt_of(lm.model)
    assert prompt is not None
    with torch.no_grad():
        prompt.copy_(lm.embed(torch.from_numpy(words)[None])[0])
        start = [] if lm.kind == "seq2seq" else [lm.tokenizer.start] * (lm.tokenizer.start is not None)
        spelled = Ragged.of([[*start, *words, *row] for row in lm.read(TEXTS)])
        both = [last_states(lm, rows) for rows in (asked(lm, TEXTS), spelled)]
    torch.testing.assert_close(*both)


def test_beams_that_were_read_from_a_cache_see_it(tmp_path: Path) -> None:
    checkpoints.causal(tmp_path / "model")
    lm = Hub(HubConfig(model=str(tmp_path / "model"), tune="prompt", prompt_vectors=M)).prepare([], Run())
    tokens, seen = lm.padded(asked(lm, TEXTS), "left")
    name = torch.tensor([[[6, 7]]] * 2)
    with torch.no_grad():
        spoken = CausalSpeaker(lm.model, tokens, seen).logits(name)[:, 0, 1]
        whole = lm.logits(last_states(lm, asked(lm, TEXTS).joined(Ragged.of([[6]] * 2))))
        bare = lm.logits(last_states(lm, lm.read(TEXTS).joined(Ragged.of([[6]] * 2))))
    torch.testing.assert_close(spoken, whole)
    assert not torch.allclose(spoken, bare, atol=1e-3)


def test_saved_is_loaded_with_and_without_its_base(lm: Hub, tmp_path: Path) -> None:
    lm.add_tokens(["<a_1>", "<a_2>"])
    learn(lm, word=9, steps=3)
    lm.save(tmp_path / "saved")
    kept = store.open_folder(tmp_path / "saved").arrays()
    assert {array.shape for array in kept.values()} <= {(M, D), (2, D)}, "a frozen base is not saved again"
    again = store.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.opening, lm.opening)
    rows = asked(lm, ["<a_2> the sea"])
    with torch.no_grad():
        torch.testing.assert_close(last_states(again, rows), last_states(lm, rows))


def test_whoever_reads_framed_texts_reads_it_too() -> None:
    """Item towers and readers of words take their tokens framed, packed without padding."""
    small = NanoConfig(width=32, heads=2, layers=1, forward_width=64, vocabulary=300, steps=0, tune="prompt",
                       prompt_vectors=M, objective="masked")  # fmt: skip
    lm = Nano(small).prepare(TEXTS, Run())
    rows = lm.framed(TEXTS[::-1], 40)
    np.testing.assert_array_equal(rows.row(0)[:M], lm.prompt)
    assert rows.lengths.tolist() == (lm.read(TEXTS[::-1]).lengths + M).tolist()
    packing = Packing(torch.from_numpy(rows.lengths), "cpu")
    states = lm.packed_states(lm.embed(torch.from_numpy(rows.flat())), packing, attend_within(packing))
    ids, mask = lm.padded(rows)
    torch.testing.assert_close(states, lm.states(lm.embed(ids), mask)[mask])
    states.sum().backward()
    prompt = prompt_of(lm.model)
    assert prompt is not None
    assert prompt.grad is not None
    assert bool((prompt.grad != 0).any(1).all())
