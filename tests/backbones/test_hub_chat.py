"""A chat model of the library, run here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import torch
from checkpoints import WORDS, causal, seq2seq
from pydantic import BaseModel
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from palate.annotation.structured import Structured
from palate.backbones.hub_chat import HubChat, HubChatConfig
from palate.core.chat import ChatRequest, Message
from palate.core.errors import EndpointError, FormError
from palate.core.protocols import ChatModel


def chat(folder: Path, **settings: object) -> HubChat:
    return HubChat(HubChatConfig(model=str(folder), **settings))  # type: ignore[arg-type]


def test_a_causal_model_answers_as_the_library_writes(tmp_path: Path) -> None:
    network = causal(tmp_path / "m")
    model = chat(tmp_path / "m")
    assert isinstance(model, ChatModel)
    request = ChatRequest.of("a red sea", max_tokens=6, alternatives=3)
    state = torch.get_rng_state()
    reply = model.reply(request)
    assert torch.equal(torch.get_rng_state(), state)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>", *dict.fromkeys(WORDS.split())]
    ids = torch.tensor([[words.index(word) for word in ("a", "red", "sea")]])
    with torch.no_grad():
        for _ in range(6):  # the likeliest token, again and again, until the end
            logits = network(ids).logits[0, -1]
            ids = torch.cat([ids, logits.argmax()[None, None]], 1)
            if ids[0, -1] == 4:
                break
        first = torch.log_softmax(network(ids[:, :3]).logits[0, -1], -1)
    said = [words[i] for i in ids[0, 3:].tolist() if i not in (0, 2, 4)]
    assert reply.text.split() == said
    assert reply.usage.read == 3
    assert reply.usage.written == ids.shape[1] - 3
    best = max((w for w in reply.alternatives), key=lambda w: reply.alternatives[w])
    assert reply.alternatives[best] == pytest.approx(float(first.max()), abs=1e-5)
    assert model.largest(request).tokens >= reply.usage.tokens


def test_sampling_follows_the_seed_and_stops_where_told(tmp_path: Path) -> None:
    causal(tmp_path / "m")
    model = chat(tmp_path / "m")
    hot = [model.reply(ChatRequest.of("a red sea", temperature=2.0, seed=s, max_tokens=8)).text for s in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    word = hot[0].split()[2]
    cut = model.reply(ChatRequest.of("a red sea", temperature=2.0, seed=1, max_tokens=8, stop=(word,)))
    assert cut.text == hot[0][: hot[0].index(word)].strip()
    assert cut.finish == "stop"
    assert cut.usage.written < 8


def test_of_the_smallest_share_of_tokens_only_the_likeliest_is_left(tmp_path: Path) -> None:
    causal(tmp_path / "m")
    model = chat(tmp_path / "m")
    likeliest = model.reply(ChatRequest.of("a red sea", max_tokens=8)).text
    hot = [ChatRequest.of("a red sea", temperature=2.0, seed=s, max_tokens=8) for s in range(4)]
    assert any(model.reply(request).text != likeliest for request in hot)
    assert all(model.reply(replace(request, top_p=1e-6)).text == likeliest for request in hot)


def test_the_models_own_template_is_used(tmp_path: Path) -> None:
    causal(tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(
        "{% for m in messages %}the {{ m.role }} : {{ m.content }} {% endfor %}old"
    )
    said = (Message("system", "red"), Message("user", "sea"))
    own, plain = chat(tmp_path / "m"), chat(tmp_path / "m", template="plain")
    assert own._ready() is not plain._ready()
    assert own._shown(said) == "the system : red the user : sea old"
    assert plain._shown(said) == "red\n\nUser: sea\n\nAssistant:"


def test_a_seq2seq_model_reads_plain_text(tmp_path: Path) -> None:
    seq2seq(tmp_path / "m")
    reply = chat(tmp_path / "m").reply(ChatRequest.of("a red sea", max_tokens=5))
    assert reply.usage.read == 4  # three words and the end
    assert reply.usage.written <= 5


def test_what_it_does_not_take(tmp_path: Path) -> None:
    causal(tmp_path / "m")
    model = chat(tmp_path / "m")
    with pytest.raises(FormError, match="takes text alone"):
        model.reply(ChatRequest.of("a", schema={"type": "object"}))
    assert Structured(model).form == "text"
    with pytest.raises(
        EndpointError, match="reads 128 tokens at most; this question has 3 and may be answered with 200"
    ):
        model.reply(ChatRequest.of("a red sea", max_tokens=200))


class Wish(BaseModel):
    wish: str


def test_a_repair_costs_no_more_than_was_booked(tmp_path: Path) -> None:
    """A tokenizer to which a run of one letter is few tokens, and a bad answer is many."""
    merges = [("x" * 2**i, "x" * 2**i) for i in range(8)]
    bytes_of = sorted(ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate(["</s>", *bytes_of, *("x" * 2 ** (i + 1) for i in range(8))])}
    spelling = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    spelling.pre_tokenizer, spelling.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    made = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="</s>", pad_token="</s>")
    made.save_pretrained(tmp_path)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(made), max_position_embeddings=8192, **shape)
    ).save_pretrained(tmp_path)  # fmt: skip
    model = chat(tmp_path)
    assert model.reply(ChatRequest.of("x" * 512, max_tokens=1)).usage.read <= 4
    for seed in range(3):
        request = ChatRequest.of("a red sea", max_tokens=60, temperature=1.0, seed=seed)
        asker = Structured(model)
        booked, answer = asker.largest(request, Wish), asker.ask(request, Wish)
        assert (len(answer.replies), answer.step) == (2, "failed"), "a model that learnt nothing writes no JSON"
        assert answer.usage.read <= booked.read
        assert answer.usage.written <= booked.written
        shown = json.dumps(Wish.model_json_schema())
        assert booked.tokens < 4 * (len(shown) + 4 * 60 + 2400), "the bound is of the order of what is said"
