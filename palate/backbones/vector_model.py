"""Decoders that read vectors instead of words: the half of a system that reads what a user met.

Llama-shaped from nothing, or any decoder of the hub without its table of words and its head, which vectors do not
need. Shapes: P packed places, D width.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.backbones.hub_files import digest_of_model, first_line, hub_folder, quietly
from palate.backbones.packed import Attend, Groups, can_pack, packed_states, padded_states, recompute
from palate.core import store
from palate.core.config import Config
from palate.core.errors import ConfigError, MissingExtraError, StoreError, TrainingError
from palate.core.run import Run


class LlamaConfig(Config):
    width: int | None = Field(None, ge=8)
    """None = that of the vectors."""
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    forward_width: int | None = Field(None, ge=8)
    """Inside the feed-forward layers; None = 8/3 of the width, so that its three matrices weigh as much as two of four
    times the width."""
    length: int = Field(2048, ge=2)
    """Places that it may read at once."""
    begin: Literal["drawn", "average"] = "drawn"
    """With weights as drawn a state begins as little more than the vector of its own place: what is like the last item
    comes next. ``average``: values and output of the first attention begin as the identity, which adds the mean of the
    vectors so far."""


class HubDecoderConfig(Config):
    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    precision: Literal["fp32", "bf16"] = "fp32"
    download: bool = False
    """Fetch the model from the hub when it is not here."""
    recompute: bool = False
    """Compute activations again on the way back instead of keeping them."""


C = TypeVar("C", bound=Config)


class VectorModel(ABC, Generic[C]):
    """A decoder over vectors. Usable after ``prepare`` or ``load``."""

    config_type: ClassVar[type[Config]]
    pretrained: Literal["no", "LM"]

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config or self.config_type()  # type: ignore[assignment]
        self.version = ""
        self._model: Any = None

    @abstractmethod
    def prepare(self, width: int, run: Run) -> Self:
        """Ready, begun anew, on the run's device. ``width`` is that of the vectors, which it may choose to share; what
        is drawn is drawn from torch's random state."""

    @property
    def model(self) -> Any:
        """The network."""
        if self._model is None:
            raise TrainingError(f"{type(self).__name__} is not ready yet: call prepare or load first")
        return self._model

    @property
    def width(self) -> int:
        """D of what it reads and gives."""
        return int(self.model.config.hidden_size)

    @property
    def kind(self) -> Literal["causal"]:
        return "causal"

    @property
    def packs(self) -> bool:
        """Whether ``attend`` decides who sees whom; else each sequence sees itself, by the model's own attention."""
        return can_pack(self.model)

    def packed_states(self, vectors: Tensor, groups: Groups, attend: Attend) -> Tensor:
        """``[P, D]`` → ``[P, D]``, each sequence on its own, each place from those up to it."""
        if self.packs:
            return packed_states(self.model, vectors, groups.positions, attend, causal=True)
        return padded_states(self._padded, vectors, groups)

    def _padded(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return self.model(inputs_embeds=vectors, attention_mask=mask.long(), use_cache=False).last_hidden_state

    def save(self, folder: Path) -> None:
        weights = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        half = sorted(name for name, tensor in weights.items() if tensor.dtype == torch.bfloat16)
        arrays = {
            name: (tensor.view(torch.int16) if name in half else tensor).contiguous().numpy()
            for name, tensor in weights.items()
        }
        architecture = json.loads(self.model.config.to_json_string(use_diff=False))
        facts = {"architecture": architecture, "version": self.version, "bf16": half}
        store.save(folder, self, config=self.config, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        found = stored.begun(cls)
        found.version = stored.facts["version"]
        half = set(stored.facts["bf16"])
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
            model = build_decoder(stored.facts["architecture"])
        weights = {name: torch.from_numpy(array) for name, array in stored.arrays().items()}
        if half:
            model = model.to(torch.bfloat16)
            weights = {n: t.view(torch.bfloat16) if n in half else t for n, t in weights.items()}
        try:
            model.load_state_dict(weights)
        except RuntimeError:
            raise StoreError(f"{folder}: the weights do not fit this decoder; save it again") from None
        found._model = model.eval()
        return found


class Llama(VectorModel[LlamaConfig]):
    """From nothing, in the shape of Llama (Touvron et al. 2023, arXiv 2302.13971)."""

    config_type = LlamaConfig
    pretrained: Literal["no"] = "no"

    def prepare(self, width: int, run: Run) -> Self:
        config = self.config
        width = config.width or width
        if width % config.heads or width // config.heads % 2:
            raise ConfigError(f"a width of {width} cannot be shared by {config.heads} heads of an even width")
        self.version = "llama/1"
        model = build_decoder(
            {
                "model_type": "llama", "hidden_size": width, "num_hidden_layers": config.layers,
                "intermediate_size": config.forward_width or -(-8 * width // 3 // 8) * 8,
                "num_attention_heads": config.heads, "num_key_value_heads": config.heads,
                "max_position_embeddings": config.length,
            }
        )  # fmt: skip
        if config.begin == "average":
            attention = model.layers[0].self_attn
            for layer in (attention.v_proj, attention.o_proj):
                nn.init.eye_(layer.weight)
        self._model = model.to(run.device)
        return self


class HubDecoder(VectorModel[HubDecoderConfig]):
    """A pre-trained decoder; the vectors are brought to its width by the system that uses it."""

    config_type = HubDecoderConfig
    pretrained: Literal["LM"] = "LM"

    def prepare(self, width: int, run: Run) -> Self:
        folder = hub_folder(self.config.model, self.config.download)
        transformers = _library(folder)
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        try:
            with quietly(), torch.random.fork_rng(devices=[]):
                model = transformers.AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=dtype
                )
        except (ValueError, OSError, KeyError) as failure:
            raise ConfigError(f"{folder} cannot be read as a decoder: {first_line(failure)}") from None
        if model.config.is_encoder_decoder:
            raise ConfigError(f"{folder} holds an encoder and a decoder; vectors are read by a decoder alone")
        if self.config.recompute:
            recompute(model)
        self.version = f"decoder/1 weights={digest_of_model(folder)} precision={self.config.precision}"
        self._model = _wordless(model.eval()).to(run.device)
        return self


def build_decoder(architecture: dict[str, Any]) -> Any:
    """A decoder of this architecture without words, its weights drawn from torch's random state."""
    transformers = _library("a decoder over vectors")
    settings = dict(architecture) | {"vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    settings.pop("dtype", None)
    with quietly():
        model = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        )
    return _wordless(model.float())


def _wordless(model: Any) -> Any:
    """The table of words shrinks to one row, which nobody reads and nothing learns."""
    table = model.get_input_embeddings()
    one = nn.Embedding(1, table.embedding_dim, dtype=table.weight.dtype).requires_grad_(False)
    nn.init.zeros_(one.weight)
    model.set_input_embeddings(one)
    model.config.vocab_size = 1
    model.config.pad_token_id = None
    return model


def _library(what: object) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError.needing(f"{what}", "llm") from None
    return transformers
