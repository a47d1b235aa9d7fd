"""A catalogue of 12,000 items grows by one in a hundred, against fitting names anew.

Both begin with the items' vectors and end with a catalogue that a decoder can search: names and their trie. Ours names
the new items around those that are there (``ItemTokenizer.add``), and its copy of the tokenizer counts too; the
reference learns codes again and names everything, as a tokenizer without ``add`` would have to. What must hold first:
no name that was given has changed, no two are alike, and a walk through the trie finds every new item. Vectors are 384
wide and lie in 200 clumps; the tokenizer is residual k-means as it is by default.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import polars as pl
import torch

from benchmarks.harness import Result, compare, must
from palate.core.dataset import Dataset
from palate.core.naming import NamesVectors
from palate.core.run import Run
from palate.parts.naming import Naming
from palate.tokenizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig

WIDTH, CLUMPS = 384, 200


def run(quick: bool = False) -> list[Result]:
    known, rounds = (400, 3) if quick else (12_000, ResidualKMeansConfig().rounds)
    new = known // 100
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUMPS, WIDTH), dtype=np.float32)
    vectors = centres[rng.integers(0, CLUMPS, known + new)]
    vectors = vectors + 0.5 * rng.standard_normal(vectors.shape, dtype=np.float32)
    before, after = catalogue(known), catalogue(known + new)
    fitted = anew(before, vectors[:known], rounds)

    def ours() -> tuple[NamesVectors[ResidualKMeansConfig], Naming]:
        grown = deepcopy(fitted).add(after, vectors[known:])
        return grown, searchable(grown)

    def reference() -> None:
        searchable(anew(after, vectors, rounds))

    check(fitted, *ours())
    said = f"names of all {known + new:,} fitted anew"
    return [compare(f"living-catalogue, {new:,} new of {known:,}", ours, {said: reference}, repeats=3)]


def catalogue(n_items: int) -> Dataset:
    """Items that one user met, all of them."""
    rows = np.arange(n_items, dtype=np.int32)
    met = pl.DataFrame({"user_row": np.zeros(n_items, dtype=np.int32), "item_row": rows})
    items = pl.DataFrame({"item": [f"{row:05d}" for row in rows]})
    return Dataset("living", met, items, pl.DataFrame({"user": ["one"]}), "order")


def anew(dataset: Dataset, vectors: np.ndarray, rounds: int) -> ResidualKMeans:
    return ResidualKMeans(ResidualKMeansConfig(rounds=rounds)).fit(dataset, Run(), vectors)


def searchable(tokenizer: NamesVectors[ResidualKMeansConfig]) -> Naming:
    codes = tokenizer.codes
    return Naming(codes.tokens, len(codes.vocabulary), codes.live)


def check(fitted: ResidualKMeans, grown: NamesVectors[ResidualKMeansConfig], naming: Naming) -> None:
    known, codes = fitted.codes.n_items, grown.codes
    must((codes.tokens[:known] == fitted.codes.tokens).all(), "a name that was given has changed")
    must(len(np.unique(codes.tokens, axis=0)) == codes.n_items, "two items have one name")
    nodes = torch.zeros(codes.n_items - known, dtype=torch.int64)
    for tokens in naming.tokens[known:].unbind(1):
        nodes = naming.trie.walk(nodes, tokens)
    must(naming.trie.items[nodes].tolist() == list(range(known, codes.n_items)), "a new item is not found")
