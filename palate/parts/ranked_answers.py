"""Questions about candidates put to a model, and what comes back: chances of labels, or a ranking that is written.

A chat model is asked through messages, a language model by what it goes on with; both are read alike. An answer in
which nothing can be read is asked for once more, with a stricter sentence. Shapes: q questions, C candidates of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from palate.core.asking import each
from palate.core.chat import NOTHING_USED, ChatReply, ChatRequest, Message, Usage
from palate.core.errors import ConfigError
from palate.core.protocols import FloatArray, LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.data.ranking_prompts import PLAIN, Answer, Ask, Labels, labels_of, question, read_answer, stricter
from palate.data.wordings import Wording
from palate.parts.prompting import by_length, closing, framed, in_one_token, last_states, places_of, written

Floats = npt.NDArray[np.float64]
TOLD = 20
"""The likeliest first tokens that a chat model is asked for."""


@dataclass(frozen=True, eq=False)
class Question:
    """One prompt.

    request   which one it is about
    shown     ``[C]`` item rows and their texts ``offered`` in the order in which they are shown
    told      what the items of the history read, oldest first
    examples  solved ones, the nearest last
    """

    request: int
    shown: IntArray
    offered: tuple[str, ...]
    told: tuple[str, ...]
    examples: tuple[str, ...]
    ask: Ask
    labels: Labels
    wording: Wording = field(default_factory=lambda: PLAIN)

    @property
    def prompt(self) -> str:
        return question(self.told, self.offered, self.ask, self.labels, self.examples, self.wording)

    @property
    def spare(self) -> int:
        """How many lines and examples it can do without: all but the newest line of the history."""
        return max(len(self.told) - 1, 0) + len(self.examples)

    def without(self, n: int) -> Question:
        """Less ``n`` of these: the oldest lines first, then the examples."""
        lines = min(n, max(len(self.told) - 1, 0))
        return replace(self, told=self.told[lines:], examples=self.examples[n - lines :])


@dataclass(frozen=True, eq=False)
class Heard:
    """What came back for one question.

    worth    ``[C]`` of the items as they were shown, higher is better; None where nothing could be read
    answer   what was read of a text
    """

    worth: Floats | None
    answer: Answer | None = None
    retried: bool = False
    usage: Usage = NOTHING_USED


@dataclass(frozen=True)
class Manner:
    """How questions are put.

    written   a ranking is read out of a text; else the chances of the labels as the next token
    thinking  the text begins with steps
    longest   tokens of a text at most
    parallel  questions to a chat model at once
    """

    written: bool
    thinking: bool
    labels: Labels
    longest: int
    parallel: int

    def read(self, asked: Question, text: str, used: Usage, before: Heard | None = None) -> Heard:
        """What was written, or written when it was asked for once more."""
        found = read_answer(text, asked.offered, self.labels, thought=self.thinking and before is None)
        if before is not None:
            assert before.answer is not None
            found, used = replace(found, steps=before.answer.steps), used + before.usage
        return Heard(worth_of(found, len(asked.offered)), found, before is not None, used)


class Replies(Protocol):
    """A chat model, or one whose replies are kept."""

    def reply(self, request: ChatRequest) -> ChatReply:
        """The answer."""


def ask_chat(chat: Replies, questions: Sequence[Question], manner: Manner) -> list[Heard]:
    """What a chat model answers, several questions at once."""

    def ask(row: int) -> Heard:
        asked = questions[row]
        if not manner.written:
            reply = chat.reply(ChatRequest.of(asked.prompt, max_tokens=4, alternatives=TOLD))
            return Heard(chances(reply, labels_of(manner.labels, len(asked.shown))), usage=reply.usage + reply.lost)
        request = ChatRequest.of(asked.prompt, max_tokens=manner.longest)
        reply = chat.reply(request)
        heard = manner.read(asked, reply.text, reply.usage + reply.lost)
        if heard.worth is not None:
            return heard
        turn = Message("user", stricter(len(asked.shown), manner.labels))
        again = chat.reply(replace(request, messages=(*request.messages, Message("assistant", reply.text), turn)))
        return manner.read(asked, again.text, again.usage + again.lost, heard)

    heard = dict(each(range(len(questions)), ask, manner.parallel))
    return [heard[row] for row in range(len(questions))]


def chances(reply: ChatReply, labels: Sequence[str]) -> Floats | None:
    """``[C]`` log-probabilities of the labels among the likeliest first tokens, None where none of them is one. A label
    that is not told is given the chance of the least likely token that is, for it has no more."""
    mass = np.zeros(len(labels))
    for token, value in reply.alternatives.items():
        name = token.strip(" .()")
        if name in labels:
            mass[labels.index(name)] += math.exp(value)
    if not mass.any():
        return None
    mass = np.where(mass > 0, mass, math.exp(min(reply.alternatives.values())))
    return np.log(mass / mass.sum())


def ask_model(lm: LanguageModel, questions: Sequence[Question], manner: Manner) -> list[Heard]:
    """What a language model goes on with."""
    return _written(lm, questions, manner) if manner.written else _chances(lm, questions, manner)


def prompts_of(lm: LanguageModel, questions: Sequence[Question], after: IntArray, behind: int = 0) -> Ragged:
    """The tokens of each question with what opens one and ``after``; as long as the model was made for at most, with
    ``behind`` tokens still to come. A longer one loses the oldest lines of its history, then examples, as few as
    needed. Raises ``ConfigError`` where the rest is too long as well."""
    read, places = lm.read([one.prompt for one in questions]), places_of(lm)
    rows = [row.astype(np.int64) for row in read]
    room = None if places is None else places - len(lm.opening) - len(after) - behind
    if room is not None and (long := np.flatnonzero(read.lengths > room)).size:
        over = [questions[row] for row in long.tolist()]
        least, most = np.zeros(len(over), dtype=np.int64), np.array([one.spare for one in over])
        for _ in range(1 + int(most.max()).bit_length()):  # bisect all of them together
            tried = (least + most) // 2
            shorter = lm.read([one.without(n).prompt for one, n in zip(over, tried.tolist(), strict=True)])
            fits = shorter.lengths <= room
            least, most = np.where(fits, least, np.minimum(tried + 1, most)), np.where(fits, tried, most)
        shorter = lm.read([one.without(n).prompt for one, n in zip(over, most.tolist(), strict=True)])
        if (shorter.lengths > room).any():
            raise ConfigError(
                f"a prompt of {int(shorter.lengths.max())} tokens with one item of the history does not fit into the "
                f"{max(room, 0)} that this language model can read: lower candidates, text.max_chars or answer_tokens"
            )
        for row, tokens in zip(long.tolist(), shorter, strict=True):
            rows[row] = tokens.astype(np.int64)
    return framed(Ragged.of(rows), lm.opening, after)


def _again(n: int, labels: Labels) -> str:
    return f"\n{stricter(n, labels)}\nRanking:"


def _chances(lm: LanguageModel, questions: Sequence[Question], manner: Manner) -> list[Heard]:
    labels = labels_of(manner.labels, max((len(one.shown) for one in questions), default=0))
    single, ids, before = in_one_token(lm, labels)
    if len(single) < len(labels):
        raise ConfigError("this language model has no single token for every label; use labels=letters or answer=text")
    after = np.concatenate([[] if before is None else [before], closing(lm)])
    prompts = prompts_of(lm, questions, after)
    heard = [Heard(None)] * len(questions)
    for rows in by_length(prompts):
        with torch.no_grad():
            states = last_states(lm, prompts[rows])
            logits = lm.logits(states, torch.from_numpy(ids).to(states.device)).double().cpu().numpy()
        for row, said in zip(rows.tolist(), logits, strict=True):
            said = said[: len(questions[row].shown)]
            heard[row] = Heard(said - np.logaddexp.reduce(said), usage=Usage(int(prompts.lengths[row]), 0))
    return heard


def _written(lm: LanguageModel, questions: Sequence[Question], manner: Manner) -> list[Heard]:
    if lm.kind == "encoder":
        raise ConfigError("a language model that only reads writes no ranking; use answer=probability")
    most = max((len(one.shown) for one in questions), default=0)
    said = lm.read([_again(n, manner.labels) for n in range(most + 1)], inside=True)
    behind = int(said.lengths.max()) + (manner.longest if lm.kind == "causal" else 0)
    prompts = prompts_of(lm, questions, closing(lm), behind)
    heard = [Heard(None)] * len(questions)

    def go_on(prompts: Ragged, rows: list[int], *, again: bool = False) -> None:
        texts = written(lm, prompts, manner.longest)
        spent = lm.read(texts).lengths.tolist()
        for row, length, text, n in zip(rows, prompts.lengths.tolist(), texts, spent, strict=True):
            heard[row] = manner.read(questions[row], text, Usage(length, n), heard[row] if again else None)

    for some in by_length(prompts):
        go_on(prompts[some], some.tolist())
        silent = [row for row in some.tolist() if heard[row].worth is None]
        if silent:
            counts = np.array([len(questions[row].shown) for row in silent])
            go_on(prompts[np.array(silent)].joined(said[counts]), silent, again=True)
    return heard


def worth_of(answer: Answer, n: int) -> Floats | None:
    """``[n]`` in [0, 1] by place, 1 = first; what was left out shares the places that remain."""
    if answer.failed:
        return None
    m = len(answer.order)
    worth = np.full(n, (n - 1 - m) / 2 / (n - 1))
    worth[list(answer.order)] = 1 - np.arange(m) / (n - 1)
    return worth


def averaged(questions: Sequence[Question], heard: Sequence[Heard]) -> tuple[IntArray, Floats]:
    """The items of one request, ascending, and the mean of their worth over the orders that were answered; none where
    no order was."""
    items = np.sort(questions[0].shown)
    read = [
        one.worth[np.argsort(asked.shown)]
        for asked, one in zip(questions, heard, strict=True) if one.worth is not None
    ]  # fmt: skip
    return (items, np.mean(read, axis=0)) if read else (items[:0], np.zeros(0))


def gain(questions: Sequence[Question], heard: Sequence[Heard], targets: IntArray) -> float:
    """The mean over requests of ``1 / log2(1 + rank)`` of the target ``[b]`` among what was shown, its orders averaged;
    those that are worth the same share their places. Where no order was answered the target counts as the last.
    NaN where nobody was asked."""
    of_request = np.array([one.request for one in questions], dtype=np.int64)
    gains = []
    for request in np.unique(of_request).tolist():
        own = np.flatnonzero(of_request == request).tolist()
        items, worth = averaged([questions[row] for row in own], [heard[row] for row in own])
        rank = float(len(questions[own[0]].shown))
        if len(items):
            mine = worth[items == targets[request]]
            rank = 1 + (worth > mine).sum() + ((worth == mine).sum() - 1) / 2
        gains.append(1 / math.log2(1 + rank))
    return float(np.mean(gains)) if gains else math.nan


def first_stage(block: FloatArray) -> FloatArray:
    """``[b, N]`` scores above 0 and up to 1 in the order of ``block``'s, equal where those are: by place, since no
    formula of the score keeps all of them apart. -1 for what it cannot score, behind all others."""
    order = np.argsort(-block, axis=1)
    ordered = np.take_along_axis(block, order, axis=1)
    place = np.zeros(block.shape, dtype=np.int64)
    np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=place[:, 1:])
    scores = np.empty(block.shape, dtype=np.float32)
    np.put_along_axis(scores, order, (1 - place / max(block.shape[1], 1)).astype(np.float32), axis=1)
    scores[np.isnan(block)] = -1
    return scores
