"""What accuracy does not see: how much of the catalogue is shown, how new, how varied, how true to the user's mix.

Every figure is about the lists that were answered; targets play no part. ``lists`` are item rows ``[B, k]``, -1 = no
answer; counts ``[N]`` are train events. Letters: B lists, k places, N items, C categories, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.core.ragged import IntArray, Ragged
from palate.core.report import Interval
from palate.evaluation import uncertainty
from palate.evaluation.uncertainty import Values

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MEANING = {
    "coverage": "share of the catalogue that stands in at least one list",
    "gini": "inequality of exposure over the catalogue: 0 = every item as often, near 1 = always the same few",
    "novelty": "mean self-information of the answered items, in bits: higher = less well known",
    "diversity": "mean cosine distance between two items of one list",
    "popularity-lift": "how much more popular the lists are than the users' histories: 0 = alike, 1 = twice",
    "calibration": "divergence of a list's mix of categories from the history's: 0 = the same mix, lower is better",
}


def coverage(lists: IntArray, n_items: int) -> float:
    """Share of the N items that stand in at least one list."""
    return float(np.count_nonzero(exposure(lists, n_items)) / max(n_items, 1))


def gini(lists: IntArray, n_items: int) -> float:
    """Gini coefficient of how often each of the N items is answered; NaN where nothing is."""
    shown = np.sort(exposure(lists, n_items)).astype(np.float64)
    if not shown.sum():
        return float("nan")
    place = np.arange(1, n_items + 1)
    return float(((2 * place - n_items - 1) * shown).sum() / (n_items * shown.sum()))


def exposure(lists: IntArray, n_items: int) -> IntArray:
    """``[N]`` how often each item is answered."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def novelty(lists: IntArray, counts: IntArray) -> Values:
    """``[B]`` mean ``-log2 p(i)`` of the answered items, ``p`` the share of the train events with one added to each
    item, so that a cold item is as new as can be but not infinitely so (Vargas & Castells 2011, "Rank and relevance in
    novelty and diversity metrics", free discovery). NaN for an empty list.
    """
    information = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    return _mean_over(lists, information)


def popularity(lists: IntArray, counts: IntArray) -> Values:
    """``[B]`` mean train events of the answered items; NaN for an empty list."""
    return _mean_over(lists, counts.astype(np.float64))


def profile_popularity(histories: Ragged, counts: IntArray) -> Values:
    """``[B]`` mean train events of the items of each history; NaN for an empty one."""
    sums = np.bincount(histories.row_numbers(), weights=counts[histories.flat()], minlength=len(histories))
    return np.where(histories.lengths > 0, sums / np.maximum(histories.lengths, 1), np.nan)


def diversity(lists: IntArray, vectors: npt.NDArray[np.floating] | csr_array) -> Values:
    """``[B]`` mean ``1 - cosine`` over the pairs of each list; vectors ``[N, D]``, an item with a zero vector takes no
    part. NaN for fewer than two items. Linear in k: the pairs' cosines are the squared length of the summed unit
    vectors less the k ones on the diagonal.
    """
    unit, present = _unit(vectors)
    shown = _incidence(lists, len(present))
    summed = shown @ unit
    squared = np.asarray(
        summed.multiply(summed).sum(axis=1) if hasattr(summed, "multiply") else (summed**2).sum(axis=1)
    )
    n = shown @ present.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, 1 - (squared.ravel() - n) / (n * (n - 1)), np.nan)


def calibration(lists: IntArray, histories: Ragged, categories: csr_array, *, smoothing: float = 0.01) -> Values:
    """``[B]`` KL divergence (nats) of the list's category mix from the history's (Steck 2018, "Calibrated
    recommendations", equations 2 to 6): ``sum_c p log(p / ((1 - a) q + a p))``, a = 0.01, events weighted alike.

    categories ``[N, C]`` 0/1; an item's weight is shared evenly over its categories. NaN where a history or a list has
    no item with a category.
    """
    from scipy.sparse import csr_array, diags_array

    sizes = np.asarray(categories.sum(axis=1)).ravel()
    shares = csr_array(diags_array(1 / np.maximum(sizes, 1)) @ categories)
    read = csr_array(
        (np.ones(int(histories.lengths.sum())), histories.flat(), histories.offsets()), (len(histories), len(sizes))
    )
    shown = _incidence(lists, len(sizes))
    found = np.empty(len(lists))
    step = max(1, (1 << 21) // max(shares.shape[1], 1))
    for start in range(0, len(lists), step):
        rows = slice(start, start + step)
        p, q = (_mix(table[rows] @ shares) for table in (read, shown))
        with np.errstate(invalid="ignore", divide="ignore"):
            terms = np.where(p > 0, p * np.log(p / ((1 - smoothing) * q + smoothing * p)), 0.0)
        found[rows] = np.where(np.isnan(p).any(axis=1) | np.isnan(q).any(axis=1), np.nan, terms.sum(axis=1))
    return found


def category_table(items: pl.DataFrame, column: str = "category") -> csr_array | None:
    """``[N, C]`` 0/1 from the list column of an items table; None where it has none."""
    from scipy.sparse import csr_array

    if column not in items.columns:
        return None
    if items.schema[column] != pl.List(pl.String):
        raise DataError(f"the items column '{column}' must be a list of texts to say which categories an item has")
    pairs = (
        items.select(pl.int_range(pl.len()).alias("row"), pl.col(column).alias("category"))
        .explode("category")
        .drop_nulls()
        .unique()
        .with_columns(code=pl.col("category").rank("dense") - 1)
    )
    if not pairs.height:
        return None
    codes = pairs["code"].to_numpy().astype(np.int64)
    table = (np.ones(pairs.height), (pairs["row"].to_numpy(), codes))
    return csr_array(table, shape=(items.height, int(codes.max()) + 1))


def beyond(
    cases: pl.DataFrame,
    train: Dataset,
    *,
    vectors: npt.NDArray[np.floating] | None = None,
    resamples: int = uncertainty.RESAMPLES,
    run: int = 0,
) -> dict[str, Interval]:
    """Every figure that the lists in ``cases`` (column ``answers``) and the items allow, with intervals over users
    where a user has a value. Diversity takes ``vectors`` ``[N, D]``, else the items' categories. Values of several
    seeds are averaged.
    """
    if "answers" not in cases.columns or not cases.height:
        return {}
    categories = category_table(train.items)
    per_seed: list[dict[str, Values]] = []
    whole: list[tuple[float, float]] = []
    for _, part in sorted(cases.group_by("seed"), key=lambda group: group[0]):
        lists = part["answers"].to_numpy().astype(np.int64)
        users = part["user_row"].to_numpy()
        per_seed.append(_columns(lists, users, train, categories, vectors))
        whole.append((coverage(lists, train.n_items), gini(lists, train.n_items)))
    cut = f"@{lists.shape[1]}"
    names = list(per_seed[0])
    tables = [np.column_stack(list(columns.values())) for columns in per_seed]
    spans = dict(zip(names, uncertainty.intervals(tables, resamples=resamples, run=run), strict=True))
    nan = float("nan")
    found = {
        name: Interval(float(np.mean(value)), nan, nan)
        for name, value in zip(("coverage", "gini"), zip(*whole, strict=True), strict=True)
    }
    found |= {name: span for name, span in spans.items() if name not in ("list", "profile")}
    found["popularity-lift"] = _lift(
        [table[:, [names.index("list"), names.index("profile")]] for table in tables], resamples, run
    )
    return {name + cut: found[name] for name in MEANING if name in found and not np.isnan(found[name].value)}


def _columns(
    lists: IntArray, users: IntArray, train: Dataset, categories: Any, vectors: npt.NDArray[np.floating] | None
) -> dict[str, Values]:
    """Name → ``[U]`` the value of each user."""
    counts = train.item_counts
    known = np.where((users >= 0) & (users < train.n_users), users, -1)
    histories = _profiles(train, known)
    profile = profile_popularity(histories, counts)
    values = {
        "novelty": novelty(lists, counts),
        "list": np.where(np.isnan(profile), np.nan, popularity(lists, counts)),
        "profile": profile,
    }
    if vectors is not None or categories is not None:
        values["diversity"] = diversity(lists, categories if vectors is None else vectors)
    if categories is not None:
        values["calibration"] = calibration(lists, histories, categories)
    _, means = uncertainty.per_user(users, np.column_stack(list(values.values())))
    return dict(zip(values, means.T, strict=True))


def _profiles(train: Dataset, user_rows: IntArray) -> Ragged:
    histories, some = train.histories, np.maximum(user_rows, 0)
    starts = np.where(user_rows >= 0, histories.starts[some], 0)
    return Ragged(histories.values, starts, np.where(user_rows >= 0, histories.stops[some], 0))


def _lift(tables: list[Values], resamples: int, run: int) -> Interval:
    """Mean popularity of the lists over that of the histories, less one, over the users that have a history."""
    n_seeds = len(tables)
    stacked = np.concatenate(tables, axis=1)
    means = uncertainty.resampled_means(stacked, resamples=resamples).reshape(resamples, n_seeds, 2)
    weights = uncertainty.seed_weights(n_seeds, resamples=resamples, run=run)
    shown, met = uncertainty.over_seeds(means, weights).T
    users = ~np.isnan(stacked).any(axis=1)
    if not users.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    shown_all, met_all = stacked[users].mean(axis=0).reshape(n_seeds, 2).mean(axis=0)
    return uncertainty.interval(float(shown_all / met_all - 1), shown / met - 1, int(users.sum()))


def _mean_over(lists: IntArray, of_item: Values) -> Values:
    shown = lists >= 0
    n = shown.sum(axis=1)
    return np.where(n > 0, np.where(shown, of_item[lists], 0.0).sum(axis=1) / np.maximum(n, 1), np.nan)


def _incidence(lists: IntArray, n_items: int) -> csr_array:
    """``[B, N]`` sparse, 1 where an item stands in a list."""
    from scipy.sparse import csr_array

    shown = lists >= 0
    offsets = np.concatenate([[0], np.cumsum(shown.sum(axis=1))])
    return csr_array((np.ones(int(shown.sum())), lists[shown], offsets), (len(lists), n_items))


def _unit(vectors: Any) -> tuple[Any, npt.NDArray[np.bool_]]:
    """Rows scaled to length 1, zero rows left as they are, and which rows are not zero."""
    from scipy.sparse import diags_array, issparse

    if issparse(vectors):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        return diags_array(1 / np.where(lengths > 0, lengths, 1)) @ vectors, lengths > 0
    dense = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(dense, axis=1)
    return dense / np.where(lengths > 0, lengths, 1)[:, None], lengths > 0


def _mix(sums: csr_array) -> Values:
    """Rows scaled to sum to 1; NaN for a row without anything."""
    dense = sums.toarray()
    with np.errstate(invalid="ignore", divide="ignore"):
        return dense / dense.sum(axis=1, keepdims=True)
