"""A language model tuned to predict ratings, from nothing but words: what a person rated before, and the next item.

Kang et al., "Do LLMs Understand User Preferences? Evaluating LLMs On User Rating Prediction" (arXiv 2305.06474). The
prompt is the zero-shot one (``data.rating_prompts``). Two heads: ``regression``, one linear layer on the state from
which the answer would be written, mean squared error, no text; and ``classification``, cross entropy over the tokens of
the ratings. All weights learn, or adapters, or a prompt of vectors (``backbone.tune``). Shapes: b prompts, S tokens,
D width, L ratings.

Where we depart, and why:
- The paper tunes Flan-T5 (encoder and decoder, 250M and 11B). Any causal or seq2seq model of the hub is taken
  (``paper()``); the default is ``nano``, which knows the items' texts and nothing else.
- Classification answers with the expectation over the ratings' probabilities by default, ``answer="likeliest"`` with
  the paper's most likely one.
- The regression target is what lies above the mean of all ratings, which is added back; answers are clipped to the
  scale. The heads compute in 32 bits whatever the rest does.
- A rating that is no single token of the model becomes a new one (half stars).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.core import store
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.protocols import LanguageModel
from palate.core.ragged import IntArray, Ragged
from palate.core.ratings import Predictions, RatingRequests, Stars
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.rating_prompts import VERSION, Pieces, nearest_level, texts_for
from palate.data.ratings import RatingBatches, ratings_of
from palate.parts.prompting import by_length, last_states, places_of
from palate.parts.rating_prompts import PromptTokens, RatingWords, rating_words
from palate.training.loop import optimise
from palate.training.shell import GradientSystem, Lesson


class RatingLMConfig(Config):
    backbone: Part = Part(name="nano")
    """The language model; ``backbone.tune`` says what of it learns."""
    head: Literal["regression", "classification"] = "regression"
    answer: Literal["expectation", "likeliest"] = "expectation"
    """Of the classification head."""
    length: int = Field(10, ge=0)
    """Rated events of a history that are told; 0 tells none."""
    text: ItemText = ItemText(max_chars=120)
    """How an item reads; ``text.fields=["category"]`` hides the titles."""
    text_tokens: int = Field(32, ge=1)
    """Of an item's text at most."""
    events: int | None = Field(None, ge=1)
    """Rated events that teach at most, drawn once; None = all."""
    epoch_events: int | None = Field(None, ge=1)
    """An epoch is so many events and goes on where the last one ended, so that validation is looked at that often;
    None = all of them."""
    batch_size: int = Field(64, ge=1)
    training: TrainingConfig = TrainingConfig(
        epochs=5, learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, clip_norm=1.0, patience=2
    )


SPACE: SearchSpace = {
    "head": Choice(("regression", "classification")),
    "training.learning_rate": Range(1e-4, 3e-3, log=True),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """The language model and a head. ``scale``: mean, lowest and highest rating."""

    def __init__(self, config: RatingLMConfig, language: nn.Module, width: int) -> None:
        super().__init__()
        self.language = language
        self.head = nn.Linear(width, 1) if config.head == "regression" else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.scale: Tensor
        self.register_buffer("scale", torch.zeros(3))


class RatingLM(GradientSystem[RatingLMConfig, Network]):
    """The predictor. ``network`` is None until fitted or loaded."""

    config_type = RatingLMConfig

    def __init__(self, config: RatingLMConfig | None = None, *, backbone: LanguageModel) -> None:
        super().__init__(config, backbone=backbone)
        self.backbone = backbone
        self._tokens: PromptTokens | None = None
        self._pieces: Pieces | None = None
        self._words: RatingWords | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, train: Dataset, run: Run) -> None:
        levels = np.array(self.facts["levels"], np.float32) if self.network is not None else levels_of(train)
        pieces = texts_for(self.config.text.render(train), levels)
        if self.network is None:
            self.backbone.prepare(pieces.written, run, optimise)
        self._pieces, self._words = pieces, None
        self._tokens = PromptTokens.of(self.backbone, pieces, self.config.text_tokens)
        if self.config.head == "classification":  # new tokens come before the network is built
            self._words = rating_words(self.backbone, levels, add=True)

    @property
    def words(self) -> RatingWords:
        """The tokens of the ratings, of the classification head."""
        assert self._pieces is not None
        if self._words is None:
            self._words = rating_words(self.backbone, self._pieces.levels, add=True)
        return self._words

    def _build(self, shape: Any) -> Network:
        return Network(self.config, self.backbone.model, int(self.backbone.model.get_input_embeddings().embedding_dim))

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config, pieces = self.fitted(), self.config, self._pieces
        assert pieces is not None
        ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
        taught = ratings[~np.isnan(ratings)]
        if len(taught):
            network.scale.copy_(torch.tensor([float(taught.mean()), float(taught.min()), float(taught.max())]))
        batches = Questions(
            RatingBatches(
                train, length=0, batch_size=config.batch_size, seed=run.seed, most=config.events,
                each=config.epoch_events,
            )
        )  # fmt: skip

        def loss(batch: tuple[RatingRequests, Stars]) -> Tensor:
            requests, stars = batch
            states = last_states(self.backbone, self._prompts(requests)).float()
            return self._loss(network, states, torch.from_numpy(stars).to(states.device))

        return Lesson(batches, loss)

    def _loss(self, network: Network, states: Tensor, stars: Tensor) -> Tensor:
        if network.head is not None:
            return F.mse_loss(network.head(states)[:, 0], stars - network.scale[0])
        wanted = nearest_level(stars.cpu().numpy(), self.words.levels)
        return F.cross_entropy(self._logits(states), torch.from_numpy(wanted).to(states.device))

    def _logits(self, states: Tensor) -> Tensor:
        """``[b, L]`` of the ratings' tokens."""
        ids = torch.from_numpy(self.words.ids).to(states.device)
        return self.backbone.logits(states.to(self.backbone.model.dtype), ids).float()

    def _prompts(self, requests: RatingRequests) -> Ragged:
        assert self._pieces is not None
        assert self._tokens is not None
        rows = self._pieces.rows(requests, self.config.length, "ask")
        before = None if self.config.head == "regression" else self.words.before
        return self._tokens.prompts(rows, before, places_of(self.backbone))

    def remarks(self) -> dict[str, Any]:
        assert self._pieces is not None
        return {
            "pretrained": self.backbone.pretrained,
            "backbone": self.backbone.version,
            "levels": self._pieces.levels.tolist(),
            "prompt": f"{VERSION} {self._pieces.hash}",
        }

    # -- answering ---------------------------------------------------------------------------------------------------

    def predict(self, requests: RatingRequests) -> Predictions:
        network = self.fitted()
        stars = np.zeros(len(requests), dtype=np.float32)
        prompts = self._prompts(requests)
        with torch.no_grad():
            for rows in by_length(prompts):
                states = last_states(self.backbone, prompts[rows]).float()
                stars[rows] = self._stars(network, states).cpu().numpy()
        return Predictions.of(stars)

    def _stars(self, network: Network, states: Tensor) -> Tensor:
        if network.head is not None:
            return (network.head(states)[:, 0] + network.scale[0]).clamp(network.scale[1], network.scale[2])
        levels = torch.from_numpy(self.words.levels).to(states.device)
        logits = self._logits(states)
        return levels[logits.argmax(1)] if self.config.answer == "likeliest" else logits.softmax(1) @ levels

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Settings, facts, the head and the prompts' tokens; the other weights go with the language model."""
        network, tokens = self.fitted(), self._tokens
        assert tokens is not None
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in head_of(network).items()}
        arrays |= {"tokens": tokens.pieces.flat().astype(np.int64), "lengths": tokens.pieces.lengths}
        facts = self.facts | {"around": [tokens.opening.tolist(), tokens.closing.tolist()]}
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        system = stored.begun(cls)
        system.facts, arrays = stored.facts, stored.arrays()
        levels = np.array(stored.facts["levels"], dtype=np.float32)
        pieces: IntArray = arrays.pop("tokens")
        tokens = Ragged.from_lengths(pieces, arrays.pop("lengths"))
        system._tokens = PromptTokens(tokens, *(np.array(part, dtype=np.int64) for part in stored.facts["around"]))
        # Only how many items there are is needed of the texts: their tokens are here.
        n_items = len(tokens) - len(texts_for([], levels).written)
        system._pieces = texts_for([""] * n_items, levels)
        system.network = network = system._build(stored.facts["shape"])
        with torch.no_grad():
            for name, tensor in head_of(network).items():
                tensor.copy_(torch.from_numpy(arrays[name]))
        network.eval()
        return system


class Questions:
    """The questions of ``RatingBatches`` with whole histories, for prompts are put together as they are needed."""

    def __init__(self, batches: RatingBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, skip: int = 0) -> Any:
        requests, batches = self.batches.requests, self.batches
        for some in batches.orders(epoch, skip):
            assert requests is not None
            yield requests[some], batches.ratings[batches.events[some]]


def head_of(network: Network) -> dict[str, Tensor]:
    """What is learnt beside the language model."""
    return {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("language.")}


def levels_of(train: Dataset) -> Stars:
    """``[L]`` the distinct ratings, ascending; 1 to 5 where there are none."""
    ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
    found = np.unique(ratings[~np.isnan(ratings)]).astype(np.float32)
    return found if len(found) > 1 else np.arange(1, 6, dtype=np.float32)


def tiny() -> RatingLMConfig:
    """A small nano and short prompts: learns in a minute on a small log."""
    nano = {"width": 64, "heads": 2, "layers": 2, "forward_width": 128, "vocabulary": 800, "steps": 30, "length": 512}
    return RatingLMConfig(
        backbone=Part(name="nano", settings=nano), length=5, text=ItemText(fields=("title", "category"), max_chars=60),
        text_tokens=16, batch_size=32,
        training=TrainingConfig(epochs=8, learning_rate=2e-3, weight_decay=0.01, warmup_steps=10, clip_norm=1.0),
    )  # fmt: skip


def small() -> RatingLMConfig:
    """For a hundred thousand ratings on one CPU core: short prompts of the five newest events, a nano between tiny and
    the default, and a look at validation every 12,800 ratings. 1,400 steps of half a second each."""
    nano = {"width": 128, "heads": 4, "layers": 2, "forward_width": 320, "vocabulary": 2048, "steps": 60, "length": 512}
    return RatingLMConfig(
        backbone=Part(name="nano", settings=nano), length=5, text=ItemText(fields=("title", "category"), max_chars=60),
        text_tokens=16, epoch_events=12_800,
        training=TrainingConfig(
            epochs=7, learning_rate=1e-3, weight_decay=0.01, warmup_steps=50, clip_norm=1.0, schedule="cosine",
            patience=3,
        ),
    )  # fmt: skip


def classification() -> RatingLMConfig:
    """The other head: cross entropy over the tokens of the ratings."""
    return RatingLMConfig(head="classification")


def paper() -> RatingLMConfig:
    """The smaller published model, 250 million weights, all of them tuned; it must be here or fetched."""
    return RatingLMConfig(
        backbone=Part(name="hub", settings={"model": "google/flan-t5-base"}), text_tokens=64,
        training=TrainingConfig(epochs=4, learning_rate=5e-5, weight_decay=0.01, warmup_steps=500, clip_norm=1.0),
    )  # fmt: skip
