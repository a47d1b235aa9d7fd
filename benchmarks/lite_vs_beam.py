"""One request answered by a head over all items, against the same backbone that spells names by beam search.

Both sides have one Llama-shaped network. Lite-LLM4Rec reads one vector for each of 20 items and takes a product with a
row for each of 12,101; the other reads the four name tokens of each and says four with 20 beams, by ``generate`` of the
transformers library with the trie in ``prefix_allowed_tokens_fn``, and by our own beam search. The two networks answer
differently, so each side is checked on its own: the head's scores against the product by hand, and the two beam
searches against each other. How good the answers are is a matter of training, not of this benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.decode import BEAMS, ITEMS, LEVELS, ROUNDING, VOCABULARY, draw_names
from benchmarks.harness import Result, compare, must
from palate.backbones.text_model import build_network
from palate.core.item_vectors import ItemVectors, keys_of
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.hierarchical.lite_llm4rec import LiteLLM4Rec
from palate.parts.decode import CausalSpeaker, beam_search
from palate.parts.trie import Trie
from palate.systems import build
from palate.training.loop import seeded

WIDTH, LAYERS, HEADS, FORWARD, HISTORY, K = 192, 4, 4, 512, 20, 10


def run(quick: bool = False) -> list[Result]:
    items, beams, repeats = (500, 5, 1) if quick else (ITEMS, BEAMS, 7)
    names = draw_names(items)
    history = np.random.default_rng(1).integers(0, items, HISTORY)
    lite, asked = served(items), Requests(Ragged.of([history]))
    check_head(lite, asked)
    speller, prompt = network(), torch.from_numpy(names[history].reshape(1, -1))
    generate = generator(speller, names, prompt, beams)
    search = searcher(speller, names, prompt, beams)
    must(np.allclose(generate(), search(), atol=ROUNDING), "the scores of generate and of our search differ")

    def answer() -> Any:
        return lite.recommend(asked, K)

    said = f"{beams} beams of four tokens by"
    return [
        compare("lite-vs-beam", answer, {f"{said} generate": generate}, repeats=repeats),
        compare("lite-vs-beam, our own search", answer, {f"{said} our beam search": search}, repeats=repeats),
    ]


def network() -> Any:
    """The backbone with its words: the tokens of names."""
    torch.manual_seed(0)
    return build_network(
        {
            "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": FORWARD,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
            "max_position_embeddings": 512, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1,
            "pad_token_id": 0,
        }
    )  # fmt: skip


def served(items: int) -> LiteLLM4Rec:
    """The system as drawn, over the same backbone; its item vectors are given."""
    nano = {"width": 16, "heads": 2, "layers": 1, "forward_width": 16, "vocabulary": 300, "steps": 0}
    llama = {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "forward_width": FORWARD}
    parts = {"item_model": {"name": "nano", "settings": nano}, "rec_model": {"name": "llama", "settings": llama}}
    system = build("lite-llm4rec", {**parts, "length": HISTORY})
    assert isinstance(system, LiteLLM4Rec)
    with seeded(Run()):
        system.item_model.prepare(["a text"], Run())
        system.rec_model.prepare(WIDTH, Run())  # type: ignore[arg-type]
        system.network = system._build({"n_items": items}).eval()
    vectors = np.random.default_rng(0).standard_normal((items, WIDTH), dtype=np.float32)
    system.items.held = ItemVectors("drawn", keys_of([""] * items), vectors, np.ones(items, dtype=bool))
    return system


@torch.no_grad()
def check_head(system: LiteLLM4Rec, asked: Requests) -> None:
    """The head's ten best scores are those of the product by hand."""
    head = system.fitted().rows
    assert head is not None
    assert system.items.held is not None
    read = torch.from_numpy(system.items.held.vectors[asked.histories.row(0)])[None]
    state = system.rec_model.model(inputs_embeds=read, use_cache=False).last_hidden_state[0, -1]
    by_hand = torch.topk(head.weight @ state, K).values.numpy()
    must(np.allclose(system.recommend(asked, K).scores[0], by_hand, atol=ROUNDING), "the scores of the head differ")


def searcher(model: Any, names: np.ndarray, prompt: Tensor, beams: int) -> Callable[[], np.ndarray]:
    trie, seen = Trie.of(names, VOCABULARY), torch.ones_like(prompt, dtype=torch.bool)

    @torch.no_grad()
    def search() -> np.ndarray:
        return beam_search(CausalSpeaker(model, prompt, seen), trie, len(prompt), beam=beams).scores.numpy()

    return search


def generator(model: Any, names: np.ndarray, prompt: Tensor, beams: int) -> Callable[[], np.ndarray]:
    """``generate`` as its documentation says, with a trie of dictionaries."""
    root: dict[int, Any] = {}
    for name in names.tolist():
        node = root
        for token in name:
            node = node.setdefault(token, {})
    read = prompt.shape[1]

    def allowed(_: int, said: Tensor) -> Sequence[int]:
        node = root
        for token in said[read:].tolist():
            node = node.get(token, {})
        return list(node) or [1]

    def generate() -> np.ndarray:
        found = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), num_beams=beams, num_return_sequences=beams,
            max_new_tokens=LEVELS, min_new_tokens=LEVELS, do_sample=False, length_penalty=0.0,
            prefix_allowed_tokens_fn=allowed, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        return found.sequences_scores.view(len(prompt), beams).numpy()

    return generate
