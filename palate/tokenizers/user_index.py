"""A user index: each user gets a row of codes, learnt from what the user wrote and from who the user is.

The user indexing of ULMRec (Shao et al. 2024, arXiv 2412.05543). A user's reviews h_1 … h_m are encoded by a frozen
encoder; a vector e_u of the user's own asks them, and is added to what they answer, so that two users with the same
reviews are still two::

    a_j = softmax_j((W_q e_u) · (W_k h_j) / sqrt(D))    x_u = LayerNorm(sum_j a_j W_v h_j + e_u)

An RQ-VAE (``parts.rq_vae``) turns x_u into codes, spread evenly over its last level; repair leaves no two users with
the same row. Nothing but the events of the train part is read, and of these only their reviews.
Shapes: U users, m reviews of one, P texts of a batch, D width of the vectors, K levels, N items.

What the paper does not tell, or where we depart, and why:
- The paper names BERT; here any encoder of sentences, by default MiniLM, or counted words where it is not installed.
- How reviews teach e_u is not published. All is learnt together through reconstruction; beside it x_u must tell the
  mean of the user's reviews (``tells``), because vectors that learn could otherwise all become the one that is easiest
  to rebuild. For the same reason what is to be rebuilt stands still (``parts.rq_vae.Network.loss``).
- e_u begins at ``identity`` times the spread of what reviews give; 0 leaves it out, and users with the same reviews
  then differ by repair alone.
- A user without a review is told by the texts of the items met, encoded in the same way. One who was not there in
  training gets the codes nearest to the items of the history that is asked about, without e_u; these may be another's.
  Who met nothing has no index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import text_vectors
from palate.core import store
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.naming import fitting_size, level_words
from palate.core.protocols import Encoder, FitsTexts, FloatArray
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.parts.repair import encode, name_all, name_more
from palate.parts.rq_vae import Network as Autoencoder
from palate.parts.rq_vae import Points, QuantiserConfig, check_usage, measure, remarks
from palate.training.loop import optimise, seeded


class UserIndexConfig(QuantiserConfig):
    encoder: Part = Part(name="auto")
    """What makes vectors of reviews."""
    text: ItemText = ItemText()
    """How an item reads where somebody wrote no review."""
    reviews: int = Field(50, ge=1)
    """The newest so many of a user are read."""
    identity: float = Field(0.3, ge=0)
    """How long e_u is at first, as a share of the spread of what reviews give; 0 = no e_u."""
    tells: float = Field(1.0, ge=0)
    """Weight of telling the mean of the reviews, beside the reconstruction."""
    tie_break: Literal["match"] = "match"
    """Users that share codes take free ones of the last level."""
    shuffled: bool = False
    """Every user gets another's index: a control, from which nothing can be learnt."""


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of users: ``vectors`` ``[R, D]`` of reviews and then of items, and which of them tell each user."""

    vectors: Tensor
    of_user: Ragged

    def batch(self, users: IntArray) -> tuple[Tensor, Tensor]:
        """Vectors ``[P, D]`` and which of ``users`` ``[n]`` each tells ``[P]``."""
        chosen = self.of_user[users]
        rows = torch.from_numpy(chosen.row_numbers()).to(self.vectors.device)
        return self.vectors[torch.from_numpy(chosen.flat().astype(np.int64)).to(self.vectors.device)], rows


class Network(nn.Module):
    """Reviews and identity → x ``[n, D]``, and the autoencoder that makes codes of it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: UserIndexConfig, n_columns: int, n_users: int, restart_steps: int = 0) -> None:
        super().__init__()
        self.config = config
        self.users = nn.Embedding(n_users, n_columns)
        self.query, self.key, self.value, self.tell = (nn.Linear(n_columns, n_columns, bias=False) for _ in range(4))
        for layer in (self.value, self.tell):  # a user begins as the mean of the reviews, which tells that mean
            nn.init.eye_(layer.weight)
        self.autoencoder = Autoencoder(config, n_columns, restart_steps)
        self.register_buffer("mean", torch.zeros(n_columns))
        self.register_buffer("deviation", torch.ones(n_columns))

    @torch.no_grad()
    def begin(self, told: Told, users: IntArray, seed: int) -> None:
        """Measure what tells ``users``, draw what they are themselves, and start the codebooks."""
        vectors = told.vectors[torch.from_numpy(np.unique(told.of_user[users].flat()).astype(np.int64))]
        measure(self, vectors)
        self.users.weight.zero_()
        read = self.fused(told, users)[1]
        spread = float(read.std(0, correction=0).mean()) if len(users) > 1 else 1.0
        self.users.weight.normal_(0, self.config.identity * (spread or 1.0))
        self.autoencoder.begin(self.points(told, users), seed)

    def fused(self, told: Told, users: IntArray) -> tuple[Tensor, Tensor]:
        """``[n, D]`` x of these users, who are all told something, and the mean of what tells them ``[n, D]``."""
        vectors, rows = told.batch(users)
        standard = (vectors - self.mean) / self.deviation
        own = self.users(torch.from_numpy(users).to(vectors.device))
        # Projections of reviews are linear: what is asked is turned instead, and what is read is summed up first.
        wanted = self.query(own) @ self.key.weight
        asked = (wanted[rows] * standard).sum(1) / standard.shape[1] ** 0.5
        attention = softmax_within(asked, rows, len(users))
        read = self.value(_summed(standard * attention[:, None], rows, len(users)))
        counts = torch.bincount(rows, minlength=len(users))[:, None]
        mean = _summed(standard, rows, len(users)) / counts
        return F.layer_norm(read + own if self.config.identity else read, read.shape[1:]), mean

    def loss(self, told: Told, users: IntArray) -> Tensor:
        x, mean = self.fused(told, users)
        return self.autoencoder.loss(x) + self.config.tells * F.mse_loss(self.tell(x), mean)

    @torch.no_grad()
    def points(self, told: Told, users: IntArray, at_once: int = 4096) -> Tensor:
        """``[n, D]`` x of many users."""
        some = [self.fused(told, users[start : start + at_once])[0] for start in range(0, len(users), at_once)]
        return torch.cat(some)

    @torch.no_grad()
    def strangers(self, vectors: Tensor, histories: Ragged) -> Tensor:
        """``[n, D]`` x of users who were not there in training, from ``vectors`` ``[N, D]`` of the items they met."""
        rows = torch.from_numpy(histories.row_numbers()).to(vectors.device)
        items = torch.from_numpy(histories.flat().astype(np.int64)).to(vectors.device)
        standard = (vectors[items] - self.mean) / self.deviation
        mean = _summed(standard, rows, len(histories)) / torch.bincount(rows, minlength=len(histories))[:, None]
        return F.layer_norm(self.value(mean), mean.shape[1:])


def softmax_within(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """``[P]`` softmax among the values of the same row; ``rows`` ``[P]`` are below ``n``."""
    most = values.new_full((n,), -torch.inf).scatter_reduce(0, rows, values.detach(), "amax")
    weights = torch.exp(values - most[rows])
    return weights / _summed(weights, rows, n)[rows]


def _summed(values: Tensor, rows: Tensor, n: int) -> Tensor:
    return values.new_zeros((n, *values.shape[1:])).index_add(0, rows, values)


class UserIndex:
    """The index. ``numbers`` ``[U, K]`` are the codes of the users of the train part, -1 for who has none."""

    config_type = UserIndexConfig

    def __init__(self, config: UserIndexConfig | None = None, encoder: Encoder | None = None) -> None:
        self.config = config or UserIndexConfig()
        self.encoder = encoder
        self.facts: dict[str, Any] = {}
        self.fitted_on = store.NO_DATA
        self.network: Network | None = None
        self._numbers: IntArray | None = None
        self._items: FloatArray | None = None

    # -- learning ------------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> IntArray:
        if self._numbers is None:
            raise TrainingError("UserIndex has named no users yet: call fit or load first")
        return self._numbers

    @property
    def sized(self) -> UserIndexConfig:
        """The settings, with the ``size`` that was chosen where they leave it open."""
        return self.config.model_copy(update={"size": self.config.size or self.facts["size"]})

    @property
    def parts(self) -> dict[str, Any]:
        unused = isinstance(self.encoder, FitsTexts) and not self.encoder.fitted
        return {"encoder": self.encoder} if self.encoder is not None and not unused else {}

    def fit(self, train: Dataset, run: Run) -> Self:
        """Name every user of ``train`` of whom anything is known. A second ``fit`` forgets the first."""
        self.network, self._numbers, self._items = None, None, None
        self.facts, self.fitted_on = {"seed": run.seed}, train.fingerprint
        numbers = np.full((train.n_users, self.config.levels), -1, dtype=np.int64)
        told = self._told(train, run, learn=True)
        users = np.flatnonzero(told.of_user.lengths > 0)
        if len(users):
            self.facts["size"] = fitting_size(len(users))
            with seeded(run):
                self.network = self._learn(told, users, train.n_users, run)
            codes, repair = name_all(
                self.network.autoencoder.quantiser, self._latent(self.network.points(told, users)),
                np.random.default_rng([run.seed, 1]).permutation(len(users)), "match",
                self.config.uniform if self.config.uniform_last else None,
            )  # fmt: skip
            self.facts["repair"] = asdict(repair)
            if self.config.shuffled:
                codes = codes[np.random.default_rng([run.seed, 7]).permutation(len(users))]
            numbers[users] = codes
        self._numbers = numbers
        return self

    def _learn(self, told: Told, users: IntArray, n_users: int, run: Run) -> Network:
        config = self.sized
        batches = Points(torch.from_numpy(users), config.batch_size, run.seed)
        restart = config.restart_epochs * len(batches)
        network = Network(config, told.vectors.shape[1], n_users, restart).to(run.device)
        told = replace(told, vectors=told.vectors.to(run.device))
        network.begin(told, users, run.seed)

        def look() -> float:
            """Minus the error of the reconstruction from the nearest codes."""
            points = network.points(told, users)
            error, used = network.autoencoder.quality(points)
            check_usage(used, len(torch.unique(points, dim=0)), config)
            return -error

        outcome = optimise(
            network, batches, lambda some: network.loss(told, some.numpy()), replace(run, precision="fp32"),
            config.training, look,
        )  # fmt: skip
        self.facts["training"] = outcome.facts()
        points = network.eval().points(told, users)
        used, distinct = network.autoencoder.quality(points)[1], len(torch.unique(points, dim=0))
        self.facts["notes"] = remarks(used, len(users), distinct, config)
        return network.cpu()

    def add(self, train: Dataset, run: Run | None = None) -> Self:
        """Name the users that ``train`` has beyond those named so far; an index once given never changes."""
        had = len(self.numbers)
        numbers = np.full((train.n_users, self.numbers.shape[1]), -1, dtype=np.int64)
        numbers[:had] = self.numbers
        told = self._told(train, run or Run(), learn=False)
        new = np.arange(had, train.n_users)
        new = new[told.of_user.lengths[new] > 0]
        if self.network is not None:
            self.network = _grown(self.network, self.sized, train.n_users, self.facts["seed"])
            if len(new):
                points = self._latent(self.network.points(told, new))
                taken = self.numbers[self.numbers[:, 0] >= 0]
                numbers[new] = name_more(self.network.autoencoder.quantiser, points, taken, "match")
        self._numbers, self.fitted_on = numbers, train.fingerprint
        return self

    def _told(self, train: Dataset, run: Run, *, learn: bool) -> Told:
        """Vectors of the reviews of ``train``, and of the items that tell those who wrote none.

        All of a user's: so the index that stands in a training question about an event follows from that event's review
        too, and from later ones. Where systems are evaluated the index is older than what is asked.
        """
        if self.encoder is None:
            raise TrainingError("UserIndex has no encoder here: give it one")
        events, reviews = reviews_of(train, self.config.reviews)
        items = self.config.text.render(train)
        if isinstance(self.encoder, FitsTexts) and (learn or not self.encoder.fitted):
            self.encoder.fit([*reviews, *items])
        vectors = text_vectors([*reviews, *items], self.encoder, "user-index", run=run)
        self._items = vectors[len(reviews) :]
        wrote = np.bincount(train.user_rows[events], minlength=train.n_users)
        silent = np.flatnonzero(wrote[train.user_rows] == 0)
        owners = np.concatenate([train.user_rows[events], train.user_rows[silent]])
        rows = np.concatenate([np.arange(len(reviews)), len(reviews) + train.item_rows[silent].astype(np.int64)])
        order = np.argsort(owners, kind="stable")
        of_user = Ragged.from_lengths(rows[order], np.bincount(owners, minlength=train.n_users))
        self.facts["read"] = {
            "reviews": len(reviews), "users who wrote": int((wrote > 0).sum()),
            "users told by their items": len(np.unique(train.user_rows[silent])),
        }  # fmt: skip
        return Told(torch.from_numpy(vectors), of_user)

    def _latent(self, points: Tensor) -> Tensor:
        assert self.network is not None
        with torch.no_grad():
            return self.network.autoencoder.latent(points)

    # -- saying --------------------------------------------------------------------------------------------------------

    @property
    def words(self) -> npt.NDArray[np.str_]:
        """``[K, V]`` how each code is written: ``<a_12>``."""
        levels, size = self.config.levels, self.config.size or self.facts.get("size", 1)
        return np.array(level_words([size] * levels)).reshape(levels, size)

    def spelled(self, numbers: IntArray) -> list[str]:
        """Rows ``[n, K]`` of codes as text, ``<a_12> <b_3> <c_0> <d_7>``; "" for a row of -1."""
        words = np.concatenate([self.words, np.full((self.config.levels, 1), "")], axis=1)
        columns = [words[level][column] for level, column in enumerate(numbers.T)]
        text = columns[0]
        for column in columns[1:]:
            text = np.char.add(np.char.add(text, " "), column)
        return [one.strip() for one in text.tolist()]

    def asked(self, requests: Requests) -> IntArray:
        """``[B, K]`` the codes of who asks: their own, else the nearest to the items of the history, else -1."""
        numbers, n = self.numbers, len(requests)
        users = np.full(n, -1) if requests.user_rows is None else np.asarray(requests.user_rows)
        known = (users >= 0) & (users < len(numbers))
        found = np.where(known[:, None], numbers[np.where(known, users, 0)] if len(numbers) else -1, -1)
        if self.network is None or self._items is None:
            return found
        histories = requests.known(len(self._items)).histories
        strangers = np.flatnonzero((found[:, 0] < 0) & (histories.lengths > 0))
        if len(strangers):
            x = self.network.strangers(torch.from_numpy(self._items), histories[strangers])
            found[strangers] = encode(self.network.autoencoder.quantiser, self._latent(x))
        return found

    # -- on disk -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        arrays: dict[str, npt.NDArray[Any]] = {"numbers": self.numbers}
        if self._items is not None:
            arrays["items"] = self._items
        if self.network is not None:
            arrays |= {f"network/{name}": tensor.numpy() for name, tensor in self.network.state_dict().items()}
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.fitted_on,
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        found = stored.begun(cls)
        arrays = stored.arrays()
        found.facts, found.fitted_on = dict(stored.facts), stored.fitted_on
        found._numbers, found._items = arrays["numbers"], arrays.get("items")
        state = dict(_inside("network/", arrays))
        if state:
            with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
                found.network = Network(found.sized, state["users.weight"].shape[1], len(state["users.weight"]))
            found.network.load_state_dict(state)
            found.network.eval()
        return found


def reviews_of(train: Dataset, newest: int) -> tuple[IntArray, list[str]]:
    """Positions of the events with a review, the ``newest`` so many of each user, ascending, and the reviews."""
    import polars as pl

    if "review" not in train.interactions.columns:
        return np.zeros(0, dtype=np.int64), []
    texts = train.interactions["review"].cast(pl.String).fill_null("").str.strip_chars()
    events = np.flatnonzero((texts != "").to_numpy())
    users = train.user_rows[events]
    from_end = np.searchsorted(users, users, side="right") - np.arange(len(users))
    kept = events[from_end <= newest]
    return kept, texts.gather(kept).to_list()


def _inside(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, Tensor]]:
    for name, array in arrays.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), torch.from_numpy(array)


def _grown(old: Network, config: UserIndexConfig, n_users: int, seed: int) -> Network:
    """The same network with a vector for each user; those of new users are drawn like the others were."""
    had = old.users.weight.detach()
    if n_users == len(had):
        return old
    with seeded(Run(seed=seed)):
        new = Network(config, had.shape[1], n_users)
        state = old.state_dict()
        spread = float(had.std()) if len(had) > 1 else 0.0
        more = torch.empty(n_users - len(had), had.shape[1]).normal_(0, spread)
    new.load_state_dict({**state, "users.weight": torch.cat([had, more])})
    return new.eval()


def tiny() -> UserIndexConfig:
    """Counted words and few epochs: a second on a laptop."""
    return UserIndexConfig(
        encoder=Part(name="tf-idf"), levels=3, width=16, hidden=(64,), batch_size=256,
        training=TrainingConfig(epochs=30, learning_rate=3e-3, weight_decay=1e-4, clip_norm=1.0, judge_every=10),
    )  # fmt: skip


def paper() -> UserIndexConfig:
    """What is known of the published one: BERT, four levels of 256 codes. Width and β are ours."""
    return UserIndexConfig(
        encoder=Part(name="hub", settings={"model": "google-bert/bert-base-uncased", "pooling": "mean"}), size=256
    )
