"""RLMRec: vectors of a graph recommender are taught to agree with what a language model wrote about the same nodes.

Ren, Wei, Xia, Su, Cheng, Wang, Yin and Huang, "Representation Learning with Large Language Models for Recommendation",
WWW 2024 (arXiv 2310.15950). An annotator writes a profile of every item, then of every user; an encoder turns the
summaries into vectors s. Beside the loss of any graph recommender stands ``strength`` (λ) times a bound on the mutual
information between its vectors e and s (InfoNCE, cosines divided by τ), in one of two forms:

- contrastive: an adapter brings s down to the width of e, and each e is to find its own profile: users among all
  users, items among the positives of the batch, drawn negatives among the negatives. The sum of the three means.
- generative: a share ``mask`` (α) of all nodes has its ego embedding replaced by one learnt token; the recommender
  itself runs on what is left; an adapter brings the e of masked nodes up to the width of s, and each is to find its own
  profile among those of the masked nodes.

Answers are those of the graph recommender, which is saved whole as the part ``graph``: adapters and profiles are needed
for learning alone. Shapes: U users, N items, D' width of e, S width of s, n = U + N nodes, b events of a batch.

Where we depart, and why:
- A node of which nothing could be written stays in the graph and out of the alignment; the paper drops such nodes.
- Means over a batch count each distinct node once with its number of occurrences, which is the same sum, faster. Where
  the graph recommender draws no negatives (cross entropy over all items, AutoCF), there is no third term.
- ``reg`` is that of the graph recommender, whose settings are used unchanged: the adapters are not penalised. So the
  comparison with it is one of equal settings; the published one tunes both apart.
- The default annotator extracts phrases, the default encoder is a small one. ``PUBLISHED`` holds the λ, τ and α of the
  paper's three data sets by graph recommender; ``paper()`` looks them up, and they go with BPR. The defaults go with
  cross entropy over all items, whose loss is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import text_vectors
from palate.core import store
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, StoreError, nearest
from palate.core.protocols import Encoder, FitsTexts, Profiler
from palate.core.run import Run
from palate.core.space import Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.pairs import PairBatch, PairBatches
from palate.parts.pair_losses import info_nce
from palate.parts.side_features import encoded
from palate.training.factors import AnswersByFactors, Factors
from palate.training.graphs import GraphNetwork, GraphSystem, Ground, Taught
from palate.training.loop import seeded
from palate.training.shell import GradientSystem, Lesson, fill

Alignment = Literal["contrastive", "generative"]


class RLMRecConfig(Config):
    graph: Part = Part(name="lightgcn")
    """The graph recommender; its settings say how it is taught, too: ``graph.training.epochs=100``."""
    annotator: Part = Part(name="extractive")
    """What writes the profiles."""
    encoder: Part = Part(name="auto")
    """What makes vectors of the profiles."""
    alignment: Alignment = "contrastive"
    strength: float = Field(0.01, ge=0)
    """λ; 0 leaves the graph recommender alone. Small enough that the adapter follows the vectors faster than they
    follow it: then profiles that say nothing do no harm, while at three times the default they do. A stronger penalty
    of the graph recommender makes its vectors shorter, and the same λ pulls harder. The generative form wants more:
    see ``generative()``."""
    temperature: float = Field(0.2, gt=0)
    """τ."""
    mask: float = Field(0.1, gt=0, le=1)
    """α, the share of nodes whose ego embedding is hidden (generative); at least one is."""
    shuffled: bool = False
    """Every node gets another's profile, users those of users: a control, from which nothing can be learnt."""


SPACE: SearchSpace = {
    "strength": Range(1e-3, 1.0, log=True),
    "temperature": Range(0.05, 1.0, log=True),
    "mask": Range(0.01, 0.3, log=True),
}
"""What ``--tune`` searches."""

PUBLISHED: Mapping[tuple[str, str], tuple[tuple[float, float], tuple[float, float, float]]] = {
    ("gccf", "amazon-book"): ((1e-3, 0.1), (0.10, 0.01, 0.1)),
    ("gccf", "yelp"): ((1e-3, 0.2), (0.05, 0.01, 1.0)),
    ("gccf", "steam"): ((1e-2, 0.5), (0.10, 0.01, 0.1)),
    ("lightgcn", "amazon-book"): ((1e-2, 0.2), (0.15, 0.1, 0.5)),
    ("lightgcn", "yelp"): ((1e-2, 0.2), (0.05, 0.01, 0.1)),
    ("lightgcn", "steam"): ((1e-3, 0.1), (0.15, 0.1, 0.5)),
    ("sgl", "amazon-book"): ((1e-2, 0.5), (0.20, 0.1, 0.2)),
    ("sgl", "yelp"): ((1e-2, 1.0), (0.15, 0.1, 0.2)),
    ("sgl", "steam"): ((1e-2, 1.0), (0.10, 0.1, 0.2)),
    ("simgcl", "amazon-book"): ((1e-2, 0.2), (0.05, 0.1, 0.2)),
    ("simgcl", "yelp"): ((1e-2, 0.1), (0.01, 0.01, 0.05)),
    ("simgcl", "steam"): ((1e-2, 0.2), (0.05, 0.01, 0.1)),
    ("autocf", "amazon-book"): ((0.1, 0.5), (0.20, 1.0, 0.5)),
    ("autocf", "yelp"): ((1e-2, 0.1), (0.20, 0.1, 0.1)),
    ("autocf", "steam"): ((1e-2, 0.2), (0.20, 1.0, 0.2)),
}
"""By graph recommender and data set: (λ, τ) of the contrastive form, (α, λ, τ) of the generative one."""

_REG: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "gccf": ((1e-6, 1e-6, 1e-6), (1e-7, 1e-6, 1e-6)),
    "lightgcn": ((1e-7, 1e-7, 1e-8), (1e-7, 1e-7, 1e-6)),
    "sgl": ((1e-5, 1e-5, 1e-5), (1e-5, 1e-5, 1e-5)),
    "simgcl": ((1e-5, 1e-5, 1e-5), (1e-5, 1e-5, 1e-5)),
    "autocf": ((1e-6, 1e-8, 1e-6), (1e-6, 1e-8, 1e-6)),
}
"""The published ``reg`` of the graph recommender under either form, on Amazon-book, Yelp and Steam."""
_SETS = ("amazon-book", "yelp", "steam")


class Profiles:
    """Vectors of profiles ``[n, S]``, users first, on one device; ``known`` ``[n]`` where one could be written."""

    def __init__(self, vectors: Tensor, known: Tensor, n_users: int) -> None:
        self.vectors, self.known, self.n_users = vectors, known, n_users

    def to(self, device: str) -> Profiles:
        return Profiles(self.vectors.to(device), self.known.to(device), self.n_users)

    def shuffled(self, seed: int) -> Profiles:
        """The same profiles at other nodes of the same kind."""
        rng = np.random.default_rng([seed, 7])
        users = rng.permutation(self.n_users)
        items = self.n_users + rng.permutation(len(self.known) - self.n_users)
        order = torch.from_numpy(np.concatenate([users, items])).to(self.known.device)
        return Profiles(self.vectors[order], self.known[order], self.n_users)


class Network(nn.Module):
    """The graph recommender's network and, beside it, what aligns it with profiles."""

    def __init__(self, config: RLMRecConfig, graph: GraphNetwork, profile_width: int) -> None:
        super().__init__()
        self.config = config
        self.profile_width = profile_width
        self.graph = graph
        width = graph.item_vectors.shape[1]
        inner = (profile_width + width) // 2
        ends = (profile_width, width) if config.alignment == "contrastive" else (width, profile_width)
        # Drawn aside, so that the graph recommender draws what it would draw alone.
        with torch.random.fork_rng(devices=[]):
            into, out = nn.Linear(ends[0], inner), nn.Linear(inner, ends[1])
            self.adapter = nn.Sequential(into, nn.LeakyReLU(), out)
            for layer in (into, out):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.token = nn.Parameter(torch.zeros(graph.users.embedding_dim))

    def loss(self, ground: Ground, batch: PairBatch, profiles: Profiles | None) -> Tensor:
        """That of the graph recommender plus ``strength`` times the alignment; without ``profiles`` the former."""
        config, ego = self.config, self.graph.ego()
        if profiles is None:
            return self.graph.teach(ground.graph, batch, ground.unmet, ego).loss
        if config.alignment == "contrastive":
            taught = self.graph.teach(ground.graph, batch, ground.unmet, ego)
            return taught.loss + config.strength * self.contrastive(taught, batch, profiles)
        hidden = torch.randperm(len(ego), device=ego.device)[: max(1, round(config.mask * len(ego)))]
        shown = ego.index_put((hidden,), self.token.to(ego.dtype).expand(len(hidden), -1))
        taught = self.graph.teach(ground.graph, batch, ground.unmet, shown)
        return taught.loss + config.strength * self.generative(taught, hidden, profiles)

    def contrastive(self, taught: Taught, batch: PairBatch, profiles: Profiles) -> Tensor:
        """InfoNCE of users among all users, of positives and of negatives among those of the batch; their sum."""
        n_users, tau = profiles.n_users, self.config.temperature
        known = profiles.known[:n_users].nonzero()[:, 0]
        place = known.new_full((n_users,), -1)
        place[known] = torch.arange(len(known), device=known.device)
        rows, counts = torch.unique(batch.users[place[batch.users] >= 0], return_counts=True)
        keys = self.adapter(profiles.vectors[known])
        loss = info_nce(F.embedding(rows, taught.users), keys, place[rows], tau, counts)
        for drawn in (batch.items, taught.negatives):
            if drawn is not None:
                drawn = drawn.flatten()
                rows, counts = torch.unique(drawn[profiles.known[n_users + drawn]], return_counts=True)
                own = torch.arange(len(rows), device=rows.device)
                keys = self.adapter(profiles.vectors[n_users + rows])
                loss = loss + info_nce(F.embedding(rows, taught.items), keys, own, tau, counts, counts)
        return loss

    def generative(self, taught: Taught, hidden: Tensor, profiles: Profiles) -> Tensor:
        """InfoNCE of hidden nodes' vectors, brought up to the width of profiles, among the profiles of hidden nodes."""
        hidden = hidden[profiles.known[hidden]]
        vectors = self.adapter(torch.cat([taught.users, taught.items])[hidden])
        own = torch.arange(len(hidden), device=hidden.device)
        return info_nce(vectors, profiles.vectors[hidden], own, self.config.temperature)


class RLMRec(GradientSystem[RLMRecConfig, Network], AnswersByFactors):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = RLMRecConfig, Network

    def __init__(
        self,
        config: RLMRecConfig | None = None,
        *,
        graph: GraphSystem[Any, Any],
        annotator: Profiler,
        encoder: Encoder,
    ) -> None:
        super().__init__(config, graph=graph, annotator=annotator, encoder=encoder)
        self.graph, self.annotator, self.encoder = graph, annotator, encoder
        self._profiles: Profiles | None = None
        self._written = ""

    @property
    def training(self) -> TrainingConfig:
        """That of the graph recommender."""
        return self.graph.training

    # -- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, train: Dataset, run: Run) -> None:
        self._profiles = None
        if self.config.strength:
            self._profiles = self.written(train, run)
            if self.config.shuffled:
                self._profiles = self._profiles.shuffled(run.seed)

    def written(self, train: Dataset, run: Run) -> Profiles:
        """Profiles of all nodes, items first written, encoded."""
        of_items = self.annotator.item_profiles(train, np.arange(train.n_items))
        of_users = self.annotator.user_profiles(train, np.arange(train.n_users), of_items)
        texts = [user.summarization for user in of_users] + [item.summarization for item in of_items]
        self._written = digest("\0".join(texts).encode()).hexdigest()
        if isinstance(self.encoder, FitsTexts) and not self.encoder.fitted:
            self.encoder.fit(_readable(train, texts))
        vectors, known = encoded(texts, lambda said: text_vectors(said, self.encoder, "profile", run=run))
        return Profiles(vectors, known, train.n_users)

    def shape(self, train: Dataset) -> dict[str, Any]:
        width = self.network.profile_width if self.network is not None else 1
        if self._profiles is not None:
            width = self._profiles.vectors.shape[1]
        return {**self.graph.shape(train), "profile_width": width}

    def _build(self, shape: Mapping[str, Any]) -> Network:
        sizes = {name: size for name, size in shape.items() if name != "profile_width"}
        graph = type(self.graph).network_type(self.graph.config, **sizes)
        assert isinstance(graph, GraphNetwork)
        return Network(self.config, graph, shape["profile_width"])

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, graph = self.fitted(), self.fitted().graph
        self.graph.network = graph
        ground = Ground.of(graph, train, run.device)
        profiles = self._profiles.to(run.device) if self._profiles else None

        def loss(batch: PairBatch) -> Tensor:
            return network.loss(ground, batch.to(run.device), profiles)

        batches = PairBatches(train, batch_size=self.graph.config.batch_size, seed=run.seed)
        return Lesson(batches, loss, settle=partial(graph.settle, ground))

    def identity(self, train: Dataset) -> dict[str, object]:
        graph = {"name": self.config.graph.name, **self.graph.config.model_dump(mode="json", exclude={"training"})}
        own = self.config.model_dump(mode="json", exclude={"graph"})
        return {"data": train.fingerprint, "settings": own, "graph": graph, "profiles": self._written}

    def remarks(self) -> dict[str, Any]:
        known = self._profiles.known if self._profiles else torch.zeros(0, dtype=torch.bool)
        n_users = self._profiles.n_users if self._profiles else 0
        return {
            "written by": self.annotator.label,
            "encoder": self.encoder.version,
            "profiles": {"users": int(known[:n_users].sum()), "items": int(known[n_users:].sum())},
        }

    # -- answering ---------------------------------------------------------------------------------------------------

    def factors(self) -> Factors:
        return self.fitted().graph.factors()

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The adapter; the recommender itself lies whole in the part ``graph``."""
        network = self.fitted()
        sizes = {name: size for name, size in self.facts["shape"].items() if name != "profile_width"}
        self.graph.network = network.graph
        self.graph.facts = {name: self.facts[name] for name in ("fitted_on", "training")} | {"shape": sizes}
        arrays = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in network.state_dict().items()
            if not name.startswith("graph.")
        }
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        if "shape" not in stored.facts:
            raise StoreError(f"{folder} was written by an earlier Palate; fit the system again")
        system = stored.begun(cls)
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            system.network = Network(system.config, system.graph.fitted(), stored.facts["shape"]["profile_width"])
        system.facts = stored.facts
        own = {name: torch.from_numpy(array) for name, array in stored.arrays().items()}
        graph = {f"graph.{name}": tensor for name, tensor in system.graph.fitted().state_dict().items()}
        fill(system.network, own | graph, folder)
        system.network.eval()
        return system


def _readable(train: Dataset, profiles: list[str]) -> list[str]:
    """What an encoder learns words from: the items' texts, which no interaction has touched, else the profiles."""
    fields = ItemText().fields
    return ItemText().render(train) if set(fields) & set(train.items.columns) else [text for text in profiles if text]


def published(graph: str, data: str, alignment: Alignment) -> RLMRecConfig:
    """λ, τ and α as published for ``graph`` on ``data``, those of Amazon-book for a set that was not, with the graph
    recommender as published beside them. Raises ``ConfigError`` for a graph recommender over which nothing was."""
    place = _SETS.index(data) if data in _SETS else 0
    if (graph, _SETS[place]) not in PUBLISHED:
        known = sorted({name for name, _ in PUBLISHED})
        raise ConfigError(f"rlmrec was published over {', '.join(known)}, not over '{graph}'{nearest(graph, known)}")
    contrastive, generative = PUBLISHED[graph, _SETS[place]]
    strength, temperature = contrastive if alignment == "contrastive" else generative[1:]
    steam = _SETS[place] == "steam"
    own: dict[str, dict[str, Any]] = {
        "gccf": {"loss": "bpr", "layers": 2},
        "lightgcn": {"loss": "bpr", "layers": 3 if alignment == "contrastive" else 2},
        "sgl": {"loss": "bpr", "layers": 3, "ssl_weight": 0.1, "ssl_temperature": 0.5 if steam else 0.2},
        "simgcl": {
            "loss": "bpr", "layers": 3, "ssl_weight": 0.1, "ssl_temperature": 0.5 if steam else 0.2,
            "noise": 0.2 if steam else 0.9,
        },
        "autocf": {"layers": 2, "ssl_weight": 0.5 if steam else 1.0},
    }  # fmt: skip
    settings = own[graph] | {
        "width": 32, "reg": _REG[graph][alignment != "contrastive"][place], "batch_size": 4096,
        "training": {
            "learning_rate": 1e-3, "betas": [0.9, 0.999], "clip_norm": 0.0, "epochs": 3000, "judge_every": 3,
            "patience": 5,
        },
    }  # fmt: skip
    return RLMRecConfig(
        graph=Part(name=graph, settings=settings), alignment=alignment, strength=strength, temperature=temperature,
        mask=generative[0],
    )  # fmt: skip


def generative() -> RLMRecConfig:
    """The generative form at the strength that goes with cross entropy."""
    return RLMRecConfig(alignment="generative", strength=0.1, mask=0.03)


def tiny() -> RLMRecConfig:
    """Learns on a laptop CPU in a minute: profile vectors that count words."""
    return RLMRecConfig(encoder=Part(name="tf-idf", settings={"width": 64}))


def paper(
    graph: str = "lightgcn", data: str = "amazon-book", alignment: Alignment = "contrastive"
) -> RLMRecConfig:  # fmt: skip
    """The contrastive form as published for this graph recommender and data set; Amazon-book stands for others."""
    return published(graph, data, alignment)


def paper_generative(graph: str = "lightgcn", data: str = "amazon-book") -> RLMRecConfig:
    """The generative form as published for this graph recommender and data set; Amazon-book stands for others."""
    return published(graph, data, "generative")
