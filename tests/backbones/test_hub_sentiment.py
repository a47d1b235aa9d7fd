"""A classifier of feelings from a folder: its likeliest class, whatever stands beside a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from checkpoints import drawn, save_tokenizer

from palate.backbones.hub_sentiment import HubSentiment, HubSentimentConfig
from palate.core import store
from palate.core.errors import ConfigError

TEXTS = ["a red sea", "wolves read at night", "old books about ships and moons of the white sand", "the"]


def classifier(folder: Path, labels: dict[int, str]) -> torch.nn.Module:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    size = save_tokenizer(folder)
    model = drawn(BertForSequenceClassification, BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, id2label=labels, label2id={v: k for k, v in labels.items()},
    ))  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():  # so that half of the texts are of each class
        said = torch.cat([model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits for text in TEXTS])
        middle = (said[:, 0] - said[:, 1]).sort().values[1:3].mean()
        model.classifier.bias[0] -= middle
    model.save_pretrained(folder)
    return model


def test_the_class_called_negative_decides(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    model = classifier(folder, {0: "POSITIVE", 1: "NEGATIVE"})
    found = HubSentiment(HubSentimentConfig(model=str(folder)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    alone = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        alone.append(int(model(input_ids=ids).logits.argmax()) == 0)
    assert len(set(alone)) == 2, "the drawn model must tell some texts apart"
    assert found.positive(TEXTS).tolist() == alone
    found.save(tmp_path / "saved")
    assert np.array_equal(store.load(tmp_path / "saved").positive(TEXTS), alone)


def test_a_model_without_a_negative_class_is_refused(tmp_path: Path) -> None:
    classifier(tmp_path / "model", {0: "sea", 1: "sand"})
    with pytest.raises(ConfigError, match="no class called negative, but sand, sea"):
        HubSentiment(HubSentimentConfig(model=str(tmp_path / "model"))).positive(TEXTS)
