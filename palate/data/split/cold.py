"""Rules that ask about the unknown: items, users or a domain that train never showed."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, LeakError, nearest
from palate.core.ragged import Ragged
from palate.core.split import Cases, Split
from palate.data.split import checks
from palate.data.split.questions import Mask, drawn, earlier


class ColdItems(Config):
    """A share of the items is held out of train wholly, and as many others for valid; their events are the questions.

    Users keep their other events in train, later ones too: the item is unknown here, not the future. A history is all
    that the user did before; in valid without any item of test.
    """

    name: ClassVar[str] = "cold-items"
    share: float = Field(0.1, gt=0, lt=0.5)
    """Of all items with an event: so many are cold in test, and so many others in valid."""
    seed: int = 0

    def make(self, dataset: Dataset) -> Split:
        met = np.flatnonzero(dataset.item_counts > 0)
        valid, test = drawn(met, self.share, self.seed)
        in_valid, in_test = _among(dataset.item_rows, valid), _among(dataset.item_rows, test)
        return Split(
            dataset,
            dataset.keeping(~in_valid & ~in_test),
            valid=earlier(dataset, np.flatnonzero(in_valid), shown=~in_test),
            test=earlier(dataset, np.flatnonzero(in_test)),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        whole = split.dataset
        valid, test = np.unique(split.valid.targets), np.unique(split.test.targets)
        both = np.intersect1d(valid, test)
        if len(both):
            raise LeakError(f"item '{whole.item_ids[both[0]]}' is asked both in valid and in test")
        cold = np.union1d(valid, test)
        shown = split.train.item_counts[cold]
        if shown.any():
            at = int(np.flatnonzero(shown)[0])
            raise LeakError(
                f"item '{whole.item_ids[cold[at]]}' is asked as unknown, and train shows it in {shown[at]:,} events"
            )
        hidden = _among(whole.item_rows, test)
        return {
            "histories": checks.check_histories(split, shown_in_valid=~hidden),
            "training": checks.check_training(split, _among(whole.item_rows, cold)),
            "items": f"{len(test):,} items of test and {len(valid):,} of valid appear in no training event",
        }


class ColdUsers(Config):
    """A share of the users is held out of train wholly, and as many others for valid.

    Each is asked for the last event, with all earlier ones as the history. Users with one event only teach.
    """

    name: ClassVar[str] = "cold-users"
    share: float = Field(0.1, gt=0, lt=0.5)
    """Of all users with two events or more: so many are asked in test, and so many others in valid."""
    seed: int = 0

    def make(self, dataset: Dataset) -> Split:
        histories = dataset.histories
        valid, test = drawn(np.flatnonzero(histories.lengths >= 2), self.share, self.seed)
        unseen = _among(dataset.user_rows, np.concatenate([valid, test]))
        return Split(
            dataset,
            dataset.keeping(~unseen),
            valid=earlier(dataset, histories.stops[valid] - 1),
            test=earlier(dataset, histories.stops[test] - 1),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        whole = split.dataset
        both = np.intersect1d(split.valid.user_rows, split.test.user_rows)
        if len(both):
            raise LeakError(f"user '{whole.user_ids[both[0]]}' is asked both in valid and in test")
        asked = np.union1d(split.valid.user_rows, split.test.user_rows)
        taught = split.train.histories.lengths[asked]
        if taught.any():
            at = int(np.flatnonzero(taught)[0])
            raise LeakError(
                f"user '{whole.user_ids[asked[at]]}' is on both sides: asked as unknown, and {taught[at]:,} events of "
                "theirs teach"
            )
        return {
            "histories": checks.check_histories(split),
            "training": checks.check_training(split, _among(whole.user_rows, asked)),
            "users": f"{len(split.test):,} users of test and {len(split.valid):,} of valid have no training event",
        }


class CrossDomain(Config):
    """What does taste in one domain say about another? Asked are users' first steps into ``target``.

    The items' column ``column`` names each item's domain; events of other domains neither teach nor show. Of the users
    whose first target event follows a source event, a share is asked in test and as many others in valid: for that
    first target event, among target items alone, after what they did in ``source``. Train holds nothing an asked
    user did from that event on; all others teach in both domains.
    """

    name: ClassVar[str] = "cross-domain"
    source: str
    target: str
    column: str = "domain"
    share: float = Field(0.2, gt=0, lt=0.5)
    seed: int = 0

    def make(self, dataset: Dataset) -> Split:
        in_source, in_target = self._events(dataset, self.source), self._events(dataset, self.target)
        shown = in_source | in_target
        events = np.flatnonzero(in_target)
        users, first = np.unique(dataset.user_rows[events], return_index=True)
        sources_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(in_source)])
        step = np.full(dataset.n_users, -1, dtype=np.int64)  # each user's first target event
        step[users] = events[first]
        begins = dataset.histories.starts[users]
        bridging = users[sources_before[step[users]] > sources_before[begins]]
        if len(bridging) < 2:
            raise DataError(
                f"cross-domain split: only {len(bridging)} users go from '{self.source}' to '{self.target}' in "
                f"dataset '{dataset.name}'"
            )
        valid, test = drawn(bridging, self.share, self.seed)
        asked = np.concatenate([valid, test])
        first_step = np.full(dataset.n_users, dataset.n_interactions, dtype=np.int64)
        first_step[asked] = step[asked]
        teaches = shown & (np.arange(dataset.n_interactions) < first_step[dataset.user_rows])
        return Split(
            dataset,
            dataset.keeping(teaches),
            valid=self._within_target(dataset, earlier(dataset, step[valid], shown=shown)),
            test=self._within_target(dataset, earlier(dataset, step[test], shown=shown)),
            rule=self.name,
        )

    def proofs(self, split: Split) -> dict[str, str]:
        whole = split.dataset
        target_items = self._items(whole, self.target)
        source_items = self._items(whole, self.source)
        for name, cases in (("valid", split.valid), ("test", split.test)):
            if not target_items[cases.targets].all():
                raise LeakError(f"{name}: a question is about an item outside the domain '{self.target}'")
            if not source_items[cases.requests.histories.flat()].all():
                raise LeakError(f"{name}: a history holds an item outside the domain '{self.source}'")
        asked = np.union1d(split.valid.user_rows, split.test.user_rows)
        taught = _among(split.train.user_rows, asked) & target_items[split.train.item_rows]
        if taught.any():
            user = whole.user_ids[split.train.user_rows[np.flatnonzero(taught)[0]]]
            raise LeakError(f"user '{user}' is asked as new to '{self.target}', and train holds such events of them")
        shown = (source_items | target_items)[whole.item_rows]
        n_shared = len(np.unique(split.train.user_rows[target_items[split.train.item_rows]]))
        return {
            "histories": checks.check_histories(split, shown_in_valid=shown, shown_in_test=shown),
            "training": checks.check_training(split, checks.asked_or_later(split) | ~shown),
            "domains": f"{len(asked):,} asked users have only '{self.source}' behind them; {n_shared:,} users teach "
            f"'{self.target}'",
        }

    def _items(self, dataset: Dataset, domain: str) -> Mask:
        """``[N]`` which items belong to a domain."""
        if self.column not in dataset.items.columns:
            raise DataError(
                f"cross-domain split: the items of dataset '{dataset.name}' have no column '{self.column}'"
                f"{nearest(self.column, dataset.items.columns)}"
            )
        column = dataset.items[self.column]
        known = {str(name) for name in column.drop_nulls().unique().to_list()}
        if domain not in known:
            raise ConfigError(f"cross-domain split: no items of domain '{domain}'{nearest(domain, known)}")
        return (column == domain).fill_null(False).to_numpy()

    def _events(self, dataset: Dataset, domain: str) -> Mask:
        return self._items(dataset, domain)[dataset.item_rows]

    def _within_target(self, dataset: Dataset, cases: Cases) -> Cases:
        """The same questions, answered by target items alone: one shared row of candidates."""
        items = np.flatnonzero(self._items(dataset, self.target))
        starts = np.zeros(len(cases), dtype=np.int64)
        candidates = Ragged(items, starts, starts + len(items))
        return replace(cases, requests=replace(cases.requests, candidates=candidates))


def _among(rows: np.ndarray, chosen: np.ndarray) -> Mask:
    """Which of ``rows`` are chosen."""
    flags = np.zeros(int(max(rows.max(initial=0), chosen.max(initial=0))) + 1, dtype=np.bool_)
    flags[chosen] = True
    return flags[rows]
