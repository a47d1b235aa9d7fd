"""Vectors from any server that speaks the OpenAI form of embeddings: hosted, vLLM, llama.cpp, Ollama and others.

Texts go in batches, several at once. A server that is busy or broken for a moment is asked again with growing pauses;
what it answers is checked before it is believed. The key is read from the environment and never written anywhere.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from palate.core import store
from palate.core.config import Config, configure
from palate.core.errors import EndpointError, MissingExtraError
from palate.core.protocols import FloatArray

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers that may be better a moment later."""
LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer pause is asked again after this one."""


_CHANCE = random.Random()
"""Of the pauses alone: results never depend on it, and the process's own state stays as it is."""


class EndpointConfig(Config):
    model: str = Field("text-embedding-3-small", min_length=1)
    """As the server names it. What the weights behind a name are, only the server knows."""
    url: str = Field("https://api.openai.com/v1", pattern=r"^https?://")
    """The server, with the version that ends its path."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; a server of one's own needs none."""
    dimensions: int | None = Field(None, ge=1)
    """Ask for shorter vectors, where the model can."""
    prefix: str = ""
    """Written before every text, as some models want."""
    normalise: bool = True
    batch_size: int = Field(64, ge=1)
    parallel: int = Field(4, ge=1)
    """Batches asked for at once."""
    tries: int = Field(6, ge=1)
    wait_seconds: float = Field(1.0, ge=0)
    """Before the second try; doubled each time, and more where the server asks for it."""
    timeout_seconds: float = Field(60.0, gt=0)


class Endpoint:
    """The encoder."""

    config_type = EndpointConfig
    pretrained: Literal["encoder"] = "encoder"

    def __init__(self, config: EndpointConfig | None = None) -> None:
        self.config = config or EndpointConfig()
        self._server: Any = None

    @property
    def version(self) -> str:
        config = self.config
        says = {"url": config.url.rstrip("/"), "model": config.model, "dimensions": config.dimensions,
                "prefix": config.prefix, "normalise": config.normalise}  # fmt: skip
        return f"endpoint/1 {says}"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """``[n, D]``. Raises ``EndpointError`` in one sentence when the server cannot be reached or refuses."""
        server, size = self._connected(), self.config.batch_size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        with ThreadPoolExecutor(self.config.parallel) as pool:
            asked = [pool.submit(self._ask, server, batch) for batch in batches]
            try:
                parts = [answer.result() for answer in asked]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise EndpointError(f"{self._where} gave vectors of different widths: {sorted(widths)}")
        vectors = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        if self.config.normalise:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(configure(cls.config_type, store.open_folder(folder).config))

    @property
    def _where(self) -> str:
        return f"{self.config.url} ({self.config.model})"

    def _connected(self) -> Any:
        if self._server is None:
            try:
                from openai import OpenAI
            except ImportError:
                raise MissingExtraError.needing("asking an embedding endpoint", "llm") from None
            # The library's own repetitions are off: one place decides how patient we are.
            self._server = OpenAI(
                base_url=self.config.url,
                api_key=os.environ.get(self.config.key_variable) or "none",
                timeout=self.config.timeout_seconds,
                max_retries=0,
            )
        return self._server

    def _ask(self, server: Any, texts: Sequence[str]) -> FloatArray:
        """One batch, asked until it is answered well or the tries are used up."""
        import openai

        problem = ""
        for attempt in range(self.config.tries):
            wait = self.config.wait_seconds * 2**attempt
            try:
                return self._read(self._call(server, texts), len(texts))
            except openai.APIStatusError as failure:
                problem = f"answered {failure.status_code}: {_first_line(failure)}"
                if failure.status_code not in PASSING:
                    raise EndpointError(f"{self._where} {problem}{self._hint(failure.status_code)}") from None
                wait = max(wait, _asked_pause(failure))
            except (openai.APIConnectionError, openai.APIResponseValidationError) as failure:
                problem = f"cannot be reached or understood: {_first_line(failure)}"
            except ValueError as failure:
                problem = f"gave a wrong answer: {failure}"
            if attempt + 1 < self.config.tries:
                # Batches that failed together are not asked for together again.
                time.sleep(min(wait, LONGEST_WAIT) * (1 + _CHANCE.random() / 4))
        raise EndpointError(f"{self._where} {problem}, after {self.config.tries} tries; vectors that came are kept")

    def _call(self, server: Any, texts: Sequence[str]) -> Any:
        more = {} if self.config.dimensions is None else {"dimensions": self.config.dimensions}
        given = [self.config.prefix + text for text in texts]
        return server.embeddings.create(input=given, model=self.config.model, encoding_format="float", **more)

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

    def _hint(self, status: int) -> str:
        return f"; set the environment variable {self.config.key_variable}" if status in (401, 403) else ""


def _first_line(failure: Exception) -> str:
    # The library says "Connection error." and keeps what happened as the cause.
    cause = failure.__cause__ or failure
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]


def _asked_pause(failure: Any) -> float:
    """Seconds that the server asks to wait."""
    try:
        return max(0.0, float(failure.response.headers.get("retry-after", 0)))
    except ValueError:  # a date
        return 0.0
