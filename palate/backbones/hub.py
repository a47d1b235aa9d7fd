"""Any causal or seq2seq language model, by its name on a hub or from a folder, behind the door of every other.

Weights are safetensors and no code of a model's folder ever runs. With a frozen base (``tune`` is not ``full``) a
saved model holds what was learnt and the hash of the base, not the base again, unless ``keep_base`` asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field

from palate.backbones.hub_files import digest_of_model, first_line, hub_folder, quietly
from palate.backbones.packed import recompute
from palate.backbones.text_model import Optimise, TextModel, TuneConfig
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core.errors import ConfigError, MissingExtraError, StoreError
from palate.core.run import Run
from palate.core.store import NO_DATA


class HubConfig(TuneConfig):
    model: str = Field(min_length=1)
    """A folder, or a name on the hub."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the base; adapters and added rows are fp32."""
    download: bool = False
    """Fetch the model from the hub when it is not here."""
    recompute: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, a third more time."""
    keep_base: bool = False
    """Save a frozen base too, so that a saved model needs nothing else."""


class Hub(TextModel[HubConfig]):
    """A pre-trained language model."""

    config_type = HubConfig
    pretrained: Literal["LM"] = "LM"

    def prepare(
        self, texts: Sequence[str], run: Run, optimise: Optimise | None = None, *, fitted_on: str = NO_DATA
    ) -> Self:
        """Read the model; ``texts`` teach it nothing. Adapters are drawn from torch's random state."""
        folder = hub_folder(self.config.model, self.config.download)
        self.version = self._version(folder)
        self._begin(self._read(folder).to(run.device), TextTokenizer.of_model(folder))
        return self

    def _version(self, folder: Path) -> str:
        return f"hub/1 weights={digest_of_model(folder)} precision={self.config.precision}"

    def _read(self, folder: Path) -> Any:
        try:
            from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
        except ImportError:
            raise MissingExtraError.needing(f"the language model in {folder}", "llm") from None
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        try:
            seq2seq = AutoConfig.from_pretrained(folder, local_files_only=True).is_encoder_decoder
            kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
            with quietly(), torch.random.fork_rng(devices=[]):  # weights that a file lacks are drawn
                model, report = kind.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
                )
        except (ValueError, OSError, KeyError) as failure:
            raise ConfigError(f"{folder} cannot be read as a language model: {first_line(failure)}") from None
        missing = sorted(report["missing_keys"])
        if missing:
            raise ConfigError(f"{folder} holds no whole language model: it lacks the weights '{missing[0]}'")
        return self._economical(model.eval())

    def _economical(self, model: Any) -> Any:
        if self.config.recompute:
            recompute(model)
        return model

    def _by_reference(self) -> bool:
        return self.config.tune != "full" and not self.config.keep_base

    def _base(self, facts: Mapping[str, Any]) -> Any:
        if not self._by_reference():
            return self._economical(super()._base(facts))
        folder = hub_folder(self.config.model, self.config.download)
        if self._version(folder) != facts["version"]:
            raise StoreError(f"{folder} holds another model than the one whose tuned part was saved")
        return self._read(folder)
