"""What a language model of the hub says about ratings, against the library's own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from checkpoints import causal, seq2seq

from palate.backbones.hub import Hub, HubConfig
from palate.core.errors import ConfigError
from palate.core.ragged import Ragged
from palate.core.ratings import RatingRequests
from palate.core.run import Run
from palate.data.rating_prompts import Pieces
from palate.parts.prompting import by_length, last_states, places_of
from palate.parts.rating_prompts import PromptTokens, rating_words

STARS = np.arange(1, 6, dtype=np.float32)


def hub(folder: Path) -> Hub:
    return Hub(HubConfig(model=str(folder))).prepare([], Run())


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_chances_of_the_ratings_are_the_librarys(tmp_path: Path, family: str) -> None:
    """For each prompt by itself, unpadded: the logits of the next token, or of a decoder's first."""
    network = seq2seq(tmp_path / "m") if family == "t5" else causal(tmp_path / "m", family)
    lm = hub(tmp_path / "m")
    words = rating_words(lm, STARS, add=False)
    assert lm.spell(Ragged.of([[i] for i in words.ids.tolist()])) == ["1", "2", "3", "4", "5"]
    pieces = Pieces(("red sea", "old books about ships"), STARS)
    tokens = PromptTokens.of(lm, pieces, 3)
    rows = np.stack([
        np.array([3, len(pieces.written) - 3, 9, 5]), np.array([3, len(pieces.written) - 2, -1, 5])
    ])  # fmt: skip
    prompts = tokens.prompts(rows, words.before)
    with torch.no_grad():
        found = lm.logits(last_states(lm, prompts), torch.from_numpy(words.ids))
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([prompt.tolist()])
            if family == "t5":
                assert prompt[-1] == lm.tokenizer.end
                whole = network(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
            else:
                assert lm.tokenizer.start in (None, prompt[0])
                whole = network(ids).logits[0, -1]
            torch.testing.assert_close(found[row], whole[torch.from_numpy(words.ids)], rtol=1e-4, atol=1e-5)


def test_a_model_without_words_for_ratings_says_so_or_gets_new_ones(tmp_path: Path) -> None:
    causal(tmp_path / "m")
    lm = hub(tmp_path / "m")
    halves = np.array([0.5, 1.5, 2.5], np.float32)
    with pytest.raises(ConfigError, match="no single token for any two of the ratings"):
        rating_words(lm, halves, add=False)
    before = lm.model.get_input_embeddings().num_embeddings
    words = rating_words(lm, halves, add=True)
    assert words.ids.tolist() == [before, before + 1, before + 2]
    some = rating_words(lm, np.array([0.5, 1, 1.5, 2], np.float32), add=False)
    assert some.levels.tolist() == [1, 2]


def test_a_prompt_fits_into_the_places_of_its_model(tmp_path: Path) -> None:
    """The oldest events go, the question stays; what cannot be shortened is one sentence. A T5 has no places."""
    causal(tmp_path / "m", "gpt2")
    seq2seq(tmp_path / "t5")
    lm = hub(tmp_path / "m")
    pieces = Pieces(tuple(f"old books about ships {n}" for n in range(30)), STARS)
    tokens = PromptTokens.of(lm, pieces, 8)
    histories = [list(range(n)) for n in (30, 12, 2, 0)]
    asked = RatingRequests(
        Ragged.of(histories), np.ones(sum(map(len, histories)), np.float32), np.array([5, 6, 7, 8]), np.arange(4)
    )
    rows = pieces.rows(asked, 30, "ask")
    room = places_of(lm)
    assert room == 128 < tokens.prompts(rows).lengths.max()
    prompts = tokens.prompts(rows, room=room)
    last_states(lm, prompts)
    for row, (whole, prompt) in enumerate(zip(tokens.prompts(rows), prompts, strict=True)):
        kept = rows[row].copy()
        for event in range(30):  # by hand: one event after another, the oldest first
            if len(tokens.prompts(kept[None]).row(0)) <= room:
                break
            kept[2 + 3 * event : 5 + 3 * event] = -1
        np.testing.assert_array_equal(prompt, tokens.prompts(kept[None]).row(0))
        assert (len(prompt) == len(whole)) == (len(whole) <= room)
    with pytest.raises(ConfigError, match=r"a prompt of \d+ tokens without any history does not fit into the 20 that"):
        tokens.prompts(rows, room=20)
    assert places_of(hub(tmp_path / "t5")) is None


def test_batches_of_like_length_hold_every_prompt_once() -> None:
    prompts = Ragged.of([list(range(n)) for n in (5, 1, 9, 9, 2, 30, 0)])
    batches = list(by_length(prompts, most=20))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(7))
    assert batches[0].tolist() == [5], "one that is too long goes alone"
    for batch in batches[1:]:
        assert len(batch) * prompts.lengths[batch].max() <= 20
