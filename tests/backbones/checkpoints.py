"""Small checkpoints as a hub would give them, drawn at random and saved to disk in the library's own layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = (
    "a red sea and the white sand of old books about ships , moons . wolves who read them at night 0 1 2 3 4 5 6 7 8 9"
)


def save_tokenizer(folder: Path, lower: bool = True) -> int:
    """A word-level tokenizer with [PAD], [UNK], [CLS], [SEP], </s>; its vocabulary's size."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>", *dict.fromkeys(WORDS.split())]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    return len(words)


def save_letters(folder: Path, legacy: bool = False) -> int:
    """A tokenizer of single letters that writes a space as ▁ and puts one before every text, as Llama's does: by its
    pre-tokenizer, or as the older files have it by its normalizer. Its vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", "▁", "\n", *(chr(code) for code in range(33, 127))]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, [], unk_token="<unk>"))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    return len(letters)


def drawn(kind: type, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()


def bert(folder: Path, places: int = 64) -> Any:
    from transformers import BertConfig, BertModel

    size = save_tokenizer(folder)
    model = drawn(BertModel, BertConfig(vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                        intermediate_size=64, max_position_embeddings=places))  # fmt: skip
    model.save_pretrained(folder)
    return model


def llama_of_letters(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    size = save_letters(folder)
    config = LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    drawn(LlamaForCausalLM, config).save_pretrained(folder)


def causal(folder: Path, family: str = "llama", tied: bool = False, places: int = 128) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    size = save_tokenizer(folder)
    common = {"vocab_size": size, "tie_word_embeddings": tied, "bos_token_id": 2, "eos_token_id": 4, "pad_token_id": 0}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": places}  # fmt: skip
    if family == "gpt2":
        model = drawn(GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=places, **common))
    elif family == "qwen2":
        model = drawn(Qwen2ForCausalLM, Qwen2Config(**common, **sizes))
    else:
        model = drawn(LlamaForCausalLM, LlamaConfig(**common, **sizes))
    model.save_pretrained(folder)
    return model


def seq2seq(folder: Path, tied: bool = True) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    size = save_tokenizer(folder)
    config = T5Config(vocab_size=size, d_model=32, d_ff=64, d_kv=8, num_layers=2, num_decoder_layers=2, num_heads=4,
                      tie_word_embeddings=tied, decoder_start_token_id=0, pad_token_id=0, eos_token_id=4)  # fmt: skip
    model = drawn(T5ForConditionalGeneration, config)
    model.save_pretrained(folder)
    return model
