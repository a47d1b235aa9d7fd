"""For or against, by rules alone: how a sentence begins, and its words of praise and blame.

It stands in for the classifier of two feelings that Mender (Paischer et al. 2025, arXiv 2412.08604) asks about reviews
and preferences. A sentence that begins with a word of refusal (avoid, no, exclude …) is against something, one that
begins with a word of search is for it; of any other, and of a review, words of feeling decide, and none is for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from palate.annotation.key_phrases import feeling
from palate.core import store
from palate.core.config import Config

REFUSALS = frozenset({"avoid", "no", "exclude", "without", "skip", "not", "never", "don't", "dislikes", "hates"})
SEARCHES = frozenset({"find", "search", "look", "show", "more", "seek", "want", "wants", "likes", "enjoys", "include"})
_FIRST = re.compile(r"[^\W\d_][\w'’]*")


class LexiconConfig(Config):
    pass


class Lexicon:
    """The sentiment that needs no model."""

    config_type = LexiconConfig

    def __init__(self, config: LexiconConfig | None = None) -> None:
        self.config = config or LexiconConfig()

    def positive(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """``[n]`` False where the text is against something."""
        return np.array([_for_it(text) for text in texts], dtype=bool)

    def save(self, folder: Path) -> None:
        store.save(folder, self, config=self.config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return store.open_folder(folder).begun(cls)


def _for_it(text: str) -> bool:
    first = _FIRST.search(text)
    word = first[0].replace("’", "'").lower() if first else ""
    if word in REFUSALS or word in SEARCHES:
        return word in SEARCHES
    return feeling(text) >= 0
