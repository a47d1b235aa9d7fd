"""What a chat model is shown within a fit, of every system that asks one: the train part. Showing more stops it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from palate.annotation.chat import ChatAnnotator
from palate.annotation.tasks import TASKS
from palate.backbones.scripted import Scripted
from palate.core.dataset import Dataset
from palate.core.errors import LeakError
from palate.core.fence import Fence, fenced
from palate.core.run import Run
from palate.core.split import Split
from palate.curve import data_efficiency
from palate.data.split import leave_one_out
from palate.data.world import world
from palate.experiment import evaluate, fit, make_plan
from palate.systems import build, system

MARK = "zzyzx"
SYSTEMS: dict[str, dict[str, Any]] = {
    "rlmrec": {},
    "llmrec": {"base.training.epochs": 1},
    "ulmrec": {"retriever.training.epochs": 1, "user_index.training.epochs": 1, "backbone.steps": 2},
    "mender-emb": {},
    "mender-tok": {"reader.steps": 2},
    "lc-rec": {"backbone.steps": 2},
}
WORDS = json.dumps({"summarization": "For sailors.", "reasoning": "Ships."})


@pytest.fixture(scope="module")
def split() -> Split:
    """Reviews of events that validation and test ask about hold a word of their own."""
    whole = world("test").dataset
    made = leave_one_out(whole)
    late = np.isin(np.arange(whole.n_interactions), np.concatenate([made.valid.events, made.test.events]))
    marked = pl.when(pl.Series(late)).then(pl.lit(f"So {MARK}.")).otherwise(pl.col("review").fill_null("Well."))
    return leave_one_out(replace(whole, interactions=whole.interactions.with_columns(marked.alias("review"))))


def plan_of(name: str, folder: Path) -> Any:
    asking = {
        "annotator": "chat", "annotator.ledger": str(folder / "l.sqlite"), "annotator.chat": "recorder",
        "annotator.chat.path": str(folder / "said.jsonl"), "annotator.chat.chat": "scripted",
        "annotator.chat.chat.replies": [WORDS], "annotator.chat.chat.again": True,
    }  # fmt: skip
    if system(name).missing:
        pytest.skip(f"{name} needs {', '.join(system(name).missing)}")
    return make_plan(name, "world-test", preset="tiny", settings=asking | SYSTEMS[name])


def handed_everything(monkeypatch: pytest.MonkeyPatch, name: str, split: Split) -> None:
    """From now on a fit of this system reads the whole dataset, whatever it is given."""
    kind = system(name).kind
    once = kind.fit

    def everything(self: Any, train: Dataset, run: Run, judge: Any = None) -> Any:
        return once(self, split.dataset, run, judge)

    monkeypatch.setattr(kind, "fit", everything)


def shown(folder: Path) -> str:
    """All prompts of a recording."""
    lines = (folder / "said.jsonl").read_text(encoding="utf-8").splitlines()
    return "\n".join(message["content"] for line in lines for message in json.loads(line)["request"]["messages"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_prompts_of_a_fit_show_the_train_part(name: str, split: Split, tmp_path: Path) -> None:
    fit(plan_of(name, tmp_path), tmp_path / "run", Run(max_steps=1), split=split)
    told = shown(tmp_path)
    own = split.train.interactions["review"].to_list()
    assert sum(json.dumps(review, ensure_ascii=False)[1:-1] in told for review in own[:50]) > 5
    assert MARK not in told


def test_a_run_and_its_report_name_the_prompts_and_how_answers_were_read(split: Split, tmp_path: Path) -> None:
    plan = plan_of("rlmrec", tmp_path)
    fitted = fit(plan, tmp_path / "run", Run(max_steps=1), split=split)
    prompts = [TASKS[kind].prompt for kind in ("item-profile", "user-profile")]
    assert list(fitted.facts["asked"]) == prompts
    said = fitted.facts["asked"][prompts[0]]
    assert said == {"model": "scripted/1", "author": "scripted", "records": {"tools plain": split.train.n_items}}
    again = fit(plan, tmp_path / "run", Run(max_steps=1, resume=True), split=split)
    assert again.facts["asked"] == fitted.facts["asked"], "read from what was saved"
    report = evaluate(fitted, split=split)
    assert f"run: prompt {prompts[0]}, asked of scripted: {split.train.n_items} tools plain" in report.notes
    asking = {"annotator.chat.chat.replies": ["no"], "annotator.ledger": str(tmp_path / "other.sqlite")}
    mute = make_plan("rlmrec", "world-test", preset="tiny", settings=plan.config | asking)
    records = fit(mute, tmp_path / "mute", Run(max_steps=1), split=split).facts["asked"][prompts[0]]["records"]
    assert records == {"tools failed": split.train.n_items}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_fit_that_is_handed_the_whole_data_stops_before_it_asks(
    name: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(name, tmp_path)
    handed_everything(monkeypatch, name, split)
    with pytest.raises(
        LeakError, match=r"a prompt has read the event of user '.*' with item '.*', which does not teach"
    ):
        fit(plan, tmp_path / "run", Run(max_steps=1), split=split)
    assert not (tmp_path / "said.jsonl").exists() or MARK not in shown(tmp_path)


def test_without_a_fence_the_words_would_have_been_shown(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the two tests above look at the right place."""
    plan = plan_of("rlmrec", tmp_path)
    build("rlmrec", plan.config).fit(split.dataset, Run(max_steps=1))
    assert MARK in shown(tmp_path)


def test_a_search_and_a_curve_have_the_fence_too(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of("rlmrec", tmp_path)
    handed_everything(monkeypatch, "rlmrec", split)
    pytest.importorskip("optuna")
    with pytest.raises(LeakError, match="does not teach"):
        fit(plan, tmp_path / "run", Run(max_steps=1), split=split, tune=1)
    with pytest.raises(LeakError, match="does not teach"):
        data_efficiency({"rlmrec": plan}, split, Run(max_steps=1), shares=(1.0,))


def test_a_fence_stands_while_a_fit_runs_and_tells_events_by_ids(split: Split) -> None:
    class Holder:
        parts = {"annotator": ChatAnnotator(chat=Scripted())}

    class Outer:
        parts = {"inner": Holder()}

    fence, annotator = Fence(split), Holder.parts["annotator"]
    with contextlib.suppress(LeakError), fenced(Outer(), fence):
        assert annotator.fence is fence
        raise LeakError("stopped")
    assert annotator.fence is None
    train, whole = split.train, split.dataset
    assert fence.check(train, np.arange(train.n_interactions)) == train.n_interactions
    turned = whole.with_items_in(np.arange(whole.n_items)[::-1])
    taught = np.setdiff1d(np.arange(whole.n_interactions), np.concatenate([split.valid.events, split.test.events]))
    assert fence.check(turned, taught) == len(taught), "other rows, the same ids"
    for event in (*split.valid.events[:3], *split.test.events[:3]):
        with pytest.raises(LeakError, match=whole.user_ids[whole.user_rows[event]]):
            fence.check(turned, np.array([taught[0], event]))
    with pytest.raises(LeakError, match="not in the train part"):
        fence.check(train, np.array([train.n_interactions]))
