"""Vectors from any server that speaks the OpenAI form of embeddings: hosted, vLLM, llama.cpp, Ollama and others.

Texts go in batches, several at once, with the patience of ``backbones.server``.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from palate.backbones.server import Server, ServerConfig
from palate.core import store
from palate.core.errors import EndpointError
from palate.core.protocols import FloatArray


class EndpointConfig(ServerConfig):
    model: str = Field("text-embedding-3-small", min_length=1)
    dimensions: int | None = Field(None, ge=1)
    """Ask for shorter vectors, where the model can."""
    prefix: str = ""
    """Written before every text, as some models want."""
    normalise: bool = True
    batch_size: int = Field(64, ge=1)
    """Texts of one request."""


class Endpoint:
    """The encoder."""

    config_type = EndpointConfig
    pretrained: Literal["encoder"] = "encoder"

    def __init__(self, config: EndpointConfig | None = None) -> None:
        self.config = config or EndpointConfig()
        self._server = Server(self.config, "an embedding endpoint", "vectors that came are kept")

    @property
    def version(self) -> str:
        config = self.config
        says = {"url": config.url.rstrip("/"), "model": config.model, "dimensions": config.dimensions,
                "prefix": config.prefix, "normalise": config.normalise}  # fmt: skip
        return f"endpoint/1 {says}"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """``[n, D]``. Raises ``EndpointError`` in one sentence when the server cannot be reached or refuses."""
        size = self.config.batch_size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(self.config.parallel) as pool:
            asked = [pool.submit(self._ask, batch) for batch in batches]
            try:
                parts = [answer.result() for answer in asked]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise EndpointError(f"{self._server.where} gave vectors of different widths: {sorted(widths)}")
        vectors = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        if self.config.normalise:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)

    def _ask(self, texts: Sequence[str]) -> FloatArray:
        more = {} if self.config.dimensions is None else {"dimensions": self.config.dimensions}
        given = [self.config.prefix + text for text in texts]
        return self._server.ask(
            lambda client: client.embeddings.create(
                input=given, model=self.config.model, encoding_format="float", **more
            ),
            lambda answer: self._read(answer, len(texts)),
        ).value

    def _read(self, answer: Any, n: int) -> FloatArray:
        """``[n, D]`` in the order asked. Raises ``ValueError`` when the answer is not that."""
        rows = getattr(answer, "data", None)
        if not isinstance(rows, list) or len(rows) != n:
            raise ValueError(f"{len(rows) if isinstance(rows, list) else 'no'} vectors for {n} texts")
        if sorted(row.index for row in rows) != list(range(n)):
            raise ValueError("its vectors are not numbered from 0 on")
        rows = sorted(rows, key=lambda row: row.index)
        if any(not isinstance(row.embedding, list) for row in rows) or len({len(row.embedding) for row in rows}) > 1:
            raise ValueError("its vectors are not lists of one length")
        vectors = np.array([row.embedding for row in rows], dtype=np.float32)
        if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
            raise ValueError("its vectors are empty or not numbers")
        return vectors
