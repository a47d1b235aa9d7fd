"""Lite-LLM4Rec: a language model over item vectors made by another, and one product in place of beam search.

Wang et al. 2024, "Rethinking Large Language Model Architectures for Sequential Recommendations" (arXiv 2402.09543). The
Item LLM reads an item's text once, ``z = W_a · mean(states) + b_a``; the Recommendation LLM reads one vector an item
between the tokens of a prompt; a linear head scores every item at once, and cross entropy over the catalogue teaches
all of it, the Item LLM too. Nothing is generated. Shapes: P packed places, D width, N items, B requests.

The body of the paper was not at hand; what its abstract and summaries leave open is decided here:
- The state after the last place is scored. A decoder learns from every event of a window in one pass; an encoder, or a
  prompt behind the items, learns one event of each history after another.
- ``head="free"`` has a learnt row and bias for each item: an item added later may be read and is never answered.
  ``head="tied"`` compares with the item vectors, ``z · A h``: what is new is answered at once, and a step reads the
  texts of the whole catalogue.
- The bias of a free head begins as the log of each item's share of events, what can be said before anything is read.
- ``reads="ids"`` puts a table of items in place of their texts: the control that shows what texts add.
- A newcomer is shown what people meet most.

Of the four systems by which hierarchy and head could be told apart, names by beam search (``p5``) and both together
(this one) are here; a head on flat text and a hierarchy that spells names are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
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
from palate.core.version import Version
from palate.data.batches import PrefixBatch, PrefixBatches, SequenceBatch, SequenceBatches
from palate.parts.dropout import Dropout
from palate.parts.item_side import ItemSide, ItemTables
from palate.parts.item_tower import ItemTower, attend_within
from palate.parts.losses import full_softmax
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing
from palate.training.checkpoint import digest
from palate.training.item_readers import ReadsItems
from palate.training.loop import optimise
from palate.training.sequences import sequence_blocks, sequence_states, with_ones
from palate.training.shell import Lesson


class LiteLLM4RecConfig(Config):
    item_model: Part = Part(name="minilm")
    rec_model: Part = Part(name="minilm")
    text: ItemText = ItemText()
    max_tokens: int = Field(64, ge=4)
    """Of an item's text."""
    cut: Literal["end", "middle"] = "end"
    """What a longer text loses."""
    reads: Literal["text", "ids"] = "text"
    """What the Recommendation LLM reads of an item: the vector of its text, or a row of a table."""
    before: str = ""
    """A prompt before the items; needs a Recommendation LLM that knows words."""
    after: str = ""
    """A prompt behind the items."""
    head: Literal["free", "tied"] = "free"
    learns: Literal["both", "user"] = "both"
    """``user``: the Item LLM rests and the items are encoded once, before."""
    length: int = Field(20, ge=1)
    """The last so many events are read."""
    prefixes: Literal["all", "one"] = "one"
    """Where each event is asked about on its own: all of them in an epoch, or one of each user, drawn anew."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of the vectors that are read, and of the state that is scored."""
    cached_epochs: int = Field(0, ge=0)
    """Epochs after the others with the item vectors as they are then."""
    chunk_tokens: int = Field(16_384, ge=1)
    """Item tokens whose activations are held at once. How fast it goes; it changes no result."""
    batch_size: int = Field(256, ge=1)
    pretrained_rate: float = Field(0.1, gt=0, le=1)
    """Learning rate of a model that was pre-trained, as a share; one drawn from nothing learns at the full rate."""
    training: TrainingConfig = TrainingConfig(
        epochs=50, learning_rate=1e-3, weight_decay=0.01, warmup_steps=10,
        clip_norm=1.0, schedule="cosine", judge_every=2, patience=5,
    )  # fmt: skip


SPACE: SearchSpace = {
    "training.learning_rate": Range(3e-4, 3e-3, log=True),
    "dropout": Range(0.0, 0.4),
    "length": Choice((10, 20, 50)),
}
"""What ``--tune`` searches."""

ITEM_HALF = ("tower.", "map.")
"""How the names of those weights begin that item vectors follow from."""


class Network(nn.Module):
    """The two networks, the maps between them and the head."""

    popularity: Popularity

    def __init__(
        self,
        config: LiteLLM4RecConfig,
        item_model: TextModel[Any],
        rec_model: TextModel[Any] | VectorModel[Any],
        n_items: int,
    ) -> None:
        super().__init__()
        width = rec_model.width
        self.tower = ItemTower(item_model.model, item_model.width, "mean", config.chunk_tokens)
        self.user = rec_model.model
        self.map = nn.Linear(item_model.width, width)
        self.ids = nn.Embedding(n_items, width) if config.reads == "ids" else None
        self.rows = nn.Embedding(n_items, width) if config.head == "free" else None
        self.bias = nn.Parameter(torch.zeros(n_items)) if config.head == "free" else None
        self.turn = nn.Linear(width, width, bias=False) if config.head == "tied" else None
        for table in (self.ids, self.rows):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        self.drop = Dropout(config.dropout)
        self.popularity = Popularity(n_items)
        if config.learns != "both" or config.reads != "text":  # else its own ``tune`` says what of it learns
            self.tower.requires_grad_(False)

    def projected(self, pooled: Tensor) -> Tensor:
        """``[n, D of the Item LLM]`` → ``[n, D]``: z."""
        return self.map(pooled)


class LiteLLM4Rec(ReadsItems[LiteLLM4RecConfig, Network], ScoresAll):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type = LiteLLM4RecConfig
    items: ItemSide

    def __init__(
        self,
        config: LiteLLM4RecConfig | None = None,
        *,
        item_model: TextModel[Any],
        rec_model: TextModel[Any] | VectorModel[Any],
        vectors: ItemVectors | None = None,
    ) -> None:
        super().__init__(config, item_model=item_model, rec_model=rec_model)
        if self.config.reads == "ids" and self.config.head == "tied":
            raise ConfigError("head=tied compares with the vectors of texts, which reads=ids does not read")
        if (self.config.before or self.config.after) and not isinstance(rec_model, TextModel):
            raise ConfigError("a prompt needs a Recommendation LLM that knows words, such as rec_model=nano")
        self.item_model, self.rec_model = item_model, rec_model
        self.items = ItemSide(item_model, self.config.max_tokens, self.config.cut)
        self.items.held = vectors

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingConfig:
        models = {"tower": self.item_model, "user": self.rec_model}
        return self.config.training.careful(models, self.config.pretrained_rate)

    def prepare(self, train: Dataset, run: Run) -> None:
        texts = self.texts(train)
        if self.network is None:
            self.items.held = None
            self.item_model.prepare(texts, run, optimise)
            if isinstance(self.rec_model, TextModel):
                self.rec_model.prepare([*texts, self.config.before, self.config.after], run, optimise)
            else:
                self.rec_model.prepare(self.item_model.width, run)
        self.items.read(texts)

    def texts(self, catalogue: Dataset) -> list[str]:
        return self.item_texts(catalogue)

    def _build(self, shape: Any) -> Network:
        return Network(self.config, self.item_model, self.rec_model, **shape)

    def learnt_elsewhere(self) -> tuple[str, ...]:
        return "tower.network.", "user."

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"models": [self.item_model.version, self.rec_model.version]}

    def resting(self) -> Iterator[nn.Parameter]:
        """The Item LLM and the map behind it."""
        network = self.fitted()
        return chain(network.tower.parameters(), network.map.parameters())

    def cached_lesson(self, train: Dataset, run: Run) -> Lesson:
        training = self.training.model_copy(update={"epochs": self.config.cached_epochs})
        return self._lesson(train, run, training)

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network = self.fitted()
        network.popularity.count(train.item_counts)
        if network.bias is not None and not network.bias.any():
            with torch.no_grad():
                network.bias.copy_(network.popularity.log_share)
        if self.config.learns == "user":
            self.items.freeze(network)
        return self._lesson(train, run, self.training)

    @property
    def at_once(self) -> bool:
        """Whether one pass teaches every event of a window: nothing that is read then knows what comes later."""
        return self.rec_model.kind == "causal" and not self.config.after

    def _lesson(self, train: Dataset, run: Run, training: TrainingConfig) -> Lesson:
        config = self.config
        batches: SequenceBatches | PrefixBatches
        if self.at_once:
            batches = SequenceBatches(
                train, length=config.length, batch_size=config.batch_size, seed=run.seed, windows="all"
            )
        else:
            batches = PrefixBatches(
                train, length=config.length, batch_size=config.batch_size, seed=run.seed, prefixes=config.prefixes
            )
        return Lesson(batches, lambda batch: self.loss(batch.to(run.device)), self.settle, training)

    def loss(self, batch: SequenceBatch | PrefixBatch) -> Tensor:
        """Cross entropy over the catalogue, mean over what is taught; ``batch`` is on the network's device."""
        network = self.fitted()
        lengths, targets = batch.lengths, batch.targets
        assert targets is not None
        if isinstance(batch, PrefixBatch):  # those without a history stand last, and are answered without the network
            spoken = int((lengths > 0).sum())
            lengths, targets = lengths[:spoken], targets[:spoken]
        if not len(targets):  # a step must follow, through a weight that learns in this lesson
            return 0.0 * next(p for p in network.parameters() if p.requires_grad).sum()
        vectors = self._catalogue() if self.config.head == "tied" else None
        read = self._vectors(batch.items) if vectors is None else vectors[batch.items]
        states = self._states(read, lengths, every=self.at_once)
        table, bias = self._scored(vectors)
        with torch.autocast(states.device.type, enabled=False):  # logits in half precision overflow
            return full_softmax(network.drop(states).float(), table.float(), targets, bias)

    def _catalogue(self) -> Tensor:
        """``[N, D]`` z of every item, with gradients."""
        network = self.fitted()
        n_items = len(network.popularity.log_share)
        return self.items.vectors(network, torch.arange(n_items, device=network.popularity.log_share.device))

    def _vectors(self, items: Tensor) -> Tensor:
        """``[P, D]`` what is read of these events, each distinct item encoded once."""
        network = self.fitted()
        if network.ids is not None:
            return network.ids(items)
        rows, where = torch.unique(items, return_inverse=True)
        return self.items.vectors(network, rows)[where]

    def _scored(self, vectors: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``[N, D]`` what states are compared with, and ``[N]`` what is added."""
        network = self.fitted()
        if network.rows is not None:
            return network.rows.weight, network.bias
        assert network.turn is not None
        assert vectors is not None
        return network.turn(vectors), None

    def _states(self, vectors: Tensor, lengths: Tensor, *, every: bool) -> Tensor:
        """Vectors of the events ``[P, D]`` → the state at the last place of each history ``[b, D]``, or at ``every``
        event ``[P, D]``. None is empty; ``lengths`` ``[b]`` longest first."""
        x = self.fitted().drop(vectors).to(self.rec_model.model.dtype)
        before, after = self._prompt(self.config.before, begins=True), self._prompt(self.config.after)
        packing = Packing(lengths + len(before) + len(after), x.device)
        places = packing.positions
        total = torch.repeat_interleave(lengths + len(before), packing.lengths).to(x.device)
        event = (places >= len(before)) & (places < total)
        whole = x.new_zeros((len(places), x.shape[1])).index_copy(0, event.nonzero()[:, 0], x)
        if len(before):
            first = (places < len(before)).nonzero()[:, 0]
            whole = whole.index_copy(0, first, before.to(x.dtype)[places[first]])
        if len(after):
            last = (places >= total).nonzero()[:, 0]
            whole = whole.index_copy(0, last, after.to(x.dtype)[(places - total)[last]])
        states = self.rec_model.packed_states(whole, packing, attend_within(packing))
        return states[event] if every else states[packing.last]

    def _prompt(self, text: str, *, begins: bool = False) -> Tensor:
        """``[m, D]`` input embeddings of its tokens, behind those of a learnt prompt where it ``begins``."""
        model, device = self.rec_model, self.fitted().popularity.log_share.device
        if not isinstance(model, TextModel):
            return torch.zeros(0, model.width, device=device)
        tokens = model.read([text]).flat().astype(np.int64)
        tokens = np.concatenate([model.prompt, tokens]) if begins else tokens
        return model.embed(torch.from_numpy(tokens).to(device)[None])[0]

    @property
    def version(self) -> str:
        network, config = self.fitted(), self.config
        item_half = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(ITEM_HALF)}
        return (
            f"lite-llm4rec/1 weights={digest(item_half)} model={self.item_model.version} tokens={config.max_tokens} "
            f"cut={config.cut}"
        )

    def remarks(self) -> dict[str, Any]:
        """What the two models knew before."""
        return self.known_before()

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def tables(self) -> ItemTables:
        return self.items.tables(self.fitted().popularity.log_share)

    @torch.no_grad()
    def _table(self) -> tuple[Tensor, Tensor, Tensor]:
        """``[N, D]`` what states are compared with, ``[N]`` what is added, and what a newcomer is shown."""
        network = self.fitted()
        tables = self.tables
        known, n_items = len(network.popularity.log_share), len(tables.read)
        scored, bias = self._scored(tables.read)
        offsets, newcomer = tables.offsets, tables.newcomer
        if bias is not None:  # what was added later has no row, and is never answered
            added = n_items - known
            offsets = offsets + F.pad(bias, (0, added), value=torch.nan)
            newcomer = newcomer + F.pad(torch.zeros_like(bias), (0, added), value=torch.nan)
            if added:
                scored = F.pad(scored, (0, 0, 0, added))
        return scored.float(), offsets, newcomer

    @property
    def vectors_version(self) -> str:
        """Of the item vectors held, of which of them may be answered, and of all weights of the last fit beside those
        that made them."""
        network = self.fitted()
        assert self.items.held is not None

        def rest() -> list[np.ndarray]:
            state = network.state_dict().items()
            said = digest({name: one for name, one in state if not name.startswith(ITEM_HALF)})
            return [np.frombuffer(said.encode(), dtype=np.uint8)]

        return f"{self.items.held.fingerprint} {self._version.of((self.facts,), rest)}"

    @cached_property
    def _version(self) -> Version:
        return Version()

    @torch.no_grad()
    def item_vectors(self) -> FloatArray:
        """``[N, D]`` what states are compared with; the bias of a free head stands in one more column. NaN for an item
        that is never answered: retired, or without a row of its own."""
        table, offsets, _ = self._table()
        known = table if self.config.head == "tied" else torch.cat([table, offsets[:, None]], dim=1)
        return known.masked_fill(offsets.isnan()[:, None], torch.nan).cpu().numpy()

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]`` the state after each history, NaN for an empty one; beside a bias one more column, of ones."""
        states = sequence_states(requests, read=self._read, table=self.tables.read, length=self.config.length)
        return states if self.config.head == "tied" else with_ones(states)

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        """Logits, from one pass of the Recommendation LLM over vectors that lie ready."""
        table, offsets, newcomer = self._table()
        return sequence_blocks(
            requests, read=self._read, table=table, bias=offsets, newcomer=newcomer, length=self.config.length
        )

    @property
    def scores_texts(self) -> bool:
        """With the tied head alone; the other one has a row for each item."""
        return self.config.head == "tied"

    @torch.no_grad()
    def score_texts(self, requests: Requests, texts: Sequence[str]) -> FloatArray:
        """``[B, T]`` logits; NaN for an empty history."""
        table, _ = self._scored(self.items.encoded(self.fitted(), texts))
        newcomer = table.new_full((len(table),), torch.nan)
        blocks = sequence_blocks(
            requests, read=self._read, table=table.float(), newcomer=newcomer, length=self.config.length,
            known=len(self.tables.read),
        )  # fmt: skip
        return np.concatenate(list(blocks))

    def _read(self, batch: SequenceBatch) -> Tensor:
        network = self.fitted()
        if network.ids is None:
            read = self.tables.read[batch.items]
        else:
            known = batch.items < network.ids.num_embeddings
            read = network.ids(batch.items.clamp(max=network.ids.num_embeddings - 1)) * known[:, None]
        return self._states(read, batch.lengths, every=False)


def tiny() -> LiteLLM4RecConfig:
    """Learns on a laptop CPU in seconds: nano reads the items, a small Llama drawn from nothing their vectors."""
    nano = {"width": 64, "heads": 4, "layers": 2, "forward_width": 160, "vocabulary": 1024, "steps": 60, "block": 64}
    return LiteLLM4RecConfig(
        item_model=Part(name="nano", settings=nano), rec_model=Part(name="llama", settings={"layers": 1}),
        max_tokens=40, length=20, batch_size=64,
        training=TrainingConfig(
            epochs=60, learning_rate=3e-3, weight_decay=0.01, warmup_steps=10, clip_norm=1.0, judge_every=5, patience=3
        ),
    )  # fmt: skip


def cold() -> LiteLLM4RecConfig:
    """For items that are new: compared with the vectors of their texts, over a decoder drawn from nothing."""
    return LiteLLM4RecConfig(head="tied", rec_model=Part(name="llama"), max_tokens=32)


def paper() -> LiteLLM4RecConfig:
    """T5-small for both, as far as the setting is known; it must be here or fetched."""
    t5 = Part(name="hub", settings={"model": "google-t5/t5-small"})
    return LiteLLM4RecConfig(item_model=t5, rec_model=t5, prefixes="all", length=50)
