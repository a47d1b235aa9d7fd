"""Saying names: beam search over 12,101 items of four tokens, a T5-shaped model, 32 requests of 20 beams.

``decode`` is held against the floor: the matmuls that no method can leave out, on tensors of the right shapes.
``decode-vs-generate`` is held against ``generate`` of the transformers library with the same weights and the same trie
in ``prefix_allowed_tokens_fn``. Equal results first: the same items with the same scores, wherever two scores differ
by more than rounding. A third line, of 256 requests and 50 beams, says how much memory either takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Result, compare, must, peak_memory, result, timed
from palate.parts.decode import beam_search
from palate.parts.packing import Packing
from palate.parts.t5 import T5, T5Config
from palate.parts.t5_checkpoint import read_hub
from palate.parts.trie import Trie

ITEMS, CODES, LEVELS = 12_101, 256, 4
VOCABULARY = 2 + CODES * LEVELS
"""Start and end of a name, then the tokens of each level."""
REQUESTS, BEAMS, HISTORY = 32, 20, 20
ROUNDING = 1e-3


def against_floor(quick: bool = False) -> list[Result]:
    b, beams = (4, 5) if quick else (REQUESTS, BEAMS)
    _, model = models()
    names = draw_names(500 if quick else ITEMS)
    lengths, tokens = histories(b, names)
    search = searcher(model, Trie.of(names, VOCABULARY), lengths, tokens, beams)
    return [compare("decode", search, {"the necessary matmuls": floor(model, lengths, beams)})]


def against_generate(quick: bool = False) -> list[Result]:
    b, beams = (4, 5) if quick else (REQUESTS, BEAMS)
    theirs, ours = models()
    names = draw_names(500 if quick else ITEMS)
    lengths, tokens = histories(b, names)
    search = searcher(ours, Trie.of(names, VOCABULARY), lengths, tokens, beams)
    generate = generator(theirs, names, lengths, tokens, beams)
    assert_equal(search(), generate(), names, b)
    timed = compare("decode-vs-generate", search, {"generate with a trie": generate}, repeats=3)
    return [timed, at_full_width(theirs, ours, names, quick)]


def models() -> tuple[Any, T5]:
    """The same weights in the transformers library's T5 and in ours."""
    from transformers import T5Config as TheirConfig
    from transformers import T5ForConditionalGeneration

    torch.manual_seed(0)
    theirs = T5ForConditionalGeneration(
        TheirConfig(
            vocab_size=VOCABULARY, d_model=128, d_kv=64, d_ff=1024, num_layers=4, num_heads=6, dropout_rate=0.0,
            decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        )
    ).eval()  # fmt: skip
    ours = read_hub(T5(T5Config(dropout=0.0), VOCABULARY), theirs.state_dict()).eval()
    return theirs, ours


def draw_names(n_items: int) -> np.ndarray:
    """``[N, 4]`` distinct names whose first tokens are as uneven as those of real catalogues."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, CODES + 1) ** 0.8
    drawn = rng.choice(CODES, (8 * n_items, LEVELS), p=share / share.sum())
    distinct = np.unique(drawn, axis=0)
    kept = distinct[rng.permutation(len(distinct))[:n_items]]
    return kept + 2 + CODES * np.arange(LEVELS)


def histories(b: int, names: np.ndarray) -> tuple[list[int], Tensor]:
    """Tokens of b histories of 5 to 20 items, longest first, one after another."""
    rng = np.random.default_rng(1)
    n_items = np.sort(rng.integers(5, HISTORY + 1, b))[::-1]
    tokens = np.concatenate([names[rng.integers(0, len(names), n)].ravel() for n in n_items])
    return (n_items * LEVELS).tolist(), torch.from_numpy(tokens)


def searcher(model: T5, trie: Trie, lengths: list[int], tokens: Tensor, beams: int) -> Callable[[], Any]:
    packing = Packing(torch.tensor(lengths))

    @torch.no_grad()
    def search() -> Any:
        memory = model.encode(tokens, packing)
        return beam_search(model.speaker(memory, packing), trie, len(lengths), beam=beams)

    return search


def generator(model: Any, names: np.ndarray, lengths: list[int], tokens: Tensor, beams: int) -> Callable[[], Any]:
    """``generate`` as its documentation says, with a trie of dictionaries."""
    root: dict[int, Any] = {}
    for name in names.tolist():
        node = root
        for token in name:
            node = node.setdefault(token, {})
    rows = torch.nn.utils.rnn.pad_sequence(torch.split(tokens, lengths), batch_first=True)
    seen = (torch.arange(rows.shape[1]) < torch.tensor(lengths)[:, None]).long()

    def allowed(_: int, said: Tensor) -> Sequence[int]:
        node = root
        for token in said[1:].tolist():
            node = node.get(token, {})
        return list(node) or [1]

    def generate() -> Any:
        return model.generate(
            rows, attention_mask=seen, num_beams=beams, num_return_sequences=beams, max_new_tokens=LEVELS,
            min_new_tokens=LEVELS, do_sample=False, length_penalty=0.0, prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip

    return generate


def assert_equal(found: Any, generated: Any, names: np.ndarray, b: int) -> None:
    """The same items with the same scores."""
    rows = {tuple(name): item for item, name in enumerate(names.tolist())}
    theirs = [rows[tuple(said)] for said in generated.sequences[:, 1 : LEVELS + 1].tolist()]
    items, scores = np.array(theirs).reshape(b, -1), generated.sequences_scores.view(b, -1).numpy()
    must(np.allclose(scores, found.scores.numpy(), atol=ROUNDING), "the scores of search and generate differ")
    clear = np.abs(np.diff(scores, prepend=np.inf)) > ROUNDING
    clear &= np.abs(np.diff(scores, append=-np.inf)) > ROUNDING
    must((items == found.items.numpy())[clear].all(), "the items of search and generate differ")


def floor(model: T5, lengths: list[int], beams: int) -> Callable[[], None]:
    """The products of weights and activations, and of queries with keys and values, and nothing else."""
    c, b, p = model.config, len(lengths), sum(lengths)
    inner = c.heads * c.head_width
    rows = [(b if step == 0 else b * beams) for step in range(LEVELS)]
    pairs: list[tuple[Tensor, Tensor]] = []
    for _ in range(c.layers):
        pairs += [(torch.randn(p, c.width), torch.randn(c.width, 3 * inner))]
        for length in lengths:
            q = torch.randn(c.heads, length, c.head_width)
            pairs += [(q, torch.randn(c.heads, c.head_width, length)), (torch.randn(c.heads, length, length), q)]
        pairs += through(p, c)
        pairs += [(torch.randn(p, c.width), torch.randn(c.width, 2 * inner))]  # keys and values of what was read
        for step, n in enumerate(rows):
            pairs += [(torch.randn(n, c.width), torch.randn(c.width, 3 * inner))]
            pairs += [(torch.randn(n, c.width), torch.randn(c.width, inner)), *through(n, c)]
            pairs += [(torch.randn(n, inner), torch.randn(inner, c.width))]
            for keys in (max(lengths), step + 1):
                q = torch.randn(b * c.heads, n // b, c.head_width)
                pairs += [(q, torch.randn(b * c.heads, c.head_width, keys))]
                pairs += [(torch.randn(b * c.heads, n // b, keys), torch.randn(b * c.heads, keys, c.head_width))]
    pairs += [(torch.randn(n, c.width), torch.randn(c.width, VOCABULARY)) for n in rows]

    def multiply() -> None:
        for left, right in pairs:
            torch.matmul(left, right)

    return multiply


def through(n: int, c: T5Config) -> list[tuple[Tensor, Tensor]]:
    """The output projection and the feed-forward layer of n tokens."""
    inner = c.heads * c.head_width
    return [
        (torch.randn(n, inner), torch.randn(inner, c.width)),
        (torch.randn(n, c.width), torch.randn(c.width, c.forward_width)),
        (torch.randn(n, c.forward_width), torch.randn(c.forward_width, c.width)),
    ]


def at_full_width(theirs: Any, ours: T5, names: np.ndarray, quick: bool) -> Result:
    """Many requests of many beams, once each; the line says what either held beyond what stood before."""
    b, beams = (8, 5) if quick else (256, 50)
    lengths, tokens = histories(b, names)
    search = searcher(ours, Trie.of(names, VOCABULARY), lengths, tokens, beams)
    generate = generator(theirs, names, lengths, tokens, beams)
    before = peak_memory(lambda: None)
    (ours_s, ours_mb), (theirs_s, theirs_mb) = watched(search), watched(generate)
    said = f"generate; memory {ours_mb - before:,.0f} MB against {theirs_mb - before:,.0f} MB"
    name = f"decode-vs-generate, {b} requests of {beams} beams"
    return result(name, ours_s, said, theirs_s, peak_mb=ours_mb)


def watched(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of one call, and the most MB the process held in it."""
    taken: list[float] = []
    peak = peak_memory(lambda: taken.append(timed(call)))
    return taken[0], peak
