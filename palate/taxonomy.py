"""The survey's words for systems and recipes: how items are represented, by what paradigm one learns.

Zhao et al., "Recommender Systems in the Era of Large Language Models", TKDE 2024 (arXiv 2307.02046). A system has as
many tags as it can be run in ways; its row in ``systems.TABLE`` holds them beside words of its own. A recipe has those
of the one way that it runs. ``prompting`` asks for ``prompting/zero-shot`` and all others of its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from palate.core.errors import ConfigError, nearest

REPRESENTATION = {
    "id": "items are ids, or codes learnt for them",
    "text": "items are what is written about them",
    "hybrid": "vectors of behaviour and of text are brought together",
}
PARADIGM = {
    "pre-training/masked": "all weights, by filling in what is hidden of texts or of behaviour",
    "pre-training/next-token": "all weights, by saying what comes next in texts or in behaviour",
    "fine-tuning/full": "all weights of a language model, for the task",
    "fine-tuning/lora": "adapters in a frozen language model, for the task",
    "prompt-tuning/hard": "the words of a prompt, searched and scored on training questions",
    "prompt-tuning/soft": "vectors before what a frozen language model reads, for the task",
    "instruction-tuning/full": "all weights, on many tasks put as instructions",
    "instruction-tuning/lora": "adapters, on many tasks put as instructions",
    "prompting/conventional": "nothing: the question is put as a text that language models know, which goes on",
    "prompting/zero-shot": "nothing: a language model is asked",
    "prompting/few-shot": "nothing: solved examples stand before the question",
    "prompting/chain-of-thought": "nothing: the model reasons before it answers",
}
"""Tag → what is learnt, and by what."""


class Tagged(Protocol):
    @property
    def tags(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=Tagged)


def has(tags: Iterable[str], asked: str) -> bool:
    """Whether ``asked``, or a tag of its kind, is among them."""
    return any(tag == asked or tag.startswith(f"{asked}/") for tag in tags)


def tagged(rows: Sequence[T], asked: Sequence[str]) -> list[T]:
    """Those with all the tags ``asked``. Raises ``ConfigError`` for one that none of them has and the survey lacks."""
    known = {*REPRESENTATION, *PARADIGM, *(tag for row in rows for tag in row.tags)}
    known |= {tag.partition("/")[0] for tag in known}
    for tag in asked:
        if tag not in known:
            raise ConfigError(f"there is no tag '{tag}'{nearest(tag, sorted(known))}")
    return [row for row in rows if all(has(row.tags, tag) for tag in asked)]
