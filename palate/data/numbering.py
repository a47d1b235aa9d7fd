"""Outside ids to dense rows and back, and the k-core. Bounded by events + distinct ids; never users × items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.errors import DataError
from palate.core.ragged import IntArray

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Coded:
    """A column of ids as small numbers in no promised order.

    codes ``[E]`` int32 in ``[0, n_codes)``; ``distinct`` holds the id of each code, or, for whole numbers that lie
    close together, ``base`` is the id of code 0 and the rest follow.
    """

    codes: Codes
    n_codes: int
    distinct: pl.Series | None
    base: int = 0

    def texts(self, codes: IntArray) -> pl.Series:
        """The outside ids of some codes, as text."""
        if self.distinct is None:
            return pl.Series(codes.astype(np.int64) + self.base).cast(pl.String)
        return self.distinct.gather(codes).cast(pl.String)


def encode(column: pl.Series, what: str) -> Coded:
    """Number the distinct ids of a column. ``what`` (user, item) names it in errors."""
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if not (column.dtype.is_integer() or column.dtype == pl.String):
        raise DataError(f"column '{what}' holds {column.dtype}, expected ids as text or whole numbers")
    if column.null_count():
        row = int(column.is_null().arg_true()[0])
        raise DataError(f"row {row + 1}, column '{what}': found nothing, expected an id")
    if column.dtype.is_integer() and len(column):
        low, high = int(column.min()), int(column.max())  # type: ignore[arg-type]
        # A counting table is faster than hashing while it is not much larger than the column itself.
        if high - low < max(4 * len(column), 1 << 20) and high - low < np.iinfo(np.int32).max:
            return Coded(_less(column, low), high - low + 1, None, low)
    if column.dtype == pl.String:
        # Categories of our own: the shared ones of the process would grow with every data set.
        categorical = column.cast(pl.Categorical(pl.Categories.random()))
        present = categorical.unique()
        distinct = present.cast(pl.String).gather(present.to_physical().arg_sort())
        return Coded(categorical.to_physical().cast(pl.Int32).to_numpy(), len(distinct), distinct)
    distinct = column.unique()
    codes = column.replace_strict(distinct, np.arange(len(distinct), dtype=np.int32), return_dtype=pl.Int32)
    return Coded(codes.to_numpy(), len(distinct), distinct)


def _less(column: pl.Series, low: int) -> Codes:
    """Whole numbers minus the smallest one; piece by piece, so that no second wide column is held."""
    codes = np.empty(len(column), dtype=np.int32)
    begin = 0
    for piece in column.get_chunks():
        values = piece.to_numpy()
        np.subtract(values, values.dtype.type(low), out=codes[begin : begin + len(values)], casting="unsafe")
        begin += len(values)
    return codes


def core_mask(users: Coded, items: Coded, min_count: int) -> npt.NDArray[np.bool_] | None:
    """``[E]`` the events of the k-core: every user and every item left has at least ``min_count`` events.

    Repeated until nothing more falls, so the answer does not depend on which side is looked at first. None = all stay.
    """
    if min_count <= 1:
        return None
    sides = [(side.codes, np.bincount(side.codes, minlength=side.n_codes)) for side in (users, items)]
    keep: npt.NDArray[np.bool_] | None = None
    while True:
        weak = [(counts > 0) & (counts < min_count) for _, counts in sides]
        if not any(ids.any() for ids in weak):
            return keep
        falls = np.zeros(len(users.codes), dtype=np.bool_)
        for (codes, _), ids in zip(sides, weak, strict=True):
            if ids.any():
                falls |= ids[codes]
        if keep is None:
            keep = ~falls
        else:
            falls &= keep
            keep &= ~falls
        # Only what falls is counted again: it is little after the first round.
        fallen = np.flatnonzero(falls)
        for codes, counts in sides:
            counts -= np.bincount(codes[fallen], minlength=len(counts))


def drawn_mask(
    users: Coded, kept: npt.NDArray[np.bool_] | None, n: int, where: str
) -> tuple[npt.NDArray[np.bool_], int]:
    """``[E]`` the events among ``kept`` (None = all) of ``n`` users, and how many users there were.

    Drawn from the sorted ids, so that neither the order of a file, which often groups events by item or by time, nor
    how users are numbered decides who it is. Raises ``DataError`` where fewer than ``n`` are left.
    """
    present = np.unique(users.codes if kept is None else users.codes[kept])
    if not 1 <= n <= len(present):
        left = f"{len(present):,}"
        raise DataError(f"{where}: {n:,} users are asked for and {left} are left; ask for 1 to {left}")
    by_id = present[users.texts(present).arg_sort().to_numpy()]
    chosen = np.zeros(users.n_codes, dtype=np.bool_)
    chosen[by_id[np.random.default_rng(0).permutation(len(by_id))[:n]]] = True
    mask = chosen[users.codes]
    return mask if kept is None else mask & kept, len(present)


def number(
    coded: Coded, codes: Codes, listed: pl.DataFrame | None, what: str, *, keep_unseen: bool
) -> tuple[Codes, pl.DataFrame]:
    """Dense rows ``[E]`` of the events' ids, and the table whose row ``i`` describes row ``i``.

    Rows follow the listed table first, then first appearance among the events. ``keep_unseen`` keeps listed ids that
    no event shows; the column ``what`` of the table holds the ids as text.
    """
    seen = _by_first_appearance(codes, coded.n_codes)
    ids = coded.texts(seen).alias(what)
    if listed is None:
        row_of_seen, table = np.arange(len(seen), dtype=np.int32), ids.to_frame()
    else:
        row_of_seen, table = _beside_listed(ids, listed, what, keep_unseen)
    row_of_code = np.zeros(coded.n_codes, dtype=np.int32)
    row_of_code[seen] = row_of_seen
    return row_of_code[codes], table


def _by_first_appearance(codes: Codes, n_codes: int) -> IntArray:
    """The codes that appear, ordered by where each appears first.

    Stretch by stretch: only codes not seen in earlier stretches are looked at, which soon are few.
    """
    unseen = np.ones(n_codes, dtype=np.bool_)
    first = np.empty(n_codes, dtype=np.int64)
    found = []
    for begin in range(0, len(codes), _STRETCH):
        stretch = codes[begin : begin + _STRETCH]
        fresh = stretch[unseen[stretch]]
        if len(fresh):
            # Written backwards: of several writes to one place the last one stays, which is the first appearance.
            first[fresh[::-1]] = np.arange(len(fresh) - 1, -1, -1)
            new = np.flatnonzero(first[fresh] == np.arange(len(fresh)))
            found.append(fresh[new])
            unseen[fresh] = False
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, dtype=np.int64)


_STRETCH = 1 << 18


def _beside_listed(ids: pl.Series, listed: pl.DataFrame, what: str, keep_unseen: bool) -> tuple[Codes, pl.DataFrame]:
    if what not in listed.columns:
        raise DataError(f"the table of {what}s lacks the column '{what}'; it has {', '.join(listed.columns)}")
    listed = listed.with_columns(pl.col(what).cast(pl.String))
    names = listed[what]
    if names.null_count():
        raise DataError(f"the table of {what}s, row {int(names.is_null().arg_true()[0]) + 1}: the id is missing")
    if names.n_unique() != len(names):
        twice = names.filter(names.is_duplicated())[0]
        raise DataError(f"the table of {what}s lists '{twice}' more than once; an id may have one row")
    places = pl.DataFrame({what: names, "place": np.arange(len(names), dtype=np.int64)})
    place = ids.to_frame().join(places, on=what, how="left", maintain_order="left")["place"]
    strangers = place.is_null().to_numpy()
    known = place.filter(~place.is_null()).to_numpy()
    if keep_unseen:
        row_of_place = np.arange(len(names))
    else:
        met = np.zeros(len(names), dtype=bool)
        met[known] = True
        row_of_place = np.cumsum(met) - 1
        listed = listed.filter(met)
    rows = np.empty(len(ids), dtype=np.int32)
    rows[~strangers] = row_of_place[known]
    rows[strangers] = listed.height + np.arange(int(strangers.sum()))
    table = pl.concat([listed, ids.filter(strangers).to_frame()], how="diagonal") if strangers.any() else listed
    return rows, table.select(what, pl.exclude(what))
