"""Transformer-MLP: the fair rival of a language model, for it reads the same: rated history, titles, genres.

The strongest baseline of Kang et al., "Do LLMs Understand User Preferences?" (arXiv 2305.06474). Each rated event is
the sum of the item's id, a bag of the words of its text, the rating and its place; a Transformer encoder reads them;
the mean of its states, what the candidate attends to among them, the candidate and the user go through an MLP to one
number. Mean squared error. Shapes: b questions, T events that are read, U users, N items, D width, W words of an item.

Where we depart, and why: the paper gives no sizes, so two layers, two heads and width 64 are ours. A learnt first state
stands before every history, so that newcomers need no rule of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.backbones.item_text import ItemText
from palate.core.config import AttentionConfig
from palate.core.dataset import Dataset
from palate.core.ragged import IntArray
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.ratings import RatingBatch, ratings_of
from palate.training.ratings import RatingNetwork, RatingSystem, table
from palate.training.shell import Lesson

WORD = re.compile(r"\w+")


class TransformerMLPConfig(AttentionConfig):
    width: int = Field(64, ge=1)
    heads: int = Field(2, ge=1)
    layers: int = Field(2, ge=1)
    length: int = Field(10, ge=1)
    """Rated events of a history that are read."""
    text: ItemText = ItemText()
    """How an item reads; the words of that are its bag."""
    words: int = Field(16, ge=1)
    """Different words of an item that are read."""
    vocabulary: int = Field(5000, ge=1)
    """The most frequent words that have a vector."""
    dropout: float = Field(0.2, ge=0, lt=1)
    batch_size: int = Field(256, ge=1)
    training: TrainingConfig = TrainingConfig(epochs=60, learning_rate=1e-3, weight_decay=0.1, patience=3)


SPACE: SearchSpace = {
    "width": Choice((16, 32, 64, 128)),
    "dropout": Range(0.0, 0.6),
    "training.weight_decay": Range(1e-3, 1.0, log=True),
}
"""What ``--tune`` searches."""


class Network(RatingNetwork):
    """``[b]`` questions with their histories → ``[b]`` above the mean of all."""

    def __init__(self, config: TransformerMLPConfig, n_users: int, n_items: int, n_words: int, n_levels: int) -> None:
        super().__init__(n_users, n_items)
        width = config.width
        self.users, self.items = table(n_users, width), table(n_items, width)
        self.words = nn.EmbeddingBag(n_words + 1, width, mode="mean", padding_idx=n_words)
        nn.init.normal_(self.words.weight, std=0.1)
        self.stars = nn.Linear(1, width)
        self.levels = nn.Embedding(n_levels, width)
        self.places = nn.Embedding(config.length + 1, width)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.first = nn.Parameter(torch.zeros(width))
        self.candidate = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.answer = nn.Sequential(
            nn.Linear(4 * width, width), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, 1)
        )
        self.bags: Tensor
        self.level: Tensor
        self.register_buffer("bags", torch.full((n_items + 1, config.words), n_words))
        self.register_buffer("level", torch.zeros(n_levels))

    def item(self, rows: Tensor) -> Tensor:
        """``[…]`` item rows → ``[…, D]``; an item that was not taught is its words alone, one beyond the table
        nothing."""
        n = len(self.known_items)
        inside = torch.where((rows >= 0) & (rows < n), rows, n)
        words = self.words(self.bags[inside].flatten(0, -2)).view(*rows.shape, -1)
        return self.items(self.rows(rows, self.known_items)) + words

    def forward(self, batch: RatingBatch) -> Tensor:
        b, t = batch.history.shape
        there = batch.history >= 0
        given = torch.nan_to_num(batch.given)
        near = (given[..., None] - self.level).abs().argmin(-1)
        lines = self.item(batch.history) + self.levels(near) + self.stars((given - self.scale[0])[..., None])
        lines = torch.cat([self.first.expand(b, 1, -1), lines], 1) + self.places.weight[: t + 1]
        silent = torch.cat([~there.new_ones(b, 1), ~there], 1)
        states = self.encoder(lines, src_key_padding_mask=silent)
        said = (~silent)[..., None].to(states.dtype)
        mean = (states * said).sum(1) / said.sum(1)
        candidate = self.item(batch.items)
        seen, _ = self.candidate(candidate[:, None], states, states, key_padding_mask=silent, need_weights=False)
        user = self.users(self.rows(batch.users, self.known_users))
        return self.answer(torch.cat([mean, seen[:, 0], candidate, user], 1))[:, 0]


class TransformerMLP(RatingSystem[TransformerMLPConfig, Network]):
    """The predictor. ``network`` is None until fitted or loaded."""

    config_type, network_type = TransformerMLPConfig, Network

    def prepare(self, train: Dataset, run: Run) -> None:
        """Words and ratings that have vectors. A fit that goes on keeps those of the first: rows keep their meaning."""
        texts = self.config.text.render(train)
        if self.network is None:
            self._words, self._levels = vocabulary(texts, self.config.vocabulary), levels_of(train)
        else:
            self._words, self._levels = self.facts["words"], self.facts["levels"]
        self._bags = bags_of(texts, self._words, self.config.words)

    def shape(self, train: Dataset) -> dict[str, Any]:
        return super().shape(train) | {"n_words": len(self._words), "n_levels": len(self._levels)}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network = self.fitted()
        network.bags[:-1] = torch.from_numpy(self._bags).to(network.bags.device)
        network.level.copy_(torch.tensor(self._levels))
        return super().lesson(train, run)

    def remarks(self) -> dict[str, Any]:
        return {"words": self._words, "levels": self._levels}


def levels_of(train: Dataset) -> list[float]:
    """The distinct ratings, ascending; one of zero where there are none."""
    ratings = ratings_of(train) if train.n_interactions else np.zeros(0, np.float32)
    return np.unique(ratings[~np.isnan(ratings)]).tolist() or [0.0]


def vocabulary(texts: list[str], most: int) -> list[str]:
    """The most frequent words. A word of one item alone says no more than the item's id, and has none."""
    counts = Counter(word for text in texts for word in words_of(text))
    return [word for word, count in counts.most_common(most) if count > 1]


def bags_of(texts: list[str], words: list[str], width: int) -> IntArray:
    """``[N, width]`` the numbers of each item's first known words; that of no word at all fills the end."""
    number = {word: place for place, word in enumerate(words)}
    bags = np.full((len(texts), width), len(words), dtype=np.int64)
    for row, text in enumerate(texts):
        known = [number[word] for word in words_of(text) if word in number][:width]
        bags[row, : len(known)] = known
    return bags


def words_of(text: str) -> list[str]:
    """Each different word once, in small letters, in order."""
    return list(dict.fromkeys(word.lower() for word in WORD.findall(text)))


def tiny() -> TransformerMLPConfig:
    """A narrow network for a small log."""
    return TransformerMLPConfig(
        width=16, layers=1, length=5, batch_size=128,
        training=TrainingConfig(epochs=40, learning_rate=3e-3, weight_decay=0.01, patience=20),
    )  # fmt: skip
