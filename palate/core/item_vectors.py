"""Item vectors of a model that learns: each belongs to one text and to one state of the weights, and says so.

``version`` names everything that vectors follow from beside the text: weights, text tokenizer, prefix, lengths,
pooling. A row's key is the hash of its text. A changed text means one row to encode again, a changed version all of
them; vectors of two versions are never mixed. Saved beside the system that reads them, as one folder with it.
Shapes: N items, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from palate.core import store
from palate.core.errors import DataError, StoreError
from palate.core.protocols import FloatArray

Keys = npt.NDArray[np.bytes_]
"""``[n]`` of 16 bytes: the hash of each text."""

Encode = Callable[[npt.NDArray[np.integer]], FloatArray]
"""Item rows ``[n]`` → vectors ``[n, D]``."""


def keys_of(texts: Sequence[str]) -> Keys:
    """``[n]`` the key of each text."""
    hashes = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
    return np.frombuffer(b"".join(hashes), dtype="S16")


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """keys ``[N]``, vectors ``[N, D]`` float32, live ``[N]``: False for an item that was retired."""

    version: str
    keys: Keys
    vectors: FloatArray
    live: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, version: str, keys: Keys, encode: Encode) -> Self:
        """All texts encoded; ``keys`` are theirs."""
        return cls(version, keys, _checked(encode(np.arange(len(keys))), len(keys)), np.ones(len(keys), dtype=bool))

    def __len__(self) -> int:
        return len(self.keys)

    def stale(self, version: str, keys: Keys) -> npt.NDArray[np.intp]:
        """Rows that must be encoded: all where the version differs, else those whose text is new or changed."""
        if version != self.version:
            return np.arange(len(keys))
        known = np.zeros(len(keys), dtype=bool)
        both = min(len(keys), len(self.keys))
        known[:both] = keys[:both] == self.keys[:both]
        return np.flatnonzero(~known)

    def refreshed(self, version: str, keys: Keys, encode: Encode) -> ItemVectors:
        """The vectors of texts with these ``keys``, whose first rows are the items known so far; only ``stale`` ones
        are encoded."""
        if len(keys) < len(self):
            raise DataError(f"a catalogue of {len(keys)} items cannot follow one of {len(self)}: items are retired")
        rows = self.stale(version, keys)
        vectors = np.zeros((len(keys), self.vectors.shape[1]), dtype=np.float32)
        vectors[: len(self)] = self.vectors
        if len(rows):
            vectors[rows] = _checked(encode(rows), len(rows))
        live = np.ones(len(keys), dtype=bool)
        live[: len(self)] = self.live
        return ItemVectors(version, keys, vectors, live)

    def retired(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> ItemVectors:
        """The same without these items, or with them ``back``."""
        rows = np.asarray(item_rows)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise DataError(f"only item rows from 0 to {len(self) - 1} can be retired")
        live = self.live.copy()
        live[rows] = back
        return replace(self, live=live)

    @cached_property
    def fingerprint(self) -> str:
        """Of the version, the texts, and which items are live: the same vectors may be answered, or others."""
        parts = (self.version.encode(), self.keys.tobytes(), self.live.tobytes())
        return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()

    def require(self, version: str) -> None:
        """Raises ``StoreError`` when these vectors were made by another model than the one that is to read them."""
        if version != self.version:
            raise StoreError(
                "these item vectors were made by other weights than the model that reads them; encode the items anew"
            )

    def save(self, folder: Path) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {
            "keys": self.keys.view(np.uint8).reshape(-1, 16),
            "vectors": self.vectors,
            "live": self.live,
        }
        store.save(folder, self, arrays=arrays, facts={"version": self.version})

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        arrays = stored.arrays()
        keys = np.ascontiguousarray(arrays["keys"]).view("S16").ravel()
        return cls(stored.facts["version"], keys, arrays["vectors"], arrays["live"])


def _checked(vectors: FloatArray, n: int) -> FloatArray:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != n:
        raise DataError(f"the encoder gave {vectors.shape} for {n} items, not a vector an item")
    if not np.isfinite(vectors).all():
        raise DataError("the encoder gave a vector that is not a number")
    return vectors
