"""The shell of every item tokenizer: who was named, names for new items, retiring, saving. No torch.

A tokenizer's file names the items (``name``) and says how a new item is named (``name_new``); nothing else differs.
The order of rows may follow the whole log, validation and test included. So items are put in the order of their ids
before anything is drawn, clustered or split, and the same catalogue with the same training part has the same names.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log2, prod, sqrt
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from palate.core import store
from palate.core.code_health import CodeHealth, health
from palate.core.codes import Codes, Tokens
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import DataError, TrainingError
from palate.core.protocols import Encoder, FitsTexts, FloatArray
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run

C = TypeVar("C", bound=Config)


class NamesItems(ABC, Generic[C]):
    """An item tokenizer without its method. The class names ``config_type``.

    facts      what it remembers of the fit; saved with it. ``seed`` and ``items`` (a hash of the ids) are always there
    fitted_on  the fingerprint of the interactions that decided names, or "none" where only items' texts did
    """

    config_type: ClassVar[type[Config]]
    reads_interactions: ClassVar[bool] = False
    in_order_of_ids: ClassVar[bool] = True
    """Whether ``name`` is given the items in the order of their ids; False where parts see to it themselves."""
    ordered: ClassVar[bool] = True
    """Whether a token's place counts from the first on; else names are alike in any place."""

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config or self.config_type()  # type: ignore[assignment]
        self._codes: Codes | None = None
        self.facts: dict[str, Any] = {}
        self.fitted_on = store.NO_DATA

    # -- what a method writes ------------------------------------------------------------------------------------------

    @abstractmethod
    def name(self, train: Dataset, run: Run) -> Codes:
        """Names of all items of ``train``; drawn from ``run.seed`` where something is drawn."""

    @abstractmethod
    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        """The present names and, after them, those of these new items."""

    def path_lengths(self) -> IntArray:
        """``[N]`` how many leading tokens of a name an item may share with others; the rest only tells it apart."""
        return self.codes.lengths

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What it needs beside the names, as arrays."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take back what ``state`` gave."""

    @property
    def parts(self) -> dict[str, store.Savable]:
        """Components that are saved in sub-folders, by the names of the constructor's arguments."""
        return {}

    # -- what all share ------------------------------------------------------------------------------------------------

    @property
    def codes(self) -> Codes:
        """The names. Raises ``TrainingError`` before ``fit`` or ``load``."""
        if self._codes is None:
            raise TrainingError(f"{type(self).__name__} has named no items yet: call fit or load first")
        return self._codes

    def fit(self, train: Dataset, run: Run) -> Self:
        """Name every item of the catalogue. A second ``fit`` forgets the first."""
        self._codes = None
        self.facts = {"seed": run.seed, "items": _digest(train.item_ids)}
        self.fitted_on = train.fingerprint if self.reads_interactions else store.NO_DATA
        if not self.in_order_of_ids:
            self._codes = self.name(train, run)
            return self
        order = order_of_ids(train)
        named = self.name(train.with_items_in(order), run)
        self._codes = replace(named, tokens=named.tokens[np.argsort(order)])
        return self

    def add(self, catalogue: Dataset) -> Self:
        """Name the items that ``catalogue`` has beyond those named so far; names once given never change.

        Raises ``DataError`` where the catalogue does not begin with the items that were named.
        """
        new = self.unnamed(catalogue)
        if len(new):
            self._grow(self.name_new(catalogue, new), catalogue)
        return self

    def retire(self, item_rows: IntArray, *, back: bool = False) -> Self:
        """These names decode to nothing from now on, or again with ``back``; they are never given to another item."""
        self._codes = self.codes.retired(item_rows, back=back)
        return self

    def unnamed(self, catalogue: Dataset) -> IntArray:
        """Rows of the items that have no name yet."""
        named = self.codes.n_items
        if catalogue.n_items < named or _digest(catalogue.item_ids[:named]) != self.facts["items"]:
            raise DataError(
                f"'{catalogue.name}' does not begin with the {named:,} items that were named; "
                "append new items after them, or fit again"
            )
        return np.arange(named, catalogue.n_items)

    def health(self, vectors: FloatArray | None = None) -> CodeHealth:
        """How evenly the names use their tokens and how many had to be repaired; with ``vectors`` ``[N, D]`` of the
        items also whether items alike are named alike."""
        return health(self.codes, vectors, self.facts, ordered=self.ordered)

    def save(self, folder: Path) -> None:
        """Names, vocabulary, settings and what new items need, in the layout of ``core.store``."""
        codes = self.codes
        arrays = {"tokens": codes.tokens, "live": codes.live, **{f"state/{k}": v for k, v in self.state().items()}}
        facts = {"vocabulary": codes.vocabulary, "atomic": codes.atomic, "fit": self.facts}
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=facts, parts=self.parts, fitted_on=self.fitted_on
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        tokenizer = stored.begun(cls)
        arrays, facts = stored.arrays(), stored.facts
        tokenizer._codes = Codes(arrays["tokens"], tuple(facts["vocabulary"]), facts["atomic"], arrays["live"])
        tokenizer.facts, tokenizer.fitted_on = facts["fit"], stored.fitted_on
        state = {name.removeprefix("state/"): array for name, array in arrays.items() if name.startswith("state/")}
        tokenizer.restore(state)
        return tokenizer

    def drawn(self, *salt: int) -> np.random.Generator:
        """Random numbers that follow from the seed of the fit and from ``salt``."""
        return np.random.default_rng([self.facts["seed"], *salt])

    def _grow(self, codes: Codes, catalogue: Dataset) -> None:
        self._codes = codes
        self.facts["items"] = _digest(catalogue.item_ids)


def _codes_of_a_level(size: int) -> int:
    if size == 1:
        raise ValueError("one code tells nothing apart; 0 lets the number of items decide")
    return size


Size = Annotated[int, Field(ge=0), AfterValidator(_codes_of_a_level)]
"""Codes of a level; 0 = ``fitting_size`` of the items that are named."""


def fitting_size(n_items: int) -> int:
    """The power of two nearest to twice the root of the number of items, at most 256: 256 for the ten thousand items of
    the published systems, 32 for three hundred, so that the first level groups items instead of naming each."""
    return int(min(256, max(2, 2 ** round(log2(2 * sqrt(max(n_items, 1)))))))


class NamesVectors(NamesItems[C]):
    """A tokenizer that quantises item vectors ``[N, D]`` which an ``Encoder`` makes of the items' texts.

    The class names ``item_vectors``; its settings have ``text``, the template of the texts, ``size`` and ``tie_break``.
    It learns from the vectors of items that occur in training alone and then names all. ``facts["repair"]`` says how
    many items shared a name before names were repaired, and what became of them; ``facts["twins"]`` how many of these
    collisions no quantiser could have avoided, because vectors are the same.
    """

    reads_interactions = True  # the training part decides which vectors are learnt from
    item_vectors: ClassVar[Callable[..., FloatArray]]
    """That of ``backbones.vectors``, which this storey cannot import: (catalogue, encoder, template) → ``[N, D]``."""

    def __init__(self, config: C | None = None, encoder: Encoder | None = None) -> None:
        super().__init__(config)
        self.encoder = encoder

    @abstractmethod
    def quantise(self, vectors: FloatArray, seen: npt.NDArray[np.bool_], run: Run) -> IntArray:
        """``[N, K]`` a different row of numbers for each item; learnt from the ``seen`` ones."""

    @abstractmethod
    def quantise_new(self, vectors: FloatArray, taken: IntArray) -> IntArray:
        """``[n, K]`` different rows for new items, none of them in ``taken`` ``[N, K]``."""

    @abstractmethod
    def sizes(self) -> Sequence[int]:
        """How many codes each learnt level has. A row of numbers may hold one more: what tells equal rows apart."""

    @property
    def sized(self) -> C:
        """The settings, with the ``size`` that was chosen where they leave it open."""
        chosen = self.config.size or self.facts["size"]  # type: ignore[attr-defined]
        return self.config.model_copy(update={"size": chosen})

    def fit(self, train: Dataset, run: Run, vectors: FloatArray | None = None) -> Self:
        """Learn from the items that occur in ``train``, name all; ``vectors`` ``[N, D]`` replace the encoder's."""
        if vectors is not None and len(vectors) == train.n_items:
            vectors = vectors[order_of_ids(train)]
        self._given, self._run = vectors, run
        try:
            return super().fit(train, run)
        finally:
            self._given = self._run = None

    def add(self, catalogue: Dataset, vectors: FloatArray | None = None) -> Self:
        """Name new items from their texts, or from ``vectors`` ``[n, D]``, one row a new item."""
        self._given = vectors
        try:
            return super().add(catalogue)
        finally:
            self._given = None

    def name(self, train: Dataset, run: Run) -> Codes:
        seen = train.item_counts > 0
        if not seen.any():  # nobody met anything: the texts are all there is
            seen = np.ones(train.n_items, dtype=bool)
        self.facts["size"] = fitting_size(train.n_items)
        names = prod(self.sizes())
        if self.config.tie_break == "match" and train.n_items > names:  # type: ignore[attr-defined]
            raise DataError(f"{train.n_items:,} items do not fit into {names:,} names: more levels or codes")
        vectors = self._vectors(train, np.arange(train.n_items))
        self.facts["twins"] = len(vectors) - len(np.unique(vectors.view(f"V{vectors[0].nbytes}")))
        numbers = self.quantise(vectors, seen, run)
        learnt = [*self.sizes()]
        self._widen([*learnt, learnt[-1]][: numbers.shape[1]], numbers)
        return level_codes(numbers, self.facts["places"])

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        numbers = self.quantise_new(self._vectors(catalogue, item_rows), self.numbers())
        self._widen(self.facts["places"], numbers)
        more = level_words(self.facts["places"], known=self.codes.vocabulary)
        row_of = {word: row for row, word in enumerate((*self.codes.vocabulary, *more))}
        tables = [np.array([row_of[word] for word in words]) for words in _words_by_place(self.facts["places"])]
        tokens = np.stack([table[column] for table, column in zip(tables, numbers.T, strict=True)], 1)
        return self.codes.grown(tokens.astype(np.int32), more)

    def numbers(self) -> IntArray:
        """``[N, K]`` the names as numbers within their places."""
        value = np.array([int(word[word.index("_") + 1 : -1]) for word in self.codes.vocabulary], dtype=np.int64)
        return value[self.codes.tokens]

    def vectors(self, dataset: Dataset, item_rows: IntArray) -> FloatArray:
        """``[n, D]`` what the encoder makes of these items' texts."""
        if self.encoder is None:
            raise TrainingError(f"{type(self).__name__} has no encoder here: give it one, or the items' vectors")
        vectors = type(self).item_vectors(
            dataset, self.encoder, self.config.text, run=self._run, learn=self._run is not None  # type: ignore[attr-defined]
        )  # fmt: skip
        return vectors[item_rows]

    @property
    def parts(self) -> dict[str, store.Savable]:
        unused = isinstance(self.encoder, FitsTexts) and not self.encoder.fitted  # the vectors were given
        return {"encoder": self.encoder} if hasattr(self.encoder, "save") and not unused else {}  # type: ignore[dict-item]

    def _widen(self, places: Sequence[int], numbers: IntArray) -> None:
        """Give each place tokens for all the numbers that stand there; a counter may outgrow its place."""
        most = numbers.max(0, initial=-1) + 1
        self.facts["places"] = [max(place, int(top)) for place, top in zip(places, most, strict=True)]

    _given: FloatArray | None = None
    _run: Run | None = None
    """Set while ``fit`` goes on."""

    def _vectors(self, dataset: Dataset, item_rows: IntArray) -> FloatArray:
        vectors = self.vectors(dataset, item_rows) if self._given is None else self._given
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(item_rows):
            raise DataError(f"{len(item_rows):,} items need as many vectors, not an array of {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise DataError("the vectors of items hold numbers that are not finite")
        return vectors


def order_of_ids(dataset: Dataset) -> IntArray:
    """``[N]`` the item rows by outside id, shorter ids first, so that whole numbers stand in their own order."""
    ids = dataset.items["item"]
    order = ids.arg_sort().to_numpy()
    return order[np.argsort(ids.str.len_bytes().to_numpy()[order], kind="stable")].astype(np.int64)


def digits(numbers: IntArray) -> Tokens:
    """``[n, K]`` the decimal digits of each number, each digit its own token, most significant first; -1 after the
    last."""
    text = np.asarray(numbers, dtype=np.int64).astype("S")
    letters = text.view(np.uint8).reshape(len(text), -1).astype(np.int32)
    letters = letters[:, : int((letters > 0).sum(1).max(initial=0))]
    return np.where(letters == 0, -1, letters - ord("0")).astype(np.int32)


def read_digits(tokens: Tokens) -> IntArray:
    """``[n]`` the numbers that ``digits`` wrote."""
    numbers = np.zeros(len(tokens), dtype=np.int64)
    for column in tokens.T:
        numbers = np.where(column >= 0, numbers * 10 + column, numbers)
    return numbers


def padded(rows: Ragged) -> Tokens:
    """``[n, K]`` token rows of different lengths; -1 after the last."""
    tokens = np.full((len(rows), int(rows.lengths.max(initial=0))), -1, dtype=np.int32)
    tokens[np.arange(tokens.shape[1]) < rows.lengths[:, None]] = rows.flat()
    return tokens


def counted(groups: IntArray, order: IntArray) -> IntArray:
    """``[n]`` 0, 1, 2, … within each group, in the given order of the items (a permutation)."""
    sorted_groups = groups[order]
    within = np.argsort(sorted_groups, kind="stable")
    first = np.searchsorted(sorted_groups[within], sorted_groups[within])
    counts = np.empty(len(groups), dtype=np.int64)
    counts[order[within]] = np.arange(len(groups)) - first
    return counts


def all_live(n_items: int) -> npt.NDArray[np.bool_]:
    """No item is retired."""
    return np.ones(n_items, dtype=bool)


def level_words(sizes: Sequence[int], known: Sequence[str] = ()) -> list[str]:
    """``<a_0> … <a_255> <b_0> …``: a token for each number of each place, without those ``known``."""
    had = set(known)
    return [word for words in _words_by_place(sizes) for word in words if word not in had]


def level_codes(numbers: IntArray, sizes: Sequence[int]) -> Codes:
    """Names ``[N, K]`` of numbers; number c of place h is token ``sum(sizes[:h]) + c``."""
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Codes((numbers + offsets).astype(np.int32), tuple(level_words(sizes)), True, all_live(len(numbers)))


def _words_by_place(sizes: Sequence[int]) -> list[list[str]]:
    return [[f"<{_letter(place)}_{number}>" for number in range(size)] for place, size in enumerate(sizes)]


def _letter(place: int) -> str:
    """a … z, aa, ab …"""
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("a") + place % 26)


def _digest(ids: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()
