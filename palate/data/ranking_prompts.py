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

from palate.data.thinking import LONGEST, mark_of, steps_of
from palate.data.wordings import Piece, Style, Wording, hash_of

VERSION = "ranking/1"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Labels = Literal["letters", "numbers"]
Ask = Literal["one", "ranking", "thinking"]

LABEL = ("label",)
HISTORY = Piece(
    "history",
    "the heading of a list of what a person chose before, the newest last",
    (
        "A person chose these, oldest first:",
        "One person's choices so far, the latest at the end:",
        "See what this person likes:",
    ),
)
CANDIDATES = Piece(
    "candidates",
    "the question which of the candidates, listed on the next lines, the person chooses next",
    (
        "Which of these would this person choose next?",
        "One of these came next. Which?",
        "Compare each of these with what was chosen, above all lately. Which comes next?",
    ),
)
ASKS: dict[Ask, Piece] = {
    "one": Piece(
        "one",
        "the demand for one label of a candidate and nothing else",
        (
            "Answer with one {label} and nothing else.",
            "Judge by this person's taste, not by fame, and write only its {label}.",
            "The {label} of the likeliest choice is:",
        ),
        needs=("{label}",), fields=LABEL,
    ),
    "ranking": Piece(
        "ranking",
        "the demand to rank all candidates on one line that begins with 'Ranking: '",
        (
            "Rank all of them, the likeliest choice first. Answer with one line and nothing else: 'Ranking: ' and then "
            "their {label}s, separated by commas.",
            "Judge by this person's taste, not by fame. Write only 'Ranking: ' and the {label}s of all of them, "
            "separated by commas, the likeliest choice first.",
            "Put them in the order in which this person would choose them. Answer with nothing but 'Ranking: ' and "
            "their {label}s, separated by commas.",
        ),
        needs=("'Ranking: '", "{label}"), fields=LABEL,
    ),
    "thinking": Piece(
        "thinking",
        "the demand to think in lines that begin with 'Step' and then to rank on a last line, after 'Ranking: '",
        (
            "Think first, in at most five lines that each begin with 'Step': what this person likes, and which "
            "candidates have it. Then rank all of them, the likeliest choice first, as the last line: 'Ranking: ' and "
            "then their {label}s, separated by commas.",
            "Write up to five lines that each begin with 'Step': first what the latest choices have in common, then "
            "how near each candidate comes. End with one line: 'Ranking: ' and the {label}s of all of them, separated "
            "by commas, the likeliest choice first.",
        ),
        needs=("'Step'", "'Ranking: '", "{label}"), fields=LABEL,
    ),
}  # fmt: skip
PIECES = (HISTORY, CANDIDATES, *ASKS.values())
"""What may be said in other words."""


def pieces_before(ask: Ask) -> tuple[Piece, ...]:
    """What may be said in other words of a prompt that ends with what ``ask`` asks."""
    return HISTORY, CANDIDATES, ASKS[ask]


STYLES: dict[Style, Wording] = {
    "instruction": {},
    "conventional": {
        "history": "Passage: these were chosen by one person, one after another.",
        "candidates": "Question: what was chosen after them? Options:",
        "one": "Write the {label} of the right option.",
        "ranking": "Write 'Ranking: ' and the {label}s of the options, the right one first, separated by commas.",
    },
}
"""A person is asked about, or a task that language models know from their pre-training: a passage and a question with
options."""
STRICTER = "Your answer held no ranking. Write only one line: 'Ranking: ' and then the {label}s, such as {example}."
ANSWER = "Answer:"
"""What the chosen one follows, in solved examples and where one is asked for."""
PLAIN: Wording = {}
"""The words of the prompts' version."""


def labels_of(kind: Labels, n: int) -> list[str]:
    """``A``, ``B`` … (at most 26), or ``1``, ``2`` …"""
    return list(LETTERS[:n]) if kind == "letters" else [str(place) for place in range(1, n + 1)]


def told(history: Sequence[str], offered: Sequence[str], kind: Labels, wording: Wording) -> str:
    """A history and the candidates as they are shown; each is one line, whatever its text holds."""
    lines = [HISTORY.whole(wording), *(f"- {_one_line(text)}" for text in history), CANDIDATES.whole(wording)]
    lines += [f"{label}. {_one_line(text)}" for label, text in zip(labels_of(kind, len(offered)), offered, strict=True)]
    return "\n".join(lines)


def solved(history: Sequence[str], offered: Sequence[str], chosen: int, kind: Labels, wording: Wording = PLAIN) -> str:
    """An example: what was offered at place ``chosen`` is the answer."""
    return f"{told(history, offered, kind, wording)}\n{ANSWER} {labels_of(kind, len(offered))[chosen]}"


def question(
    history: Sequence[str],
    offered: Sequence[str],
    ask: Ask,
    kind: Labels,
    examples: Sequence[str] = (),
    wording: Wording = PLAIN,
) -> str:
    """A whole prompt: solved examples, what is known, what is asked."""
    asked = ASKS[ask].whole(wording).format(label=kind.removesuffix("s"))
    end = f"\n{ANSWER}" if ask == "one" else ""
    return "\n\n".join([*examples, f"{told(history, offered, kind, wording)}\n{asked}{end}"])


def version_of(wording: Wording) -> str:
    """What a report says of the prompt: its version, and the hash of its words."""
    return f"{VERSION} {hash_of(VERSION, [*(piece.whole(wording) for piece in PIECES), STRICTER, ANSWER])}"


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


_MARK = mark_of("ranking", "answer")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.):])\s+")
_SPLIT = re.compile(r"\s*(?:[,;|]|>+|→|->)\s*")
_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")


def read_answer(text: str, offered: Sequence[str], kind: Labels, *, thought: bool = False) -> Answer:
    """The ranking in what a model wrote. One that ``thought`` aloud must have marked it with ``Ranking:``; else all of
    a text without that mark is the answer."""
    lines = text[:LONGEST].splitlines()
    marked = [place for place, line in enumerate(lines) if _MARK.match(line)]
    if not marked and thought:
        return Answer(steps=steps_of(lines))
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
    return Answer(tuple(order), tuple(invalid), repeated, steps_of(lines[:begin]))


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
