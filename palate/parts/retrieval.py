"""Answering from two towers: the user's vector against item vectors that lie ready, exactly or by an index.

Exact search is the default; it reads every vector once and is fast enough far beyond a million items. An index finds
almost the same items in less time, and how nearly the same is measured when it is built, against exact search, with
queries of the kind it will be asked: an index below its bound is refused, and every answer says ``exact = False``.
What a user has seen is no mask over the catalogue: k items and as many as may be left out are fetched, and those that
were seen are dropped. Shapes: B requests, N items, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from palate.core.errors import ConfigError, MissingExtraError, MisuseError, StoreError, nearest
from palate.core.protocols import FloatArray, TwoTower
from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.search import exact_top_k

Kind = Literal["exact", "usearch", "faiss"]

HOW: dict[Kind, tuple[str, ...]] = {"exact": (), "usearch": ("reach", "effort"), "faiss": ("probe_share",)}
"""What may be said of each kind."""
QUERIES = 1000
"""Item vectors that ask where nobody says who will."""
PIECE = 32
"""Queries whose vectors are made in one go."""
At = Callable[[Callable[[], Any]], Any]
"""Runs a job somewhere and gives its result."""


class Index(Protocol):
    """Finds the items of largest dot product."""

    def search(self, queries: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        """``[B, k]`` item rows, best first, -1 where there are fewer, and their scores, NaN there."""


@dataclass(frozen=True)
class Recall:
    """Of the ``k`` best items of ``queries`` queries, the share that the index of this ``kind`` finds too."""

    kind: Kind
    share: float
    k: int
    queries: int
    build_seconds: float

    def __str__(self) -> str:
        if self.kind == "exact":
            return "exact search: every item is looked at"
        told = f"index {self.kind}: recall@{self.k} against exact {self.share:.4f} on {self.queries} queries"
        return f"{told}, built in {self.build_seconds:.2f} s"


class Exact:
    """Every vector is looked at."""

    def __init__(self, vectors: FloatArray) -> None:
        self.vectors = vectors

    def search(self, queries: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        found = exact_top_k(queries, self.vectors, k)
        return found.item_rows, found.scores


class Usearch:
    """A graph of near neighbours (HNSW, Malkov & Yashunin 2018, arXiv 1603.09320), by the library usearch."""

    def __init__(self, vectors: FloatArray, rows: IntArray, *, reach: int = 16, effort: int = 128) -> None:
        """``reach`` neighbours of each vector are kept, ``effort`` looked at in a search or an insertion."""
        try:
            from usearch.index import Index as Graph
        except ImportError:
            raise MissingExtraError.needing("the index usearch", "index") from None
        self.graph = Graph(
            ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=reach, expansion_add=effort,
            expansion_search=effort,
        )  # fmt: skip
        self.graph.add(rows.astype(np.uint64), vectors, threads=1)

    def search(self, queries: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), np.nan, dtype=np.float32)
        if not len(queries):
            return rows, scores
        found: Any = self.graph.search(queries, k)
        keys, distances = np.atleast_2d(found.keys), np.atleast_2d(found.distances)
        counts = np.atleast_1d(found.counts) if len(queries) > 1 else np.array([keys.shape[1]])
        there = np.arange(keys.shape[1]) < counts[:, None]
        rows[:, : keys.shape[1]][there] = keys[there].astype(np.int64)
        scores[:, : keys.shape[1]][there] = 1 - distances[there]
        return rows, scores


class Faiss:
    """Vectors in cells of which only the nearest are searched (IVF-Flat), by the library faiss."""

    def __init__(self, vectors: FloatArray, rows: IntArray, *, probe_share: float = 0.1) -> None:
        """``probe_share`` of the cells are searched; there are about four times the root of N of them."""
        try:
            import faiss
        except ImportError:
            raise MissingExtraError.needing("the index faiss", "index") from None
        n, d = vectors.shape
        cells = max(1, min(int(4 * n**0.5), n // 39 or 1))
        self.rows = rows
        self.index = faiss.IndexIVFFlat(faiss.IndexFlatIP(d), d, cells, faiss.METRIC_INNER_PRODUCT)
        self.index.train(vectors)
        self.index.add(vectors)
        self.index.nprobe = max(1, round(probe_share * cells))

    def search(self, queries: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
        scores, places = self.index.search(np.ascontiguousarray(queries), k)
        rows = np.where(places >= 0, self.rows[np.maximum(places, 0)], -1)
        return rows.astype(np.int64), np.where(places >= 0, scores, np.nan).astype(np.float32)


def build_index(
    kind: Kind, vectors: FloatArray, queries: FloatArray, *, k: int = 100, at_least: float = 0.98, **how: Any
) -> tuple[Index, Recall]:
    """An index over ``vectors`` ``[N, D]`` (a row of NaN is in no index), and its recall on ``queries`` ``[B, D]``.

    Raises ``ConfigError`` when less than ``at_least`` of what exact search finds is found, or when nobody asks.
    """
    if kind not in HOW:
        raise ConfigError(f"there is no index '{kind}': one of exact, usearch, faiss")
    for name in how:
        if name not in HOW[kind]:
            raise ConfigError(f"the index {kind} has no setting '{name}'{nearest(name, HOW[kind])}")
    if kind != "exact" and not (len(queries) and np.isfinite(vectors).all(1).any()):
        raise ConfigError(f"without queries and items the recall of the index {kind} is unknown: search exactly")
    started = time.perf_counter()
    if kind == "exact":
        return Exact(vectors), Recall(kind, 1.0, k, len(queries), time.perf_counter() - started)
    rows = np.flatnonzero(np.isfinite(vectors).all(1))
    known = np.ascontiguousarray(vectors[rows])
    index: Index = Usearch(known, rows, **how) if kind == "usearch" else Faiss(known, rows, **how)
    seconds = time.perf_counter() - started
    k = min(k, len(rows))
    wanted, found = exact_top_k(queries, vectors, k).item_rows, index.search(queries, k)[0]
    recall = Recall(kind, _overlap(wanted, found), k, len(queries), seconds)
    if recall.share < at_least:
        raise ConfigError(
            f"the index {kind} finds {recall.share:.4f} of the {k} best, less than {at_least:g}: search exactly, "
            "or let it look further (effort of usearch, probe_share of faiss)"
        )
    return index, recall


def _overlap(wanted: IntArray, found: IntArray) -> float:
    n = int(max(wanted.max(), found.max(initial=0))) + 2
    line = np.arange(len(wanted))[:, None] * n
    return float(np.isin((wanted + line)[wanted >= 0], (found + line)[found >= 0]).mean())


class Indexed:
    """A two-tower system answering from an index: ``recommend`` as the system's own, and ``exact`` says whether it is.

    ``recall`` is that of the index against exact search. It belongs to the weights it was made from: when the system's
    item vectors have changed since, questions are refused until ``refresh``.
    """

    def __init__(
        self,
        system: TwoTower,
        kind: Kind = "exact",
        *,
        queries: Requests | None = None,
        at_least: float = 0.98,
        **how: Any,
    ) -> None:
        """``queries`` are what recall is measured with; without them some items ask for their neighbours, drawn by
        lot. ``how`` are settings of the index (``HOW``). Raises ``MisuseError`` for a system that compares no two
        vectors."""
        if not isinstance(system, TwoTower):
            what = f"the scores of {type(system).__name__} are no products of two vectors"
            raise MisuseError(f"{what}: ask it without an index")
        self.system, self.kind, self.at_least, self.how, self.queries = system, kind, at_least, how, queries
        self.refresh()

    @property
    def fresh(self) -> bool:
        """Whether the index is one of the system's present vectors."""
        return self.system.vectors_version == self.version

    def refresh(self, at: At = lambda job: job()) -> Recall:
        """Build the index anew from the system's present vectors. Where that is refused, questions are until it is
        not.

        The index is built in the calling thread. Whatever touches the system goes through ``at``, a short piece at a
        time: it runs a job where the system may be asked. Vectors that changed meanwhile are built from again.
        """
        while True:
            version, vectors = at(lambda: (self.system.vectors_version, self.system.item_vectors()))
            index, recall = build_index(
                self.kind, vectors, self._asked(vectors, at), at_least=self.at_least, **self.how
            )  # fmt: skip
            if at(partial(self._take, version, index, recall)):
                return recall

    def _asked(self, vectors: FloatArray, at: At) -> FloatArray:
        """Vectors ``[B, D]`` that measure recall."""
        if self.queries is not None:
            rows = np.arange(len(self.queries))
            pieces = [self.queries[rows[start : start + PIECE]] for start in range(0, len(rows), PIECE)]
            asked = np.concatenate([at(partial(self.system.user_vectors, piece)) for piece in pieces])
            return np.asarray(asked[np.isfinite(asked).all(1)])
        asked = vectors[np.isfinite(vectors).all(1)]
        if len(asked) > QUERIES:
            asked = asked[np.random.default_rng(0).choice(len(asked), QUERIES, replace=False)]
        return asked

    def _take(self, version: str, index: Index, recall: Recall) -> bool:
        """Whether the vectors are still those that the index was built from; then it answers from now on."""
        if fresh := self.system.vectors_version == version:
            self.version, self.index, self.recall = version, index, recall
        return fresh

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` of each request. Those with candidates, or about whom nothing is known, are the system's."""
        if not self.fresh:
            raise StoreError("the system's item vectors have changed since this index was built: call refresh")
        if requests.candidates is not None:
            return self.system.recommend(requests, k)
        users = self.system.user_vectors(requests)
        known = np.isfinite(users).all(1)
        if known.all():
            return self._found(users, requests, k)
        loud, silent = np.flatnonzero(known), np.flatnonzero(~known)
        return _joined(
            len(requests), k, [(loud, self._found(users[loud], requests[loud], k)),
                               (silent, self.system.recommend(requests[silent], k))],
        )  # fmt: skip

    def _found(self, users: FloatArray, requests: Requests, k: int) -> Rankings:
        exact = isinstance(self.index, Exact)
        if isinstance(self.index, Exact):
            return exact_top_k(users, self.index.vectors, k, leave_out=requests.leave_out)
        left = requests.leave_out
        more = 0 if left is None or not len(left) else int(left.lengths.max(initial=0))
        rows, scores = self.index.search(users, k + more)
        if left is not None:
            rows, scores = _without(rows, scores, left)
        return Rankings(rows[:, :k], scores[:, :k], exact)


def _without(rows: IntArray, scores: FloatArray, left: Ragged) -> tuple[IntArray, FloatArray]:
    """Answers ``[B, n]`` without those to be left out; the others move up and keep their order."""
    n = int(max(rows.max(initial=0), left.flat().max(initial=0))) + 1
    line = np.arange(len(rows))[:, None] * n
    away = (rows < 0) | np.isin(rows + line, left.flat().astype(np.int64) + left.row_numbers() * n)
    order = np.argsort(away, axis=1, kind="stable")
    moved = np.take_along_axis(away, order, 1)
    rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return np.where(moved, -1, rows), np.where(moved, np.nan, scores).astype(np.float32)


def _joined(n: int, k: int, parts: list[tuple[npt.NDArray[np.intp], Rankings]]) -> Rankings:
    """Answers put back where their questions stood."""
    rows, scores = np.full((n, k), -1, dtype=np.int64), np.full((n, k), np.nan, dtype=np.float32)
    for places, answers in parts:
        rows[places], scores[places] = answers.item_rows, answers.scores
    return Rankings(rows, scores, all(answers.exact for _, answers in parts))
