"""What learns to rate, against what does not: a published kind of language model from a folder, and more data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from rating_logs import lovers

from palate.backbones.item_text import ItemText
from palate.core.run import Run
from palate.curve import data_efficiency
from palate.data.rating_prompts import texts_for
from palate.data.ratings import rating_cases
from palate.data.split import leave_one_out
from palate.evaluation.ratings import rating_judge
from palate.experiment import make_plan
from palate.systems import build

SPLIT = leave_one_out(lovers())
TEST = rating_cases(SPLIT)


def rmse(system: Any) -> float:
    return -rating_judge(TEST)(system)


def save_t5(folder: Path, texts: Sequence[str]) -> None:
    """A T5 drawn at random, in the files of a hub, that has a token for every word of these texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = pre_tokenizers.Whitespace()
    found = dict.fromkeys(word for text in texts for word, _ in words.pre_tokenize_str(text))
    known = {word: row for row, word in enumerate(["<pad>", "</s>", "<unk>", *found])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = words
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(known), d_model=32, d_ff=64, d_kv=8, num_heads=4, num_layers=2, num_decoder_layers=1,
        dropout_rate=0.0, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["regression", "classification"])
def test_a_tuned_t5_reads_who_loves_which_genre_and_an_untuned_one_does_not(head: str, tmp_path: Path) -> None:
    """No average says anything here: the kind of the next book must be held against that of the last and its rating.
    One rated book is told, so that each prompt there is comes often. A T5 from nothing stands still before it sees
    this, some seeds longer than others: the first of three that validation finds better is asked."""
    text = ItemText(fields=("category",))
    save_t5(tmp_path / "t5", texts_for(text.render(SPLIT.train), np.arange(1, 6, dtype=np.float32)).written)
    settings = {
        "head": head, "backbone": {"name": "hub", "model": str(tmp_path / "t5")}, "text.fields": ["category"],
        "length": 1, "batch_size": 64, "training.epochs": 99, "training.learning_rate": 3e-3,
        "training.weight_decay": 0.0, "training.warmup_steps": 20,
    }  # fmt: skip
    averages = [
        rmse(build("rating-average", preset=preset).fit(SPLIT.train, Run())) for preset in ("everybody", None, "user")
    ]
    assert min(averages) > 1.9
    valid = rating_judge(rating_cases(SPLIT, "valid"))
    for seed in range(3):
        tuned = build("rating-lm", settings).fit(SPLIT.train, Run(seed=seed, max_steps=400))
        if valid(tuned) > -1.0:  # type: ignore[arg-type]
            break
    assert tuned.facts["pretrained"] == "LM"  # type: ignore[attr-defined]
    assert tuned.backbone.kind == "seq2seq"  # type: ignore[attr-defined]
    assert rmse(tuned) < 1.0
    fresh = build("rating-lm", settings).fit(SPLIT.train, Run(max_steps=1))
    assert rmse(fresh) > min(averages) - 0.1


@pytest.mark.parametrize(("name", "falls"), [("rating-mlp", 0.5), ("rating-transformer", 0.8)])
def test_more_data_make_a_trained_system_better_within_noise(name: str, falls: float, tmp_path: Path) -> None:
    shares = [0.05, 0.4, 1.0]
    curve = data_efficiency({name: make_plan(name, "nowhere", preset="tiny", seeds=2)}, SPLIT, Run(), shares)
    curve.write(tmp_path / "curve.json")
    kept = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert [(point["share"], len(point["of_seeds"]), point["seeds"]) for point in kept] == [
        (share, 2, [0, 1]) for share in shares
    ]
    figures = [point.figure.value for point in curve.points]
    for few, more in pairwise(curve.points):
        noise = max(np.ptp(few.of_seeds), np.ptp(more.of_seeds), 0.1)
        assert more.figure.value < few.figure.value + noise
    assert figures[-1] < figures[0] - falls
