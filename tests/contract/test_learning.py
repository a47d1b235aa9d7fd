"""What every system promises about fitting, saving, loading and going on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import PalateError, TrainingError
from palate.core.protocols import Continues, Recommender, ScoresAll
from palate.core.provenance import check_fitted_on
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.split import Split
from palate.data.split import leave_one_out
from palate.systems import able
from tests.contract.conftest import STEPS
from tests.contract.questions import same, small, table, write

K = 10
FEW = Run(seed=3, max_steps=5)


def answers(system: Recommender, questions: Requests) -> Rankings:
    return system.recommend(questions, K)


# -- a new process -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def elsewhere(
    split: Split, questions: Requests, fits: dict[str, Recommender], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """Rankings of all saved systems, loaded in a new process that knows no dataset."""
    folder = tmp_path_factory.mktemp("saved")
    for row in able("Recommender"):
        if row.name not in fits:
            fits[row.name] = small(row.name).fit(split.train, Run(max_steps=STEPS))
        fits[row.name].save(folder / row.name)
    write(questions, folder / "questions.npz")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.answer_all", str(folder), str(torch.get_num_threads()), str(K)],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "answers.npz") as stored:
        return {"folder": np.array(str(folder)), **{key: stored[key] for key in stored.files}}


def test_saved_is_loaded_in_a_new_process(
    name: str, system: Recommender, questions: Requests, elsewhere: dict[str, np.ndarray]
) -> None:
    here = answers(system, questions)
    np.testing.assert_array_equal(elsewhere[f"{name}/item_rows"], here.item_rows)
    assert elsewhere[f"{name}/scores"].tobytes() == here.scores.tobytes()


def test_a_saved_folder_says_what_it_was_fitted_on(name: str, split: Split, elsewhere: dict[str, np.ndarray]) -> None:
    folder = Path(str(elsewhere["folder"])) / name
    assert store.read_manifest(folder)["fitted_on"] == split.train.fingerprint
    assert check_fitted_on(folder, split.train) is None
    with pytest.raises(PalateError, match="fitted on other interactions"):
        check_fitted_on(folder, split.dataset)


def test_what_is_loaded_keeps_settings_and_can_be_saved_again(
    name: str, questions: Requests, elsewhere: dict[str, np.ndarray], tmp_path: Path
) -> None:
    first = store.load(Path(str(elsewhere["folder"])) / name)
    assert type(first.config) is type(small(name).config)
    assert first.config == small(name).config
    first.save(tmp_path / name)
    first.save(tmp_path / name)
    assert same(answers(store.load(tmp_path / name), questions), answers(first, questions))


# -- fitting -----------------------------------------------------------------------------------------------------------


def test_unfitted_is_our_error(name: str, questions: Requests, tmp_path: Path) -> None:
    system = small(name)
    with pytest.raises(TrainingError, match="not fitted yet"):
        system.recommend(questions, K)
    with pytest.raises(TrainingError, match="not fitted yet"):
        table(system, questions, 3)
    with pytest.raises(TrainingError, match="not fitted yet"):
        system.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_the_same_seed_gives_the_same_ranking_and_a_second_fit_forgets_the_first(
    name: str, split: Split, questions: Requests
) -> None:
    """To the bit. The first fit of ``twice`` is on another log with another seed."""
    once = small(name).fit(split.train, FEW)
    twice = small(name).fit(smaller(split.train), Run(seed=9, max_steps=2)).fit(split.train, FEW)
    assert same(answers(twice, questions), answers(once, questions))


def test_fit_returns_the_system(name: str, split: Split) -> None:
    system = small(name)
    assert system.fit(smaller(split.train), Run(max_steps=1)) is system


def test_only_the_train_part_is_read(name: str, split: Split, questions: Requests) -> None:
    """With every validation and test event replaced by another item, the train part teaches the same."""
    poisoned = leave_one_out(poison(split))
    assert not np.array_equal(poisoned.test.targets, split.test.targets)
    honest, other = small(name).fit(split.train, FEW), small(name).fit(poisoned.train, FEW)
    assert same(answers(honest, questions), answers(other, questions))


def test_fitting_changes_nothing_of_the_log(name: str, split: Split) -> None:
    train = smaller(split.train)
    kept = [train.item_rows.copy(), train.user_rows.copy(), train.times.copy()]  # type: ignore[union-attr]
    small(name).fit(train, Run(max_steps=2))
    for column, before in zip((train.item_rows, train.user_rows, train.times), kept, strict=True):
        np.testing.assert_array_equal(column, before)


def test_a_log_that_teaches_nothing_breaks_nothing(name: str) -> None:
    """One event a user, an item that nobody met, a user who met nothing; and no event at all."""
    for events in ([(0, 0), (1, 1), (3, 0)], []):
        log = tiny_log(events, n_users=4, n_items=3)
        system = small(name).fit(log, Run(max_steps=2))
        rankings = system.recommend(Requests.of([[], [0], [2], [0, 1]], user_rows=np.array([-1, 0, 2, 1])), 2)
        assert rankings.item_rows.shape == (4, 2)
        if events and isinstance(system, ScoresAll):  # one that says names learns what people begin with
            assert rankings.item_rows[0, 0] == 0, "the newcomer is shown what most people met"


def test_the_judge_sees_a_system_that_can_answer(name: str, split: Split, questions: Requests) -> None:
    """Whenever a system asks its judge, it answers as it will when training stops there."""
    seen: list[Rankings] = []

    def judge(system: Recommender) -> float:
        seen.append(answers(system, questions))
        return float(len(seen))

    system = small(name).fit(split.train, FEW, judge)
    if seen:
        assert same(seen[-1], answers(system, questions))


# -- going on ----------------------------------------------------------------------------------------------------------


def test_goes_on_with_a_grown_catalogue(
    name: str, split: Split, questions: Requests, elsewhere: dict[str, np.ndarray], tmp_path: Path
) -> None:
    system = store.load(Path(str(elsewhere["folder"])) / name)
    if not isinstance(system, Continues):
        assert not hasattr(system, "continue_fit")
        return
    before = answers(system, questions)
    later = grown(split.train)
    assert system.continue_fit(later, FEW) is system
    n = later.n_items
    scores = table(system, Requests.for_users(later, np.arange(later.n_users)), n)
    assert np.isfinite(scores[:, -1]).all(), "the new item, which two new users met, can be scored"
    assert (system.recommend(questions, K).item_rows >= 0).all()
    after = answers(system, questions[:40])
    overlap = [len(np.intersect1d(a, b)) for a, b in zip(before.item_rows[:40], after.item_rows, strict=True)]
    assert np.mean(overlap) > 0.6 * K, "five steps do not forget what was learnt"
    system.save(tmp_path / name)
    assert store.read_manifest(tmp_path / name)["fitted_on"] == later.fingerprint
    assert same(answers(store.load(tmp_path / name), questions), answers(system, questions))


def test_going_on_needs_a_first_fit(name: str, split: Split) -> None:
    system = small(name)
    if isinstance(system, Continues):
        with pytest.raises(TrainingError, match="not fitted yet"):
            system.continue_fit(split.train, FEW)


# -- logs made from the train part -------------------------------------------------------------------------------------


def smaller(train: Dataset) -> Dataset:
    """The events of every other user."""
    return train.keeping(train.user_rows % 2 == 0)


def poison(split: Split) -> Dataset:
    """The whole log with every validation and test event about another item."""
    asked = np.concatenate([split.valid.events, split.test.events])
    items = split.dataset.item_rows.copy()
    items[asked] = (items[asked] + 7) % split.dataset.n_items
    return replace(
        split.dataset,
        interactions=split.dataset.interactions.with_columns(pl.Series("item_row", items, dtype=pl.Int32)),
    )


def grown(train: Dataset) -> Dataset:
    """Two more users and one more item, which both of them met last."""
    n, users = train.n_items, train.n_users
    first = train.histories.row(0).tolist()
    rows = [(users + new, item) for new in range(2) for item in [*first, n]]
    last = int(train.times.max())  # type: ignore[union-attr]
    more = pl.DataFrame(
        {
            "user_row": pl.Series([user for user, _ in rows], dtype=pl.Int32),
            "item_row": pl.Series([item for _, item in rows], dtype=pl.Int32),
            "time": pl.Series([last + 3_600_000 * (1 + place) for place in range(len(rows))], dtype=pl.Int64),
        }
    )
    return Dataset(
        train.name,
        pl.concat([train.interactions, more], how="diagonal_relaxed"),
        pl.concat([train.items, pl.DataFrame({"item": ["a new book"]})], how="diagonal"),
        pl.concat([train.users, pl.DataFrame({"user": ["a new reader", "another"]})], how="diagonal"),
        train.clock,
        train.about,
    )


def tiny_log(events: list[tuple[int, int]], n_users: int, n_items: int) -> Dataset:
    table = pl.DataFrame(
        {
            "user_row": pl.Series([user for user, _ in events], dtype=pl.Int32),
            "item_row": pl.Series([item for _, item in events], dtype=pl.Int32),
            "time": pl.Series(range(len(events)), dtype=pl.Int64),
        }
    )
    items, users = [f"i{row}" for row in range(n_items)], [f"u{row}" for row in range(n_users)]
    return Dataset("tiny", table, pl.DataFrame({"item": items, "title": items}), pl.DataFrame({"user": users}))
