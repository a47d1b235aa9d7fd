"""TF-IDF and SVD: vectors from counted words, with nothing to download and nothing pre-trained.

Weights are (1 + log count) × (log((1 + n) / (1 + texts with the term)) + 1), rows have unit length, and the D largest
right singular vectors of that matrix turn it into ``[n, D]`` (Deerwester et al. 1990, "Indexing by latent semantic
analysis"). It learns which words there are from the texts it is fitted on and from then on stays as it is: a text of a
later item is encoded with the words known then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from palate.backbones.cache import digest
from palate.core import store
from palate.core.config import Config
from palate.core.errors import DataError
from palate.core.protocols import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

_WORD = re.compile(r"\w+")
_DENSE = 2_000_000
"""A matrix of at most so many entries is decomposed whole, which is exact for every D."""


class TfIdfConfig(Config):
    width: int = Field(256, ge=1)
    """D; fewer where the texts have no so many directions."""
    pairs: bool = True
    """Count pairs of neighbouring words beside single words."""
    min_texts: int = Field(1, ge=1)
    """A term that fewer texts hold is left out."""
    max_terms: int = Field(50_000, ge=1)
    """The terms that most texts hold are kept."""
    normalise: bool = True
    """Unit length; a text without a known word stays zero."""


class TfIdf:
    """The encoder. ``fit`` once, then ``encode``."""

    config_type = TfIdfConfig
    pretrained: Literal["no"] = "no"

    def __init__(self, config: TfIdfConfig | None = None) -> None:
        self.config = config or TfIdfConfig()
        self.columns: dict[str, int] = {}
        self.idf: FloatArray = np.zeros(0, np.float32)
        self.directions: FloatArray = np.zeros((0, 0), np.float32)
        self.learnt_from = ""

    @property
    def fitted(self) -> bool:
        return bool(self.learnt_from)

    @property
    def version(self) -> str:
        return f"tf-idf/1 {self.config.model_dump_json()} {self.learnt_from}"

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn terms, their weights and the D directions. Raises ``DataError`` where no text holds a word."""
        distinct = sorted(set(texts))  # a text said twice says nothing more about the language
        counted = [self._terms(text) for text in distinct]
        held = Counter(term for terms in counted for term in terms)
        most = sorted((-n, term) for term, n in held.items() if n >= self.config.min_texts)[: self.config.max_terms]
        if not most:
            raise DataError(f"TF-IDF found no word in {len(texts):,} texts that {self.config.min_texts} of them hold")
        self.columns = {term: column for column, term in enumerate(sorted(term for _, term in most))}
        frequency = np.array([held[term] for term in self.columns], dtype=np.float64)
        self.idf = (np.log((1 + len(distinct)) / (1 + frequency)) + 1).astype(np.float32)
        self.directions = _directions(self._weighted(counted), self.config.width)
        self.learnt_from = digest(distinct)
        return self

    def encode(self, texts: Sequence[str]) -> FloatArray:
        if not self.fitted:
            raise DataError("TF-IDF has not seen any text yet: call fit with the texts of the catalogue first")
        vectors = (self._weighted([self._terms(text) for text in texts]) @ self.directions).astype(np.float32)
        if self.config.normalise:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-12)
        return vectors

    def save(self, folder: Path) -> None:
        store.save(
            folder, self, config=self.config, arrays={"idf": self.idf, "directions": self.directions},
            facts={"terms": list(self.columns), "learnt_from": self.learnt_from},
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        encoder = stored.begun(cls)
        arrays = stored.arrays()
        encoder.idf, encoder.directions = arrays["idf"], arrays["directions"]
        encoder.columns = {term: column for column, term in enumerate(stored.facts["terms"])}
        encoder.learnt_from = stored.facts["learnt_from"]
        return encoder

    def _terms(self, text: str) -> Counter[str]:
        words = _WORD.findall(text.lower())
        terms = Counter(words)
        if self.config.pairs:
            terms.update(f"{first} {second}" for first, second in pairwise(words))
        return terms

    def _weighted(self, counted: Sequence[Counter[str]]) -> sparse.csr_array[Any, Any]:
        """``[n, terms]`` rows of unit length."""
        from scipy import sparse

        known = [[(self.columns[term], n) for term, n in terms.items() if term in self.columns] for terms in counted]
        lengths = np.array([len(row) for row in known], dtype=np.int64)
        rows = np.repeat(np.arange(len(known)), lengths)
        flat = np.array([pair for row in known for pair in row], dtype=np.int64).reshape(-1, 2)
        raw = (1 + np.log(flat[:, 1])) * self.idf[flat[:, 0]]
        norms = np.sqrt(np.bincount(rows, raw**2, minlength=len(known)))
        weights = raw / norms[rows]
        return sparse.csr_array((weights, (rows, flat[:, 0])), shape=(len(known), len(self.columns)))


def _directions(matrix: sparse.csr_array[Any, Any], width: int) -> FloatArray:
    """``[terms, D]`` the right singular vectors of the D largest singular values, without those that are zero."""
    from scipy.sparse.linalg import svds

    n, terms = matrix.shape
    if n * terms <= _DENSE or width >= min(n, terms) - 1:
        _, values, right = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = np.ones(min(n, terms))  # a fixed first guess: the same vectors in every run
        _, values, right = svds(matrix.astype(np.float64), k=width, v0=start)
        values, right = values[::-1], right[::-1]
    right = right[:width][values[:width] > 1e-6 * values[0]]
    return np.ascontiguousarray((right * _signs(right)[:, None]).T, dtype=np.float32)


def _signs(right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A singular vector may point either way; its largest entry is made positive."""
    largest = np.abs(right).argmax(1)
    return np.sign(right[np.arange(len(right)), largest])
