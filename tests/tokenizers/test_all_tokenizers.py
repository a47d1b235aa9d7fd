"""What every tokenizer keeps: different names, the same bits, nothing of the future, a living catalogue."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from palate.backbones.vectors import item_vectors
from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import DataError, TrainingError
from palate.core.naming import NamesItems, NamesVectors
from palate.core.protocols import ItemTokenizer
from palate.core.provenance import check_fitted_on
from palate.core.run import Run
from palate.data.build import dataset_from
from palate.data.split import leave_one_out
from palate.data.world import world
from palate.systems import COMPONENTS, component
from tests.tokenizers.item_logs import KindEncoder, longer, part

SETTINGS: dict[str, dict[str, Any]] = {
    "collaborative": {"clusters": 3, "leaf": 8},
    "rq-vae": {"levels": 3, "size": 8, "width": 8, "hidden": [16], "training.epochs": 5, "encoder": "tf-idf"},
    "residual-kmeans": {"levels": 3, "size": 8, "encoder": "tf-idf"},
    "product": {"levels": 3, "size": 8, "encoder": "tf-idf"},
}
NAMES = sorted(COMPONENTS["tokenizer"])
TEXT_ONLY = {"random", "independent", "title", "semantic"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def train() -> Dataset:
    return leave_one_out(world("test").dataset).train


def make(name: str) -> NamesItems[Any]:
    return component("tokenizer", part(name, SETTINGS.get(name, {})))


def more(train: Dataset) -> Dataset:
    return longer(train, 7, title=[*["The Same"] * 3, *[f"New {row}" for row in range(4)]],
                  text=[*["The Same. Space."] * 3, *[f"New {row}. Love and war." for row in range(4)]],
                  category=[["science fiction"]] * 3 + [["a kind of its own"]] * 4)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_item_has_a_name_of_its_own(name: str, train: Dataset) -> None:
    tokenizer = make(name)
    with pytest.raises(TrainingError, match="has named no items yet: call fit or load first"):
        tokenizer.codes  # noqa: B018
    codes = tokenizer.fit(train, Run()).codes
    assert isinstance(tokenizer, ItemTokenizer)
    assert codes.n_items == train.n_items
    np.testing.assert_array_equal(codes.decode(codes.encode(np.arange(train.n_items))), np.arange(train.n_items))
    assert len({codes.spell(row) for row in range(train.n_items)}) == train.n_items
    assert (tokenizer.path_lengths() <= codes.lengths).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_names_and_touches_nothing(name: str, train: Dataset) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    tokenizer = make(name)
    first = tokenizer.fit(train, Run(seed=3)).codes
    again = tokenizer.fit(train, Run(seed=3)).codes  # a second fit forgets the first
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert first.vocabulary == again.vocabulary
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]
    if name in {"random", "rq-vae", "residual-kmeans", "product"}:
        other = tokenizer.fit(train, Run(seed=4)).codes
        assert other.tokens.shape != first.tokens.shape or (other.tokens != first.tokens).any()


@pytest.mark.parametrize("name", ["sequential", "semantic"])
def test_the_order_of_rows_decides_no_name(name: str, train: Dataset) -> None:
    """Rows may follow the whole log. Named in another order of rows, the seen items keep what training says of them."""
    turned = np.arange(train.n_items)[::-1]
    row_of = np.argsort(turned)
    events = train.interactions.with_columns(pl.Series("item_row", row_of[train.item_rows], dtype=pl.Int32))
    other = Dataset(train.name, events, train.items[turned.tolist()], train.users, train.clock)
    one, two = make(name).fit(train, Run()), make(name).fit(other, Run())
    seen = np.flatnonzero(train.item_counts > 0)
    for row in seen.tolist():
        keep = slice(None) if name == "sequential" else slice(0, one.path_lengths()[row])
        mine = [one.codes.vocabulary[t] for t in one.codes.tokens[row] if t >= 0][keep]
        theirs = [two.codes.vocabulary[t] for t in two.codes.tokens[row_of[row]] if t >= 0][keep]
        assert mine == theirs


@pytest.mark.parametrize("name", NAMES)
def test_new_items_are_named_and_nobody_else_changes(name: str, train: Dataset, tmp_path: Path) -> None:
    tokenizer = make(name).fit(train, Run())
    before, catalogue = tokenizer.codes, more(train)
    tokenizer.save(tmp_path / "fresh")
    after = tokenizer.add(catalogue).codes
    assert after.n_items == train.n_items + 7
    width = before.tokens.shape[1]
    np.testing.assert_array_equal(after.tokens[: train.n_items, :width], before.tokens)
    assert (after.tokens[: train.n_items, width:] == -1).all()
    assert after.vocabulary[: len(before.vocabulary)] == before.vocabulary
    np.testing.assert_array_equal(after.decode(after.tokens), np.arange(after.n_items))
    assert tokenizer.add(catalogue).codes is after  # nobody new
    loaded = store.load(tmp_path / "fresh").add(catalogue).codes  # a saved tokenizer names them alike
    np.testing.assert_array_equal(loaded.tokens, after.tokens)
    assert loaded.vocabulary == after.vocabulary
    with pytest.raises(DataError, match="does not begin with the 67 items that were named"):
        tokenizer.add(train)


@pytest.mark.parametrize("name", NAMES)
def test_retired_items_decode_to_nothing_until_they_are_back(name: str, train: Dataset) -> None:
    tokenizer = make(name).fit(train, Run())
    names = tokenizer.codes.tokens[[3, 4]]
    np.testing.assert_array_equal(tokenizer.retire(np.array([3])).codes.decode(names), [-1, 4])
    grown = tokenizer.add(more(train)).codes
    assert not grown.live[3]
    assert tokenizer.retire(np.array([3]), back=True).codes.live.all()


@pytest.mark.parametrize("name", NAMES)
def test_saved_is_loaded(name: str, train: Dataset, tmp_path: Path) -> None:
    tokenizer = make(name).fit(train, Run()).retire(np.array([5]))
    tokenizer.save(tmp_path / "names")
    loaded = store.load(tmp_path / "names")
    assert type(loaded) is type(tokenizer)
    assert loaded.config == tokenizer.config
    np.testing.assert_array_equal(loaded.codes.tokens, tokenizer.codes.tokens)
    np.testing.assert_array_equal(loaded.codes.live, tokenizer.codes.live)
    assert loaded.codes.vocabulary == tokenizer.codes.vocabulary
    assert loaded.codes.atomic == tokenizer.codes.atomic
    np.testing.assert_array_equal(loaded.path_lengths(), tokenizer.path_lengths())
    assert check_fitted_on(tmp_path / "names", train) is None
    said = store.read_manifest(tmp_path / "names")["fitted_on"]
    assert said == (store.NO_DATA if name in TEXT_ONLY else train.fingerprint)


def test_all_load_in_a_new_process(train: Dataset, tmp_path: Path) -> None:
    spelt = {}
    for name in NAMES:
        tokenizer = make(name).fit(train, Run())
        tokenizer.save(tmp_path / name)
        spelt[name] = tokenizer.codes.spell(7)
    code = (
        f"from palate.core.store import load\nfor n in {NAMES!r}:\n    print(load({str(tmp_path)!r} + '/' + n).codes"
        ".spell(7))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [spelt[name] for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_what_training_does_not_show_decides_nothing(name: str) -> None:
    """Raw events through the loader, which numbers items as the whole log shows them: with other last events of every
    user rows stand in another order, and every item has the same name."""
    rng = np.random.default_rng(0)
    met = [rng.choice(40, 8, replace=False).tolist() for _ in range(30)]
    met.append([*range(40), 3, 5])  # every item is in training
    other = [[*row[:-2], *rng.choice(40, 2).tolist()] for row in met]
    one, two = raw(met), raw(other)
    assert one.item_ids != two.item_ids
    assert sorted(one.item_ids) == sorted(two.item_ids)
    names = []
    for dataset in (one, two):
        train = leave_one_out(dataset).train
        codes = make(name).fit(train, Run()).codes
        spelt = [tuple(codes.vocabulary[token] for token in row if token >= 0) for row in codes.tokens]
        names.append(dict(zip(train.item_ids, spelt, strict=True)))
    assert names[0] == names[1]


def raw(histories: Sequence[Sequence[int]]) -> Dataset:
    """Events as a file lists them, and what is known of each item beside them: three are called alike, and pairs read
    alike."""
    users = np.repeat(np.arange(len(histories)), [len(row) for row in histories])
    items = [f"i{item}" for row in histories for item in row]
    log = dataset_from("raw", pl.DataFrame({"user": users, "item": items, "time": np.arange(len(items))}))
    number = log.items["item"].str.slice(1).cast(pl.Int64)
    words = np.random.default_rng(1).choice(["war", "love", "space", "sea", "home", "king", "rain"], (20, 3))
    return replace(log, items=log.items.with_columns(
        title=pl.Series([f"Book {max(row, 2)}" for row in number]),
        text=pl.Series([" ".join(words[row // 2]) for row in number]),
        category=pl.Series([[["east", "west"][row % 2], f"shelf {row % 4}"] for row in number]),
    ))  # fmt: skip


@pytest.mark.parametrize("name", ["rq-vae", "residual-kmeans", "product"])
def test_vectors_may_be_given_and_only_seen_items_teach(name: str) -> None:
    from tests.tokenizers.item_logs import texts

    train = texts(80, 8, unseen=20)
    vectors = item_vectors(train, KindEncoder())
    tokenizer = make(name)
    assert isinstance(tokenizer, NamesVectors)
    codes = tokenizer.fit(train, Run(), vectors).codes
    strange = vectors.copy()
    strange[60:] = 40 * np.random.default_rng(0).normal(size=strange[60:].shape)
    other = tokenizer.fit(train, Run(), strange)
    state, first = other.state(), make(name).fit(train, Run(), vectors).state()  # type: ignore[call-arg]
    for key in first:
        np.testing.assert_array_equal(first[key], state[key])  # what was learnt is the same
    assert (codes.tokens != other.codes.tokens).any()
    grown = tokenizer.fit(train, Run(), vectors).add(longer(train, 3, text=["a"] * 3), vectors[:3])
    assert grown.codes.n_items == 83
    with pytest.raises(DataError, match=r"3 items need as many vectors, not an array of \(2, 16\)"):
        tokenizer.fit(train, Run(), vectors).add(longer(train, 3, text=["a"] * 3), vectors[:2])
    vectors[4, 2] = np.nan
    with pytest.raises(DataError, match="hold numbers that are not finite"):
        tokenizer.fit(train, Run(), vectors)
    tokenizer.encoder = None
    with pytest.raises(TrainingError, match="has no encoder here: give it one, or the items' vectors"):
        tokenizer.fit(train, Run())
    nobody = train.keeping(np.zeros(train.n_interactions, dtype=bool))
    assert tokenizer.fit(nobody, Run(max_steps=2), strange).codes.n_items == train.n_items
