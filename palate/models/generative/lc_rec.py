"""LC-Rec: a language model learns the items' names as new words, by tasks that tie names, texts and behaviour together.

Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation", ICDE 2024
(arXiv 2311.09049). An RQ-VAE whose last level is spread evenly names the items; every code is one new token of a
decoder-only language model. The model is tuned on six tasks (``parts.instructions``), which are the paper's sequential
prediction, explicit alignment of names and text in both directions, asymmetric prediction, prediction from an intention
and inference of a preference: ``-log p(response | instruction)``, nothing of the instruction being taught. To answer,
beam search over the trie of the live names: no answer is ever an item that does not exist. Shapes: b instructions, S
tokens, V tokens of the vocabulary, T tokens of a name, N items, E events.

Where we depart, and why:
- The default language model is ``nano``, taught on the data's own text: it shows what the method does, not what a large
  model knows. ``paper()`` names the published kind of model.
- Intentions and preferences are written by an annotator. The default one extracts phrases and needs no model. It reads
  the train part alone: each user's last training event is what is searched for, the events before it say what is
  liked. Tasks whose words are missing (no titles, no reviews) are left out, and the facts say so.
- All questions about one window of a history are asked in one wording and as branches of one reading of it, which gives
  the same loss in half of the time (``data.instruction_batches``); the paper's windows slide.
- A user's first event is taught too, with instructions that name no history, so that newcomers can be answered.
- Seven to twelve templates a task, where the public code has eleven to nineteen; an item's text is encoded as one,
  where that code encodes field by field and takes the mean.
- A prefix trie, where the public code allows any code of a level at its place.
- Questions are asked with one wording; ``templates`` takes the normalised geometric mean over several, token by token,
  where the paper averages figures over runs with each.
- Constant learning rate after the warm-up (``paper()`` has the published cosine), and early stopping on the ranking
  instead of the loss of validation.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b as digest
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from palate.backbones.item_text import ItemText
from palate.backbones.text_model import padded
from palate.core import store
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.protocols import Annotator, ItemTokenizer, LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.instruction_batches import InstructionBatch, InstructionBatches, Pool
from palate.data.instructions import Examples, Phrasebook, Template, Templates, beginnings_of, pieces_of
from palate.data.mixing import shares
from palate.parts.branching import Branching
from palate.parts.decode import CausalSpeaker, MeanSpeaker, Speaker
from palate.parts.instructions import (
    ASKING,
    MARK,
    MISSING,
    SEPARATOR,
    TASKS,
    TaskName,
    Words,
    asked_with,
    pools_of,
    taught_with,
)  # fmt: skip
from palate.parts.naming import Naming
from palate.parts.prompting import check_decodes
from palate.training.loop import optimise, seeded
from palate.training.shell import GradientSystem, Lesson

EVERY_TASK: tuple[TaskName, ...] = (
    "seqrec", "item2index", "index2item", "fusionseqrec", "itemsearch", "preferenceobtain",
)  # fmt: skip
LOGITS = 2**24
"""Logits alive at once while the loss is taken."""


class LCRecConfig(Config):
    tokenizer: Part = Part(name="rq-vae", settings={"uniform_last": True, "tie_break": "match"})
    """What names the items."""
    backbone: Part = Part(name="nano")
    """The language model, which must be a decoder; ``backbone.tune`` says what of it learns."""
    annotator: Part = Part(name="extractive")
    """What writes intentions and preferences."""
    tasks: tuple[TaskName, ...] = EVERY_TASK
    """What is taught; ``seqrec`` alone is LC-Rec without its alignment tasks."""
    description: ItemText = ItemText(fields=("text", "category"), max_chars=600)
    """How an item is described; the title, where a description begins with it, is cut off."""
    title_tokens: int = Field(24, ge=1)
    """The first so many of a title are read."""
    text_tokens: int = Field(48, ge=1)
    """The first so many of a description, an intention or a preference are read."""
    length: int = Field(20, ge=1)
    """The last so many items are read."""
    prefixes: int | None = Field(None, ge=1)
    """Events of each user that an epoch asks about, drawn anew; None = all, those of a window of ``length`` in one
    wording and with one reading of it."""
    fused: float = Field(0.05, ge=0)
    """Examples of ``fusionseqrec`` beside each one of ``seqrec``."""
    weights: dict[TaskName, float] = {}
    """How the tasks share an epoch's questions: ``weights.seqrec=4``; a task that is not named weighs 1. Without any,
    by their examples."""
    temperature: float = Field(1.0, ge=1)
    """Without weights: shares follow examples^(1/temperature), so that small tasks are taught more often."""
    wordings: Literal["all", "seen"] = "all"
    """What is taught; ``seen`` keeps the templates ``UNSEEN`` for asking."""
    asking: Literal["seen", "unseen"] = "seen"
    """Which of them questions are asked with."""
    templates: int = Field(1, ge=1, le=ASKING)
    """Wordings that a question is asked with."""
    beam: int = Field(20, ge=1)
    batch_size: int = Field(128, ge=1)
    """Questions a step, of all tasks."""
    training: TrainingConfig = TrainingConfig(
        epochs=60, learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, clip_norm=1.0, judge_every=2, patience=5
    )

    @field_validator("tasks")
    @classmethod
    def _asks_what_comes_next(cls, tasks: tuple[TaskName, ...]) -> tuple[TaskName, ...]:
        if "seqrec" not in tasks or len(set(tasks)) != len(tasks):
            raise ValueError("tasks must hold seqrec, and each task once")
        return tasks

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.asking == "unseen" and self.wordings == "all":
            raise ValueError("asking=unseen needs wordings=seen: else every wording is taught")
        if self.templates > (most := len(asked_with(self.wordings, self.asking))):
            raise ValueError(f"there are {most} such wordings to ask with, not {self.templates}")
        if min(self.weights.values(), default=1) < 0 or not set(self.weights) <= set(self.tasks):
            raise ValueError("weights are of tasks that are taught, and none is below 0")
        if not any(self.weights.get(task, 1.0) for task in self.tasks):
            raise ValueError("weights of 0 for every task leave nothing to teach")
        return self


SPACE: SearchSpace = {
    "fused": Range(0.0, 0.3),
    "training.learning_rate": Range(2e-4, 3e-3, log=True),
    "length": Choice((10, 20)),
}
"""What ``--tune`` searches."""


def item_words(catalogue: Dataset, description: ItemText) -> tuple[list[str], list[str]]:
    """Title and description of each item; "" where there is none."""
    titles = [""] * catalogue.n_items
    if "title" in catalogue.items.columns:
        titles = [" ".join((title or "").split()) for title in catalogue.items["title"].to_list()]
    descriptions = [""] * catalogue.n_items
    if set(description.fields) & set(catalogue.items.columns):
        texts = description.render(catalogue)
        descriptions = [
            "" if text == description.unknown else _untitled(text, title)
            for text, title in zip(texts, titles, strict=True)
        ]
    return titles, descriptions


def _untitled(text: str, title: str) -> str:
    """Without the title it begins with, where that is no part of a longer word."""
    rest = text.removeprefix(title)
    return text if rest[:1].isalnum() else rest.lstrip(" .,;:")


@dataclass(frozen=True, eq=False)
class Speech:
    """The catalogue in the language model's words: how questions are asked and how items are answered."""

    book: Phrasebook
    naming: Naming


class LCRec(GradientSystem[LCRecConfig, nn.Module]):
    """The recommender. ``network`` is that of the language model, None until fitted or loaded."""

    config_type = LCRecConfig

    def __init__(
        self,
        config: LCRecConfig | None = None,
        *,
        tokenizer: ItemTokenizer,
        backbone: LanguageModel,
        annotator: Annotator,
    ) -> None:
        super().__init__(config, tokenizer=tokenizer, backbone=backbone, annotator=annotator)
        self.tokenizer, self.backbone, self.annotator = tokenizer, backbone, annotator
        self._words: Words | None = None
        self._taught: dict[str, int] = {}
        self._speech: tuple[object, Speech] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, train: Dataset, run: Run) -> None:
        described = item_words(train, self.config.description)
        self._words = words = Words.of(train, *described, self.annotator, self.config.tasks)
        if self.network is not None:
            self.tokenizer.add(train)
        else:
            self.tokenizer.fit(train, run.inside("tokenizer", share=0.25))
            read = train.fingerprint if words.wishes or words.preferences else store.NO_DATA
            said = [f" {text}" for text in words.texts if text]
            self.backbone.prepare([*self.said(), *said], run, optimise, fitted_on=read)  # type: ignore[call-arg]
            check_decodes(self.backbone, "LC-Rec")
        self._names()

    def _tasks(self) -> list[tuple[Template, ...]]:
        return [taught_with(task, self.config.wordings) for task in self.config.tasks]

    def said(self) -> list[str]:
        """What the instructions say beside what fills their places."""
        return [*pieces_of(self._tasks()), MARK]

    def _names(self) -> IntArray:
        """``[N, K]`` names in the language model's vocabulary, -1 after the end of a shorter one. Codes that are not
        in it yet become new tokens."""
        codes, lm = self.tokenizer.codes, self.backbone
        if codes.atomic:
            used = np.unique(codes.tokens[codes.tokens >= 0])
            ids = np.full(len(codes.vocabulary), -1, dtype=np.int64)
            ids[used] = lm.add_tokens([codes.vocabulary[token] for token in used])
            return np.where(codes.tokens >= 0, ids[codes.tokens], -1)
        rows = lm.read([f" {codes.spell(row)}" for row in range(codes.n_items)], inside=True)
        names = np.full((len(rows), int(rows.lengths.max(initial=1))), -1, dtype=np.int64)
        names[np.arange(names.shape[1]) < rows.lengths[:, None]] = rows.flat()
        return names

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"names": digest(self.tokenizer.codes.tokens.tobytes()).hexdigest()}

    def _build(self, shape: Any) -> nn.Module:
        return self.backbone.model

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        assert self._words is not None
        words, self._words = self._words, None
        book = self._book(self._names(), self._tasks(), words)
        config = self.config
        pools = pools_of(
            train, book, words, config.tasks, length=config.length, prefixes=config.prefixes, fused=config.fused
        )
        taught = [pool for pool in pools if len(pool)]
        batches = InstructionBatches(
            train, book, taught, batch_size=config.batch_size, seed=run.seed, pad=self.backbone.tokenizer.pad,
            mix=self._mix(taught),
        )  # fmt: skip
        of_pool = [(config.tasks[pool.task], n) for pool, n in zip(taught, batches.counts.tolist(), strict=True)]
        self._taught = {name: sum(n for task, n in of_pool if task == name) for name in config.tasks}
        return Lesson(batches, lambda batch: self.loss(batch.to(run.device)))

    def _mix(self, pools: list[Pool]) -> dict[int, float] | None:
        """The share of each task, where the settings say more than its examples do."""
        config, sizes = self.config, Counter[int]()
        for pool in pools:
            sizes[pool.task] += len(pool)
        if not config.weights and config.temperature == 1:
            return None
        weights = {config.tasks.index(name): weight for name, weight in config.weights.items()}
        found = shares(sizes, weights or None, config.temperature)
        if sizes and not found:
            told = ", ".join(config.tasks[task] for task in sorted(sizes))
            raise ConfigError(f"weights leave nothing to teach: of the tasks that have examples ({told}) all weigh 0")
        return found or None

    def _book(self, names: IntArray, tasks: list[tuple[Template, ...]], words: Words | None = None) -> Phrasebook:
        """Everything that is said in these tasks; without ``words``, names are all that can be filled in."""
        lm, text = self.backbone, self.backbone.tokenizer
        begins = beginnings_of(tasks)
        pieces = sorted(pieces_of(tasks), key=lambda piece: piece not in begins)
        end = text.pad if text.end is None else text.end
        firsts, others = pieces[: len(begins)], pieces[len(begins) :]
        parts = [lm.read(firsts), lm.read([*others, MARK, SEPARATOR], inside=True)]
        parts.append(Ragged.of([[end], lm.opening]))
        n = len(pieces)
        first = {"name": n + 4}
        parts.append(Ragged.from_lengths(names[names >= 0], (names >= 0).sum(1)))
        if words is not None:
            short, long = self.config.title_tokens, self.config.text_tokens
            for place, texts, most in (
                ("title", words.titles, short), ("description", words.descriptions, long),
                ("wish", words.wishes, long), ("preference", words.preferences, long),
            ):  # fmt: skip
                first[place] = sum(len(part) for part in parts)
                parts.append(lm.read([f" {text}" if text else "" for text in texts], most, inside=True))
        tokens = Ragged.from_lengths(
            np.concatenate([part.flat().astype(np.int64) for part in parts]),
            np.concatenate([part.lengths for part in parts]),
        )
        templates = Templates.of(tasks, pieces, mark=n, end=n + 2)
        return Phrasebook(tokens, first, n + 1, n + 3 if len(lm.opening) else -1, templates)

    def loss(self, batch: InstructionBatch) -> Tensor:
        """``-log p`` of the responses' tokens over the whole vocabulary, mean over tokens."""
        lm, told = self.backbone, []
        if batch.alone is not None:
            # Padding stands behind everything that is taught, so a causal model needs no mask against it.
            tokens, taught = batch.alone.tokens, batch.alone.taught
            told.append((lm.states(lm.embed(tokens), torch.ones_like(taught)), tokens, taught))
        if (rows := batch.branched) is not None:
            branching = Branching(rows.trunk, rows.read)
            told.append((lm.branched_states(lm.embed(rows.tokens), rows.places, branching), rows.tokens, rows.taught))
        chosen = torch.cat([states[:, :-1][taught[:, 1:]] for states, _, taught in told])
        targets = torch.cat([tokens[taught] for _, tokens, taught in told])

        def part(states: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(lm.logits(states).float(), targets, reduction="sum")

        rows = max(1, LOGITS // lm.model.get_input_embeddings().num_embeddings)
        if len(chosen) <= rows:
            return part(chosen, targets) / len(targets)
        pairs = zip(torch.split(chosen, rows), torch.split(targets, rows), strict=True)
        total = sum(checkpoint(part, some, wanted, use_reentrant=False) for some, wanted in pairs)
        return total / len(targets)

    def remarks(self) -> dict[str, Any]:
        silent = [task for task in self.config.tasks if not self._taught.get(task)]
        return {
            "pretrained": self.backbone.pretrained,
            "backbone": self.backbone.version,
            "examples an epoch": self._taught,
            "left out": {task: MISSING[task] for task in silent},
            "written by": self.annotator.label,
        }

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def speech(self) -> Speech:
        """Made anew when names or network have changed."""
        network, codes = self.fitted(), self.tokenizer.codes
        device, vocabulary = self.backbone.model.device, self.backbone.model.get_input_embeddings().num_embeddings
        state = (codes, network, device, vocabulary)
        if self._speech is None or self._speech[0] != state:
            names, text = self._names(), self.backbone.tokenizer
            alike = codes.atomic and bool((names >= 0).all())  # none can be the beginning of another
            end = None if alike else text.pad if text.end is None else text.end
            naming = Naming(names, vocabulary, codes.live, end=end, device=device)
            self._speech = state, Speech(self._book(names, [TASKS["seqrec"]]), naming)
        return self._speech[1]

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` that the beam finds, at least ``k`` wide."""
        return self.speech.naming.recommend(requests, k, self._speak, beam=self.config.beam)

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` log-probabilities of the candidates' names; NaN for an item that has none or was retired."""
        return self.speech.naming.score(requests, candidates, self._speak, self.tokenizer.codes.live)

    def _speak(self, requests: Requests) -> Speaker:
        speakers = [
            CausalSpeaker(self.backbone.model, *self.asked(requests, template))
            for template in asked_with(self.config.wordings, self.config.asking)[: self.config.templates]
        ]
        return speakers[0] if len(speakers) == 1 else MeanSpeaker(speakers)

    def asked(self, requests: Requests, template: int = 0) -> tuple[Tensor, Tensor]:
        """The questions as the language model reads them, in wording ``template``: tokens ``[B, S]`` padded on the
        left, and which of them are no padding ``[B, S]``. Histories that are empty have wordings of their own."""
        speech = self.speech
        recent = requests.known(speech.naming.n_items).histories.last(self.config.length)
        events, stops = recent.flat().astype(np.int64), recent.offsets()[1:]
        examples = Examples.about(np.full(len(recent), -1), start=recent.offsets()[:-1], stop=stops)
        newcomers = ASKING + template % (len(TASKS["seqrec"]) - ASKING)
        chosen = np.where(recent.lengths > 0, template, newcomers)
        tokens = speech.book.asked(chosen, examples, speech.book.values(events), len(events))
        return padded(tokens, self.backbone.tokenizer.pad, "left", self.backbone.model.device)

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``, so that the next answer may hold it. A code that no item had before is a
        new token that was never taught."""
        self.fitted()
        self.tokenizer.add(catalogue)
        with seeded(Run()):  # rows of new tokens are drawn, and the random state is the caller's
            self._names()

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again."""
        self.tokenizer.retire(item_rows, back=back)

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Settings and facts; the weights go with the language model, the names with the tokenizer."""
        self.fitted()
        store.save(
            folder, self, config=self.config, facts=self.facts, parts=self.parts, fitted_on=self.facts["fitted_on"]
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        system.facts, system.network = stored.facts, system.backbone.model
        return system


def tiny() -> LCRecConfig:
    """Learns on a laptop CPU in ten minutes: few codes, a small language model, the last ten items."""
    names = {"size": 32, "levels": 3}
    nano = {"width": 96, "heads": 4, "layers": 3, "forward_width": 256, "vocabulary": 2048, "steps": 150}
    return LCRecConfig(
        tokenizer=Part(name="rq-vae", settings=names),
        backbone=Part(name="nano", settings=nano), text_tokens=32, length=10,
        training=TrainingConfig(
            epochs=8, learning_rate=3e-3, weight_decay=0.01, warmup_steps=100, schedule="cosine", clip_norm=1.0,
            judge_every=4, patience=50,
        ),
    )  # fmt: skip


def unaligned() -> LCRecConfig:
    """Without the alignment tasks: what the names alone can do."""
    return LCRecConfig(tasks=("seqrec",))


def paper() -> LCRecConfig:
    """The published setting, with a model of 7 billion weights that must be here or fetched."""
    model = "huggyllama/llama-7b"
    encoder = {"name": "hub", "settings": {"model": model, "pooling": "mean"}}
    return LCRecConfig(
        tokenizer=Part(name="rq-vae", preset="lc_rec", settings={"encoder": encoder}),
        backbone=Part(name="hub", settings={"model": model, "recompute": True}),
        prefixes=None, fused=0.75, templates=ASKING, title_tokens=128, text_tokens=512, batch_size=128,
        training=TrainingConfig(
            epochs=4, learning_rate=5e-5, weight_decay=0.01, betas=(0.9, 0.999), warmup_steps=100,
            schedule="cosine", clip_norm=1.0,
        ),
    )  # fmt: skip
