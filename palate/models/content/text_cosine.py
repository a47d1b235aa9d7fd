"""Text cosine: what reads most like the things somebody met. The floor of every claim about new items.

A frozen encoder makes a vector of each item's text. A reader is the mean of the unit vectors of a history, newer events
counting more with ``half_life_events``; items are compared by cosine. Nothing is learnt from interactions but how often
an item was met, which answers an empty history. Words of a request are one more text: ``words`` says how much it counts
beside the history. Items added later need their text alone. Shapes: B requests, N items, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import item_vectors
from palate.core import store
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.protocols import Encoder, FloatArray, Judge, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.core.version import Version
from palate.data.matrices import in_blocks, request_items


class TextCosineConfig(Config):
    encoder: Part = Part(name="auto")
    """What makes vectors of the items' texts."""
    text: ItemText = ItemText()
    """How an item reads."""
    half_life_events: float | None = Field(None, gt=0)
    """An event of the history counts half when so many came after it; None counts all alike."""
    words: float = Field(1.0, ge=0)
    """Weight of a request's words beside the mean of the history; 0 does not read them."""


SPACE: SearchSpace = {"half_life_events": Range(1, 100, log=True, optional=True)}
"""What ``--tune`` searches."""


class TextCosine(ScoresAll):
    """``vectors`` ``[N, D]`` of unit length, ``shares`` ``[N]`` of the training events, ``live`` ``[N]``."""

    config_type = TextCosineConfig

    def __init__(self, config: TextCosineConfig | None = None, *, encoder: Encoder) -> None:
        self.config = config or TextCosineConfig()
        self.encoder = encoder
        self.vectors: FloatArray | None = None
        self.shares = np.zeros(0, dtype=np.float32)
        self.live = np.zeros(0, dtype=bool)
        self.fitted_on = ""
        self._version = Version()

    @property
    def parts(self) -> dict[str, Any]:
        return {"encoder": self.encoder}

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        self.vectors = unit(item_vectors(train, self.encoder, self.config.text, run=run, learn=True))
        self.shares = (train.item_counts / max(train.n_interactions, 1)).astype(np.float32)
        self.live, self.fitted_on = np.ones(train.n_items, dtype=bool), train.fingerprint
        return self

    @property
    def reads_words(self) -> bool:
        """Whether words of a request count."""
        return self.config.words > 0

    def fitted(self) -> FloatArray:
        """The vectors, else one clear sentence."""
        if self.vectors is None:
            raise TrainingError("TextCosine was not fitted yet: call fit or load first")
        return self.vectors

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        vectors = self.fitted()
        # Between -1 and 0 and below every cosine of a reader who is known: only newcomers are answered by counts.
        popular = self.shares - np.float32(1)
        for some in in_blocks(requests, len(vectors)):
            readers = self.readers(some)
            scores = readers @ vectors.T
            scores[~readers.any(axis=1)] = popular
            scores[:, ~self.live] = np.nan
            yield scores

    def readers(self, requests: Requests) -> FloatArray:
        """``[B, D]`` a unit vector each; zeros for an empty history without words."""
        vectors = self.fitted()
        met = request_items(requests, len(vectors), counts=True, half_life_events=self.config.half_life_events)
        means = unit(met @ vectors)
        if self.config.words and requests.words is not None and any(requests.words):
            said = np.flatnonzero([bool(words) for words in requests.words])
            # Not through the store of vectors: what people ask is not written to disk.
            heard = self.encoder.encode([requests.words[row] for row in said])
            means[said] = unit(means[said] + np.float32(self.config.words) * unit(heard))
        return means

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]``; NaN for an empty history without words."""
        vectors = self.fitted()
        found = [np.zeros((0, vectors.shape[1]), dtype=np.float32)]
        for some in in_blocks(requests, len(vectors)):
            readers = self.readers(some)
            readers[~readers.any(axis=1)] = np.nan
            found.append(readers)
        return np.concatenate(found)

    @property
    def scores_texts(self) -> bool:
        """Always; only newcomers are answered by something else."""
        return True

    def item_texts(self, catalogue: Dataset) -> list[str]:
        return self.config.text.render(catalogue)

    def score_texts(self, requests: Requests, texts: Sequence[str]) -> FloatArray:
        """``[B, T]`` cosines; NaN for an empty history without words. The store of vectors keeps none of these."""
        read = unit(self.encoder.encode(texts))
        readers = self.readers(requests)
        readers[~readers.any(axis=1)] = np.nan
        return readers @ read.T

    def item_vectors(self) -> FloatArray:
        """``[N, D]``; NaN for an item that was retired."""
        return np.where(self.live[:, None], self.fitted(), np.float32(np.nan))

    @property
    def vectors_version(self) -> str:
        """Of the vectors, and of which of them may be answered."""
        vectors, live = self.fitted(), self.live
        return self._version.of((vectors, live), lambda: (vectors, live))

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Read what is new in ``catalogue``, so that the next answer may hold it."""
        vectors = self.fitted()
        more = catalogue.n_items - len(vectors)
        self.vectors = unit(item_vectors(catalogue, self.encoder, self.config.text))
        self.shares = np.pad(self.shares, (0, more))
        self.live = np.pad(self.live, (0, more), constant_values=True)

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again."""
        live = self.live.copy()  # another array is another version of what may be answered
        live[item_rows] = back
        self.live = live

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        arrays = {"vectors": self.fitted(), "shares": self.shares, "live": self.live}
        store.save(
            folder, self, config=self.config, arrays=arrays, parts=self.parts, fitted_on=self.fitted_on
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.vectors, system.shares, system.live = arrays["vectors"], arrays["shares"], arrays["live"]
        system.fitted_on = stored.fitted_on
        return system


def unit(vectors: FloatArray) -> FloatArray:
    """Rows of length one; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float32), where=lengths > 0)


def tiny() -> TextCosineConfig:
    """Vectors that count words: nothing pretrained, a second on anything."""
    return TextCosineConfig(encoder=Part(name="tf-idf"))
