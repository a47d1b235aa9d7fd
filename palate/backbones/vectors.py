"""Item vectors, each text encoded once: rows are kept on disk under the hash of the text they were made from.

A store is a folder named by the hash of encoder version and template. A row's key is the hash of its rendered text, so
a changed text is a new row, a new item is a new row, and data sets that share texts share rows. Rows are written in
blocks as they are encoded, each block a file that appears whole under its name: a killed process keeps the blocks it
finished, and several processes may write at once. Vectors stay float32, so what comes back is what was encoded.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from palate.backbones.cache import cache, digest
from palate.backbones.item_text import ItemText
from palate.core.dataset import Dataset
from palate.core.errors import DataError, StoreError
from palate.core.item_vectors import Keys, keys_of
from palate.core.protocols import Encoder, FitsTexts, FloatArray
from palate.core.run import Progress, Run

SCHEMA = "palate.vectors/1"
BLOCK_ROWS = 4096
"""Texts encoded between two writes: what a kill may cost."""
FILES = 16
"""More files than this in a store are written together into one."""


@runtime_checkable
class Moves(Protocol):
    """An encoder that computes on a device."""

    def to(self, device: str) -> object:
        """Compute there from now on."""


def item_vectors(
    catalogue: Dataset,
    encoder: Encoder,
    text: ItemText | None = None,
    folder: Path | None = None,
    run: Run | None = None,
    *,
    learn: bool = False,
) -> FloatArray:
    """``[N, D]`` the vector of each item's text; only texts that the store lacks are encoded.

    An encoder that must learn words first and has not yet, or must ``learn`` them anew, does so from these texts.
    ``folder`` is where stores are kept, by default that of ``cache``; ``run`` gives device and progress. Raises
    ``DataError`` where the items have no text or the encoder gives something else than one finite vector a text.
    """
    template = text or ItemText()
    texts = template.render(catalogue)
    if isinstance(encoder, FitsTexts) and (learn or not encoder.fitted):
        encoder.fit(texts)
    return text_vectors(texts, encoder, template.key, folder, run)


def text_vectors(
    texts: Sequence[str],
    encoder: Encoder,
    template: str = "",
    folder: Path | None = None,
    run: Run | None = None,
) -> FloatArray:
    """``[n, D]`` the vector of each text, as ``item_vectors``; ``template`` says how the texts came about."""
    if not texts:
        raise DataError("there are no texts to encode")
    store = VectorStore((folder or cache("vectors")) / digest([SCHEMA, encoder.version, template]))
    keys = keys_of(texts)
    known, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    held, vectors = store.read()
    place, found = _find(known, held)
    missing = np.sort(first[~found])  # in the order of the texts: neighbours are often alike in length
    if len(missing):
        if isinstance(encoder, Moves):
            encoder.to((run or Run()).device)
        _encode(texts, keys, missing, encoder, store, vectors.shape[1] if len(held) else None, (run or Run()).progress)
        held, vectors = store.read()
        place, found = _find(known, held)
        if not found.all():
            raise StoreError(f"{store.folder} does not hold what was just written there; is the disk full?")
    return vectors[place[rows]]


class VectorStore:
    """Keys and vectors in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> tuple[Keys, FloatArray]:
        """All rows: ascending keys ``[n]`` and vectors ``[n, D]``. A damaged file counts as absent and is removed."""
        while True:
            try:
                blocks = [block for path in self._files() if (block := _read(path)) is not None]
                break
            except FileNotFoundError:  # another process wrote small files together meanwhile
                continue
        if not blocks:
            return np.zeros(0, "S16"), np.zeros((0, 0), np.float32)
        keys, first = np.unique(np.concatenate([keys for keys, _ in blocks]), return_index=True)
        return keys, np.concatenate([vectors for _, vectors in blocks])[first]

    def write(self, keys: Keys, vectors: FloatArray) -> None:
        """Add rows. They are there whole or not at all."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        arrays: dict[str, npt.NDArray[Any]] = {
            "keys": keys.view(np.uint8).reshape(-1, 16),
            "vectors": np.ascontiguousarray(vectors),
        }
        checksum = digest([arrays["keys"].tobytes(), arrays["vectors"].tobytes()])
        path = self.folder / f"{checksum}.safetensors"
        aside = self.folder / f".{path.name}-{secrets.token_hex(6)}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(arrays, aside, metadata={"schema": SCHEMA, "checksum": checksum})
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(aside, path)
        except (OSError, SafetensorError) as failure:
            raise StoreError(
                f"cannot write {path}: {failure}; the vectors that were kept before are there"
            ) from failure
        finally:
            with suppress(OSError):
                aside.unlink()

    def tidy(self) -> None:
        """Many small files become one; a reader who meets a file that is gone looks again."""
        paths = self._files()
        if len(paths) <= FILES:
            return
        keys, vectors = self.read()
        self.write(keys, vectors)
        whole = digest([keys.view(np.uint8).tobytes(), vectors.tobytes()])
        for path in paths:
            if path.stem != whole:
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget every row."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.safetensors") if not path.name.startswith("."))


def _encode(
    texts: Sequence[str], keys: Keys, missing: npt.NDArray[np.intp], encoder: Encoder, store: VectorStore,
    width: int | None, progress: Progress,
) -> None:  # fmt: skip
    """Encode the texts at these places, block by block; the rows of one store have one ``width``."""
    progress.start("encoding texts", len(missing))
    try:
        for start in range(0, len(missing), BLOCK_ROWS):
            places = missing[start : start + BLOCK_ROWS]
            vectors = np.asarray(encoder.encode([texts[place] for place in places]), dtype=np.float32)
            if vectors.ndim != 2 or len(vectors) != len(places):
                raise DataError(f"the encoder gave {vectors.shape} for {len(places)} texts, not a vector a text")
            if width is not None and vectors.shape[1] != width:
                raise DataError(
                    f"the encoder's vectors were {width} wide and are {vectors.shape[1]} now, under the same version "
                    f"{encoder.version!r}: it is another model; delete {store.folder} to encode anew"
                )
            width = vectors.shape[1]
            wrong = ~np.isfinite(vectors).all(1)
            if wrong.any():
                text = texts[int(places[int(np.flatnonzero(wrong)[0])])]
                raise DataError(f"the encoder gave a vector that is not a number for the text {text[:60]!r}")
            store.write(keys[places], vectors)
            progress.advance(len(places))
        store.tidy()
    finally:
        progress.finish()


def _find(asked: Keys, held: Keys) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where each asked key stands among the ascending ``held``, and whether it does."""
    if not len(held):
        return np.zeros(len(asked), np.intp), np.zeros(len(asked), bool)
    place = np.minimum(np.searchsorted(held, asked), len(held) - 1)
    return place, held[place] == asked


def _read(path: Path) -> tuple[Keys, FloatArray] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            header = stored.metadata() or {}
            keys, vectors = stored.get_tensor("keys"), stored.get_tensor("vectors")
    except FileNotFoundError:
        raise
    except SafetensorError:  # damaged: what it held is encoded again. Anything else may pass and must lose nothing
        path.unlink(missing_ok=True)
        return None
    if header.get("schema") != SCHEMA or header.get("checksum") != digest([keys.tobytes(), vectors.tobytes()]):
        path.unlink(missing_ok=True)
        return None
    return np.ascontiguousarray(keys).view("S16").ravel(), vectors
