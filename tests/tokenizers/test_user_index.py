"""The user index: alike readers share codes, nobody shares all, and nothing but the train part is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from palate.backbones.tf_idf import TfIdf
from palate.core import store
from palate.core.config import override
from palate.core.dataset import Dataset
from palate.core.errors import TrainingError
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.split import leave_one_out
from palate.data.world import world
from palate.evaluation.index_health import index_health
from palate.tokenizers.user_index import Network, Told, UserIndex, reviews_of, softmax_within, tiny
from tests.models.reader_logs import COLOURS, colour_of, coloured_readers, dataset_of

EPOCHS = {"training.epochs": 20, "training.judge_every": 20}


def index(train: Dataset, seed: int = 0, **settings: Any) -> UserIndex:
    config = override(tiny(), {**EPOCHS, "size": 8, **settings})
    return UserIndex(config, TfIdf()).fit(train, Run(seed=seed))


@pytest.fixture(scope="module")
def train() -> Dataset:
    return coloured_readers()


@pytest.fixture(scope="module")
def fitted(train: Dataset) -> UserIndex:
    return index(train)


def shared(numbers: np.ndarray, depth: int, alike: np.ndarray) -> float:
    """How often two users that are ``alike`` (or not) share their first ``depth`` codes."""
    same = (numbers[:, None, :depth] == numbers[None, :, :depth]).all(-1)
    return float(same[alike].mean())


def test_codes_differ_and_readers_alike_share_the_first_two(train: Dataset, fitted: UserIndex) -> None:
    numbers = fitted.numbers
    assert numbers.shape == (train.n_users, 3)
    assert len(np.unique(numbers, axis=0)) == train.n_users
    colours = np.arange(train.n_users) % len(COLOURS)
    pairs = colours[:, None] == colours[None, :]
    np.fill_diagonal(pairs, False)
    others = colours[:, None] != colours[None, :]
    assert shared(numbers, 1, pairs) > 3 * shared(numbers, 1, others)
    shuffled = np.random.default_rng(0).permutation(numbers)
    assert shared(numbers, 2, pairs) > 3 * shared(shuffled, 2, pairs)


def test_a_fit_says_what_its_codes_leave_unused() -> None:
    few = coloured_readers(12)
    assert any("the last level was not spread" in note for note in index(few, size=16, levels=2).facts["notes"])
    assert index(few, size=8, levels=2, uniform_last=False, least_usage=0.0).facts["notes"] != []
    told = index_health(np.array([[0, 1], [-1, -1]]), facts={"notes": ["level 1 is thin"]})
    assert told.table().endswith("\nnote: level 1 is thin")


def test_identity_tells_apart_whom_reviews_do_not() -> None:
    """Sixty readers in fifteen groups of the very same reviews: without e_u each group is one point."""
    words = ("river", "stone", "cloud", "flame")
    said = [f"All {COLOURS[group % 4]}, and {words[group // 4]}." for group in range(15)]
    events = [(user, user % 8, user, said[user % 15]) for user in range(60)]
    train = dataset_of(events, 60)
    without, with_it = (index(train, identity=share, levels=4) for share in (0.0, 0.3))
    assert without.network is not None
    told = without._told(train, Run(), learn=False)
    points = without.network.points(told, np.arange(60))
    assert len(torch.unique(points, dim=0)) == 15
    assert without.facts["repair"]["nearest"] >= 45, "one row of codes a group at most"
    assert without.facts["repair"]["after_uniform"] >= 45, "no spreading tells equal points apart"
    assert with_it.facts["repair"]["nearest"] < 30
    assert with_it.facts["repair"]["after_uniform"] == 0
    for one in (without, with_it):
        assert len(np.unique(one.numbers, axis=0)) == 60


def test_reviews_of_what_is_asked_change_no_code() -> None:
    """With every review of validation and test replaced, the codes are the same; a train review changes some."""
    whole = world("test", readers=24).dataset
    split = leave_one_out(whole)
    asked = np.concatenate([split.valid.events, split.test.events])

    def spoilt(events: np.ndarray) -> Dataset:
        texts = whole.interactions["review"].to_list()
        for event in events.tolist():
            texts[event] = "whales, only whales and the wide sea"
        changed = replace(whole, interactions=whole.interactions.with_columns(pl.Series("review", texts)))
        return leave_one_out(changed).train

    few = {"training.epochs": 2, "training.judge_every": 2}
    honest = index(split.train, **few).numbers
    np.testing.assert_array_equal(index(spoilt(asked), **few).numbers, honest)
    taught = np.setdiff1d(np.arange(whole.n_interactions), asked)[:40]
    assert not np.array_equal(index(spoilt(taught), **few).numbers, honest)


def test_the_vector_is_that_of_the_definition() -> None:
    """Against the formula, user by user: projected reviews, softmax, sum, identity, layer norm."""
    rng = np.random.default_rng(3)
    of_user = np.array([3, 1, 2])
    vectors = torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32))
    told = Told(vectors, Ragged.from_lengths(np.arange(6), of_user))
    torch.manual_seed(0)
    network = Network(override(tiny(), {"size": 4, "hidden": [4], "width": 3}), 5, 3)
    for layer in (network.query, network.key, network.value):
        torch.nn.init.normal_(layer.weight)
    x, mean = network.fused(told, np.array([2, 0, 1]))
    for row, user in enumerate([2, 0, 1]):
        h = vectors[torch.from_numpy(np.arange(6)[of_user.cumsum()[user] - of_user[user] : of_user.cumsum()[user]])]
        e = network.users.weight[user]
        a = torch.softmax((network.key(h) @ network.query(e)) / 5**0.5, 0)
        wanted = torch.nn.functional.layer_norm((a[:, None] * network.value(h)).sum(0) + e, (5,))
        torch.testing.assert_close(x[row], wanted)
        torch.testing.assert_close(mean[row], h.mean(0))


def test_softmax_within_rows_survives_large_values() -> None:
    values, rows = torch.tensor([1000.0, 0.0, -1000.0, 5.0]), torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(softmax_within(values, rows, 2), torch.tensor([1.0, 0.0, 0.0, 1.0]))


def test_who_is_new_gets_the_codes_nearest_to_the_history(train: Dataset, fitted: UserIndex) -> None:
    """Known users keep their own whatever they are asked with; strangers with a coloured history get what is near;
    nobody else gets one."""
    requests = Requests.of([[0, 1], [8, 9], [8, 9], [], [999]], user_rows=np.array([3, -1, 5000, -1, -1]))
    asked = fitted.asked(requests)
    np.testing.assert_array_equal(asked[0], fitted.numbers[3])
    assert (asked[1] >= 0).all()
    np.testing.assert_array_equal(asked[1], asked[2])
    assert (asked[3:] == -1).all()
    said = fitted.spelled(asked)
    a, b, c = fitted.numbers[3]
    assert said[0] == f"<a_{a}> <b_{b}> <c_{c}>"
    assert said[3:] == ["", ""]


def test_who_wrote_nothing_is_told_by_the_items_met(train: Dataset) -> None:
    texts = [None if user < 8 else text for user, text in train.interactions.select("user_row", "review").iter_rows()]
    half = replace(train, interactions=train.interactions.with_columns(pl.Series("review", texts, dtype=pl.String)))
    found = index(half, **{"training.epochs": 2})
    assert found.facts["read"] == {"reviews": 168, "users who wrote": 56, "users told by their items": 8}
    assert (found.numbers >= 0).all()
    none = dataset_of([], 4)
    empty = index(none)
    assert (empty.numbers == -1).all()
    assert empty.asked(Requests.of([[1]], user_rows=np.array([0]))).tolist() == [[-1, -1, -1]]


def test_the_newest_reviews_are_read(train: Dataset) -> None:
    events, texts = reviews_of(train, 1)
    np.testing.assert_array_equal(events, np.arange(2, 3 * train.n_users, 3))
    assert texts[1] == f"So {COLOURS[colour_of(1)]}."


def test_saved_is_loaded_and_users_are_added_around_the_others(
    train: Dataset, fitted: UserIndex, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "index")
    again = store.load(tmp_path / "index")
    strangers = Requests.of([[8, 9], [12]])
    np.testing.assert_array_equal(again.asked(strangers), fitted.asked(strangers))
    assert store.read_manifest(tmp_path / "index")["fitted_on"] == train.fingerprint
    more = again.add(coloured_readers(n_users=80)).numbers
    np.testing.assert_array_equal(more[:64], fitted.numbers)
    assert len(np.unique(more, axis=0)) == 80
    with pytest.raises(TrainingError, match="named no users yet"):
        UserIndex(tiny(), TfIdf()).numbers  # noqa: B018


def test_shuffled_is_the_same_codes_at_other_users(train: Dataset, fitted: UserIndex) -> None:
    other = index(train, shuffled=True).numbers
    assert not np.array_equal(other, fitted.numbers)
    np.testing.assert_array_equal(np.unique(other, axis=0), np.unique(fitted.numbers, axis=0))
