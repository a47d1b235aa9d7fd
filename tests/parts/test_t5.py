"""Our T5 against the transformers library's, packed against alone, and saying names step by step against at once."""

from __future__ import annotations

import pytest
import torch

from palate.core.errors import TrainingError
from palate.core.training import TrainingConfig
from palate.parts.packing import Packing
from palate.parts.t5 import T5, Reach, T5Config, paced, packed
from palate.parts.t5_checkpoint import read_hub

SMALL = T5Config(width=16, layers=2, heads=3, head_width=8, forward_width=24, dropout=0.0)
V = 40


def inputs(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, Packing]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, V, (sum(lengths),), generator=generator), Packing(torch.tensor(lengths))


def padded(tokens: torch.Tensor, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.split(tokens, lengths)
    return (
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_the_library_s_t5(gated: bool, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=V, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=3, dropout_rate=0.0,
            feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=tied,
        )
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():  # first weights of some versions are nearly zero
        torch.nn.init.normal_(parameter, std=0.3)
    ours = read_hub(T5(SMALL.model_copy(update={"gated": gated, "tied": tied}), V), theirs.state_dict()).eval()
    lengths = [50, 50, 31, 9, 2, 1]
    tokens, packing = inputs(lengths)
    rows, seen = padded(tokens, lengths)
    targets = torch.randint(1, V, (len(lengths), 5))
    given = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.int64), targets[:, :-1]], 1)
    with torch.no_grad():
        out = theirs(input_ids=rows, attention_mask=seen, decoder_input_ids=given)
        states = ours.states(targets, ours.encode(tokens, packing), packing)
    torch.testing.assert_close(states @ ours.table.T, out.logits, atol=2e-4, rtol=1e-3)


def test_a_checkpoint_of_other_sizes_is_refused() -> None:
    weights = {"encoder.block.7.layer.0.SelfAttention.q.weight": torch.zeros(24, 16)}
    with pytest.raises(TrainingError, match=r"does not fit .* 'decoder\.0"):
        read_hub(T5(SMALL, V), weights)


def test_packed_equals_alone() -> None:
    model = T5(SMALL, V).eval()
    lengths = [40, 33, 32, 7, 1]
    tokens, packing = inputs(lengths)
    targets = torch.randint(1, V, (5, 3))
    with torch.no_grad():
        together = model.states(targets, model.encode(tokens, packing), packing)
        for row, part in enumerate(torch.split(tokens, lengths)):
            alone = Packing(torch.tensor([len(part)]))
            states = model.states(targets[row : row + 1], model.encode(part, alone), alone)
            torch.testing.assert_close(together[row : row + 1], states, atol=1e-5, rtol=1e-4)


def test_one_reading_asked_at_many_places_equals_a_reading_up_to_each() -> None:
    torch.manual_seed(0)
    model = T5(SMALL.model_copy(update={"reads": "forward"}), V).eval()
    lengths, counts = [40, 33, 32, 7, 1], [3, 1, 4, 2, 1]
    tokens, _ = inputs(lengths)
    packing = packed(torch.tensor(lengths), "cpu")
    read = torch.tensor([1, 22, 40, 5, 9, 9, 32, 2, 1, 7, 1])
    targets = torch.randint(1, V, (len(read), 3))
    rows = torch.repeat_interleave(torch.arange(5), torch.tensor(counts)).tolist()
    with torch.no_grad():
        memory = model.encode(tokens, packing)
        at_once = model.states(targets, memory, packing, Reach(torch.tensor(counts), read))
        for place, row in enumerate(rows):
            part = torch.split(tokens, lengths)[row][: read[place]]
            alone = Packing(torch.tensor([len(part)]))
            states = model.states(targets[place : place + 1], model.encode(part, alone), alone)
            torch.testing.assert_close(at_once[place : place + 1], states, atol=1e-5, rtol=1e-4)


def test_padding_of_targets_changes_nothing_before_it() -> None:
    model = T5(SMALL, V).eval()
    tokens, packing = inputs([5, 4])
    memory = model.encode(tokens, packing)
    targets = torch.tensor([[3, 4, -1, -1], [5, 6, 7, 8]])
    short = model.states(targets[:, :2], memory, packing)
    torch.testing.assert_close(model.states(targets, memory, packing)[:, :2], short)


def test_step_by_step_equals_at_once_for_beams_that_branch() -> None:
    """Three beams: the second and third leave the first after one token."""
    model = T5(SMALL, V).eval()
    tokens, packing = inputs([12, 12, 5])
    said = torch.tensor([[4, 5, 6], [4, 7, 8], [9, 3, 2]])
    with torch.no_grad():
        memory = model.encode(tokens, packing)
        speaker = model.speaker(memory, packing)
        first = speaker.begin(3, 4)
        level_1 = torch.tensor([4, 9]).expand(3, 2)
        second = speaker.advance(level_1, torch.tensor([[[0], [1]]]).expand(3, 2, 1))
        level_2 = torch.tensor([5, 7, 3]).expand(3, 3)
        third = speaker.advance(level_2, torch.tensor([[[0, 2], [0, 3], [1, 4]]]).expand(3, 3, 2))
        for beam, names in enumerate(said):
            targets = names.expand(3, 3)
            logits = model.states(targets, memory, packing) @ model.table.T
            torch.testing.assert_close(first[:, 0], logits[:, 0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(second[:, min(beam // 2, 1)], logits[:, 1], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(third[:, beam], logits[:, 2], atol=1e-4, rtol=1e-4)


def test_dropout_is_on_in_training_alone() -> None:
    model = T5(SMALL.model_copy(update={"dropout": 0.5}), V)
    tokens, packing = inputs([6, 3])
    once, twice = model.encode(tokens, packing), model.encode(tokens, packing)
    assert not torch.equal(once, twice)
    model.eval()
    assert torch.equal(model.encode(tokens, packing), model.encode(tokens, packing))


def test_gradients_reach_every_weight() -> None:
    model = T5(SMALL, V)
    tokens, packing = inputs([6, 3])
    (model.states(torch.randint(1, V, (2, 3)), model.encode(tokens, packing), packing) @ model.table.T).logsumexp(
        -1
    ).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_queries_keep_the_pace_of_keys_and_the_table_runs_ahead() -> None:
    """Measured in their own sizes, which differ from the start."""
    model = T5(T5Config(width=64, heads=4, head_width=16, layers=2, paced=True), 500)
    shares = paced(TrainingConfig(), model.config).rates
    sizes = {f"t5.{name}": float(weight.detach().std()) for name, weight in model.named_parameters()}
    queries = {name for name in sizes if "query" in name}
    assert {f"{name}.weight" for name in shares} == queries | {"t5.tokens.weight"}
    for name in queries:
        share = shares[name.removesuffix(".weight")]
        assert sizes[name] / share == pytest.approx(sizes[name.replace("query", "key")], rel=0.1)
    assert 1 < shares["t5.tokens"] <= sizes["t5.tokens.weight"] / sizes["t5.encoder.0.attention.key.weight"]


def test_names_that_somebody_set_decide_over_all_paces_they_begin() -> None:
    config = T5Config(width=16, layers=2, heads=2, head_width=4, forward_width=24, paced=True)
    assert set(paced(TrainingConfig(rates={"t5": 0.1}), config).rates) == {"t5"}
    some = paced(TrainingConfig(rates={"t5.encoder": 0.1}), config).rates
    assert "t5.tokens" in some
    assert "t5.decoder.0.cross.query" in some
    assert not any(name.startswith("t5.encoder.") for name in some)
    assert paced(TrainingConfig(), config.model_copy(update={"paced": False})) == TrainingConfig()
