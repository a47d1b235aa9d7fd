"""Hard prompt tuning: a search over the words of a prompt, scored on training questions. No gradient, no torch.

Local search piece by piece (Prasad et al. 2023, "GrIPS", arXiv 2203.07281, edit phrases in the same spirit): every
sentence of a piece is tried while all others stay, the best is kept, and after the last piece it begins anew until a
whole round improves nothing. Sentences come from the prompts' own list, and, where it is asked for, from a chat model
that is shown what was tried with its scores (Zhou et al. 2023, arXiv 2211.01910; Yang et al. 2024, arXiv 2309.03409).
A proposal that lacks what its piece needs is refused before anything is asked with it.

While it chooses, the search sees the score function and nothing else; whoever calls it scores on the train part. Only
then validation looks at two prompts, the one it began with and the one it found, and the worse one goes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import Field, model_validator

from palate.core.chat import ChatReply, ChatRequest
from palate.core.config import Config
from palate.core.run import Run
from palate.data.wordings import Piece, Wording

SEARCH_VERSION = "prompt-search/1"
"""Of what a chat model is told that proposes sentences."""
BETTER = 1e-9
"""By how much a score must be above another to count as better: rounding is no reason to change a prompt."""
PROPOSAL_TOKENS = 600
"""The longest answer of a chat model that proposes sentences."""

Score = Callable[[], float]
"""How good the answers to the prompt are in the words it has now; higher is better."""


class PromptSearchConfig(Config):
    """How the words of a prompt are searched at fit."""

    rounds: int = Field(0, ge=0, le=20)
    """How often every piece of the prompt is gone through at most; 0 keeps the prompt as it is."""
    questions: int = Field(64, ge=1)
    """Of the train part, drawn once, on which every wording is scored."""
    proposals: int = Field(0, ge=0, le=20)
    """Sentences that the chat model itself is asked for, for each piece in each round."""

    @model_validator(mode="after")
    def _searches(self) -> Self:
        if self.proposals and not self.rounds:
            raise ValueError("sentences are proposed to a search: it needs rounds of 1 or more")
        return self


@dataclass
class Searched:
    """What a search did.

    began, found   wordings, with their scores on the train part
    kept           the one of the two that stays
    tried          how many wordings were scored, the first included
    refused        proposals that could not be a piece: its name, the sentence, why
    looks          scores of ``began`` and ``found`` on validation; None where nobody looked
    ended          "" or what ended the search before its time
    """

    began: Wording
    found: Wording
    kept: Wording
    train: tuple[float, float]
    tried: int = 1
    proposed: int = 0
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    looks: tuple[float, float] | None = None
    ended: str = ""

    def facts(self, measured: str, questions: int) -> dict[str, Any]:
        """Plain values for a manifest. ``measured`` names the score, of so many ``questions``."""
        return {
            "measured": measured, "questions": questions, "tried": self.tried, "proposed": self.proposed,
            "refused": [list(one) for one in self.refused], "ended": self.ended,
            "train": {"seed": self.train[0], "winner": self.train[1]},
            "valid": None if self.looks is None else {"seed": self.looks[0], "winner": self.looks[1]},
            "changed": sorted(changed(self.began, self.found)), "kept": self.keeps,
        }  # fmt: skip

    @property
    def keeps(self) -> str:
        """``winner``, or ``seed`` where nothing was better or validation took it back."""
        return "winner" if changed(self.began, self.kept) else "seed"


def changed(one: Wording, other: Wording) -> set[str]:
    """The pieces that do not read alike."""
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def deadline(run: Run) -> float:
    """When the time of a fit that begins now is up, in seconds of ``time.monotonic``."""
    return float("inf") if run.budget_seconds is None else time.monotonic() + run.budget_seconds


def sentence(facts: dict[str, Any]) -> str:
    """What a report says of a search, from the facts of a fit."""
    train, valid = facts["train"], facts["valid"]
    said = (
        f"prompt wording searched: {facts['tried']} wordings on {facts['questions']} training questions, "
        f"{facts['measured']} {train['seed']:.4f} of the seed prompt, {train['winner']:.4f} of the best"
    )
    if facts["proposed"]:
        said += f"; {facts['proposed']} sentences proposed, {len(facts['refused'])} refused"
    if facts["ended"]:
        said += f"; ended early: {facts['ended']}"
    if not facts["changed"]:
        return f"{said}; no wording was better, the seed prompt stays"
    if valid is None:
        return f"{said}; the best is kept, validation did not look"
    said += f"; on validation {valid['seed']:.4f} and {valid['winner']:.4f}"
    if facts["kept"] == "seed":
        return f"{said}: the best of training is worse there, the seed prompt stays"
    return f"{said}: the best is kept"


def search(
    say: Callable[[Wording], None],
    pieces: Sequence[Piece],
    began: Wording,
    config: PromptSearchConfig,
    run: Run,
    *,
    score: Score,
    look: Score | None = None,
    until: float = float("inf"),
    propose: Callable[[ChatRequest], ChatReply] | None = None,
) -> Searched:
    """Search the words of ``pieces``, from the wording ``began``; at the end the one that is kept is said.

    say      puts the prompt in these words
    score    on questions of the train part; deterministic, each wording is scored once
    look     on validation; asked for the first wording and the best, after the search is over
    until    seconds of ``time.monotonic`` after which no further wording is scored
    propose  a chat model; asked only where ``config.proposals`` says so
    ``run.max_steps`` bounds the wordings that are scored. What ``score``, ``look`` and ``propose`` raise, such as
    ``BudgetError``, goes through.
    """
    hunt = _Hunt(say, score, run, until)
    run.progress.start("wordings", 1 + config.rounds * sum(len(p.variants) - 1 + config.proposals for p in pieces))
    try:
        first = hunt.scored(began)
        assert first is not None
        best, done = dict(began), Searched(began, began, began, (first, first))
        for _ in range(config.rounds):
            before = hunt.best
            for piece in pieces:
                best = hunt.improved(piece, best, piece.variants)
                if propose is not None and config.proposals and not hunt.over():
                    best = hunt.improved(piece, best, _proposed(piece, best, hunt, config.proposals, propose, done))
            if hunt.ended or hunt.best <= before + BETTER:
                break
    finally:
        run.progress.finish()
    top = hunt.known(best)
    assert top is not None
    done.found, done.train, done.tried, done.ended = best, (first, top), len(hunt.scores), hunt.ended
    if look is not None:
        say(began)
        seed = look()
        say(best)
        done.looks = (seed, look() if changed(began, best) else seed)
    done.kept = began if done.looks is not None and done.looks[1] < done.looks[0] - BETTER else best
    say(done.kept)
    return done


class _Hunt:
    """Wordings with their scores, none scored twice."""

    def __init__(self, say: Callable[[Wording], None], score: Score, run: Run, until: float) -> None:
        self._say, self._score, self._run, self._until = say, score, run, until
        self.scores: dict[tuple[tuple[str, str], ...], float] = {}
        self.best = float("-inf")
        self.ended = ""

    def known(self, wording: Wording) -> float | None:
        return self.scores.get(tuple(sorted(wording.items())))

    def scored(self, wording: Wording) -> float | None:
        """None where no time is left for a wording that was not scored yet."""
        found = self.known(wording)
        if found is None:
            if self.scores and self.over():
                return None
            self._say(wording)
            found = self.scores[tuple(sorted(wording.items()))] = self._score()
            self.best = max(self.best, found)
            self._run.progress.advance(1, score=found, best=self.best)
        return found

    def over(self) -> bool:
        """Whether no further wording may be scored; ``ended`` says why."""
        if time.monotonic() > self._until:
            self.ended = "the time of the fit was up"
        elif self._run.max_steps is not None and len(self.scores) >= self._run.max_steps:
            self.ended = f"it may score {self._run.max_steps} wordings"
        return bool(self.ended)

    def improved(self, piece: Piece, wording: dict[str, str], sentences: Sequence[str]) -> dict[str, str]:
        """``wording`` with the best of these for the piece; as it is where none is better."""
        top, best = self.known(wording), wording
        assert top is not None
        for one in sentences:
            tried = with_sentence(wording, piece, one)
            found = self.scored(tried)
            if found is not None and found > top + BETTER:
                top, best = found, tried
        return best


def with_sentence(wording: Wording, piece: Piece, said: str) -> dict[str, str]:
    """``wording`` with another sentence for the piece. That of the prompts' version is never named, so that two
    wordings are equal exactly when their prompts are."""
    rest = {name: one for name, one in wording.items() if name != piece.name}
    return rest if said == piece.variants[0] else {**rest, piece.name: said}


def _proposed(
    piece: Piece, best: Wording, hunt: _Hunt, n: int, propose: Callable[[ChatRequest], ChatReply], done: Searched
) -> list[str]:
    """Up to ``n`` new sentences for the piece out of one answer; what it cannot read is refused and written down."""
    scores = {one: hunt.known(with_sentence(best, piece, one)) for one in (*piece.variants, *_said(piece, hunt))}
    tried = {one: score for one, score in scores.items() if score is not None}
    reply = propose(ChatRequest.of(asking_for(piece, n, tried), max_tokens=PROPOSAL_TOKENS))
    new = list(dict.fromkeys(line for line in map(_bare, reply.text.splitlines()) if line and line not in tried))[:n]
    done.proposed += len(new)
    faults = {one: piece.fault(one) for one in new}
    done.refused += [(piece.name, one[:200], fault) for one, fault in faults.items() if fault]
    return [one for one, fault in faults.items() if not fault]


def _said(piece: Piece, hunt: _Hunt) -> list[str]:
    """What was tried for the piece, in order."""
    return list(dict.fromkeys(text for wording in hunt.scores for name, text in wording if name == piece.name))


def asking_for(piece: Piece, n: int, tried: dict[str, float]) -> str:
    """What a chat model is told that shall propose ``n`` sentences; ``tried`` ones stand there with their scores."""
    needs = f" Each must hold, letter for letter: {', '.join(piece.needs)}." if piece.needs else ""
    lines = [f"- {score:.4f}: {one or '(nothing)'}" for one, score in sorted(tried.items(), key=lambda pair: pair[1])]
    return "\n".join(
        [
            f"A prompt for a language model has one sentence that is {piece.about}. It is to be put in words to which "
            f"the model's answers are truer.{needs} No other braces may stand in it. Tried so far, with their scores "
            "(higher is better):",
            *lines,
            f"Write {n} other wordings, one a line, without numbers or quotation marks around them and without any "
            "other text.",
        ]
    )


_LEAD = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.):])\s+")


def _bare(line: str) -> str:
    """A line without the sign of a list before it and quotation marks around it."""
    line = _LEAD.sub("", line).strip()
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" and line[0] not in line[1:-1]
    return line[1:-1].strip() if quoted else line
