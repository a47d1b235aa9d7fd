"""Candidates ranked by a language model that is asked and not taught: zero-shot, with solved examples, thinking first.

Hou et al., "Large Language Models are Zero-Shot Rankers for Recommender Systems", ECIR 2024 (arXiv 2305.08845). A first
stage chooses the candidates; the prompt tells the last items of a history and the candidates behind letters or numbers.
``answer="text"`` reads the ranking that the model writes: labels, or titles that are those offered letter for letter;
what names nothing that was offered is counted and never ranked (``data.ranking_prompts``). ``answer="probability"``
takes the probabilities of the labels as the next token. The same candidates are shown in ``orders`` random orders and
the answers are averaged, and how much the order mattered is measured (``evaluation.position_bias``). ``shots`` solved
examples of other people of the train part may stand before the question; ``thinking`` lets the model reason first (Wei
et al. 2022, arXiv 2201.11903), in lines that are kept apart from the answer. Shapes: b requests, q questions (b times
orders), C candidates, N items.

Where we depart, and why: the paper's models are private. ``chat`` names any chat model; without it ``backbone``
answers, any language model of the hub, or ``nano``, which knows the items' texts and was never asked anything: it
shows the way, not what a large model can do. Answers of several orders are averaged by place (Borda) where text is
read, by log-probability else. Candidates that an answer leaves out share the places that remain. An answer in which
nothing can be read is asked for once more; then that order is left out, and where none is left the first stage's
ranking stands. All of this is counted. One whose history is empty is not asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from palate.annotation.replies import KeepingConfig
from palate.backbones.item_text import ItemText
from palate.core import store
from palate.core.chat import NOTHING_USED, Usage
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, TrainingError
from palate.core.protocols import ChatModel, FloatArray, Judge, LanguageModel, ScoresAll
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings, pick, rank
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, SearchSpace
from palate.core.texts import packed, unpacked
from palate.data.ranking_prompts import (
    LETTERS,
    PIECES,
    STYLES,
    labels_of,
    pieces_before,
    question,
    solved,
    version_of,
)
from palate.data.wordings import Style, Wording
from palate.evaluation.position_bias import PositionBias
from palate.parts.prompt_search import SEARCH_VERSION, PromptSearchConfig, deadline, search, sentence
from palate.parts.ranked_answers import Heard, Manner, Question, ask_chat, ask_model, averaged, first_stage, gain
from palate.parts.solved_examples import SolvedExamples
from palate.training.loop import optimise, seeded


class RankPromptedConfig(KeepingConfig):
    answer: Literal["probability", "text"] = "probability"
    """What is read: how likely each label comes next, or a ranking that is written."""
    backbone: Part | None = Part(name="nano")
    """The language model that answers where no chat model is named."""
    chat: Part | None = None
    """The chat model: ``chat=endpoint``, ``chat=hub`` …"""
    retriever: Part = Part(name="item-knn")
    """The first stage, which chooses the candidates and ranks what is not asked about."""
    candidates: int = Field(20, ge=2, le=50)
    """How many of the first stage's best are asked about."""
    orders: int = Field(2, ge=1, le=20)
    """In how many random orders they are shown; the position check needs two."""
    labels: Literal["letters", "numbers"] = "letters"
    shots: int = Field(0, ge=0, le=16)
    """Solved examples of other people before the question."""
    choose: Literal["nearest", "random"] = "nearest"
    """Which examples: of people who share the most items with the history, or any."""
    examples: int = Field(256, ge=1)
    """Of the train part, drawn once, from which they are chosen."""
    example_candidates: int = Field(5, ge=2, le=26)
    thinking: bool = False
    """Reason first. Needs ``answer=text``."""
    style: Style = "instruction"
    """How the prompt is put: an instruction about a person, or a passage and a question with options, a task that
    language models know (``conventional``)."""
    search: PromptSearchConfig = PromptSearchConfig()
    """Whether the words of the prompt are searched at fit: ``search.rounds=2``."""
    length: int = Field(10, ge=1)
    """The last so many items are told."""
    text: ItemText = ItemText(fields=("title",), max_chars=120)
    """How an item reads."""
    answer_tokens: int = Field(400, ge=1)
    """The longest answer."""
    parallel: int = Field(4, ge=1)
    """Questions to a chat model at once."""
    ledger: str | None = "ranking-answers.sqlite"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.thinking and self.answer != "text":
            raise ValueError("thinking is written before the answer, so it needs answer=text")
        if self.labels == "letters" and self.candidates > len(LETTERS):
            raise ValueError("there are 26 letters: more candidates need labels=numbers")
        if self.chat is not None and self.answer == "probability" and self.labels == "numbers" and self.candidates > 9:
            # The first token of an answer is read, and 1 may be the first of 10.
            raise ValueError("the first token of a chat model's answer does not tell 1 from 10: use labels=letters")
        if self.chat is None and self.backbone is None:
            raise ValueError("name a chat model (chat=endpoint) or a language model (backbone=nano)")
        return self


SPACE: SearchSpace = {"shots": Choice((0, 1, 3)), "candidates": Choice((5, 10, 20))}
"""What ``--tune`` searches."""


@dataclass
class Record:
    """What was asked since the system was made, and what came of it."""

    bias: PositionBias = field(default_factory=PositionBias)
    questions: int = 0
    retried: int = 0
    failed: int = 0
    invalid: int = 0
    repeated: int = 0
    left_out: int = 0
    usage: Usage = NOTHING_USED

    def add(self, questions: Sequence[Question], heard: Sequence[Heard]) -> None:
        """All orders of one request."""
        self.questions += len(heard)
        for one in heard:
            self.retried, self.failed = self.retried + one.retried, self.failed + (one.worth is None)
            self.usage = self.usage + one.usage
            if one.answer is not None:
                self.invalid += len(one.answer.invalid)
                self.repeated += one.answer.repeated
        read = [(ask.shown, one) for ask, one in zip(questions, heard, strict=True) if one.worth is not None]
        for shown, one in read:
            self.left_out += 0 if one.answer is None else len(shown) - len(one.answer.order)
        if read:
            candidates = np.sort(read[0][0])
            self.bias.add(
                np.stack([one.worth for _, one in read if one.worth is not None]),
                np.stack([np.searchsorted(candidates, shown) for shown, _ in read]),
            )

    def __str__(self) -> str:
        if not self.questions:
            return "nobody was asked"
        used = f", {self.usage.read:,} tokens read and {self.usage.written:,} written" if self.usage.tokens else ""
        return (
            f"{self.questions:,} questions, {self.retried:,} asked again, {self.failed:,} without a readable answer, "
            f"{self.invalid:,} invalid entries, {self.repeated:,} repeated, {self.left_out:,} candidates left out{used}"
        )


class RankPrompted:
    """The recommender. Of the language model nothing is taught; the first stage is fitted."""

    config_type = RankPromptedConfig

    def __init__(
        self,
        config: RankPromptedConfig | None = None,
        *,
        retriever: ScoresAll,
        backbone: LanguageModel | None = None,
        chat: ChatModel | None = None,
    ) -> None:
        self.config = config or RankPromptedConfig()
        self.retriever = retriever
        self.backbone, self.chat = (None if chat is not None else backbone), chat
        self.parts: dict[str, Any] = {
            "retriever": retriever, **({"chat": chat} if chat is not None else {"backbone": backbone})
        }  # fmt: skip
        if self.config.search.proposals and chat is None:
            raise ConfigError("sentences of a prompt are proposed by a chat model: name one, such as chat=endpoint")
        self.texts: list[str] = []
        self.wording: Wording = {}
        self.solved: SolvedExamples | None = None
        self.facts: dict[str, Any] = {}
        self.record = Record()

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside figures of the answers given so far."""
        prompt = self.facts.get("prompt", version_of(self.wording))
        said = f"{self.record}; {self.record.bias}; prompt {prompt}, {self._model.version}"
        searched = self.facts.get("search")
        return (said, sentence(searched)) if searched else (said,)

    # -- what is told ------------------------------------------------------------------------------------------------

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        self.solved, self.facts, self.record = None, {}, Record()
        config, until = self.config, deadline(run)
        share = 1.0 if self.backbone is None and not config.search.rounds else 0.5
        self.retriever.fit(train, run.inside("retriever", share), judge)  # type: ignore[attr-defined]
        texts = config.text.render(train)
        if self.backbone is not None:
            wording = question([], [], "one", config.labels, (), STYLES[config.style]).split("\n")
            words = [one for piece in PIECES for one in piece.variants] if config.search.rounds else []
            labels = " ".join(labels_of(config.labels, config.candidates))
            with seeded(run):
                self.backbone.prepare([*wording, labels, *words, *texts], run, optimise)
        self.texts = texts
        self.solved = SolvedExamples.drawn(
            train, n=config.examples, length=config.length, n_candidates=config.example_candidates, seed=run.seed
        )
        model = self._model
        self.facts = {
            "fitted_on": train.fingerprint, "model": model.version, "pretrained": model.pretrained, "seed": run.seed
        }  # fmt: skip
        self._say(STYLES[config.style])
        if config.search.rounds:
            self._search(train, run, judge, until)
        return self

    def _say(self, wording: Wording) -> None:
        """Ask in these words from now on."""
        self.wording = dict(wording)
        self.facts |= {"prompt": version_of(wording), "wording": self.wording}

    def _search(self, train: Dataset, run: Run, judge: Judge | None, until: float) -> None:
        """The words of the prompt, by events of the train part among items their users never met."""
        config = self.config
        pool = SolvedExamples.drawn(
            train, n=config.search.questions, length=config.length, n_candidates=config.candidates, seed=run.seed
        )
        if not ((pool.offered >= 0).sum(1) > 1).any():
            raise DataError("no event of the train part can be asked about, so no prompt can be searched")
        asked = Requests(pool.histories, user_rows=pool.users)
        targets = pool.offered[np.arange(len(pool)), pool.place]

        def score() -> float:
            questions = self.questions(asked, pool.offered)
            return gain(questions, self.hear(questions), targets)

        found = search(
            self._say, pieces_before(self._ask), STYLES[config.style], config.search, run, until=until, score=score,
            look=None if judge is None else partial(judge, self),
            propose=None if self.chat is None else partial(config.once, self.chat, SEARCH_VERSION),
        )  # fmt: skip
        self.record = Record()
        self.facts["search"] = found.facts("NDCG of what was chosen", len(pool))

    @property
    def _model(self) -> ChatModel | LanguageModel:
        found = self.chat or self.backbone
        assert found is not None
        return found

    def _known(self) -> SolvedExamples:
        if self.solved is None:
            raise TrainingError("RankPrompted was not fitted yet: call fit or load first")
        return self.solved

    def questions(self, requests: Requests, candidates: IntArray) -> list[Question]:
        """Every order of the candidates ``[b, C]`` (-1 = no more) of every request that has a history and a choice."""
        config, pool, made = self.config, self._known(), []
        histories = requests.known(len(self.texts)).histories
        who = np.full(len(requests), -1) if requests.user_rows is None else requests.user_rows
        for row, (history, offered) in enumerate(zip(histories, candidates, strict=True)):
            offered = np.sort(offered[offered >= 0])
            if not len(history) or len(offered) < 2:
                continue
            examples = self._examples(pool, history, int(who[row]))
            recent = history[-config.length :].tolist()
            told = [self.texts[item] for item in recent]
            for order in range(config.orders):
                # Drawn from what is asked, so that a question is the same whoever else is asked about; from the history
                # too, for one order of the same candidates for everybody would look like a leaning of the model.
                rng = np.random.default_rng([self.facts["seed"], order, len(recent), *recent, *offered.tolist()])
                shown = rng.permutation(offered)
                texts = [self.texts[item] for item in shown.tolist()]
                made.append(Question(
                    row, shown, tuple(texts), tuple(told), tuple(examples), self._ask, config.labels, self.wording
                ))  # fmt: skip
        return made

    @property
    def _ask(self) -> Literal["one", "ranking", "thinking"]:
        return "one" if self.config.answer == "probability" else "thinking" if self.config.thinking else "ranking"

    def _examples(self, pool: SolvedExamples, history: IntArray, user: int) -> list[str]:
        nearest = self.config.choose == "nearest"
        rows = pool.chosen(history, user, self.config.shots, nearest=nearest) if self.config.shots else ()
        return [
            solved(
                [self.texts[item] for item in pool.histories.row(row)],
                [self.texts[item] for item in pool.offered[row] if item >= 0], int(pool.place[row]),
                self.config.labels, self.wording,
            )
            for row in rows
        ]  # fmt: skip

    def hear(self, questions: Sequence[Question]) -> list[Heard]:
        """What comes back for each of these questions."""
        config = self.config
        manner = Manner(
            config.answer == "text", config.thinking, config.labels, config.answer_tokens, config.parallel
        )  # fmt: skip
        if not questions:
            return []
        if self.chat is not None:
            with config.keeping(self.chat, self.facts["prompt"]) as chat:
                return ask_chat(chat, questions, manner)
        assert self.backbone is not None
        return ask_model(self.backbone, questions, manner)

    # -- answering ---------------------------------------------------------------------------------------------------

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """Those asked about first, then the others as the first stage ranks them."""
        blocks = self._blocks(requests)
        return replace(rank(blocks, k, leave_out=requests.leave_out, candidates=requests.candidates), exact=False)

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]``: above 1 those asked about, up to 1 the others by their place in the first stage, -1 what it
        cannot score; NaN for an item added later."""
        return pick(self._blocks(requests), candidates)

    def _blocks(self, requests: Requests) -> Iterator[FloatArray]:
        self._known()
        start = 0
        for block in self.retriever.score_blocks(requests):
            some = requests[start : start + len(block)]
            start += len(block)
            yield self._reranked(block, some)

    def retrieved(self, requests: Requests) -> Rankings:
        """What is asked about: the best of the first stage."""
        blocks = (first_stage(block) for block in self.retriever.score_blocks(requests))
        return rank(blocks, self.config.candidates, leave_out=requests.leave_out, candidates=requests.candidates)

    def _reranked(self, block: FloatArray, requests: Requests) -> FloatArray:
        base = first_stage(block)
        best = rank([base.copy()], self.config.candidates, leave_out=requests.leave_out, candidates=requests.candidates)
        asked = self.questions(requests, best.item_rows)
        heard = self.hear(asked)
        of_request = np.array([one.request for one in asked], dtype=np.int64)
        for row in np.unique(of_request).tolist():
            own = np.flatnonzero(of_request == row)
            some, replies = [asked[i] for i in own], [heard[i] for i in own]
            self.record.add(some, replies)
            items, worth = averaged(some, replies)
            base[row, items] = self._scores(worth, best.item_rows[row], items)
        return base

    def _scores(self, worth: npt.NDArray[np.float64], first: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        """Between 1 and 2; equal ones keep the first stage's order."""
        if self.config.answer == "probability":
            worth = 1 + worth / (1 - worth)
        place = np.argsort(first)[np.searchsorted(np.sort(first), items)]
        # Large enough that float32 tells two of 50 places apart, and less than one place of an answer is worth.
        return 1 + 0.99 * worth + 1e-5 * (1 - place / len(first))

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        pool = self._known()
        content, lengths = packed(self.texts)
        arrays = {"texts": content, "text_bytes": lengths} | pool.arrays()
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        system.texts = unpacked(arrays.pop("texts"), arrays.pop("text_bytes"))
        system.solved, system.facts = SolvedExamples.of_arrays(arrays), stored.facts
        system.wording = stored.facts.get("wording", {})
        return system


def tiny() -> RankPromptedConfig:
    """A small nano, six candidates, short prompts."""
    nano = {"width": 48, "heads": 2, "layers": 1, "forward_width": 96, "vocabulary": 800, "steps": 30}
    return RankPromptedConfig(backbone=Part(name="nano", settings=nano), candidates=6, length=4)


def few_shot() -> RankPromptedConfig:
    """Three solved examples of the nearest other people before the question."""
    return RankPromptedConfig(shots=3)


def chain_of_thought() -> RankPromptedConfig:
    """The model reasons in steps and then writes the ranking."""
    return RankPromptedConfig(answer="text", thinking=True)


def hard_prompt() -> RankPromptedConfig:
    """The words of the prompt are searched on the train part."""
    return RankPromptedConfig(search=PromptSearchConfig(rounds=2))


def conventional() -> RankPromptedConfig:
    """A passage and a question with options."""
    return RankPromptedConfig(style="conventional")
