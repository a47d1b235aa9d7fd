"""Ratings from a language model that is asked and not taught: zero-shot, with solved examples, or thinking first.

Kang et al., "Do LLMs Understand User Preferences? Evaluating LLMs On User Rating Prediction" (arXiv 2305.06474). The
prompt tells the scale, the person's last ratings and the next item. ``shots`` puts solved examples of other people of
the train part before it. ``answer="probability"`` takes the expectation over the probabilities of the rating words as
the next token; ``answer="text"`` reads the number out of what is written; ``thinking`` lets the model reason first
(Wei et al. 2022, arXiv 2201.11903). An answer without a rating is asked for once more, with a stricter instruction;
then the person's past average stands in, and the failure is counted. Shapes: b questions, P pieces, L ratings.

Where we depart, and why: the paper's models are retired or private. ``chat`` names any chat model; without it
``backbone`` answers, any language model of the hub, or ``nano``, which knows the items' texts and was never asked
anything: it shows the way, not what a large model can do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from palate.annotation.replies import KeepingConfig, KeptReplies
from palate.backbones.item_text import ItemText
from palate.core import store
from palate.core.asking import each
from palate.core.chat import ChatReply, ChatRequest, Message
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, TrainingError
from palate.core.protocols import ChatModel, FloatArray, LanguageModel, RatingJudge
from palate.core.ragged import IntArray, Ragged
from palate.core.ratings import Predictions, RatingRequests, Stars
from palate.core.run import Run
from palate.core.space import Choice, SearchSpace
from palate.core.texts import packed, unpacked
from palate.data.rating_prompts import (
    FIXED,
    VERSION,
    Pieces,
    RatingAnswer,
    pieces_before,
    read_answer,
    texts_for,
    wording_of,
)
from palate.data.ratings import drawn_questions, ratings_of
from palate.data.wordings import Style, Wording
from palate.parts.prompt_search import SEARCH_VERSION, PromptSearchConfig, deadline, search, sentence
from palate.parts.prompting import by_length, last_states, places_of, written
from palate.parts.rating_prompts import PromptTokens, RatingWords, rating_words
from palate.training.loop import optimise, seeded

TOLD = 20
"""The likeliest first tokens that a chat model is asked for."""


class RatingPromptedConfig(KeepingConfig):
    answer: Literal["probability", "text"] = "probability"
    backbone: Part | None = Part(name="nano")
    """The language model that answers where no chat model is named."""
    chat: Part | None = None
    """The chat model: ``chat=endpoint``, ``chat=hub`` …"""
    shots: int = Field(0, ge=0, le=16)
    """Solved examples of other people before the question."""
    examples: int = Field(64, ge=1)
    """Of the train part, drawn once, from which they are taken."""
    thinking: bool = False
    """Reason first. Needs ``answer=text``."""
    style: Style = "instruction"
    """How the prompt is put: an instruction about a person, or a page of reviews that goes on, a text that language
    models know (``conventional``)."""
    search: PromptSearchConfig = PromptSearchConfig()
    """Whether the words of the prompt are searched at fit: ``search.rounds=2``."""
    length: int = Field(10, ge=0)
    """Rated events of a history that are told; 0 tells none."""
    text: ItemText = ItemText(max_chars=120)
    """How an item reads; ``text.fields=["category"]`` hides the titles."""
    text_tokens: int = Field(48, ge=1)
    """Of an item's text at most, where a backbone reads it."""
    answer_tokens: int = Field(160, ge=1)
    """The longest answer of one that thinks; one that does not has 12."""
    parallel: int = Field(4, ge=1)
    """Questions to a chat model at once."""
    ledger: str | None = "rating-answers.sqlite"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.thinking and self.answer != "text":
            raise ValueError("thinking is written before the answer, so it needs answer=text")
        if self.chat is None and self.backbone is None:
            raise ValueError("name a chat model (chat=endpoint) or a language model (backbone=nano)")
        return self

    @property
    def ask(self) -> str:
        """The piece that a prompt ends with."""
        return "ask-thinking" if self.thinking else "ask-number" if self.answer == "text" else "ask"

    @property
    def wording(self) -> Wording:
        """The words that a prompt begins with."""
        return wording_of(self.style, thinking=self.thinking)

    @property
    def longest(self) -> int:
        return self.answer_tokens if self.thinking else 12


SPACE: SearchSpace = {"shots": Choice((0, 1, 3))}
"""What ``--tune`` searches."""


@dataclass(frozen=True, eq=False)
class Told:
    """What of the train part stands in prompts: the items' texts, the scale, and solved examples."""

    pieces: Pieces
    mean: float
    examples: RatingRequests
    solved: Stars


class RatingPrompted:
    """The predictor. It learns nothing but what its prompts tell."""

    config_type = RatingPromptedConfig

    def __init__(
        self,
        config: RatingPromptedConfig | None = None,
        *,
        backbone: LanguageModel | None = None,
        chat: ChatModel | None = None,
    ) -> None:
        self.config = config or RatingPromptedConfig()
        self.backbone, self.chat = (None if chat is not None else backbone), chat
        self.parts: dict[str, Any] = {"chat": chat} if chat is not None else {"backbone": backbone}
        if self.config.search.proposals and chat is None:
            raise ConfigError("sentences of a prompt are proposed by a chat model: name one, such as chat=endpoint")
        self.told: Told | None = None
        self.facts: dict[str, Any] = {}
        self._tokens: tuple[PromptTokens, RatingWords | None] | None = None

    # -- what is told ------------------------------------------------------------------------------------------------

    def fit(self, train: Dataset, run: Run, judge: RatingJudge | None = None) -> Self:
        self.told, self.facts, self._tokens = None, {}, None
        config, until = self.config, deadline(run)
        ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
        taught = ratings[~np.isnan(ratings)]
        levels = np.unique(taught) if len(np.unique(taught)) > 1 else np.arange(1, 6)
        pieces = texts_for(config.text.render(train), levels.astype(np.float32), config.wording)
        if self.backbone is not None:
            words = pieces.variants() if config.search.rounds else []
            with seeded(run):
                self.backbone.prepare([*pieces.written, *words], run, optimise)
        examples, solved = drawn_questions(train, ratings, config.examples, [run.seed, 0xE8])
        mean = float(taught.mean()) if len(taught) else float(levels.mean())
        self.told = Told(pieces, mean, examples, solved)
        self.facts = {
            "fitted_on": train.fingerprint, "levels": pieces.levels.tolist(), "mean": mean,
            "model": self._model.version, "pretrained": self._model.pretrained,
        }  # fmt: skip
        self._say(pieces.wording)
        if config.search.rounds:
            self._search(train, ratings, run, judge, until)
        return self

    def _say(self, wording: Wording) -> None:
        """Ask in these words from now on."""
        told = self._known()
        pieces = texts_for(told.pieces.texts, told.pieces.levels, wording)
        self.told, self._tokens = replace(told, pieces=pieces), None
        self.facts |= {"prompt": f"{VERSION} {pieces.hash}", "wording": dict(wording)}

    def _search(self, train: Dataset, ratings: Stars, run: Run, judge: RatingJudge | None, until: float) -> None:
        """The words of the prompt, by rated events of the train part after what their users rated before."""
        config = self.config
        asked, given = drawn_questions(train, ratings, config.search.questions, [run.seed, 0x5C])
        if not len(given):
            raise DataError("no rating of the train part has another before it, so no prompt can be searched")

        def score() -> float:
            return -float(np.sqrt(np.square(self.predict(asked).stars.astype(np.float64) - given).mean()))

        found = search(
            self._say, pieces_before(config.ask), config.wording, config.search, run, until=until, score=score,
            look=None if judge is None else partial(judge, self),
            propose=None if self.chat is None else partial(config.once, self.chat, SEARCH_VERSION),
        )  # fmt: skip
        self.facts["search"] = found.facts("RMSE below zero", len(given))

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside figures: how the words of the prompt were found."""
        searched = self.facts.get("search")
        return (f"{sentence(searched)}; prompt {self.facts['prompt']}",) if searched else ()

    @property
    def _model(self) -> ChatModel | LanguageModel:
        found = self.chat or self.backbone
        assert found is not None
        return found

    def _known(self) -> Told:
        if self.told is None:
            raise TrainingError("RatingPrompted was not fitted yet: call fit or load first")
        return self.told

    def rows(self, requests: RatingRequests) -> IntArray:
        """``[b, P]`` the pieces of each prompt: solved examples of others, then the question."""
        told, config = self._known(), self.config
        question = told.pieces.rows(requests, config.length, config.ask)
        shots = min(config.shots, len(told.solved))
        if not shots:
            return question
        solved = told.pieces.rows(told.examples, config.length, "ask")
        after = np.full((len(solved), 2), FIXED.index("next"), dtype=np.int64)
        after[:, 0] = told.pieces.rating(told.solved)
        solved = np.concatenate([solved, after], axis=1)
        # The first examples that are not the person's own: theirs sort behind all others.
        own = told.examples.user_rows[None, :] == requests.user_rows[:, None]
        chosen = np.argsort(own, axis=1, kind="stable")[:, :shots]
        before = np.where(np.take_along_axis(own, chosen, axis=1)[..., None], -1, solved[chosen])
        return np.concatenate([before.reshape(len(requests), -1), question], axis=1)

    def prompt(self, requests: RatingRequests, row: int) -> str:
        """One prompt as a person reads it."""
        return self._known().pieces.text(self.rows(requests[row : row + 1])[0])

    # -- asking ------------------------------------------------------------------------------------------------------

    def predict(self, requests: RatingRequests) -> Predictions:
        told, heard = self._known(), self.hear(requests)
        stars = np.array([math.nan if one.stars is None else one.stars for one in heard], dtype=np.float64)
        failed = np.isnan(stars)
        levels = told.pieces.levels
        stars = np.where(failed, requests.user_means(told.mean), stars)
        retried = np.array([one.retried for one in heard], dtype=np.bool_)
        return Predictions(np.clip(stars, levels[0], levels[-1]).astype(np.float32), failed, retried)

    def hear(self, requests: RatingRequests) -> list[RatingAnswer]:
        """What is read for each question: the rating, or none, and apart from it the steps of a model that thinks."""
        rows = self.rows(requests)
        heard = [RatingAnswer()] * len(rows)
        for row, one in self._of_chat(rows) if self.chat is not None else self._of_backbone(rows):
            heard[row] = one
        return heard

    def _read(self, text: str, before: RatingAnswer | None = None) -> RatingAnswer:
        """What was written, or written when it was asked for once more."""
        levels = self._known().pieces.levels
        thought = self.config.thinking and before is None
        found = read_answer(text, float(levels[0]), float(levels[-1]), thought=thought)
        return found if before is None else replace(found, steps=before.steps, retried=True)

    def _of_chat(self, rows: IntArray) -> Iterator[tuple[int, RatingAnswer]]:
        told, config = self._known(), self.config

        def ask(chat: ChatModel | KeptReplies, row: int) -> RatingAnswer:
            request = ChatRequest.of(told.pieces.text(rows[row]), max_tokens=config.longest)
            if config.answer == "probability":
                request = replace(request, alternatives=TOLD)
            reply = chat.reply(request)
            expected = self._expected(reply) if config.answer == "probability" else math.nan
            found = self._read(reply.text) if math.isnan(expected) else RatingAnswer(expected)
            if not found.failed:
                return found
            said = (*request.messages, Message("assistant", reply.text), Message("user", told.pieces.stricter))
            return self._read(chat.reply(ChatRequest(said, max_tokens=12)).text, found)

        assert self.chat is not None
        with config.keeping(self.chat, self.facts["prompt"]) as chat:
            yield from each(range(len(rows)), partial(ask, chat), config.parallel)

    def _expected(self, reply: ChatReply) -> float:
        """The expectation over the ratings among the likeliest first tokens; NaN where none of them is one."""
        levels = self._known().pieces.levels
        mass = {float(level): 0.0 for level in levels}
        for token, value in reply.alternatives.items():
            try:
                star = float(token.strip())
            except ValueError:
                continue
            if star in mass:
                mass[star] += math.exp(value)
        total = sum(mass.values())
        return sum(star * share for star, share in mass.items()) / total if total > 0 else math.nan

    def _of_backbone(self, rows: IntArray) -> Iterator[tuple[int, RatingAnswer]]:
        lm = self.backbone
        assert lm is not None
        tokens, words = self._read_pieces()
        room = places_of(lm)
        if words is not None:
            prompts = tokens.prompts(rows, words.before, room)
            for some in by_length(prompts):
                stars = self._likelihoods(lm, prompts[some], words)
                yield from zip(some.tolist(), map(RatingAnswer, stars.tolist()), strict=True)
            return
        stricter = lm.read([f"\n{self._known().pieces.stricter}\nRating:"], inside=True)
        if room is not None and lm.kind == "causal":  # what is written stands behind the prompt
            room -= max(self.config.longest, int(stricter.lengths[0]) + 12)
        prompts = tokens.prompts(rows, None, room)
        for some in by_length(prompts):
            found = [self._read(text) for text in written(lm, prompts[some], self.config.longest)]
            yield from zip(some.tolist(), found, strict=True)
            silent = np.flatnonzero([one.failed for one in found])
            if len(silent):
                texts = written(lm, prompts[some[silent]].joined(stricter[np.zeros(len(silent), dtype=np.int64)]), 12)
                for row, text in zip(silent.tolist(), texts, strict=True):
                    yield int(some[row]), self._read(text, found[row])

    def _likelihoods(self, lm: LanguageModel, prompts: Ragged, words: RatingWords) -> FloatArray:
        """``[b]`` expectations over the probabilities of the rating words."""
        with torch.no_grad():
            states = last_states(lm, prompts)
            logits = lm.logits(states, torch.from_numpy(words.ids).to(states.device)).float()
            return (logits.softmax(1).cpu() @ torch.from_numpy(words.levels)).numpy()

    def _read_pieces(self) -> tuple[PromptTokens, RatingWords | None]:
        """Tokens of all pieces, and of the ratings where their probabilities are the answer."""
        told, lm = self._known(), self.backbone
        assert lm is not None
        if self._tokens is None:
            probable = self.config.answer == "probability"
            words = rating_words(lm, told.pieces.levels, add=False) if probable else None
            self._tokens = PromptTokens.of(lm, told.pieces, self.config.text_tokens), words
        return self._tokens

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        told = self._known()
        texts, examples = packed(told.pieces.texts), told.examples
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "texts": texts[0],
            "text_bytes": texts[1],
            "history": examples.histories.flat().astype(np.int64), "history_ratings": examples.history_ratings,
            "lengths": examples.histories.lengths, "items": examples.items, "users": examples.user_rows,
            "solved": told.solved,
        }  # fmt: skip
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        kept, facts = stored.arrays(), stored.facts
        texts = unpacked(kept["texts"], kept["text_bytes"])
        histories = Ragged.from_lengths(kept["history"], kept["lengths"])
        examples = RatingRequests(histories, kept["history_ratings"], kept["items"], kept["users"])
        pieces = texts_for(texts, np.array(facts["levels"], dtype=np.float32), facts.get("wording"))
        system.told = Told(pieces, facts["mean"], examples, kept["solved"])
        system.facts = facts
        return system


def tiny() -> RatingPromptedConfig:
    """A small nano and short prompts."""
    nano = {"width": 64, "heads": 2, "layers": 2, "forward_width": 128, "vocabulary": 800, "steps": 30, "length": 2048}
    return RatingPromptedConfig(
        backbone=Part(name="nano", settings=nano), length=5, text=ItemText(fields=("title", "category"), max_chars=60)
    )


def few_shot() -> RatingPromptedConfig:
    """Three solved examples of other people before the question."""
    return RatingPromptedConfig(shots=3)


def chain_of_thought() -> RatingPromptedConfig:
    """The model reasons first and then writes the rating."""
    return RatingPromptedConfig(answer="text", thinking=True)


def hard_prompt() -> RatingPromptedConfig:
    """The words of the prompt are searched on the train part."""
    return RatingPromptedConfig(search=PromptSearchConfig(rounds=2))


def conventional() -> RatingPromptedConfig:
    """A page of reviews that goes on."""
    return RatingPromptedConfig(style="conventional")
