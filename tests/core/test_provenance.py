"""A folder that was fitted on other events than the train part is a leak."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from palate.core import store
from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.provenance import UNVERIFIED, check_fitted_on


@pytest.fixture
def train() -> Dataset:
    events = pl.DataFrame({"user_row": [0, 0], "item_row": [0, 1]}).cast(pl.Int32)
    return Dataset("tiny", events, pl.DataFrame({"item": ["a", "b"]}), pl.DataFrame({"user": ["u"]}))


def test_the_train_part_or_no_events_at_all(train: Dataset, tmp_path: Path) -> None:
    store.save(tmp_path / "vectors", object(), fitted_on=train.fingerprint)
    store.save(tmp_path / "text", object(), fitted_on=store.NO_DATA)
    assert check_fitted_on(tmp_path / "vectors", train) is None
    assert check_fitted_on(str(tmp_path / "text"), train) is None


@pytest.mark.parametrize("allow", [False, True])
def test_other_events_are_a_leak_whatever_is_allowed(train: Dataset, tmp_path: Path, allow: bool) -> None:
    store.save(tmp_path / "vectors", object(), fitted_on=train.fingerprint)
    part = train.keeping(np.array([True, False]))
    with pytest.raises(LeakError, match=r"vectors was fitted on other interactions \(\w{12}…\).*fit it again"):
        check_fitted_on(tmp_path / "vectors", part, allow_unverified=allow)


def test_without_a_manifest_refused_or_marked(train: Dataset, tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    with pytest.raises(LeakError, match="does not say what it was fitted on"):
        check_fitted_on(tmp_path / "vectors", train)
    assert check_fitted_on(tmp_path / "vectors", train, allow_unverified=True) == UNVERIFIED


def test_a_manifest_that_was_edited_is_none(train: Dataset, tmp_path: Path) -> None:
    store.save(tmp_path / "vectors", object(), fitted_on="elsewhere")
    path = tmp_path / "vectors" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fitted_on": train.fingerprint}))
    with pytest.raises(LeakError, match="does not say"):
        check_fitted_on(tmp_path / "vectors", train)
