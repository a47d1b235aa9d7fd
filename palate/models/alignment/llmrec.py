"""LLMRec: a language model adds edges, item attributes and user profiles to the graph; training mistrusts all of it.

Wei, Ren, Tang, Wang, Su, Cheng, Wang, Yin and Huang, "LLMRec: Large Language Models with Graph Augmentation for
Recommendation", WSDM 2024 (arXiv 2311.00423).

1. A base recommender, taught on the train part, offers each user ``candidates`` unmet items; an annotator chooses one
   that would be liked and one that would not. It also writes attributes of items and traits of users, each attribute a
   text of its own. An encoder turns all of them, and the items' own texts, into features.
2. Features are projected (one map for texts, one for traits, one shared by all attributes) and flow along the graph,
   texts and attributes item → user → item, traits user → item → user. With id vectors ē from a graph encoder and n the
   L2 norm of a row::

       h = ē + text_scale · n(text) + profile_scale · n(traits) + attribute_scale · Σ_k n(attribute k)

   for users and items alike; the score is h_u · h_i. The maps have biases: features ten times
   as large leave h as it is before anything is learnt, but no longer once biases have grown.
3. BPR over the events of a batch and, for a share ``augmented`` of them, the user's chosen pair; a share ``prune_rate``
   of these triplets is left out by their losses (``prune``). Weaker BPR terms on the flowed features alone.
4. The features of a share ``mask`` of the nodes are hidden behind a token, and a decoder must say them again.

Shapes: U users, N items, K attributes, S width of features, D width, b events, R negatives, m triplets of a batch.

Where we depart, and why:
- ``prune``: the paper's formula and code keep the triplets of largest loss (``published``); its reason, that noise has
  large losses, asks for the opposite, which is the default (``small_loss``). There a triplet is judged by its mean loss
  over the last five epochs, since one draw of a negative says little, and nothing is left out before.
- ``rows=True`` restores the code's id encoder: adjacency scaled on one side, a softmax over the last layer's rows. The
  default is LightGCN's, which ranks better.
- Masks are fresh copies for each batch and the decoder is taught; in the public code masks pile up, are off by default,
  and the decoder is never optimised. Only what is known is to be said again.
- ``reg`` weighs squared ego embeddings, not their inverse; selection is on validation, not on test.
- A chat model says its choice as a record of two indices, like all records, not as the text "best :: worst".
- Image features are left out where there is no image encoder: texts are the one modality. The traits asked for by
  default are neither age nor gender. A choice outside the candidates, or of one item twice, is left out and counted.
- Batches run over all events, where the public code draws one event of each of 1,024 users; 16 negatives, not one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256 as digest
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import text_vectors
from palate.core.annotations import ATTRIBUTES, TRAITS
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.protocols import Augmenter, Encoder, FitsTexts, FloatArray, Recommender
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice as OneOf
from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.matrices import user_items
from palate.data.pairs import PairBatch, Unmet
from palate.parts.augmented_bpr import Triplets
from palate.parts.dropout import Dropout
from palate.parts.masked_features import MaskedFeatures
from palate.parts.propagation import BipartiteGraph, Flow
from palate.parts.pruning import LossMemory, Prune, kept
from palate.parts.side_features import Features
from palate.training.graphs import GraphConfig, GraphNetwork, GraphSystem, Taught
from palate.training.shell import Lesson


class LLMRecConfig(GraphConfig):
    layers: int = Field(2, ge=1)
    """Of the id encoder."""
    rows: bool = False
    """Scale the adjacency by the receiving side alone, with a softmax over the last layer, as the public code does."""
    annotator: Part = Part(name="extractive")
    """What chooses among candidates and writes attributes and traits."""
    encoder: Part = Part(name="auto")
    """What makes features of texts."""
    base: Part = Part(name="lightgcn", settings={"training": {"epochs": 20}})
    """What offers candidates; it is taught first, on the same events."""
    candidates: int = Field(10, ge=2)
    attributes: tuple[str, ...] = ATTRIBUTES
    """What the annotator is asked about items."""
    traits: tuple[str, ...] = TRAITS
    """What the annotator is asked about users."""
    text: ItemText = ItemText()
    """How an item reads."""
    text_scale: float = Field(0.05, ge=0)
    profile_scale: float = Field(0.5, ge=0)
    attribute_scale: float = Field(0.05, ge=0)
    negatives: int = Field(16, ge=1)
    """Drawn for each event; with few of them the loss of an event says little about it."""
    augmented: float = Field(0.1, ge=0)
    """Chosen pairs of a batch, as a share of its events (ω3)."""
    prune: Prune = "small_loss"
    """Which triplets are left out: those of large loss, those of small loss (``published``), or none."""
    prune_rate: float = Field(0.1, ge=0, lt=1)
    """The share of triplets that are left out (ω4)."""
    text_bpr: float = Field(1e-4, ge=0)
    """Weight of BPR on flowed texts alone."""
    attribute_bpr: float = Field(0.012, ge=0)
    """Weight of BPR on flowed traits and attributes alone."""
    feature_reg: float = Field(1e-5, ge=0)
    """L2 weight of flowed features."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of projected features."""
    mask: float = Field(0.1, ge=0, lt=1)
    """The share of nodes whose features are hidden."""
    mae_weight: float = Field(0.1, ge=0)
    mae_power: float = Field(2.0, gt=0)
    """γ of the error ``(1 - cos)^γ``."""
    reg: float = Field(2e-3, ge=0)
    training: TrainingConfig = TrainingConfig(epochs=200, learning_rate=1e-2, patience=20)


SPACE: SearchSpace = {
    "profile_scale": Range(0.05, 3.0, log=True),
    "attribute_scale": Range(1e-3, 1.0, log=True),
    "text_scale": Range(1e-3, 1.0, log=True),
    "augmented": Range(0.0, 0.4),
    "prune": OneOf(("small_loss", "published", "none")),
    "prune_rate": Range(0.0, 0.8),
    "training.learning_rate": Range(3e-4, 1e-2, log=True),
}
"""What ``--tune`` searches."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """Final vectors and flowed features; ``text`` and ``traits`` are (users, items), ``attributes`` likewise with K
    blocks of D columns. None where nothing weighs them."""

    users: Tensor
    items: Tensor
    text: tuple[Tensor, Tensor] | None = None
    traits: tuple[Tensor, Tensor] | None = None
    attributes: tuple[Tensor, Tensor] | None = None


class Network(GraphNetwork):
    """Ego embeddings, maps of features, and what is remembered of losses."""

    edge_keys: Tensor
    steps: Tensor

    def __init__(
        self, config: LLMRecConfig, n_users: int, n_items: int, n_edges: int, feature_width: int
    ) -> None:  # fmt: skip
        super().__init__(config, n_users, n_items)
        self.config = config
        self.text_map, self.trait_map, self.attribute_map = (nn.Linear(feature_width, config.width) for _ in range(3))
        for linear in (self.text_map, self.trait_map, self.attribute_map):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.drop = Dropout(config.dropout)
        self.hidden_traits = MaskedFeatures(config.width, feature_width)
        self.hidden_attributes = MaskedFeatures(config.width, feature_width)
        self.edge_memory, self.choice_memory = LossMemory(n_edges), LossMemory(n_users)
        self.register_buffer("edge_keys", torch.zeros(n_edges, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Given by ``begin``; answers need none of it.
        self.features: Features | None = None
        self.chosen = torch.full((n_users, 2), -1)
        self.steps_an_epoch = 1

    def begin(self, features: Features, chosen: Tensor, edge_keys: Tensor, steps_an_epoch: int) -> None:
        """What is learnt from: features, chosen pairs ``[U, 2]`` (-1 = none), ascending keys ``[E]`` of the edges."""
        device = self.edge_keys.device
        self.features, self.chosen, self.steps_an_epoch = features.to(device), chosen.to(device), steps_an_epoch
        self.edge_keys.copy_(edge_keys)
        self.steps.zero_()
        for memory in (self.edge_memory, self.choice_memory):
            memory.forget()

    # -- encoding ----------------------------------------------------------------------------------------------------

    def connect(self, users: Tensor, items: Tensor) -> Flow:
        graph = BipartiteGraph.of(users, items, len(self.user_counts), len(self.item_counts))
        return Flow(graph, rows=self.config.rows)

    def vectors(self, graph: Flow, ego: Tensor) -> tuple[Tensor, Tensor]:
        assert self.features is not None
        encoded = self.encode(graph, ego, self.features)
        return encoded.users, encoded.items

    @property
    def reads_features(self) -> bool:
        """Whether any of them weighs anything."""
        config = self.config
        weights = (config.text_scale, config.profile_scale, config.attribute_scale)
        return any((*weights, config.text_bpr, config.attribute_bpr, config.mask * config.mae_weight))

    def encode(self, graph: Flow, ego: Tensor, features: Features) -> Encoded:
        """Id vectors with flowed features added."""
        config = self.config
        users, items = self.ids(graph, ego)
        if not self.reads_features:
            return Encoded(users, items)
        text = self.drop(self.text_map(features.text)) * features.text_known[:, None]
        attributes = self.drop(self.attribute_map(features.attributes)) * features.attributes_known[:, :, None]
        traits = self.drop(self.trait_map(features.traits)) * features.traits_known[:, None]
        from_items = torch.cat([text, *attributes], dim=1)
        at_users = graph.to_users(from_items)
        at_items = graph.to_items(at_users)
        traits_at_items = graph.to_items(traits)
        traits_at_users = graph.to_users(traits_at_items)
        d = config.width
        fused = [
            own + config.text_scale * F.normalize(flowed[:, :d], dim=-1)
            + config.profile_scale * F.normalize(from_traits, dim=-1)
            + config.attribute_scale * F.normalize(flowed[:, d:].reshape(len(own), len(attributes), d), dim=-1).sum(1)
            for own, flowed, from_traits in (
                (users, at_users, traits_at_users), (items, at_items, traits_at_items)
            )
        ]  # fmt: skip
        return Encoded(
            fused[0], fused[1], (at_users[:, :d], at_items[:, :d]), (traits_at_users, traits_at_items),
            (at_users[:, d:], at_items[:, d:]),
        )  # fmt: skip

    def ids(self, graph: Flow, ego: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of the layers of ego embeddings ``[U + N, D]``."""
        return graph.layer_mean(*self.split(ego), self.config.layers)

    # -- learning ----------------------------------------------------------------------------------------------------

    def teach(self, graph: Flow, batch: PairBatch, unmet: Unmet, ego: Tensor) -> Taught:
        config, features = self.config, self.features
        assert features is not None
        hides = bool(config.mask and config.mae_weight)
        shown, hidden_users, hidden_items = self.masked(features) if hides else (features, None, None)
        encoded = self.encode(graph, ego, shown)
        triplets = Triplets.drawn(batch, unmet, config.negatives, self.chosen, config.augmented)
        losses = triplets.losses(encoded.users, encoded.items)
        stay = self.trusted(triplets, losses)
        loss = losses[stay].mean() + self.penalty(batch, triplets.negatives)
        loss = loss + self.on_features(encoded, triplets, stay)
        if hidden_users is not None and hidden_items is not None:
            loss = loss + config.mae_weight * self.said_again(encoded, features, hidden_users, hidden_items)
        return Taught(loss, encoded.users, encoded.items, triplets.negatives)

    @torch.no_grad()
    def trusted(self, triplets: Triplets, losses: Tensor) -> Tensor:
        """Which triplets of the batch are learnt from ``[N]``; their losses are remembered."""
        config, batch = self.config, triplets.batch
        epoch = int(self.steps) // self.steps_an_epoch
        self.steps += 1
        rows = torch.searchsorted(self.edge_keys, batch.users * len(self.item_counts) + batch.items)
        of_edges, of_choices = losses[: len(batch)], losses[len(batch) :]
        self.edge_memory.write(rows, of_edges, epoch)
        self.choice_memory.write(triplets.chosen_users, of_choices, epoch)
        if config.prune != "small_loss":
            return kept(losses, config.prune_rate, config.prune)
        if epoch < self.edge_memory.losses.shape[1]:
            return kept(losses, 0.0, "none")
        judged = torch.cat([self.edge_memory.mean(rows), self.choice_memory.mean(triplets.chosen_users)])
        return kept(judged, config.prune_rate, "small_loss")

    def on_features(self, encoded: Encoded, triplets: Triplets, stay: Tensor) -> Tensor:
        """BPR and L2 on flowed features alone; the published direction prunes each term by its own losses."""
        config, total = self.config, encoded.users.new_zeros(())
        if encoded.text is None or encoded.traits is None or encoded.attributes is None:
            return total
        blocks = torch.split(encoded.attributes[1], config.width, dim=1)
        weighed = [(config.text_bpr, *encoded.text)]
        weighed += [(config.attribute_bpr, encoded.traits[0], block) for block in blocks]
        for weight, users, items in weighed:
            if weight:
                losses = triplets.losses(users, items)
                here = kept(losses, config.prune_rate, "published") if config.prune == "published" else stay
                total = total + weight * losses[here].mean()
        if config.feature_reg:
            flowed = (*encoded.text, *encoded.traits, *encoded.attributes)
            squares = torch.stack([torch.dot(part.flatten(), part.flatten()) for part in flowed]).sum()
            total = total + config.feature_reg / (2 * len(self.item_counts)) * squares
        return total

    def masked(self, features: Features) -> tuple[Features, Tensor, Tensor]:
        """The features with some hidden, and the users and items whose are."""
        traits, users = self.hidden_traits.hide(features.traits, self.config.mask)
        attributes, items = self.hidden_attributes.hide(features.attributes, self.config.mask)
        return replace(features, traits=traits, attributes=attributes), users, items

    def said_again(self, encoded: Encoded, features: Features, users: Tensor, items: Tensor) -> Tensor:
        """How badly hidden traits and attributes are decoded from what flowed to their nodes."""
        if encoded.traits is None or encoded.attributes is None:
            return encoded.users.new_zeros(())
        power, d = self.config.mae_power, self.config.width
        of_users = self.hidden_traits.loss(
            encoded.traits[0][users], features.traits[users], features.traits_known[users], power
        )
        if not len(features.attributes):
            return of_users
        blocks = (
            encoded.attributes[1][items].reshape(len(items), len(features.attributes), d).transpose(0, 1)
        )  # [K, m, D]
        known = features.attributes_known[:, items]
        return of_users + self.hidden_attributes.loss(blocks, features.attributes[:, items], known, power)


class LLMRec(GraphSystem[LLMRecConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = LLMRecConfig, Network

    def __init__(
        self,
        config: LLMRecConfig | None = None,
        *,
        annotator: Augmenter,
        encoder: Encoder,
        base: Recommender,
    ) -> None:
        super().__init__(config, annotator=annotator, encoder=encoder, base=base)
        self.annotator, self.encoder, self.base = annotator, encoder, base
        self._features: Features | None = None
        self._chosen = torch.zeros((0, 2), dtype=torch.int64)
        self._choices: dict[str, int] = {}
        self._written = ""

    def prepare(self, train: Dataset, run: Run) -> None:
        self._features = self.described(train, run)
        self._chosen = self.chosen(train, run)

    def described(self, train: Dataset, run: Run) -> Features:
        """Texts, attributes and traits as features."""
        config, items, users = self.config, np.arange(train.n_items), np.arange(train.n_users)
        attributes = self.annotator.item_attributes(train, items, config.attributes)
        traits = self.annotator.user_traits(train, users, config.traits)
        reads = set(config.text.fields) & set(train.items.columns)
        texts = config.text.render(train) if reads else [""] * train.n_items
        columns = [[item.values[k] for item in attributes] for k in range(len(config.attributes))]
        people = [_said(config.traits, user.values) for user in traits]
        said = [*texts, *people, *(text for column in columns for text in column)]
        self._written = digest("\0".join(said).encode()).hexdigest()
        if isinstance(self.encoder, FitsTexts) and not self.encoder.fitted:
            words = texts if reads else [text for column in (*columns, people) for text in column if text]
            self.encoder.fit(words or ["nothing is known"])
        return Features.of(texts, columns, people, partial(_encode, encoder=self.encoder, run=run))

    def chosen(self, train: Dataset, run: Run) -> Tensor:
        """``[U, 2]`` what each user would like and dislike among the candidates; -1 where nothing was accepted."""
        users, pairs = np.flatnonzero(train.histories.lengths), np.full((train.n_users, 2), -1, dtype=np.int64)
        self._choices = {"asked": 0, "accepted": 0}
        if self.config.augmented and len(users):
            inside = run.inside("base")
            if self.network is None or not hasattr(self.base, "continue_fit"):
                self.base.fit(train, inside)
            else:
                self.base.continue_fit(train, inside)
            asked = Requests.for_users(train, users).leaving_out_history()
            offered = self.base.recommend(asked, self.config.candidates).item_rows
            records = self.annotator.choices(train, users, offered)
            answers = np.array([(record.liked, record.disliked) for record in records], dtype=np.int64)
            good = accepted(answers, offered)
            pairs[users[good]] = answers[good]
            self._choices = {"asked": len(users), "accepted": int(good.sum())}
        return torch.from_numpy(pairs)

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"written": self._written}

    def shape(self, train: Dataset) -> dict[str, Any]:
        width = self._features.text.shape[1] if self._features is not None else 1
        return {**super().shape(train), "n_edges": int(user_items(train).nnz), "feature_width": width}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        assert self._features is not None
        lesson = super().lesson(train, run)
        rows, columns = (torch.from_numpy(part.astype(np.int64)) for part in user_items(train).nonzero())
        keys = (rows * train.n_items + columns).sort().values
        self.fitted().begin(self._features, self._chosen, keys, max(len(lesson.batches), 1))
        return lesson

    def remarks(self) -> dict[str, Any]:
        return {
            "written by": self.annotator.label,
            "encoder": self.encoder.version,
            "choices": self._choices,
            "pruning": self.config.prune,
        }

    def edge_losses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users ``[E]``, items ``[E]`` and mean loss ``[E]`` over the last five epochs before the weights that are
        kept: the larger, the less a training edge agrees with the rest. NaN where none was seen."""
        network = self.fitted()
        keys, n_items = network.edge_keys.cpu().numpy(), len(network.item_counts)
        return keys // n_items, keys % n_items, network.edge_memory.mean().cpu().numpy()


def accepted(answers: np.ndarray, offered: np.ndarray) -> np.ndarray:
    """``[n]`` whether both items of an answer ``[n, 2]`` were offered ``[n, C]`` and differ."""
    inside = (answers[:, :, None] == offered[:, None, :]).any(2).all(1) & (answers >= 0).all(1)
    return inside & (answers[:, 0] != answers[:, 1])


def _encode(texts: Sequence[str], encoder: Encoder, run: Run) -> FloatArray:
    return text_vectors(texts, encoder, "llmrec", run=run)


def _said(names: Sequence[str], values: Sequence[str]) -> str:
    """One text of all traits that are known."""
    return ". ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True) if value)


def tiny() -> LLMRecConfig:
    """Learns on a laptop CPU in a minute: features that count words."""
    return LLMRecConfig(
        width=32, encoder=Part(name="tf-idf", settings={"width": 64}),
        base=Part(name="lightgcn", settings={"width": 16, "training": {"epochs": 5}}),
    )  # fmt: skip


def paper() -> LLMRecConfig:
    """The published setting for Netflix, its direction of pruning included; masking as the paper describes it."""
    return LLMRecConfig(
        rows=True, text_scale=0.02, profile_scale=2.8, attribute_scale=0.005, prune="published", prune_rate=0.71,
        batch_size=1024, negatives=1,
        attributes=("year", "title", "director", "country", "language"),
        training=TrainingConfig(learning_rate=1e-4, betas=(0.9, 0.999), clip_norm=0.0, epochs=1000, patience=7),
    )  # fmt: skip
