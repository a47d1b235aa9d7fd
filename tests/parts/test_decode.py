"""The trie against dictionaries; beam search against scoring every name; our search against ``generate``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import DataError, TrainingError
from palate.core.ragged import Ragged
from palate.parts import decode
from palate.parts.decode import CausalSpeaker, MeanSpeaker, TrieLogits, beam_search
from palate.parts.packing import Packing
from palate.parts.t5 import T5, T5Config
from palate.parts.trie import ROOT, Trie


def random_names(
    rng: np.random.Generator, n: int, depth: int, vocabulary: int, *, end: int | None = None
) -> np.ndarray:
    """Distinct names of tokens from 2 on; with ``end`` their lengths differ and each ends with that token."""
    rows: dict[tuple[int, ...], None] = {}
    assert n <= (vocabulary - 2) ** (depth - (end is not None)), "there are not so many names"
    while len(rows) < n:
        length = int(rng.integers(1, depth)) if end is not None else depth
        name = tuple(rng.integers(2, vocabulary, length).tolist())
        rows[name if end is None else (*name, end)] = None
    names = np.full((n, depth), -1)
    for row, name in enumerate(rows):
        names[row, : len(name)] = name
    return names


# -- trie --


def test_every_name_is_a_walk_to_its_item_and_nothing_else_is() -> None:
    rng = np.random.default_rng(0)
    names = random_names(rng, 300, 4, 9, end=1)
    trie = Trie.of(names, 9)
    known = {tuple(name[name >= 0].tolist()): item for item, name in enumerate(names)}
    prefixes = {name[:n] for name in known for n in range(len(name) + 1)}
    assert trie.n_nodes == len(prefixes)
    for _ in range(2000):
        asked = rng.integers(1, 9, int(rng.integers(1, 5))).tolist()
        node = torch.tensor(ROOT)
        for token in asked:
            node = trie.walk(node, torch.tensor(token))
        assert (int(node) >= 0) == (tuple(asked) in prefixes)
        if node >= 0:
            assert int(trie.items[node]) == known.get(tuple(asked), -1)
            below = sum(name[: len(asked)] == tuple(asked) for name in known)
            assert int(trie.n_below[node]) == below
            following = {name[len(asked)] for name in known if name[: len(asked)] == tuple(asked) != name}
            children = trie.children(node[None])[0]
            found = {int(trie.tokens[child]) for child in children[children >= 0]}
            assert found == (following or {int(trie.tokens[node])})


def test_paths_end_at_their_items() -> None:
    names = random_names(np.random.default_rng(1), 50, 5, 7, end=1)
    trie = Trie.of(names, 7)
    np.testing.assert_array_equal(trie.items[trie.paths[:, -1]], np.arange(50))


@pytest.mark.parametrize("names", [[[2, 3], [2, 3]], [[2, -1], [2, 3]], [[2, 3], [2, -1]]])
def test_ambiguous_names_are_refused(names: list[list[int]]) -> None:
    with pytest.raises(DataError, match="beginning of another"):
        Trie.of(np.array(names), 5)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        Trie.of(np.array([[-1, -1], [1, 2]]), 5)


# -- search --


def all_scores(model: T5, inputs: torch.Tensor, lengths: list[int], names: np.ndarray) -> torch.Tensor:
    """``[B, N]`` the log-probability of every name, each beside an input of its own, without steps or sharing."""
    n = len(names)
    packing = Packing(torch.tensor(lengths).repeat_interleave(n))
    memory = model.encode(torch.cat([part.repeat(n) for part in torch.split(inputs, lengths)]), packing)
    targets = torch.from_numpy(names).repeat(len(lengths), 1)
    logits = model.states(targets, memory, packing) @ model.table.T
    said = torch.log_softmax(logits, -1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return said.masked_fill(targets < 0, 0.0).sum(1).view(len(lengths), n)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), depth=st.integers(3, 5), ended=st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_wide_beam_equals_scoring_every_item(seed: int, n: int, depth: int, ended: bool) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    names = random_names(rng, n, depth, 11, end=1 if ended else None)
    model = T5(T5Config(width=8, layers=1, heads=2, head_width=4, forward_width=8), 11).eval()
    packing = Packing(torch.tensor([4, 2, 1]))
    retired = rng.random(n) < 0.2
    trie = Trie.of(names, 11, ~retired)
    leave_out = Ragged.of([rng.permutation(n)[: int(rng.integers(0, n + 1))].tolist() for _ in range(3)])
    with torch.no_grad():
        inputs = torch.randint(2, 11, (7,))
        memory = model.encode(inputs, packing)
        expected = all_scores(model, inputs, [4, 2, 1], names)
    expected[:, torch.from_numpy(retired)] = -torch.inf
    for row in range(3):
        expected[row, torch.from_numpy(leave_out.row(row).astype(np.int64))] = -torch.inf
    gate = trie.gate(leave_out, None)
    found = beam_search(model.speaker(memory, packing), trie, 3, beam=n, gate=gate)
    assert found.exact.all()
    by_brute_force = expected.sort(dim=1, descending=True, stable=True)
    k = found.items.shape[1]
    torch.testing.assert_close(found.scores, by_brute_force.values[:, :k], atol=1e-4, rtol=1e-4)
    for row in range(3):
        items = found.items[row]
        assert len(set(items[items >= 0].tolist())) == int((items >= 0).sum()) == int(expected[row].isfinite().sum())
        for item, score in zip(items.tolist(), found.scores[row].tolist(), strict=True):
            assert (item < 0) == (score == -np.inf)
            if item >= 0:
                assert score == pytest.approx(float(expected[row, item]), abs=1e-3)
    narrow = beam_search(model.speaker(memory, packing), trie, 3, beam=3, k=2, gate=gate)
    for row in range(3):
        items = narrow.items[row].tolist()
        assert all(item < 0 or torch.isfinite(expected[row, item]) for item in items)
        if narrow.exact[row]:  # a proof of exactness is never wrong
            torch.testing.assert_close(
                narrow.scores[row], by_brute_force.values[row, : len(items)], atol=1e-4, rtol=1e-4
            )


def test_a_narrow_beam_may_err_and_then_does_not_claim_exactness() -> None:
    rng, claimed, right = np.random.default_rng(3), 0, 0
    for seed in range(40):
        torch.manual_seed(seed)
        names = random_names(rng, 60, 3, 11)
        model = T5(T5Config(width=8, layers=1, heads=2, head_width=4, forward_width=8), 11).eval()
        packing = Packing(torch.tensor([3]))
        with torch.no_grad():
            model.decoder_norm.weight *= 4  # a model that is sure of itself, as trained ones are
            inputs = torch.randint(2, 11, (3,))
            memory = model.encode(inputs, packing)
            best = int(all_scores(model, inputs, [3], names).argmax())
        found = beam_search(model.speaker(memory, packing), Trie.of(names, 11), 1, beam=2, k=1)
        correct = int(found.items[0, 0]) == best
        claimed += bool(found.exact[0])
        right += correct
        assert correct or not found.exact[0]
    assert 0 < claimed <= right < 40


def test_only_candidates_are_found() -> None:
    torch.manual_seed(0)
    names = random_names(np.random.default_rng(0), 30, 3, 9)
    model, trie = T5(T5Config(width=8, layers=1, heads=1, head_width=8), 9).eval(), Trie.of(names, 9)
    packing = Packing(torch.tensor([2, 2]))
    memory = model.encode(torch.tensor([3, 4, 5, 6]), packing)
    candidates, leave_out = Ragged.of([[1, 5, 9], [2]]), Ragged.of([[5], []])
    gate = trie.gate(leave_out, candidates)
    found = beam_search(model.speaker(memory, packing), trie, 2, beam=4, gate=gate)
    assert set(found.items[0].tolist()) - {-1} == {1, 9}
    assert set(found.items[1].tolist()) - {-1} == {2}


# -- the transformers library --


def causal_model(seed: int, vocabulary: int, family: str = "Llama", **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, bos_token_id=1, eos_token_id=1, pad_token_id=0,
        **more,
    )  # fmt: skip
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def left_padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    return tokens, torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])


PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [2]]


@torch.no_grad()
def one_by_one(model: Any, prompt: list[int], names: np.ndarray) -> np.ndarray:
    """Each name's score from a forward of its own."""
    expected = []
    for name in names:
        said = name[name >= 0].tolist()
        logits = model(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1]
        expected.append(float(torch.log_softmax(logits, -1)[torch.arange(len(said)), said].sum()))
    return np.array(expected)


WINDOW = {"sliding_window": 9}
"""Nine tokens: the longest prompt and a name, but not all beams of a step."""


@pytest.mark.parametrize(
    ("family", "more"), [*[("Llama", {})] * 3, ("Qwen2", {}), ("Mistral", WINDOW), ("Gemma2", WINDOW), ("Phi3", WINDOW)]
)  # fmt: skip
def test_a_causal_model_says_the_names_that_one_forward_each_scores_best(
    family: str, more: dict[str, int], request: pytest.FixtureRequest
) -> None:
    seed = len(request.node.name)
    model = causal_model(seed, 13, family, **more)
    names = random_names(np.random.default_rng(seed), 25, 4, 13, end=1)
    speaker = CausalSpeaker(model, *left_padded(PROMPTS))
    found = beam_search(speaker, Trie.of(names, 13), 3, beam=25)
    with torch.no_grad():
        said = speaker.say(torch.from_numpy(names)[None].expand(3, -1, -1))
    for row, prompt in enumerate(PROMPTS):
        expected = one_by_one(model, prompt, names)
        order = np.argsort(-expected, kind="stable")
        np.testing.assert_allclose(found.scores[row], expected[order], atol=1e-4)
        np.testing.assert_allclose(said[row], expected, atol=1e-4)
        assert found.items[row].tolist() == order.tolist()


def test_what_does_not_fit_into_a_window_is_refused() -> None:
    speaker = CausalSpeaker(causal_model(0, 13, "Mistral", sliding_window=8), *left_padded(PROMPTS))
    names = torch.from_numpy(random_names(np.random.default_rng(0), 3, 4, 13, end=1))
    with pytest.raises(TrainingError, match="only the last 8 tokens in some layers, and a prompt with a name has 9"):
        speaker.say(names[None].expand(3, -1, -1))


@pytest.mark.parametrize("kind", ["t5", "causal", "mean"])
def test_names_are_scored_so_many_at_a_time_as_memory_allows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    names = torch.from_numpy(random_names(np.random.default_rng(0), 20, 4, 13, end=1))[None].expand(2, -1, -1)
    largest = {"logits": 0, "row": 0}
    causal = causal_model(0, 13)

    def watch(_: Any, __: Any, given: dict[str, Any], out: Any) -> None:
        largest["logits"] = max(largest["logits"], out.logits.numel())
        largest["row"] = max(largest["row"], given["input_ids"].shape[1])

    if kind == "t5":
        model = T5(T5Config(width=16, layers=1, heads=2, head_width=8, forward_width=32), 13).eval()
        packing = Packing(torch.tensor([4, 2]))
        speaker: Any = model.speaker(model.encode(torch.randint(0, 13, (6,)), packing), packing)
    else:
        speaker = CausalSpeaker(causal, *left_padded(PROMPTS[:2]))
        if kind == "mean":
            speaker = MeanSpeaker([speaker, CausalSpeaker(causal, *left_padded([[5], [6, 7]]))])
    with torch.no_grad():
        at_once = speaker.say(names)
        causal.register_forward_hook(watch, with_kwargs=True)
        monkeypatch.setattr(decode, "LOGITS", 5 * 2 * 4 * 13)  # of five names of both requests
        torch.testing.assert_close(speaker.say(names), at_once)
        assert largest["logits"] <= 5 * 2 * 4 * 13
        monkeypatch.setattr(decode, "ROW", 7)  # two names of three tokens that are read
        torch.testing.assert_close(speaker.say(names), at_once)
        assert speaker.say(names[:, :0]).shape == (2, 0)
    largest["row"] = 0
    speaker.say(names)
    assert largest["row"] <= 7


@pytest.mark.parametrize("beam", [3, 8])
def test_generate_with_the_trie_finds_what_our_search_finds(beam: int) -> None:
    transformers = pytest.importorskip("transformers")
    for seed in range(5):
        model = causal_model(seed, 13)
        names = random_names(np.random.default_rng(seed), 25, 3, 13)
        trie = Trie.of(names, 13)
        tokens, seen = left_padded([[3, 4, 5, 6, 7], [8, 9, 4, 4, 5]])
        out = model.generate(
            tokens, attention_mask=seen, num_beams=beam, num_return_sequences=beam, max_new_tokens=4, do_sample=False,
            early_stopping=False, length_penalty=0.0, eos_token_id=1, pad_token_id=0, return_dict_in_generate=True,
            output_scores=True,
            logits_processor=transformers.LogitsProcessorList([TrieLogits(trie, tokens.shape[1], end=1)]),
        )  # fmt: skip
        rows = {tuple(name.tolist()): item for item, name in enumerate(names)}
        theirs = [rows[tuple(said[:3].tolist())] for said in out.sequences[:, tokens.shape[1] :]]
        ours = beam_search(CausalSpeaker(model, tokens, seen), trie, 2, beam=beam)
        for row in range(2):
            assert set(theirs[row * beam : (row + 1) * beam]) == set(ours.items[row].tolist())


def test_generate_with_the_trie_finds_the_best_names_of_a_model_that_reads_and_writes() -> None:
    """A T5 of the transformers library; as many beams as names, so the list must be that of scoring each."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=13, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    names = random_names(np.random.default_rng(0), 12, 3, 13)
    asked = torch.tensor([[3, 4, 5], [6, 7, 8]])
    out = model.generate(
        asked, num_beams=12, num_return_sequences=12, max_new_tokens=4, do_sample=False, early_stopping=False,
        length_penalty=0.0, eos_token_id=1, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        logits_processor=transformers.LogitsProcessorList([TrieLogits(Trie.of(names, 13), 1, end=1)]),
    )  # fmt: skip
    said = torch.from_numpy(np.pad(names, ((0, 0), (1, 0))))
    ended = torch.from_numpy(np.pad(names, ((0, 0), (0, 1)), constant_values=1))  # ``generate`` counts the end as well
    for row, part in enumerate(out.sequences.split(12)):
        with torch.no_grad():
            logits = model(input_ids=asked[row : row + 1].expand(12, -1), decoder_input_ids=said).logits
        scores = logits.log_softmax(-1).gather(2, ended[..., None])[..., 0].sum(1)
        assert part[:, 1:].tolist() == ended[scores.argsort(descending=True)].tolist()


@pytest.mark.parametrize("kind", ["t5", "causal"])
def test_a_speaker_may_be_searched_with_again(kind: str) -> None:
    """What was said after a prompt is forgotten."""
    torch.manual_seed(0)
    names = random_names(np.random.default_rng(0), 20, 3, 9)
    trie = Trie.of(names, 13)
    if kind == "t5":
        model = T5(T5Config(width=16, layers=1, heads=2, head_width=8, forward_width=32), 13).eval()
        packing = Packing(torch.tensor([4, 2]))
        speaker: Any = model.speaker(model.encode(torch.randint(0, 13, (6,)), packing), packing)
    else:
        speaker = CausalSpeaker(causal_model(0, 13), *left_padded([[3, 4, 5, 6], [7, 8]]))
    with torch.no_grad():
        first, again = (beam_search(speaker, trie, 2, beam=4) for _ in range(2))
        said = [speaker.say(torch.from_numpy(names[None, :5]).expand(2, -1, -1)) for _ in range(2)]
    assert torch.equal(first.items, again.items)
    torch.testing.assert_close(first.scores, again.scores)
    torch.testing.assert_close(*said)
