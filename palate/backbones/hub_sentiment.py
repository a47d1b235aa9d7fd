"""A classifier of two feelings from the hub: is a sentence for something or against it?

``sentiment-roberta-large-english`` of siebert is the one that Mender (Paischer et al. 2025, arXiv 2412.08604) asks. Any
sequence classifier with a class whose name begins with ``neg`` will do. Shapes: n texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from palate.backbones.hub_files import digest_of_model, first_line, hub_folder, quietly
from palate.core import store
from palate.core.config import Config
from palate.core.errors import ConfigError, MissingExtraError, StoreError

AT_ONCE = 32
"""Texts that are read together."""


class HubSentimentConfig(Config):
    model: str = Field("siebert/sentiment-roberta-large-english", min_length=1)
    """A folder, or a name on the hub."""
    download: bool = False
    """Fetch the model from the hub when it is not here."""
    max_tokens: int = Field(256, ge=4)
    """A longer text is cut."""


class HubSentiment:
    """The classifier; its weights are read at the first use."""

    config_type = HubSentimentConfig

    def __init__(self, config: HubSentimentConfig | None = None) -> None:
        self.config = config or HubSentimentConfig()
        self._expected: str | None = None
        self._loaded: tuple[Any, Any, int] | None = None

    @property
    def folder(self) -> Path:
        """Where the model lies. Raises one sentence where it is not here."""
        return hub_folder(self.config.model, self.config.download)

    @torch.inference_mode()
    def positive(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """``[n]`` False where the class called negative is the likeliest."""
        tokenizer, model, negative = self._model()
        found = np.ones(len(texts), dtype=bool)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(order), AT_ONCE):
            rows = order[start : start + AT_ONCE]
            read = tokenizer(
                [texts[row] for row in rows], truncation=True, max_length=self.config.max_tokens, padding=True,
                return_tensors="pt", return_token_type_ids=False,
            )  # fmt: skip
            found[rows] = (model(**read).logits.argmax(1) != negative).numpy()
        return found

    def _model(self) -> tuple[Any, Any, int]:
        if self._loaded is None:
            folder = self.folder
            if self._expected not in (None, digest_of_model(folder)):
                raise StoreError(f"{folder} holds other weights than those that were saved")
            self._loaded = _read(folder)
        return self._loaded

    def save(self, folder: Path) -> None:
        """The settings and which weights they mean; the weights stay where they are."""
        store.save(folder, self, config=self.config, facts={"weights": digest_of_model(self.folder)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises ``StoreError`` at the first use when the weights are others than those of the saved one."""
        stored = store.open_folder(folder)
        found = stored.begun(cls)
        found._expected = stored.facts["weights"]
        return found


def _read(folder: Path) -> tuple[Any, Any, int]:
    """Text tokenizer, network, and the number of the class called negative."""
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError:
        raise MissingExtraError.needing(f"the classifier in {folder}", "llm") from None
    try:
        with quietly(), torch.random.fork_rng(devices=[]):  # weights that a file lacks are drawn
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (ValueError, OSError, KeyError) as failure:
        raise ConfigError(f"{folder} cannot be read as a classifier: {first_line(failure)}") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(f"{folder} holds no whole classifier: it lacks the weights '{missing[0]}'")
    named = {label.lower(): int(number) for number, label in model.config.id2label.items()}
    negative = next((number for label, number in named.items() if label.startswith("neg")), None)
    if negative is None:
        raise ConfigError(f"{folder} has no class called negative, but {', '.join(sorted(named))}")
    return tokenizer, model.eval().requires_grad_(False), negative
