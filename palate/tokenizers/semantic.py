"""Semantic: the item's way through the category tree, a token a level, then a number among the items of one way.

The SemID of Hua et al. 2023 (arXiv 2305.06569). Where categories are tags without order (Yelp in the paper), those of
more than ``least_items`` items are kept, the most frequent first, at most ``most_tags`` an item.

Where we depart, and why: the root is left out only where nearly all items share it, and whether categories are a tree
or tags is read from the data when ``shape`` is "auto": in a tree a category stands on one level. Items are counted in
a drawn order, so that the last number tells nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from palate.core.codes import Codes
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import DataError
from palate.core.naming import NamesItems, all_live, padded
from palate.core.ragged import IntArray, Ragged
from palate.core.run import Run

Way = tuple[str, ...]


class SemanticConfig(Config):
    shape: Literal["auto", "tree", "tags"] = "auto"
    """Categories from root to leaf, or tags in no order."""
    least_items: int = Field(10, ge=0)
    """A tag is kept when more items than this have it."""
    most_tags: int = Field(5, ge=1)
    """Tags of an item that are kept."""


class Semantic(NamesItems[SemanticConfig]):
    """A level h category is the token ``<h:name>``, a tag ``<tag:name>``, the number ``<same_j>``."""

    config_type = SemanticConfig

    def name(self, train: Dataset, run: Run) -> Codes:
        listed = _categories(train)
        shape = self.config.shape if self.config.shape != "auto" else _shape(listed)
        tags = Counter(tag for row in listed for tag in set(row))
        self.facts |= {
            "shape": shape,
            "root": _root(listed) if shape == "tree" else None,
            "tags": [tag for tag, n in sorted(tags.items(), key=lambda tag: (-tag[1], tag[0]))
                     if n > self.config.least_items] if shape == "tags" else [],
        }  # fmt: skip
        order = self.drawn().permutation(train.n_items).tolist()
        return _codes(self._ways(listed), order, None)

    def name_new(self, catalogue: Dataset, item_rows: IntArray) -> Codes:
        listed = _categories(catalogue)
        return _codes(self._ways([listed[row] for row in item_rows]), range(len(item_rows)), self.codes)

    def path_lengths(self) -> IntArray:
        return self.codes.lengths - 1

    def _ways(self, listed: Sequence[Way]) -> list[Way]:
        """The tokens of each item but the last."""
        if self.facts["shape"] == "tags":
            place = {tag: at for at, tag in enumerate(self.facts["tags"])}
            kept = (sorted((tag for tag in set(row) if tag in place), key=place.__getitem__) for row in listed)
            return [tuple(f"<tag:{tag}>" for tag in row[: self.config.most_tags]) for row in kept]
        root = self.facts["root"]
        cut = (row[1:] if root is not None and row[:1] == (root,) else row for row in listed)
        return [tuple(f"<{level}:{name}>" for level, name in enumerate(row, start=1)) for row in cut]


def _codes(ways: Sequence[Way], order: Sequence[int], codes: Codes | None) -> Codes:
    """Names in this order of counting; after those of ``codes``, whose words and numbers go on."""
    words = {word: row for row, word in enumerate(codes.vocabulary)} if codes else {}
    had, same = len(words), Counter[Way]()
    for name in codes.tokens.tolist() if codes else []:
        way = tuple(codes.vocabulary[token] for token in name if token >= 0)[:-1] if codes else ()
        same[way] += 1
    if codes is None:  # a vocabulary in an order that no item decides
        for word in sorted({word for way in ways for word in way}):
            words[word] = len(words)
    rows: dict[int, list[int]] = {}
    for at in order:
        word = f"<same_{same[ways[at]]}>"
        same[ways[at]] += 1
        rows[at] = [words.setdefault(one, len(words)) for one in (*ways[at], word)]
    tokens = padded(Ragged.of([rows[at] for at in range(len(ways))]))
    if codes is None:
        return Codes(tokens, tuple(words), True, all_live(len(ways)))
    return codes.grown(tokens, list(words)[had:])


def _categories(dataset: Dataset) -> list[Way]:
    if "category" not in dataset.items.columns:
        raise DataError(f"items of '{dataset.name}' have no column 'category'; use another tokenizer")
    return [tuple(name for name in row or () if name) for row in dataset.items["category"].to_list()]


def _shape(listed: Sequence[Way]) -> Literal["tree", "tags"]:
    """A tree, where at least 95 % of mentions put a category on the level on which it mostly stands."""
    at_level = Counter((name, level) for row in listed for level, name in enumerate(row))
    most: Counter[str] = Counter()
    for (name, _), n in at_level.items():
        most[name] = max(most[name], n)
    return "tree" if most.total() >= 0.95 * at_level.total() else "tags"


def _root(listed: Sequence[Way]) -> str | None:
    """The first category, where at least 90 % of the items that have any begin with it and most go on."""
    known = [row for row in listed if row]
    first, n = Counter(row[0] for row in known).most_common(1)[0] if known else ("", 0)
    deeper = sum(len(row) > 1 for row in known)
    return first if known and n >= 0.9 * len(known) and 2 * deeper > len(known) else None
