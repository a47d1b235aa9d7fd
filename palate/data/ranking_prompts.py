"""How a question about candidates reads, and how what comes back is read: a history, labelled candidates, a ranking.

Answers are read strictly: an entry is a label, or a title that is letter for letter one of those offered (signs, case
and a year in brackets aside). What names nothing that was offered is counted and never ranked; reasoning before the
line ``Ranking:`` is kept apart and never read for the answer. ``VERSION`` stands in every report. Shapes: C candidates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

VERSION = "ranking/1"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Labels = Literal["letters", "numbers"]
Ask = Literal["one", "ranking", "thinking"]

HISTORY = "A person chose these, oldest first:"
CANDIDATES = "Which of these would this person choose next?"
ASKS: dict[Ask, str] = {
    "one": "Answer with one {label} and nothing else.",
    "ranking": (
        "Rank all of them, the likeliest choice first. Answer with one line and nothing else: 'Ranking: ' and then "
        "their {label}s, separated by commas."
    ),
    "thinking": (
        "Think first, in at most five lines that each begin with 'Step': what this person likes, and which candidates "
        "have it. Then rank all of them, the likeliest choice first, as the last line: 'Ranking: ' and then their "
        "{label}s, separated by commas."
    ),
}
STRICTER = "Your answer held no ranking. Write only one line: 'Ranking: ' and then the {label}s, such as {example}."
ANSWER = "Answer:"
"""What the chosen one follows, in solved examples and where one is asked for."""
LONGEST = 20_000
"""Characters of an answer that are looked at."""


def labels_of(kind: Labels, n: int) -> list[str]:
    """``A``, ``B`` … (at most 26), or ``1``, ``2`` …"""
    return list(LETTERS[:n]) if kind == "letters" else [str(place) for place in range(1, n + 1)]


def told(history: Sequence[str], offered: Sequence[str], kind: Labels) -> str:
    """A history and the candidates as they are shown; each is one line, whatever its text holds."""
    lines = [HISTORY, *(f"- {_one_line(text)}" for text in history), CANDIDATES]
    lines += [f"{label}. {_one_line(text)}" for label, text in zip(labels_of(kind, len(offered)), offered, strict=True)]
    return "\n".join(lines)


def solved(history: Sequence[str], offered: Sequence[str], chosen: int, kind: Labels) -> str:
    """An example: what was offered at place ``chosen`` is the answer."""
    return f"{told(history, offered, kind)}\n{ANSWER} {labels_of(kind, len(offered))[chosen]}"


def question(
    history: Sequence[str], offered: Sequence[str], ask: Ask, kind: Labels, examples: Sequence[str] = ()
) -> str:
    """A whole prompt: solved examples, what is known, what is asked."""
    asked = ASKS[ask].format(label=kind.removesuffix("s"))
    end = f"\n{ANSWER}" if ask == "one" else ""
    return "\n\n".join([*examples, f"{told(history, offered, kind)}\n{asked}{end}"])


def stricter(n: int, kind: Labels) -> str:
    """What is said to a model whose answer could not be read."""
    return STRICTER.format(label=kind.removesuffix("s"), example=", ".join(labels_of(kind, n)[::-1][:3]))


def _one_line(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class Answer:
    """What was read.

    order     places among the candidates as they were shown, best first, none twice
    invalid   entries that name nothing that was offered
    repeated  entries that name what stood there before
    steps     the lines of reasoning before the answer
    """

    order: tuple[int, ...] = ()
    invalid: tuple[str, ...] = ()
    repeated: int = 0
    steps: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether nothing that was offered is named."""
        return not self.order


_MARK = re.compile(r"^[\s*_#>]*(?:final\s+)?(?:ranking|answer)[\s*_]*:[\s*_]*", re.IGNORECASE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.):])\s+")
_SPLIT = re.compile(r"\s*(?:[,;|]|>+|→|->)\s*")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")


def read_answer(text: str, offered: Sequence[str], kind: Labels, *, thought: bool = False) -> Answer:
    """The ranking in what a model wrote. One that ``thought`` aloud must have marked it with ``Ranking:``; else all of
    a text without that mark is the answer."""
    lines = text[:LONGEST].splitlines()
    marked = [place for place, line in enumerate(lines) if _MARK.match(line)]
    if not marked and thought:
        return Answer(steps=_steps(lines))
    begin = marked[-1] if marked else 0
    body = [_MARK.sub("", line) if place == 0 and marked else line for place, line in enumerate(lines[begin:])]
    known = Entries(offered, kind)
    order: list[int] = []
    invalid: list[str] = []
    repeated = 0
    for number, line in enumerate(body):
        found, unknown = known.read(line)
        # Words around an answer name nothing; on its own line, or in a list, they were meant to.
        if found or (number == 0 and marked) or _BULLET.match(line):
            invalid += unknown
        for place in found:
            repeated += place in order
            if place not in order:
                order.append(place)
    return Answer(tuple(order), tuple(invalid), repeated, _steps(lines[:begin]))


def _steps(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines if line.strip())


class Entries:
    """The names of what was offered: labels and titles."""

    def __init__(self, offered: Sequence[str], kind: Labels) -> None:
        self.kind = kind
        self.labels = {label.casefold(): place for place, label in enumerate(labels_of(kind, len(offered)))}
        self.titles: dict[str, int] = {}
        for names in ([_YEAR.sub("", text) for text in offered], list(offered)):
            plain = [_plain(name) for name in names]
            self.titles |= {name: place for place, name in enumerate(plain) if name and plain.count(name) == 1}

    def read(self, line: str) -> tuple[list[int], list[str]]:
        """The places that a line names, in its order, and the entries that name nothing."""
        line = " ".join(line.split())
        bare = _BULLET.sub("", line) if self.kind == "letters" or self._remarked(line) is None else line
        words = [_plain(word) for word in bare.split()]
        if len(words) > 1 and " ".join(words) not in self.titles and all(word in self.labels for word in words):
            return [self.labels[word] for word in words], []
        whole = self._named(bare)
        if whole is not None:
            return [whole], []
        return self._listed([part for part in _SPLIT.split(bare.strip(" []\"'.")) if _plain(part)])

    def _listed(self, parts: Sequence[str]) -> tuple[list[int], list[str]]:
        found: list[int] = []
        unknown: list[str] = []
        start = 0
        while start < len(parts):
            # A title may hold commas itself: the longest run of parts that is a name counts.
            for stop in range(min(start + 4, len(parts)), start, -1):
                entry = ", ".join(parts[start:stop])
                place = self._named(entry) if stop > start + 1 else self._remarked(entry)
                if place is not None:
                    found.append(place)
                    break
            else:
                stop = start + 1
                unknown.append(parts[start])
            start = stop
        return found, unknown

    def _named(self, entry: str) -> int | None:
        """The place that a whole entry names: ``B``, ``(B)``, ``Title``, ``B. Title``. Where a label stands before the
        title of another candidate, the title counts."""
        plain = _plain(entry)
        found = self.labels.get(plain, self.titles.get(plain))
        if found is not None:
            return found
        label, sign, rest = _parted(entry)
        return self.titles.get(_plain(rest)) if sign and label.casefold() in self.labels else None

    def _remarked(self, entry: str) -> int | None:
        """The same, where a label may stand before other words, which may be a remark."""
        found = self._named(entry)
        if found is not None:
            return found
        label, sign, _ = _parted(entry)
        return self.labels.get(label.casefold()) if sign else None


def _parted(entry: str) -> tuple[str, str, str]:
    """``(B) a title`` or ``B (a remark)`` → label, the sign after it, the rest; no sign where there is none."""
    found = re.match(r"\W*(\w{1,3})\s*([.():\]=-]+)\s*(.*)", entry)
    return (found[1], found[2], found[3]) if found else ("", "", "")


def _plain(text: str) -> str:
    """Letters and digits in lower case, single spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))
