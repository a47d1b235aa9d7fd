"""Prompts whose pieces may be said in other words: what a piece must hold, and the words that it has now.

A wording is a mapping from pieces to sentences; a piece that it does not name reads as in the prompts' version. What a
person or a chat model proposes is checked here before any model reads it: a sentence without the scale, the labels or
the line that the answer stands on would be a prompt whose answers nobody can read.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from palate.core.errors import ConfigError, nearest

Wording = Mapping[str, str]
"""Piece → sentence."""

Style = Literal["instruction", "conventional"]
"""How a prompt is put where no wording is given: as an instruction, or as a page that ends where the answer stands."""
LONGEST = 400
"""Characters of a sentence."""


@dataclass(frozen=True)
class Piece:
    """One piece of a prompt.

    name      by which a wording names it
    about     what it is for, told to whoever proposes another sentence
    variants  sentences for it; the first is that of the prompts' version
    needs     what every sentence must hold, letter for letter
    fields    names that are filled in, as ``{low}``; no other braces may stand there
    before    what stands before the sentence in the prompt, ``after`` behind it; nobody may change them
    silent    whether nothing may be said at all
    """

    name: str
    about: str
    variants: tuple[str, ...]
    needs: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    silent: bool = False

    def whole(self, wording: Wording) -> str:
        """The piece as it stands in a prompt, fields not yet filled in."""
        sentence = wording.get(self.name, self.variants[0])
        return f"{self.before}{sentence}{self.after}" if sentence else self.after

    def fault(self, sentence: str) -> str:
        """Why this cannot be said for it, in words; "" where it can."""
        if not sentence.strip():
            return "" if self.silent and not sentence else "it says nothing"
        if len(sentence) > LONGEST:
            return f"it is longer than {LONGEST} characters"
        if not sentence.isprintable():
            return "it holds a line end or another sign that is none of a sentence"
        try:
            found = {(field, form, how) for _, field, form, how in string.Formatter().parse(sentence)}
        except ValueError:
            return "its braces do not match"
        fields = {field for field, _, _ in found if field is not None}
        if fields - set(self.fields) or any(form or how for _, form, how in found):
            known = ", ".join(f"{{{field}}}" for field in self.fields) or "none"
            return f"it holds other braces than those that are filled in ({known})"
        missing = [need for need in self.needs if need not in sentence]
        return f"it lacks {missing[0]!r}" if missing else ""


def check(wording: Wording, pieces: Iterable[Piece]) -> None:
    """Raise ``ConfigError`` where a wording names no piece, or says what a piece cannot be."""
    known = {piece.name: piece for piece in pieces}
    for name, sentence in wording.items():
        if name not in known:
            raise ConfigError(f"a prompt has no piece '{name}'{nearest(name, sorted(known))}")
        fault = known[name].fault(sentence)
        if fault:
            raise ConfigError(f"the prompt's piece '{name}' cannot read {sentence[:60]!r}: {fault}")


def hash_of(version: str, texts: Iterable[str]) -> str:
    """Of a wording: equal exactly when version and texts are."""
    return hashlib.blake2b("\0".join([version, *texts]).encode(), digest_size=6).hexdigest()
