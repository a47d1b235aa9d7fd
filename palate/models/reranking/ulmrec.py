"""ULMRec: a language model reads who the user is, what was met and what was retrieved, and picks a letter.

Shao, Huang, Peng and Liu, "ULMRec: User-centric Large Language Model for Sequential Recommendation", 2024 (arXiv
2412.05543). A user index (``tokenizers.user_index``) turns reviews and identity of each user into a row of codes. A
light sequential system retrieves ``candidates`` items. A decoder language model reads instruction, index, history as
numbered titles and candidates as lettered titles (``parts.lettered``), and the logits of the letters after the prompt
order the candidates: one forward, nothing is generated. It is tuned on three tasks: pick the letter of the item that
came next among drawn others; tell by the index what the user likes, in a sentence that an annotator wrote from
reviews; tell by the history the index. ``loss = (1 - ratio) letters + ratio words``, and a batch is mixed likewise.

All other items stand behind those retrieved, in the retriever's order: figures are over the whole catalogue, and none
at k <= ``candidates`` can exceed what was retrieved; reports show that ceiling for every system that re-ranks.
Shapes: b prompts, C candidates, U users, N items, P packed tokens, D width.

Where we depart, and why:
- The default language model is ``nano``, taught on the data's own titles and sentences, all of it tuned; ``paper()``
  names the published model with adapters on queries and values. Its base is bf16 where the paper's is 4-bit.
- The retriever is SASRec, or any system named; the paper's LRURec is not here. It learns from the same train part,
  stopped early on validation, inside the fit.
- Titles and instructions are not cut on the left: a history that does not fit loses its oldest items, the index and
  the candidates never lose a token.
- A letter in the list is the very token that answers, and the prompt ends in an opening bracket, so that no model needs
  another token for a letter after a space.
- Early stopping looks at NDCG@10 over the catalogue, an epoch apart; the paper at that of the retrieved, every 100
  steps. An epoch asks about each event once, or about ``prefixes`` of each user.
- Who is new has no review: see ``tokenizers.user_index``. Where no item of the history is known, the retriever's order
  stays: there is nothing to read.
Extensions: ``codes="tokens"`` makes each code one new token; ``orders`` asks about the candidates in several orders and
takes the mean, which takes away most of what a place in the list is worth by itself; ``trust`` adds the retriever's
own odds among the retrieved, for models too small to choose among letters alone: ``tiny()`` does.
"""

from __future__ import annotations

from hashlib import blake2b as digest
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.text_model import TextModel
from palate.core import store
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.protocols import Continues, FloatArray, Judge, Profiler, Recommender, UserTokenizer
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.lettered import LetteredBatch, LetteredBatches
from palate.data.ranking_prompts import LETTERS
from palate.parts.lettered import UNKNOWN, Script, of_letters, written
from palate.parts.prompting import by_length, check_decodes, read_packed
from palate.training.loop import optimise
from palate.training.shell import GradientSystem, Lesson

Task = Literal["preference", "index", "history"]
LOOKED_AT = 64
"""Users of the train part whose questions show what a place in the list is worth."""


class ULMRecConfig(Config):
    retriever: Part = Part(name="sasrec")
    """What retrieves: ``retriever=gru4rec``, ``retriever.preset=tiny`` …"""
    user_index: Part = Part(name="reviews")
    """What names users."""
    backbone: Part = Part(name="nano")
    """The language model, which must be a decoder; ``backbone.tune`` says what of it learns."""
    annotator: Part = Part(name="extractive")
    """What writes what users like."""
    text: ItemText = ItemText(fields=("title",))
    """How an item reads."""
    candidates: int = Field(20, ge=2, le=len(LETTERS))
    """Items that are retrieved and put in order; one letter each."""
    length: int = Field(20, ge=1)
    """The last so many items are read."""
    title_tokens: int = Field(32, ge=1)
    """The first so many of a title are read."""
    preference_tokens: int = Field(64, ge=1)
    """The first so many of what a user likes are taught."""
    max_tokens: int = Field(1536, ge=64)
    """Of a prompt."""
    codes: Literal["written", "tokens"] = "written"
    """An index is text like any other, or each code one new token."""
    ratio: float = Field(0.5, ge=0, lt=1)
    """Share of the alignment tasks; 0 = none."""
    alignment: tuple[Task, ...] = ("preference", "index")
    """Index → preference, history → index, and (``history``) index → history."""
    prefixes: int | None = Field(None, ge=1)
    """Events of each user that an epoch asks about, drawn anew; None = all."""
    orders: int = Field(1, ge=1, le=len(LETTERS))
    """Orders of the candidates that are asked about; the first is the retriever's, the others begin elsewhere in it."""
    trust: float = Field(0.0, ge=0)
    """How much the retriever's own log-odds among the retrieved count beside those of the letters; 0 = the paper."""
    batch_size: int = Field(16, ge=2)
    """Prompts a step, of all tasks."""
    training: TrainingConfig = TrainingConfig(
        epochs=20, learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, clip_norm=1.0, patience=3
    )


SPACE: SearchSpace = {
    "ratio": Choice((0.0, 0.25, 0.5)),
    "length": Choice((10, 20)),
    "training.learning_rate": Range(2e-4, 3e-3, log=True),
}
"""What ``--tune`` searches."""


class ULMRec(GradientSystem[ULMRecConfig, nn.Module]):
    """The recommender. ``network`` is that of the language model, None until fitted or loaded."""

    config_type = ULMRecConfig

    def __init__(
        self,
        config: ULMRecConfig | None = None,
        *,
        retriever: Recommender,
        user_index: UserTokenizer,
        backbone: TextModel[Any],
        annotator: Profiler,
    ) -> None:
        super().__init__(
            config, retriever=retriever, user_index=user_index, backbone=backbone, annotator=annotator
        )  # fmt: skip
        self.retriever, self.user_index, self.backbone, self.annotator = retriever, user_index, backbone, annotator
        self._judge: Judge | None = None
        self._script: Script | None = None
        self._preferences: list[str] = []
        self._remarks: dict[str, Any] = {}
        self._sample: Requests | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        self._judge = judge
        return super().fit(train, run, judge)

    def continue_fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Go on; users named once keep their index."""
        self._judge = judge
        return super().continue_fit(train, run, judge)

    def prepare(self, train: Dataset, run: Run) -> None:
        judge, self._judge = self._judge, None
        fresh, retrieving = self.network is None, run.inside("retriever", share=0.25)
        if not fresh and isinstance(self.retriever, Continues):
            self.retriever.continue_fit(train, retrieving, judge)
        else:
            self.retriever.fit(train, retrieving, judge)
        if fresh:
            self.user_index.fit(train, run.inside("user-index", share=0.1))
        else:
            self.user_index.add(train, run)
        self._preferences = self.preferences(train)
        titles = [" ".join(text.split()) for text in self.config.text.render(train)]
        indexes = self.user_index.spelled(self.user_index.numbers)
        if fresh:
            said = [f" {text}" for text in (*self._preferences, *indexes) if text]
            told = [*written(self.config.length, titles), *said]
            self.backbone.prepare(told, run, optimise, fitted_on=train.fingerprint)
            check_decodes(self.backbone, "ULMRec")
        if self.config.codes == "tokens":
            self.backbone.add_tokens(sorted({code for index in indexes for code in index.split()}))
        self._script = self._written(titles, self._read_indexes(indexes))

    def preferences(self, train: Dataset) -> list[str]:
        """``[U]`` what each user likes, "" where nothing is known; nothing but ``train`` is read."""
        if "preference" not in self.config.alignment or not self.config.ratio:
            return [""] * train.n_users
        of_items = self.annotator.item_profiles(train, np.arange(train.n_items))
        written = self.annotator.user_profiles(train, np.arange(train.n_users), of_items)
        return [profile.summarization for profile in written]

    def _written(self, titles: list[str], indexes: Ragged) -> Script:
        config = self.config
        return Script.of(
            self.backbone, titles, candidates=config.candidates, length=config.length,
            title_tokens=config.title_tokens, index_tokens=int(indexes.lengths.max(initial=0)),
            max_tokens=config.max_tokens,
        )  # fmt: skip

    def _read_indexes(self, spelled: list[str]) -> Ragged:
        return self.backbone.read([f" {text}" if text else UNKNOWN for text in spelled], inside=True)

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"index": digest(self.user_index.numbers.tobytes()).hexdigest()}

    def _build(self, shape: Any) -> nn.Module:
        return self.backbone.model

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        """Indexes and preferences are those of all of a user's train part: a question about one of its events tells an
        index learnt from that event's review and from later ones, and so do the sentences. What is asked in validation
        and test is later than both, so no figure gains by it; the letters are taught by better indexes than they will
        be asked with."""
        config, numbers = self.config, self.user_index.numbers
        indexes = self._read_indexes(self.user_index.spelled(numbers))
        preferences = self.backbone.read(
            [f" {text}" if text else "" for text in self._preferences], config.preference_tokens, inside=True
        )
        named, met = numbers[:, 0] >= 0, train.histories.lengths > 0
        of_task = {"preference": named & (preferences.lengths > 0), "index": named & met, "history": named & met}
        batches = LetteredBatches(
            train, [np.flatnonzero(of_task[task]) for task in config.alignment], candidates=config.candidates,
            length=config.length, batch_size=config.batch_size, ratio=config.ratio, prefixes=config.prefixes,
            seed=run.seed,
        )  # fmt: skip
        self._remarks = {
            "questions an epoch": batches.questions,
            "users taught by": {task: len(some) for task, some in zip(config.alignment, batches.others, strict=True)},
        }
        users = np.flatnonzero(train.histories.lengths > 1)
        some = np.random.default_rng([run.seed, 3]).permutation(users)[:LOOKED_AT]
        self._sample = Requests.for_users(train, np.sort(some)).leaving_out_history()
        return Lesson(batches, lambda batch: self.loss(batch, train.histories, indexes, preferences))

    def loss(self, batch: LetteredBatch, histories: Ragged, indexes: Ragged, preferences: Ragged) -> Tensor:
        """Cross entropy over the letters and, in the share ``ratio``, over the tokens of what is told; ``histories``,
        ``indexes`` and ``preferences`` (tokens) are those of all users."""
        script = self.script
        told = [
            script.preferred(indexes[users], preferences[users]) if task == "preference"
            else script.named(indexes[users], histories[users]) if task == "index"
            else script.recalled(indexes[users], histories[users])
            for task, users in zip(self.config.alignment, batch.lessons, strict=True) if len(users)
        ]  # fmt: skip
        asked = script.asked(indexes[batch.users], batch.histories, batch.candidates)
        prompts = _stacked([asked, *(ask.joined(answer) for ask, answer in told)])
        device = self.backbone.model.device
        states, first = read_packed(self.backbone, prompts, device)
        n = len(asked)
        letters = of_letters(self._letters(states, first[:n] + asked.lengths - 1), batch.candidates.lengths)
        loss = F.nll_loss(letters, torch.from_numpy(batch.targets).to(device))
        if not told:
            return loss
        answers = _stacked([answer for _, answer in told])
        begun = first[n:] + np.concatenate([ask.lengths for ask, _ in told])
        before = Ragged(answers.values, begun - 1, begun - 1 + answers.lengths).flat_positions()
        said = self.backbone.logits(states[torch.from_numpy(before).to(device)]).float()
        words = F.cross_entropy(said, torch.from_numpy(answers.flat().astype(np.int64)).to(device))
        return (1 - self.config.ratio) * loss + self.config.ratio * words

    def _letters(self, states: Tensor, rows: IntArray) -> Tensor:
        """``[b, C]`` the logits of the letters after these ``rows`` ``[b]`` of ``states``."""
        ids = torch.from_numpy(self.script.letters).to(states.device)
        return self.backbone.logits(states[torch.from_numpy(rows).to(states.device)], ids)

    def remarks(self) -> dict[str, Any]:
        return {
            "pretrained": self.backbone.pretrained, "backbone": self.backbone.version,
            "retriever": self.config.retriever.name, "written by": self.annotator.label,
            "user index": getattr(self.user_index, "facts", {}).get("read"),
            "position gap": None if self._sample is None else self._told_gap(self._sample), **self._remarks,
        }  # fmt: skip

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def script(self) -> Script:
        """What prompts are put together from."""
        self.fitted()
        assert self._script is not None
        return self._script

    def retrieved(self, requests: Requests) -> Rankings:
        """What is put in order: the best of the retriever."""
        self.fitted()
        return self.retriever.recommend(requests, self.config.candidates)

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The retrieved, best letter first, and behind them the retriever's next."""
        self.fitted()
        found = self.retriever.recommend(requests, max(k, self.config.candidates))
        n = self.config.candidates
        first = self._weighed(requests, found.item_rows[:, :n], found.scores[:, :n])
        scores = np.concatenate([first, found.scores[:, n:]], axis=1)
        read = np.isfinite(first[:, 0])
        scores[~read] = found.scores[~read]
        floor, last = _floor(first), _floor(found.scores[:, :n])
        scores[read, n:] = np.minimum(scores[read, n:] - last[read, None], 0) + floor[read, None] - 1
        order = np.argsort(-np.nan_to_num(scores[:, :n], nan=-np.inf), axis=1, kind="stable")
        rows = found.item_rows.copy()
        rows[:, :n], scores[:, :n] = (np.take_along_axis(table[:, :n], order, 1) for table in (rows, scores))
        return Rankings(rows[:, :k], np.where(rows >= 0, scores, np.nan)[:, :k].astype(np.float32), exact=False)

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` of a retrieved item the log-probability of its letter (and what ``trust`` adds); of any other,
        below all of these, how far the retriever puts it behind the last of them."""
        found = self.retrieved(requests)
        letters = self._weighed(requests, found.item_rows, found.scores)
        scores, rows = self.retriever.score(requests, candidates), candidates.row_numbers()
        behind = np.minimum(scores - _floor(found.scores)[rows], 0) + _floor(letters)[rows] - 1
        scores = np.where(np.isfinite(letters[:, 0])[rows], behind, scores)
        return _replaced(scores, candidates, found.item_rows, letters)

    def _weighed(self, requests: Requests, items: IntArray, retrieved: FloatArray) -> FloatArray:
        """``letters`` and, in the share ``trust``, the log-odds of the retriever's scores ``[B, C]``."""
        scores = self.letters(requests, items)
        if not self.config.trust:
            return scores
        known = np.where(np.isfinite(retrieved), retrieved, -np.inf)
        top = known.max(1, keepdims=True, initial=-np.inf)
        odds = np.exp(known - np.where(np.isfinite(top), top, 0))
        total = np.maximum(odds.sum(1, keepdims=True), 1e-30)
        return scores + self.config.trust * np.log(np.maximum(odds / total, 1e-30)).astype(np.float32)

    @torch.no_grad()
    def letters(self, requests: Requests, items: IntArray) -> FloatArray:
        """``[B, C]`` log-probabilities of ``items`` ``[B, C]`` (-1 = none) among each other; NaN beside -1, and
        everywhere where no item of the history is known."""
        script = self.script
        known = requests.known(script.n_items).histories
        counts = (items >= 0).sum(1)
        scores = np.full(items.shape, np.nan, dtype=np.float32)
        asked = np.flatnonzero((known.lengths > 0) & (counts > 0))
        if not len(asked):
            return scores
        some, counts = items[asked], counts[asked]
        indexes = self._read_indexes(self.user_index.spelled(self.user_index.asked(requests[asked])))
        total = np.zeros(some.shape, dtype=np.float64)
        for turn in range(self.config.orders):
            places = (np.arange(some.shape[1]) + (turn * counts // self.config.orders)[:, None]) % counts[:, None]
            turned, there = np.take_along_axis(some, places, 1), np.arange(some.shape[1]) < counts[:, None]
            prompts = script.asked(indexes, known[asked], Ragged.from_lengths(turned[there], counts))
            said = self._answered(prompts, counts)
            rows, columns = np.nonzero(there)
            total[rows, places[there]] += said[rows, columns]
        scores[asked] = np.where(some >= 0, total / self.config.orders, np.nan)
        return scores

    def _answered(self, prompts: Ragged, counts: IntArray) -> FloatArray:
        """``[b, C]`` log-probabilities of the letters; -inf beyond ``counts`` ``[b]``."""
        found = np.empty((len(prompts), len(self.script.letters)), dtype=np.float32)
        for rows in by_length(prompts):
            states, first = read_packed(self.backbone, prompts[rows], self.backbone.model.device)
            logits = self._letters(states, first + prompts.lengths[rows] - 1)
            found[rows] = of_letters(logits, counts[rows]).cpu().numpy()
        return found

    def _told_gap(self, sample: Requests) -> float | None:
        gap = self.position_gap(sample)
        return None if np.isnan(gap) else round(gap, 4)

    def position_gap(self, requests: Requests) -> float:
        """How much a place in the list is worth by itself: the mean difference between the log-probability of an item
        in the retriever's order and in the reverse of it."""
        items = self.retrieved(requests).item_rows
        counts, places = (items >= 0).sum(1)[:, None], np.arange(items.shape[1])
        back = np.where(places < counts, counts - 1 - places, places)  # what is missing stands last
        one = self.letters(requests, items)
        other = np.take_along_axis(self.letters(requests, np.take_along_axis(items, back, 1)), back, 1)
        moved = np.abs(one - other)
        return float(np.nanmean(moved)) if np.isfinite(moved).any() else float("nan")

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Settings, facts and the tokens of what prompts say; the weights go with the language model."""
        script = self.script
        arrays = {"phrases": script.phrases.flat(), "sizes": script.phrases.lengths, "letters": script.letters}
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        arrays = stored.arrays()
        phrases = Ragged.from_lengths(arrays["phrases"], arrays["sizes"])
        system._script = Script(phrases, arrays["letters"], system.config.length, system.config.max_tokens)
        system.facts, system.network = stored.facts, system.backbone.model
        return system


def _stacked(parts: list[Ragged]) -> Ragged:
    """The rows of all, one after another."""
    values = np.concatenate([part.flat().astype(np.int64) for part in parts])
    return Ragged.from_lengths(values, np.concatenate([part.lengths for part in parts]))


def _floor(scores: FloatArray) -> FloatArray:
    """``[B]`` the least of each row; 0 of one that holds none."""
    least = np.where(np.isfinite(scores), scores, np.inf).min(1, initial=np.inf)
    return np.where(np.isfinite(least), least, 0).astype(np.float32)


def _replaced(scores: FloatArray, candidates: Ragged, items: IntArray, letters: FloatArray) -> FloatArray:
    """``scores`` of the candidates, flat, with ``letters`` ``[B, C]`` in place of those of ``items`` ``[B, C]``."""
    there = (items >= 0) & np.isfinite(letters)
    reach = 1 + max(int(items.max(initial=0)), int(candidates.flat().max(initial=0)))
    keys = (np.arange(len(items))[:, None] * reach + items)[there]
    order = np.argsort(keys)
    asked = candidates.row_numbers() * reach + candidates.flat()
    asked = np.where(candidates.flat() >= 0, asked, -1)
    place = np.minimum(np.searchsorted(keys, asked, sorter=order), max(len(keys) - 1, 0))
    if not len(keys):
        return scores.astype(np.float32)
    found = keys[order][place] == asked
    return np.where(found, letters[there][order][place], scores).astype(np.float32)


def tiny() -> ULMRecConfig:
    """Learns on a laptop CPU in a minute: a small nano that is helped by the retriever's odds, short titles and
    histories, one event a user and epoch."""
    return ULMRecConfig(
        retriever=Part(name="sasrec", preset="tiny", settings={"training": {"epochs": 30}}),
        user_index=Part(name="reviews", preset="tiny"),
        backbone=Part(name="nano", settings={
            "width": 64, "heads": 2, "layers": 2, "forward_width": 128, "length": 1024, "steps": 100,
            "vocabulary": 2048,
        }),
        length=8, title_tokens=8, preference_tokens=24, max_tokens=512, prefixes=1, batch_size=32, trust=1.0,
        training=TrainingConfig(
            epochs=6, learning_rate=3e-3, weight_decay=0.01, warmup_steps=20, clip_norm=1.0, judge_every=3, patience=2
        ),
    )  # fmt: skip


def paper() -> ULMRecConfig:
    """The published setting, with a model of 7 billion weights that must be here or fetched. Preferences by a chat
    model: ``annotator=chat``."""
    return ULMRecConfig(
        retriever=Part(name="sasrec", settings={"length": 50}),
        user_index=Part(name="reviews", preset="paper"),
        backbone=Part(name="hub", settings={
            "model": "meta-llama/Llama-2-7b-hf", "precision": "bf16", "tune": "lora", "lora_rank": 8,
            "lora_alpha": 32.0, "lora_dropout": 0.05, "lora_layers": ["q_proj", "v_proj"], "recompute": True,
        }),
        training=TrainingConfig(
            epochs=1, learning_rate=1e-4, betas=(0.9, 0.999), warmup_steps=100, clip_norm=1.0, patience=20
        ),
    )  # fmt: skip
