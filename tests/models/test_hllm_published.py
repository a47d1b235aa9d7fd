"""HLLM as it was published, on small models of the hub: its settings, its weights, two decoders, adapters merged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, StoreError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.models.hierarchical.hllm import HLLM, paper
from palate.systems import build
from tests.backbones.checkpoints import WORDS, causal
from tests.models.coloured_logs import N, log_of, rainbow


def worded() -> Dataset:
    """Texts in words that the small models know."""
    words, data = WORDS.split(), rainbow(30)
    titles = [f"{words[item % 12]} {words[item // 12]} {words[-1 - item % 5]}" for item in range(N)]
    return replace(data, items=data.items.with_columns(pl.Series("title", titles)))


def test_the_published_setting_is_the_papers() -> None:
    """Of PixelRec, by the paper and its public code; what differs on purpose stands at the head of the file."""
    config = paper()
    assert (config.negatives, config.length, config.max_tokens, config.batch_size) == (5632, 10, 256, 512)
    assert (config.temperature, config.similar) == (0.07, 0.99)
    assert config.prefix == "Compress the following sentence into embedding: "
    assert (config.text.fields, config.text.named, config.text.separator) == (("title", "tag", "description"), True, "")
    assert (config.learns, config.objective, config.pooling, config.cut) == ("both", "generative", "auto", "end")
    assert (config.negatives_from, config.windows, config.dropout) == ("catalogue", "all", 0.0)
    training = config.training
    assert (training.learning_rate, training.weight_decay, training.epochs) == (1e-4, 0.01, 5)
    assert (training.schedule, training.betas, training.patience) == ("cosine", (0.9, 0.999), 5)
    for part in (config.item_model, config.user_model):
        assert (part.name, part.settings["recompute"]) == ("hub", True)
        assert str(part.settings["model"]).startswith("TinyLlama/TinyLlama-1.1B-")
    system = build("hllm", preset="paper")
    assert isinstance(system, HLLM)
    assert system.item_model is not system.user_model
    assert system.training.rates == {"tower": 1.0, "user": 1.0}
    with pytest.raises(ConfigError, match="neither a folder nor a model that was fetched before"):
        system.fit(rainbow(5), Run())


def test_two_decoders_of_the_hub_learn_with_what_is_computed_twice(tmp_path: Path) -> None:
    """The published setting on two small decoders, whose widths are the same and whose weights are not: both move, to
    the weights that they have when nothing is computed twice, and a slot behind each text is the item's vector."""
    data = worded()
    causal(tmp_path / "item")
    causal(tmp_path / "user", "qwen2")
    ends = []
    for again in (True, False):
        parts = {
            f"{half}_model": {"name": "hub", "settings": {"model": str(tmp_path / half), "recompute": again}}
            for half in ("item", "user")
        }
        own = {"max_tokens": 20, "negatives": 40, "batch_size": 8, "training.warmup_steps": 0, "alarm_steps": 10}
        system = build("hllm", {**parts, **own, "chunk_tokens": 200}, preset="paper")
        assert isinstance(system, HLLM)
        begun: dict[str, Tensor] = {}
        lesson = system.lesson

        def beginning(*given: Any, lesson: Any = lesson, system: HLLM = system, begun: Any = begun) -> Any:
            begun |= {name: tensor.detach().clone() for name, tensor in system.fitted().named_parameters()}
            return lesson(*given)

        system.lesson = beginning  # type: ignore[method-assign]
        system.fit(data, Run(max_steps=3))
        network = system.fitted()
        assert system.facts["training"]["steps"] == 3
        assert (network.tower.pooling, network.projector) == ("slot", None)
        assert not any("drawn" in note or "taught" in note for note in system.notes)
        moved = {name for name, tensor in network.named_parameters() if not torch.equal(tensor, begun[name])}
        for half in ("tower.network.", "user."):
            layers = {name for name in begun if name.startswith(half) and "layers." in name}
            assert layers <= moved
            assert layers
        assert "tower.slot" in moved
        ends.append({name: tensor.detach() for name, tensor in network.named_parameters()})
        assert (system.recommend(Requests.of([[3, 9]]), 5).item_rows >= 0).all()
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], atol=2e-5, rtol=1e-3, msg=name)


def test_published_weights_are_read_from_one_file_of_their_layout(tmp_path: Path) -> None:
    """Vectors and scores are those of the library's own models with the same weights, called text by text."""
    from safetensors.torch import save_file

    data = log_of(np.array([[0, 9, 30], [5, 6, 7]]), n=40)
    titles = ["red sea", "a white moon", "old books about wolves", "sand"] * 10
    data = replace(data, items=data.items.with_columns(pl.Series("title", titles)))
    first, second = (causal(tmp_path / name) for name in ("item", "user"))
    with torch.no_grad():
        for number, parameter in enumerate([*first.parameters(), *second.parameters()]):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    slot = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(9))
    weights = {f"item_llm.{name}": tensor for name, tensor in first.state_dict().items()}
    weights |= {f"user_llm.{name}": tensor for name, tensor in second.state_dict().items()}
    weights |= {"item_emb_tokens": slot, "logit_scale": torch.tensor(3.2)}
    path = tmp_path / "hllm.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, path)
    parts = {
        name: {"name": "hub", "settings": {"model": str(tmp_path / name[:4])}} for name in ("item_model", "user_model")
    }
    system = build("hllm", {**parts, "max_tokens": 10})
    assert isinstance(system, HLLM)
    system.take_released(path, data)
    vectors = []
    with torch.no_grad():
        for title in titles[:4]:
            ids = torch.from_numpy(system.item_model.framed([title], 10).row(0))
            read = torch.cat([first.get_input_embeddings()(ids)[None], slot], 1)
            vectors.append(first.model(inputs_embeds=read).last_hidden_state[0, -1])
        history = torch.stack([vectors[item % 4] for item in (0, 9, 30)])
        state = second.model(inputs_embeds=history[None]).last_hidden_state[0, -1]
    np.testing.assert_allclose(system.items.held.vectors[:4], torch.stack(vectors).numpy(), atol=1e-5)  # type: ignore[union-attr]
    scores = np.concatenate(list(system.score_blocks(Requests.of([[0, 9, 30]]))))[0, :4]
    expected = torch.nn.functional.cosine_similarity(state, torch.stack(vectors), dim=-1)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    assert float(system.fitted().scale().detach()) == pytest.approx(np.exp(3.2), rel=1e-5)
    system.save(tmp_path / "saved")
    again = np.concatenate(list(store.load(tmp_path / "saved").score_blocks(Requests.of([[0, 9, 30]]))))
    np.testing.assert_array_equal(again[0, :4], scores)
    save_file({"item_llm.x": slot}, path)
    with pytest.raises(StoreError, match="holds no 'user_llm' and is no released HLLM"):
        system.take_released(path, data)
    save_file(
        {**{n: t.contiguous().clone() for n, t in weights.items()}, "user_llm.model.norm.weight": slot[0, 0, :9]}, path
    )
    with pytest.raises(StoreError, match=r"the weights 'user_llm\.norm\.weight' do not fit"):
        system.take_released(path, data)
    with pytest.raises(StoreError, match=r"read as \.safetensors only"):
        system.take_released(tmp_path / "pytorch_model.bin", data)


def test_a_system_whose_adapters_were_merged_answers_as_before_without_the_base(tmp_path: Path) -> None:
    """Item vectors are of other weights by name, so they are read anew before they are saved."""
    causal(tmp_path / "base")
    item = {"name": "hub", "settings": {"model": str(tmp_path / "base"), "tune": "lora"}}
    own = {"item_model": item, "max_tokens": 12, "negatives": 40, "training.learning_rate": 0.02}
    system = build("hllm", own, preset="tiny")
    assert isinstance(system, HLLM)
    system.fit(worded(), Run(max_steps=5))
    asked = Requests.of([[3, 9], [20]])
    before = np.concatenate(list(system.score_blocks(asked)))
    system.item_model.merge()
    system.settle()
    merged = np.concatenate(list(system.score_blocks(asked)))
    np.testing.assert_allclose(merged, before, atol=1e-4)
    system.save(tmp_path / "merged")
    shutil.rmtree(tmp_path / "base")
    np.testing.assert_array_equal(np.concatenate(list(store.load(tmp_path / "merged").score_blocks(asked))), merged)
