"""TIGER: an encoder reads the semantic IDs of a history, a decoder writes the semantic ID of what comes next.

Rajput et al., "Recommender Systems with Generative Retrieval", NeurIPS 2023 (arXiv 2305.05065). Items are named by a
tokenizer (RQ-VAE in the paper): four tokens, each level with a vocabulary of its own. A T5-shaped network, trained from
scratch, is given a token for the user and those of the last items, and is taught ``-Σ_j log p(c_j | c_<j, history)``
of the item that came next, for every prefix of every training history. To answer, beam search over the trie of the
live names: no answer is ever an item that does not exist. Shapes: P packed tokens, b sequences, T tokens of a name,
D width, V tokens of the vocabulary, N items.

Where we depart, and why:
- The default tokenizer is residual k-means with repair: no autoencoder to collapse, minutes instead of hours, and as
  good in the public comparisons. ``paper()`` restores the RQ-VAE with a counting last token.
- ``small()`` reads histories forward, each token seeing those before it alone, so that one reading of a window teaches
  all its events; its decoder knows how far back each token stands. The first item of each window is taught as the
  answer to no history at all. The default and ``paper()`` read both ways, once for every event. It also learns at paces
  (``parts.t5.paced``), which stand in for the optimiser T5 was published with.
- The default reads no user token, which helps little and makes known users differ from newcomers. ``paper()`` has one.
- AdamW at a constant rate with early stopping on validation; ``paper()`` has the published peak of
  0.01 and its fall with the root of the steps, but climbs to it for 10,000 steps instead of holding it that long.
- Names that differ in length or are plain text end with an end token; the paper's all have four tokens.
- Nothing of RPG's parallel long names (Hou et al. 2025, arXiv 2506.05781) is built: it is another reader, with another
  loss and a walk over a graph instead of a search. Names are said token by token, also those of ``product``.
- Unseen items take part in the search like any other, since every one of them has a name. ``cold_share`` restores the
  paper's rule: they are found only as those that share all but the last token with an answer, at most that share of
  the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256 as digest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.core.codes import Codes
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.protocols import ItemTokenizer
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import PrefixBatch, asked_sequences, prefix_batches
from palate.parts import losses
from palate.parts.naming import Naming, needs_end, read_before, spelled
from palate.parts.packing import Packing
from palate.parts.t5 import T5, Reach, T5Config, T5Speaker, paced, packed
from palate.training.shell import GradientSystem, Lesson

START, END, SOMEBODY, USERS = 0, 1, 2, 3
"""Rows of the vocabulary: the decoder's start, the end of a name, a reader without a token, the first user token."""


class TIGERConfig(Config):
    tokenizer: Part = Part(name="residual-kmeans")
    """What names the items."""
    network: T5Config = T5Config()
    length: int = Field(20, ge=1)
    """The last so many items are read."""
    user_tokens: int = Field(0, ge=0)
    """Users share so many tokens; 0 = no user token."""
    user_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the examples whose reader is not named, so that unknown readers can be answered."""
    prefixes: Literal["all", "one"] = "all"
    """Targets of an epoch: every event, or one of each user, drawn anew. Where ``network.reads`` is "forward", all
    events of a window of ``length`` are taught with one reading."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits in training."""
    beam: int = Field(30, ge=1)
    cold_share: float | None = Field(None, ge=0, le=1)
    """None: unseen items are searched like others. Else the paper's rule, with this share of the list at most; 0 =
    unseen items are never answered and have no score."""
    batch_size: int = Field(256, ge=1)
    """Histories, or windows, read in a step."""
    training: TrainingConfig = TrainingConfig(
        epochs=200, learning_rate=1e-3, weight_decay=0.01, warmup_steps=100, judge_every=2, patience=10
    )


SPACE: SearchSpace = {
    "network.dropout": Range(0.05, 0.4),
    "network.layers": Range(2, 4, whole=True),
    "length": Choice((10, 20, 50)),
    "training.learning_rate": Range(3e-4, 3e-3, log=True),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """The T5, and which items it saw in training (``seen`` ``[N]``). ``ended``: each name ends with an end token."""

    seen: Tensor

    def __init__(self, config: TIGERConfig, n_tokens: int, n_items: int, n_users: int, ended: bool) -> None:
        super().__init__()
        self.n_users, self.ended = n_users, ended
        self.t5 = T5(config.network, USERS + config.user_tokens + n_tokens)
        self.register_buffer("seen", torch.zeros(n_items, dtype=torch.bool))

    @property
    def device(self) -> torch.device:
        return self.t5.tokens.weight.device


@dataclass(frozen=True, eq=False)
class Speech:
    """The catalogue in the network's vocabulary.

    naming  how items are answered
    live    ``[N]`` items that can be answered
    twins   for each item the unseen ones that follow it, where ``cold_share`` lets any
    """

    naming: Naming
    live: npt.NDArray[np.bool_]
    twins: Ragged | None


class TIGER(GradientSystem[TIGERConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = TIGERConfig, Network

    def __init__(self, config: TIGERConfig | None = None, *, tokenizer: ItemTokenizer) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.tokenizer = tokenizer
        self._speech: tuple[object, Speech] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingConfig:
        return paced(self.config.training, self.config.network)

    def prepare(self, train: Dataset, run: Run) -> None:
        if self.network is None:
            self.tokenizer.fit(train, run.inside("tokenizer", share=0.25))
        else:
            self.tokenizer.add(train)

    def shape(self, train: Dataset) -> dict[str, Any]:
        codes = self.tokenizer.codes
        ended = needs_end(codes) if self.network is None else self.network.ended
        return {
            "n_tokens": len(codes.vocabulary), "n_items": train.n_items, "n_users": train.n_users, "ended": ended
        }  # fmt: skip

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"names": digest(self.tokenizer.codes.tokens.tobytes()).hexdigest()}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        network.seen.copy_(torch.from_numpy(train.item_counts > 0))
        self._speech = None  # which items can be answered may hang on what was seen
        batches = prefix_batches(
            train, length=config.length, batch_size=config.batch_size, seed=run.seed, prefixes=config.prefixes,
            forward=config.network.reads == "forward",
        )  # fmt: skip
        return Lesson(batches, lambda batch: self.loss(network, batch.to(run.device)))

    def loss(self, network: Network, batch: PrefixBatch) -> Tensor:
        """``-log p`` of the targets' tokens, mean over tokens."""
        users = batch.users
        if self.config.user_tokens:
            users = users.masked_fill(torch.rand(len(users), device=users.device) < self.config.user_dropout, -1)
        tokens, packing, order = self._input(batch.items, batch.lengths, users)
        memory = network.t5.encode(tokens, packing)
        places = Ragged.from_lengths(np.arange(len(batch.targets)), batch.counts.numpy())[order.numpy()]
        place, reach = torch.from_numpy(places.flat()).to(tokens.device), None
        if batch.together:
            read = 1 + read_before(self.naming.tokens, batch.items, batch.lengths)
            reach = Reach(batch.counts[order], read[place])
        targets = self.naming.tokens[batch.targets[place]]
        states = network.t5.states(targets, memory, packing, reach) / self.config.temperature
        said = targets >= 0
        return losses.full_softmax(states[said], network.t5.table, targets[said])

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def naming(self) -> Naming:
        """The live catalogue in the network's vocabulary."""
        return self.speech.naming

    @property
    def speech(self) -> Speech:
        """Made anew when names or network have changed."""
        network, codes = self.fitted(), self.tokenizer.codes
        state = (codes, network, network.device)
        if self._speech is None or self._speech[0] != state:
            share, searched = self.config.cold_share, codes.live
            if share is not None:
                searched = searched & self._seen
            names = np.where(codes.tokens >= 0, codes.tokens + USERS + self.config.user_tokens, -1)
            vocabulary, end = len(network.t5.tokens.weight), END if network.ended else None
            naming = Naming(names, vocabulary, searched, end=end, device=network.device)
            twins = unseen_twins(codes, self._seen) if share else None
            self._speech = state, Speech(naming, codes.live if share else searched, twins)
        return self._speech[1]

    @property
    def _seen(self) -> npt.NDArray[np.bool_]:
        """``[N]`` False for items without a training event and for those added later."""
        seen = self.fitted().seen.cpu().numpy()
        return np.pad(seen, (0, self.tokenizer.codes.n_items - len(seen)))

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` that the beam finds, at least ``k`` wide."""
        found = self.naming.recommend(requests, k, self._speak, beam=self.config.beam)
        if self.speech.twins is None:
            return found
        return with_twins(found, self.speech.twins, requests, int((self.config.cold_share or 0) * k))

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` log-probabilities of the candidates' names; NaN for an item that cannot be answered."""
        return self.naming.score(requests, candidates, self._speak, self.speech.live)

    @torch.no_grad()
    def _speak(self, requests: Requests) -> T5Speaker:
        network = self.fitted()
        (batch,) = asked_sequences(
            requests, length=self.config.length, n_items=self.naming.n_items, batch_size=len(requests)
        )
        users = np.full(len(requests), -1) if requests.user_rows is None else requests.user_rows
        asked = torch.from_numpy(np.asarray(users, dtype=np.int64))[batch.order].to(network.device)
        tokens, packing, order = self._input(batch.items.to(network.device), batch.lengths, asked)
        return network.t5.speaker(network.t5.encode(tokens, packing), packing, batch.order[order])

    def _input(self, items: Tensor, lengths: Tensor, users: Tensor) -> tuple[Tensor, Packing, Tensor]:
        """Packed tokens: of the reader, then of the items; and which of the given sequences each is."""
        tokens, counts = spelled(self.naming.tokens, items, lengths)
        order = torch.argsort(-counts, stable=True)
        starts = torch.cumsum(counts, 0) - counts
        longer = counts[order] + 1
        firsts = torch.cumsum(longer, 0) - longer
        packing = packed(longer, tokens.device)
        source = torch.repeat_interleave(starts[order] - firsts - 1, longer) + torch.arange(int(longer.sum()))
        joined = torch.empty(len(source), dtype=torch.int64, device=tokens.device)
        rest = torch.ones(len(source), dtype=torch.bool)
        rest[firsts] = False
        joined[rest.to(tokens.device)] = tokens[source[rest].to(tokens.device)]
        joined[firsts.to(tokens.device)] = self._reader(users)[order.to(tokens.device)]
        return joined, packing, order

    def _reader(self, users: Tensor) -> Tensor:
        """``[b]`` the token of each user; unknown ones share one."""
        if not self.config.user_tokens:
            return torch.full_like(users, SOMEBODY)
        known = (users >= 0) & (users < self.fitted().n_users)
        return torch.where(known, USERS + users % self.config.user_tokens, SOMEBODY)

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``, so that the next answer may hold it. A token that no name had before
        begins as the mean of the others."""
        self.tokenizer.add(catalogue)
        shape, n_tokens = self.facts["shape"], len(self.tokenizer.codes.vocabulary)
        if n_tokens > shape["n_tokens"]:
            self.fitted().t5.widen(n_tokens - shape["n_tokens"])
            self.facts = self.facts | {"shape": shape | {"n_tokens": n_tokens}}

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again."""
        self.tokenizer.retire(item_rows, back=back)


def unseen_twins(codes: Codes, seen: npt.NDArray[np.bool_]) -> Ragged:
    """For each item the unseen live ones that differ in the last token alone."""
    stems = codes.tokens.copy()
    stems[np.arange(codes.n_items), codes.lengths - 1] = -1
    _, family = np.unique(stems, axis=0, return_inverse=True)
    cold = np.flatnonzero(~seen & codes.live)
    cold = cold[np.argsort(family[cold], kind="stable")]
    starts = np.searchsorted(family[cold], family)
    return Ragged(cold, starts, np.searchsorted(family[cold], family, side="right"))


def with_twins(found: Rankings, twins: Ragged, requests: Requests, at_most: int) -> Rankings:
    """Each answer followed by its unseen twins, ``at_most`` of them in a list; a twin has its sibling's score."""
    b, k = found.item_rows.shape
    request, place = np.nonzero(found.item_rows >= 0)
    of_each = twins[found.item_rows[request, place]]
    sibling, twin = of_each.row_numbers(), of_each.flat().astype(np.int64)
    n, allowed = len(twins), np.ones(len(twin), dtype=bool)
    for rule, wanted in ((requests.leave_out, False), (requests.candidates, True)):
        if rule is not None:
            known = rule.distinct(n)
            allowed &= np.isin(request[sibling] * n + twin, known.row_numbers() * n + known.flat()) == wanted
    sibling, twin = sibling[allowed], twin[allowed]
    table = pl.concat(
        [
            pl.DataFrame({"request": request, "place": place, "twin": False, "item": found.item_rows[request, place]}),
            pl.DataFrame({"request": request[sibling], "place": place[sibling], "twin": True, "item": twin}),
        ]
    ).with_columns(
        score=pl.Series(np.concatenate([found.scores[request, place], found.scores[request, place][sibling]]))
    )
    table = (
        table.sort("request", "place", "twin", "item")
        .unique(["request", "item"], keep="first", maintain_order=True)
        .filter(~pl.col("twin") | (pl.col("twin").cum_sum().over("request") <= at_most))
        .with_columns(slot=pl.int_range(pl.len()).over("request"))
        .filter(pl.col("slot") < k)
    )
    items, scores = np.full((b, k), -1, dtype=np.int64), np.full((b, k), np.nan, dtype=np.float32)
    at = table["request"].to_numpy(), table["slot"].to_numpy()
    items[at], scores[at] = table["item"].to_numpy(), table["score"].to_numpy()
    return Rankings(items, scores, exact=False)


def tiny() -> TIGERConfig:
    """Learns on a laptop CPU in a minute or two: few codes, a small network, vectors that count words."""
    return TIGERConfig(
        tokenizer=Part(name="residual-kmeans", settings={"size": 16, "levels": 3, "encoder": "tf-idf"}),
        network=T5Config(width=64, layers=2, heads=4, head_width=16, forward_width=128),
        prefixes="one",
        training=TrainingConfig(epochs=600, learning_rate=2e-3, warmup_steps=50, judge_every=10, patience=8),
    )


def small() -> TIGERConfig:
    """A third of the weights, and all targets of a window with one reading of it: minutes on one core for a thousand
    users, an hour or more for twenty thousand."""
    return TIGERConfig(
        network=T5Config(width=128, layers=3, heads=4, head_width=32, forward_width=512, reads="forward", paced=True),
        batch_size=32,
        training=TrainingConfig(
            epochs=40, learning_rate=2e-3, weight_decay=0.01, warmup_steps=100, schedule="cosine", judge_every=5,
            patience=40,
        ),
    )  # fmt: skip


def paper() -> TIGERConfig:
    """The published names and reader: RQ-VAE with a counting last token, 2,000 user tokens."""
    return TIGERConfig(
        tokenizer=Part(name="rq-vae", preset="paper"),
        user_tokens=2000, cold_share=0.1,
        training=TrainingConfig(
            epochs=1000, learning_rate=1e-2, warmup_steps=10_000, schedule="inverse-root", judge_every=5, patience=20
        ),
    )  # fmt: skip
