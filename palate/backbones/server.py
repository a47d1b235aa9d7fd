"""A server that speaks the OpenAI form: hosted, vLLM, llama.cpp, Ollama and others. What all questions to one share.

A server that is busy or broken for a moment is asked again with growing pauses; what it answers is checked before it
is believed. The key is read from the environment and never written anywhere. This is the one file that knows the
``openai`` library's client and its errors.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import Field

from palate.backbones.pace import Pace
from palate.core.chat import NOTHING_USED, Usage
from palate.core.config import Config
from palate.core.errors import EndpointError, FormError, MissingExtraError, RefusedError

PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers that may be better a moment later."""
GIVEN_UP = (408, 502, 504)
"""Of these, somebody on the way gave up, and the model may have gone on."""
NOT_TAKEN, NO_KEY = (400, 413, 422), (401, 403)
BROKEN_CALL = "tool call"
"""Stands in a 500 of a server that cannot read the call which its model wrote (Ollama: "error parsing tool call"). The
same question in the same form would be answered alike."""
NEVER_REACHED = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Causes of a failed connection after which nothing can be owed."""
LONGEST_WAIT = 60.0
"""Seconds. A server that asks for a longer pause is asked again after this one."""

_CHANCE = random.Random()
"""Of the pauses alone: results never depend on it, and the process's own state stays as it is."""

T = TypeVar("T")


class ServerConfig(Config):
    """Settings of everything that is asked over HTTP."""

    model: str = Field(min_length=1)
    """As the server names it. What the weights behind a name are, only the server knows."""
    url: str = Field("https://api.openai.com/v1", pattern=r"^https?://")
    """The server, with the version that ends its path."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; a server of one's own needs none."""
    parallel: int = Field(4, ge=1)
    """Requests under way at once."""
    per_minute: float | None = Field(None, gt=0)
    """Requests that may begin in a minute."""
    tries: int = Field(6, ge=1)
    wait_seconds: float = Field(1.0, ge=0)
    """Before the second try; doubled each time, and more where the server asks for it."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Of silence: a server that says nothing for so long is asked again."""


@dataclass(frozen=True)
class Answered(Generic[T]):
    """What was read from a server. ``lost`` is what earlier attempts may have cost at most."""

    value: T
    tries: int
    lost: Usage
    seconds: float


class Server:
    """Asks one server. Threads share it."""

    def __init__(self, config: ServerConfig, what: str, kept: str) -> None:
        """``what`` is asked for, such as an embedding endpoint; ``kept`` closes the sentence of a final failure."""
        self.config, self._what, self._kept = config, what, kept
        self._pace = Pace(config.per_minute, config.parallel)
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def where(self) -> str:
        return f"{self.config.url} ({self.config.model})"

    def ask(
        self, call: Callable[[Any], Any], read: Callable[[Any], T], *, each: Usage = NOTHING_USED, formed: bool = False,
        calling: bool = False,
    ) -> Answered[T]:  # fmt: skip
        """``read(call(client))``, until it is read well or the tries are used up; ``read`` raises ``ValueError`` where
        the answer is wrong. ``each`` is the most that one attempt can cost.

        Raises ``EndpointError``; one that is about this question alone is a ``RefusedError``. A refusal of what is
        ``formed``, that is asked with tools or a schema, is a ``FormError``, and so is a 500 without end to a question
        ``calling`` for tools: some servers answer that where the model wrote a broken call, or where they take none.
        """
        client = self._connected()
        began, lost = time.monotonic(), 0
        for attempt in range(1, self.config.tries + 1):
            try:
                with self._pace.turn():
                    found = read(call(client))
                return Answered(found, attempt, each.times(lost), time.monotonic() - began)
            except Exception as failure:
                trouble = trouble_of(failure)
            broken_call = calling and trouble.status == 500 and BROKEN_CALL in trouble.said.lower()
            lost += trouble.costs or broken_call
            if (formed and trouble.status in NOT_TAKEN) or broken_call:
                raise FormError(f"{self.where} {trouble.said}", lost=each.times(lost))
            if trouble.status in NOT_TAKEN:
                raise RefusedError(f"{self.where} {trouble.said}", lost=each.times(lost))
            if not trouble.passing:
                hint = f"; set the environment variable {self.config.key_variable}" if trouble.status in NO_KEY else ""
                raise EndpointError(f"{self.where} {trouble.said}{hint}", lost=each.times(lost))
            self._pace.hold(min(trouble.pause, LONGEST_WAIT))
            if attempt < self.config.tries:
                wait = max(self.config.wait_seconds * 2 ** (attempt - 1), trouble.pause)
                # Those that failed together are not asked for together again.
                time.sleep(min(wait, LONGEST_WAIT) * (1 + _CHANCE.random() / 4))
        kind = FormError if calling and trouble.status == 500 else EndpointError
        raise kind(f"{self.where} {trouble.said}, after {self.config.tries} tries; {self._kept}", lost=each.times(lost))

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                try:
                    from openai import OpenAI
                except ImportError:
                    raise MissingExtraError.needing(f"asking {self._what}", "llm") from None
                # The library's own repetitions are off: one place decides how patient we are.
                self._client = OpenAI(
                    base_url=self.config.url,
                    api_key=os.environ.get(self.config.key_variable) or "none",
                    timeout=self.config.timeout_seconds,
                    max_retries=0,
                )
            return self._client


@dataclass(frozen=True)
class Trouble:
    """Why an attempt failed.

    passing  it may be better a moment later
    costs    the model may have worked on it, although nothing whole came back
    pause    seconds that the server asks to wait
    """

    said: str
    passing: bool
    costs: bool
    status: int = 0
    pause: float = 0.0


def trouble_of(failure: Exception) -> Trouble:
    """What a failure of the library, or of reading its answer, means. Anything else is a bug and raised again."""
    import openai

    if isinstance(failure, openai.APIStatusError):
        status = failure.status_code
        said = f"answered {status}: {_first_line(failure)}"
        return Trouble(said, status in PASSING, status in GIVEN_UP, status, _asked_pause(failure))
    if isinstance(failure, openai.APIResponseValidationError | ValueError):
        return Trouble(f"gave a wrong answer: {_first_line(failure)}", True, True)
    if isinstance(failure, openai.APIConnectionError):
        reached = type(failure.__cause__).__name__ not in NEVER_REACHED
        return Trouble(f"cannot be reached or understood: {_first_line(failure)}", True, reached)
    raise failure


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
