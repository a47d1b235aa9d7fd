"""HLLM: one language model reads an item's text into a vector, a second one reads the vectors of a user's items.

Chen et al. 2024, "HLLM: Enhancing Sequential Recommendations via Hierarchical Large Language Models for Item and User
Modeling" (arXiv 2409.12740), and its public code. The two share nothing and both learn: the loss of what the user meets
next flows into the Item LLM, for the items read, for the targets and for the negatives. An item given by its text alone
is read once and can be recommended. Shapes: P packed events, R negatives of the pool, N items, D width.

Where we depart, and why:
- Each distinct item of a batch is encoded once and histories are packed; the same loss, without pad rows filled with
  random items. The oldest events of a history are a shorter window and are not dropped.
- The pool is one set of distinct items a batch, of the size that is set; the public code's pool grows with the number
  of devices. ``chunk_tokens`` bounds the memory, by computing activations again on the way back.
- A negative that is the target is masked by its row before texts are compared; where most of the pool reads like the
  target it is kept, and a collapse that lasts is an error (``parts.contrastive``). In the public code such a batch has
  loss 0 and nothing is learnt ever after.
- ``negatives_from="met"`` draws from items that somebody met, so that those without an event yet are not taught to be
  wrong; the public code draws from all.
- Early stopping looks at NDCG@10, the public code at NDCG@200. Warm-up is a number of steps, there a tenth of all;
  ``paper()`` has 1,000. Gradients are clipped, in ``paper()`` to a norm of 5; there a norm is set and never applied.
- Where a head is taught, draws that are the target itself do not count against it. The paper does not say.
- A newcomer is shown what people meet most. MiniLM as the Item LLM is an encoder, mean-pooled; a Llama-shaped User LLM
  drawn from nothing is no pre-trained one: ``remarks`` and the notes under every table say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.released import read_released
from palate.backbones.text_model import TextModel
from palate.backbones.vector_model import VectorModel
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.item_vectors import ItemVectors
from palate.core.protocols import FloatArray, ScoresAll
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import SequenceBatch, SequenceBatches
from palate.parts.calendar import CalendarFeatures, check_clock
from palate.parts.contrastive import Alarm, Scale, draw_pool, info_nce
from palate.parts.dropout import Dropout
from palate.parts.fusion import Early, Late, tell_apart
from palate.parts.item_side import ItemSide, ItemTables
from palate.parts.item_tower import ItemTower, attend_within
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing
from palate.training.checkpoint import digest
from palate.training.item_readers import ReadsItems
from palate.training.loop import optimise, seeded
from palate.training.sequences import sequence_blocks, sequence_states, told_blocks
from palate.training.shell import Lesson

PREFIX = "Compress the following sentence into embedding: "
"""What the paper writes before every text."""


class HLLMConfig(Config):
    item_model: Part = Part(name="minilm")
    user_model: Part = Part(name="llama")
    text: ItemText = ItemText()
    prefix: str = ""
    max_tokens: int = Field(128, ge=4)
    """Of an item's text, prefix included."""
    cut: Literal["end", "middle"] = "end"
    """What a longer text loses."""
    pooling: Literal["auto", "slot", "mean"] = "auto"
    """An item's vector: the last state of a learnt input behind the text, or the mean; ``auto`` = mean for encoders."""
    learns: Literal["both", "item", "user"] = "both"
    """Which of the two models learns; with ``user`` the items are encoded once, before."""
    length: int = Field(50, ge=1)
    """The last so many events are read."""
    windows: Literal["last", "all"] = "all"
    """Learn from the newest window of each history, or from all of it."""
    negatives: int = Field(512, ge=1)
    """Distinct items of the pool that all positions of a batch share; at most all there are."""
    negatives_from: Literal["met", "catalogue"] = "met"
    """``catalogue`` teaches that what nobody met is rarely right; ``met`` leaves that open, for items that are new."""
    temperature: float = Field(0.07, gt=0)
    """At the beginning; it is learnt."""
    similar: float = Field(0.99, gt=0, le=1)
    """A negative whose cosine to the target is larger is none."""
    similar_at_most: float = Field(0.5, gt=0, le=1)
    """Where a larger share of the pool is similar, vectors are collapsing: nothing is left out."""
    alarm_steps: int = Field(300, ge=1)
    """Steps in a row of that after which training fails."""
    objective: Literal["generative", "early", "late"] = "generative"
    """Compare what is expected next with item vectors; or a logit for a target that the User LLM reads behind the
    history (``early``, one more place for each target asked about) or that meets its user vector (``late``)."""
    auxiliary: float = Field(1.0, ge=0)
    """Weight of the generative loss beside that of the logits. The paper does not give it."""
    contrast: int = Field(8, ge=1)
    """Items of the pool that each newest target is told apart from, by its logit."""
    head_width: int = Field(128, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of the vectors that the User LLM reads."""
    item_ids: bool = False
    """Add an embedding of the item itself to what the User LLM reads; what it predicts stays the text's vector."""
    time_parts: int = Field(0, ge=0, le=6)
    """Add when each event happened: the first so many of year, month, day, hour, minute, second."""
    time_width: int = Field(512, ge=1)
    cached_epochs: int = Field(0, ge=0)
    """Epochs after the others with the item vectors as they are then, in which the User LLM alone learns."""
    cached_length: int = Field(1000, ge=1)
    """The last so many events are read in those."""
    chunk_tokens: int = Field(16_384, ge=1)
    """Item tokens whose activations are held at once. How fast it goes; it changes no result."""
    batch_size: int = Field(64, ge=1)
    pretrained_rate: float = Field(0.05, gt=0, le=1)
    """Learning rate of a model that was pre-trained, as a share; one drawn from nothing learns at the full rate."""
    training: TrainingConfig = TrainingConfig(
        epochs=30, learning_rate=1e-3, weight_decay=0.01, warmup_steps=20, clip_norm=1.0,
        schedule="cosine", judge_every=2, patience=4,
    )  # fmt: skip


SPACE: SearchSpace = {
    "training.learning_rate": Range(3e-4, 3e-3, log=True),
    "dropout": Range(0.0, 0.4),
    "negatives": Choice((128, 512, 2048)),
    "length": Choice((20, 50)),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """The two networks and what joins them. Vectors ``[P, D]`` → states ``[P, D]``."""

    popularity: Popularity

    def __init__(self, config: HLLMConfig, item_model: TextModel[Any], user_model: VectorModel[Any], n_items: int):
        super().__init__()
        width, pooling = user_model.width, config.pooling
        if pooling == "auto":
            pooling = "slot" if item_model.kind == "causal" else "mean"
        self.tower = ItemTower(item_model.model, item_model.width, pooling, config.chunk_tokens)
        self.user = user_model.model
        self.projector = nn.Linear(item_model.width, width) if item_model.width != width else None
        self.scale = Scale(config.temperature)
        self.ids = nn.Embedding(n_items, width) if config.item_ids else None
        if self.ids is not None:
            nn.init.zeros_(self.ids.weight)
        self.calendar = CalendarFeatures(width, config.time_parts, config.time_width) if config.time_parts else None
        self.drop = Dropout(config.dropout)
        self.head: Early | Late | None = None
        if config.objective != "generative":
            self.head = (Early if config.objective == "early" else Late)(width, config.head_width)
        self.popularity = Popularity(n_items)
        for resting, model in (("user", self.tower), ("item", self.user)):
            if config.learns == resting:  # else its own ``tune`` says what of it learns
                model.requires_grad_(False)
        self.user.get_input_embeddings().requires_grad_(False)

    def projected(self, pooled: Tensor) -> Tensor:
        """``[n, D of the Item LLM]`` → ``[n, D]``."""
        return pooled if self.projector is None else self.projector(pooled)

    def inputs(self, vectors: Tensor, batch: SequenceBatch) -> Tensor:
        """Vectors of the events ``[P, D]`` with what is known beside their texts."""
        if self.ids is not None:
            known = batch.items < self.ids.num_embeddings
            vectors = vectors + self.ids(batch.items.clamp(max=self.ids.num_embeddings - 1)) * known[:, None]
        if self.calendar is not None and batch.times is not None:
            vectors = vectors + self.calendar(batch.times)
        return self.drop(vectors)


class HLLM(ReadsItems[HLLMConfig, Network], ScoresAll):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type = HLLMConfig
    items: ItemSide

    def __init__(
        self,
        config: HLLMConfig | None = None,
        *,
        item_model: TextModel[Any],
        user_model: VectorModel[Any],
        vectors: ItemVectors | None = None,
    ) -> None:
        super().__init__(config, item_model=item_model, user_model=user_model)
        if self.config.learns == "item" and self.config.cached_epochs:
            raise ConfigError("learns=item leaves cached_epochs nothing to teach: there the User LLM alone learns")
        self.item_model, self.user_model = item_model, user_model
        self.items = ItemSide(item_model, self.config.max_tokens, self.config.cut)
        self.items.held = vectors
        self.alarm = Alarm(self.config.similar_at_most, self.config.alarm_steps)
        self._eligible = torch.zeros(0, dtype=torch.long)

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingConfig:
        models = {"tower": self.item_model, "user": self.user_model}
        return self.config.training.careful(models, self.config.pretrained_rate)

    def prepare(self, train: Dataset, run: Run) -> None:
        check_clock(train, self.config.time_parts)
        texts = self.texts(train)
        if self.network is None:
            self.items.held = None
            self.item_model.prepare(texts, run, optimise)
            self.user_model.prepare(self.item_model.width, run)
        self.items.read(texts)
        self.alarm = Alarm(self.config.similar_at_most, self.config.alarm_steps)

    def texts(self, catalogue: Dataset) -> list[str]:
        return [self.config.prefix + text for text in self.item_texts(catalogue)]

    def _build(self, shape: Any) -> Network:
        return Network(self.config, self.item_model, self.user_model, **shape)

    def learnt_elsewhere(self) -> tuple[str, ...]:
        return "tower.network.", "user."

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"models": [self.item_model.version, self.user_model.version]}

    def resting(self) -> Iterator[nn.Parameter]:
        """All but the User LLM."""
        user = {id(parameter) for parameter in self.fitted().user.parameters()}
        return (parameter for parameter in self.fitted().parameters() if id(parameter) not in user)

    def cached_lesson(self, train: Dataset, run: Run) -> Lesson:
        config = self.config
        training = self.training.model_copy(update={"epochs": config.cached_epochs})
        return self._lesson(train, run, config.cached_length, training)

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        network.popularity.count(train.item_counts)
        met = np.flatnonzero(train.item_counts) if config.negatives_from == "met" else np.arange(train.n_items)
        self._eligible = torch.from_numpy(met).to(run.device)
        if config.learns == "user":
            self.items.freeze(network)
        return self._lesson(train, run, config.length, self.training)

    def _lesson(self, train: Dataset, run: Run, length: int, training: TrainingConfig) -> Lesson:
        config = self.config
        batches = SequenceBatches(
            train, length=length, batch_size=config.batch_size, seed=run.seed, windows=config.windows
        )
        return Lesson(batches, lambda batch: self.loss(batch.to(run.device)), self.settle, training)

    def loss(self, batch: SequenceBatch) -> Tensor:
        """InfoNCE at every event, mean, and with a head the binary cross entropy of its logits for the newest target of
        each history and ``contrast`` items of the pool; ``batch`` is on the network's device and has targets."""
        network, config = self.fitted(), self.config
        assert batch.targets is not None
        pool = draw_pool(self._eligible, config.negatives)
        rows, where = torch.unique(torch.cat([batch.items, batch.targets, pool]), return_inverse=True)
        parts = [len(batch.items), len(batch.targets), len(pool)]
        read, targets, others = torch.split(self.items.vectors(network, rows)[where], parts)
        packing, told_apart = Packing(batch.lengths, read.device), torch.zeros((), device=read.device)
        read = self._inputs(read, batch)
        if network.head is None:
            states = self.user_model.packed_states(read, packing, attend_within(packing))
        else:
            drawn = torch.randint(len(pool), (len(batch.lengths), config.contrast), device=read.device)
            asked = torch.cat([targets[packing.last][:, None], others[drawn]], 1).to(read.dtype)
            states, logits = network.head(self.user_model, read, packing, asked)
            told_apart = tell_apart(logits, pool[drawn] != batch.targets[packing.last][:, None])
        value, share = info_nce(
            states, targets, others, network.scale(), target_rows=batch.targets, pool_rows=pool,
            threshold=config.similar, cap=config.similar_at_most,
        )  # fmt: skip
        self.alarm.hear(share)
        return value if network.head is None else config.auxiliary * value + told_apart

    def _inputs(self, vectors: Tensor, batch: SequenceBatch) -> Tensor:
        return self.fitted().inputs(vectors, batch).to(self.user_model.model.dtype)

    def remarks(self) -> dict[str, Any]:
        """What knew something before, and how near to a collapse training ended."""
        return {
            "pretrained": self.item_model.pretrained,
            **self.known_before(),
            "negatives like their target": self.alarm.share,
            **({"note": "item vectors had collapsed when training ended"} if self.alarm.collapsed else {}),
        }

    @property
    def version(self) -> str:
        network, config = self.fitted(), self.config
        item_half = {
            name: tensor for name, tensor in network.state_dict().items() if name.startswith(("tower.", "projector."))
        }
        return (
            f"hllm/1 weights={digest(item_half)} model={self.item_model.version} tokens={config.max_tokens} "
            f"cut={config.cut} pooling={config.pooling}"
        )

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> ItemTables:
        return self.items.tables(self.fitted().popularity.log_share)

    @property
    def reads(self) -> int:
        """Events of a history that are read."""
        return max(self.config.length, self.config.cached_length if self.config.cached_epochs else 0)

    def _states(self, batch: SequenceBatch) -> Tensor:
        """``[b, D]`` of unit length: what is expected after each history."""
        packing = Packing(batch.lengths, batch.items.device)
        read = self._inputs(self.tables.read[batch.items], batch)
        states = self.user_model.packed_states(read, packing, attend_within(packing))[packing.last]
        return F.normalize(states.float(), dim=-1)

    @torch.no_grad()
    def _logits(self, items: Tensor, batch: SequenceBatch) -> Tensor:
        """``[b, N]`` of items whose vectors are ``[N, D]``."""
        read = self._inputs(self.tables.read[batch.items], batch)
        head = self.fitted().head
        assert head is not None
        return head.all_logits(self.user_model, read, Packing(batch.lengths, read.device), items.to(read.dtype))

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        """Cosines, or logits where there is a head."""
        tables = self.tables
        return self._blocks(requests, tables.read, tables.compared, tables.offsets, tables.newcomer)

    def _blocks(
        self, requests: Requests, items: Tensor, compared: Tensor, bias: Tensor, newcomer: Tensor
    ) -> Iterator[FloatArray]:
        rest: dict[str, Any] = {"bias": bias, "newcomer": newcomer, "length": self.reads}
        known = len(self.tables.read)
        if self.fitted().head is not None:
            return told_blocks(requests, tell=partial(self._logits, items), known=known, **rest)
        return sequence_blocks(requests, read=self._states, table=compared, known=known, **rest)

    @property
    def scores_texts(self) -> bool:
        return True

    def score_texts(self, requests: Requests, texts: Sequence[str]) -> FloatArray:
        """``[B, T]``, as ``score_blocks``; NaN for an empty history."""
        items = self.items.encoded(self.fitted(), [self.config.prefix + text for text in texts])
        bias = items.new_zeros(len(items))
        return np.concatenate(list(self._blocks(requests, items, F.normalize(items, dim=-1), bias, bias + torch.nan)))

    @property
    def vectors_version(self) -> str:
        """Of the item vectors held, and of which of them may be answered."""
        self.fitted()
        assert self.items.held is not None
        return self.items.held.fingerprint

    def item_vectors(self) -> FloatArray:
        """``[N, D]`` of unit length; NaN for an item that was retired."""
        self._compares()
        return (self.tables.compared + self.tables.offsets[:, None]).cpu().numpy()

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]`` of unit length; NaN for an empty history."""
        self._compares()
        return sequence_states(requests, read=self._states, table=self.tables.compared, length=self.reads)

    def _compares(self) -> None:
        if self.fitted().head is not None:
            raise ConfigError(f"with objective={self.config.objective} scores are no products of two vectors")

    # -- published weights -------------------------------------------------------------------------------------------

    def take_released(self, path: Path, catalogue: Dataset, run: Run | None = None) -> Self:
        """The published weights in the file ``path``, for the items of ``catalogue``; nothing is taught. The settings
        name the two models whose architectures and text tokenizer they are."""
        if self.config.objective != "generative":
            raise ConfigError(
                f"released weights hold no head for objective={self.config.objective}: take them with generative"
            )
        released = read_released(path)
        self.network = None
        with seeded(run or Run()):
            self.prepare(catalogue, run or Run())
            network = self._build(self.shape(catalogue)).to((run or Run()).device).eval()
        released.fill(network, self.item_model.model, self.user_model.model)
        network.popularity.count(catalogue.item_counts)
        self.network = network
        self.facts = {"shape": self.shape(catalogue), "fitted_on": f"released weights {path.name}", **self.remarks()}
        self.settle()
        return self


def tiny() -> HLLMConfig:
    """Learns on a laptop CPU in seconds: nano reads the items, with a slot behind each text."""
    nano = {"width": 64, "heads": 4, "layers": 2, "forward_width": 160, "vocabulary": 1024, "steps": 60, "block": 64}
    return HLLMConfig(
        item_model=Part(name="nano", settings=nano), user_model=Part(name="llama", settings={"layers": 1}),
        max_tokens=40, length=20, batch_size=64, negatives=128, negatives_from="catalogue",
        training=TrainingConfig(
            epochs=60, learning_rate=3e-3, weight_decay=0.01, warmup_steps=10, clip_norm=1.0, judge_every=5, patience=3
        ),
    )  # fmt: skip


def minilm() -> HLLMConfig:
    """A pre-trained Item LLM on a CPU: MiniLM reads 32 tokens of each item, and learns; the User LLM begins with
    nothing. Few steps of many histories, since a step costs what reading the items of its batch costs."""
    return HLLMConfig(
        max_tokens=32, cut="middle", batch_size=256, dropout=0.2, pretrained_rate=0.1, alarm_steps=10,
        training=TrainingConfig(
            epochs=16, learning_rate=5e-4, weight_decay=0.01, warmup_steps=4, clip_norm=1.0,
            schedule="cosine", judge_every=4, patience=3,
        ),
    )  # fmt: skip


def paper() -> HLLMConfig:
    """The published setting for PixelRec, with two models of 1.1 billion weights that must be here or fetched."""
    model = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
    settings = {"model": model, "recompute": True}
    return HLLMConfig(
        item_model=Part(name="hub", settings=settings), user_model=Part(name="hub", settings=settings),
        text=ItemText(fields=("title", "tag", "description"), named=True, separator="", once=False), prefix=PREFIX,
        max_tokens=256, cut="end", length=10, negatives=5632, negatives_from="catalogue", dropout=0.0,
        alarm_steps=1000, batch_size=512, pretrained_rate=1.0,
        training=TrainingConfig(
            epochs=5, learning_rate=1e-4, weight_decay=0.01, betas=(0.9, 0.999), warmup_steps=1000, schedule="cosine",
            patience=5,
        ),
    )  # fmt: skip
