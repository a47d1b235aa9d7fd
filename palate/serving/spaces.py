"""Neighbours of an item in three spaces: what it says (text), what it is called (code), who met it (behaviour).

text       the cosine of vectors of the items' texts, by the run's own encoder where it has one
code       how many tokens two names begin with in common, for systems that name items
behaviour  the cosine of two items' sets of users, among the events that the run learned from
Shapes: N items, D width, K codes an item, U users.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from palate.ask import Asker
from palate.core.dataset import Dataset
from palate.core.errors import DataError, MisuseError, StoreError
from palate.core.protocols import Encoder, FloatArray

Space = Literal["text", "code", "behaviour"]

ENCODED_ITEMS = 5000
"""In a larger catalogue texts are compared by their words alone: a network would read them for minutes."""
TEXTS_AT_ONCE = 32
"""Texts that a run's own encoder reads between two batches of questions."""


@dataclass(frozen=True)
class Neighbour:
    """``name`` is what a system that names items calls it; only in the space of codes."""

    item: str
    title: str
    similarity: float
    name: str | None = None


@dataclass(frozen=True)
class Neighbours:
    """The nearest items of one item, nearest first, and how nearness was measured. ``note`` says why there are none."""

    space: Space
    method: str
    items: list[Neighbour]
    note: str | None = None


AtDesk = Callable[[Callable[[], FloatArray]], FloatArray]
"""Does a piece of work where the run's models are used, and waits for it."""


class Spaces:
    """The spaces of one run. What is slow is made when it is first asked for, once, whichever thread asks; what needs
    the run's own encoder is done ``at_desk``, as a model is not safe for several threads."""

    def __init__(self, asker: Asker, at_desk: AtDesk) -> None:
        self._asker, self._at_desk = asker, at_desk
        self._making, self._counting = threading.Lock(), threading.Lock()
        self._texts: tuple[Dataset, FloatArray, str] | None = None
        self._encoder: Encoder | None = None
        self._who_met: Any = None

    @property
    def known(self) -> list[Space]:
        """The spaces that this run has."""
        has_text = {"title", "text"} & set(self._asker.run.items.columns)
        return [*(["text"] if has_text else []), *(["code"] if self._tokenizer else []), "behaviour"]  # type: ignore[list-item]

    def near(self, row: int, space: Space, k: int) -> Neighbours:
        """The ``k`` nearest items of one. Raises ``MisuseError`` where the run has no such space."""
        if space not in self.known:
            why = "gives items no names" if space == "code" else "has no texts of its items"
            raise MisuseError(f"{self._asker.name} {why}; ask in {' or '.join(self.known)}")
        return {"text": self._by_text, "code": self._by_code, "behaviour": self._by_behaviour}[space](row, k)

    # -- text --------------------------------------------------------------------------------------------------------

    def _by_text(self, row: int, k: int) -> Neighbours:
        vectors, by = self._text_vectors()
        scores = vectors @ vectors[row]
        return self._said("text", f"cosine of {by} vectors of the items' texts", scores, row, k)

    def _text_vectors(self) -> tuple[FloatArray, str]:
        """``[N, D]`` of length 1, and what made them."""
        living = self._asker.living
        with self._making:
            if self._texts is None or self._texts[0] is not living:
                from palate.backbones.vectors import item_vectors

                self._encoder = self._encoder or self._chosen(living.n_items)
                try:
                    vectors = item_vectors(living, self._encoder)
                except StoreError:  # nothing can be kept, on a full disk say; what is read needs no disk
                    from palate.backbones.item_text import ItemText

                    vectors = np.asarray(self._encoder.encode(ItemText().render(living)), dtype=np.float32)
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                self._texts = living, (vectors / np.maximum(lengths, 1e-12)).astype(np.float32), _named(self._encoder)
            return self._texts[1], self._texts[2]

    def _chosen(self, n_items: int) -> Encoder:
        """The run's own encoder of texts, where it has one and the catalogue is small enough for a network."""
        own = getattr(self._asker.system, "parts", {}).get("encoder")
        if isinstance(own, Encoder) and n_items <= ENCODED_ITEMS:
            return _AtDesk(own, self._at_desk)
        from palate.backbones.auto import Auto
        from palate.backbones.tf_idf import TfIdf

        return Auto() if n_items <= ENCODED_ITEMS else TfIdf()

    # -- code --------------------------------------------------------------------------------------------------------

    @property
    def _tokenizer(self) -> Any:
        return getattr(self._asker.system, "parts", {}).get("tokenizer")

    def _by_code(self, row: int, k: int) -> Neighbours:
        codes = self._tokenizer.codes
        if row >= codes.n_items:
            raise DataError(f"item '{self._asker.item_ids[row]}' has no name yet")
        alike = codes.tokens == codes.tokens[row]
        alike &= codes.tokens >= 0
        shared = np.cumprod(alike, axis=1).sum(axis=1)
        # Of two names that begin alike the one with more equal tokens after that stands first.
        scores = np.where(shared > 0, shared + alike.sum(axis=1) / (alike.shape[1] + 1), 0.0)
        found = self._said("code", "tokens that two names begin with in common", scores, row, k, codes)
        near = [Neighbour(one.item, one.title, float(int(one.similarity)), one.name) for one in found.items]
        return Neighbours(found.space, found.method, near, None if near else "no other name begins like this one")

    # -- behaviour ---------------------------------------------------------------------------------------------------

    def _by_behaviour(self, row: int, k: int) -> Neighbours:
        met = self._met
        method = "cosine of the sets of users who met both, among what the run learned from"
        if row >= met.shape[1] or met.indptr[row] == met.indptr[row + 1]:
            return Neighbours("behaviour", method, [], "nobody had met this item when the run learned")
        return self._said("behaviour", method, np.asarray((met.T @ met[:, [row]]).todense()).ravel(), row, k)

    @property
    def _met(self) -> Any:
        """``[U, N]`` sparse, by columns, who met what; each column of length 1."""
        with self._counting:
            if self._who_met is None:
                self._who_met = self._counted()
            return self._who_met

    def _counted(self) -> Any:
        from scipy.sparse import csc_matrix

        asker, taught = self._asker, self._asker.run.taught
        n_users, n_items = asker.run.users.height, asker.run.items.height
        user_of = {user: row for row, user in enumerate(asker.run.users["user"].to_list())}
        users = taught["user"].replace_strict(user_of).to_numpy()
        items = taught["item"].replace_strict(asker.row_of).to_numpy()
        pairs = np.unique(users.astype(np.int64) * n_items + items)
        users, items = pairs // n_items, pairs % n_items
        weights = 1 / np.sqrt(np.bincount(items, minlength=n_items)[items])
        return csc_matrix((weights, (users, items)), shape=(n_users, n_items))

    def _said(
        self, space: Space, method: str, scores: npt.NDArray[np.floating], row: int, k: int, codes: Any = None
    ) -> Neighbours:
        """The highest scores above 0, without the item itself and retired ones."""
        scores = scores.copy()
        scores[row] = 0
        scores[self._asker.retired[self._asker.retired < len(scores)]] = 0
        best = np.argsort(-scores, kind="stable")[:k]
        return Neighbours(space, method, [
            Neighbour(
                self._asker.item_ids[near], self._asker.titles[near], float(scores[near]),
                None if codes is None else codes.spell(int(near)),
            )
            for near in best if scores[near] > 0
        ])  # fmt: skip


class _AtDesk:
    """A run's own encoder, each few texts a job of the run's desk, so that questions are answered in between."""

    def __init__(self, own: Encoder, at_desk: AtDesk) -> None:
        self.chosen, self._at_desk = own, at_desk

    @property
    def version(self) -> str:
        return self.chosen.version

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """``[n, D]``, a row a text."""
        pieces = [list(texts[start : start + TEXTS_AT_ONCE]) for start in range(0, len(texts), TEXTS_AT_ONCE)]
        return np.concatenate([self._at_desk(partial(self.chosen.encode, piece)) for piece in pieces])


def _named(encoder: Encoder) -> str:
    """What an encoder is called; of one that chose another, that one."""
    if isinstance(encoder, _AtDesk):
        encoder = encoder.chosen
    name = type(getattr(encoder, "chosen", encoder)).__name__
    return "TF-IDF" if name == "TfIdf" else name
