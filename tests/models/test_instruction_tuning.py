"""A set of instructions as it is taught: kept-back wordings never occur, weights are kept; the model may be frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("transformers")

from palate.core.errors import ConfigError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.instruction_batches import InstructionBatch
from palate.data.instructions import PLACES, Template
from palate.models.generative.lc_rec import EVERY_TASK, LCRec, LCRecConfig
from palate.parts.instructions import ASKING, TASKS, UNSEEN, taught_with
from palate.systems import build
from tests.models.test_lc_rec import NANO, batches_of, log

TRAIN = log()
SMALL = {
    "tokenizer": "random",
    "batch_size": 32,
    "training": {"epochs": 1000, "warmup_steps": 0, "learning_rate": 0.05},
}


def fitted(steps: int = 2, **settings: Any) -> LCRec:
    return build("lc-rec", {**SMALL, "backbone": NANO, **settings}).fit(TRAIN, Run(max_steps=steps))  # type: ignore[return-value]


def said(system: LCRec, batch: InstructionBatch) -> list[str]:
    """Everything that a batch tells, as text."""
    rows = [part.tokens for part in (batch.alone, batch.branched) if part is not None]
    return [text for tokens in rows for text in system.backbone.tokenizer.inner.decode_batch(tokens.tolist())]


def places(template: Template) -> frozenset[str]:
    return frozenset(place for place in PLACES if any(f"{{{place}}}" in text for text in template))


def test_kept_back_wordings_never_occur_in_teaching_and_can_be_asked_with() -> None:
    openings = {task: [TASKS[task][row].ask.partition("{")[0] for row in rows] for task, rows in UNSEEN.items()}
    kept_back = [opening for some in openings.values() for opening in some if len(opening) > 15]
    seen = fitted(wordings="seen", prefixes=2)
    told = [text for batch in batches_of(seen, TRAIN).epoch(0) for text in said(seen, batch)]
    assert len(told) > 100
    assert len(kept_back) > 8
    assert not [opening for opening in kept_back if any(opening in text for text in told)]
    everything = fitted(prefixes=2)
    told = [text for epoch in range(3) for batch in batches_of(everything, TRAIN).epoch(epoch)
            for text in said(everything, batch)]  # fmt: skip
    assert [opening for opening in kept_back if any(opening in text for text in told)]
    asked = Requests.of([[1, 2], []])
    other = LCRec(seen.config.model_copy(update={"asking": "unseen"}), **seen.parts)
    other.network = seen.network
    first, last = (system._speak(asked) for system in (seen, other))
    words = [system.backbone.tokenizer.inner.decode(speaker.tokens[0].tolist())  # type: ignore[attr-defined]
             for system, speaker in ((seen, first), (other, last))]  # fmt: skip
    assert "These items were chosen one after another" in words[0]
    assert "The user has met" in words[1]


@pytest.mark.parametrize("task", EVERY_TASK)
def test_what_is_kept_back_asks_for_nothing_that_is_not_taught(task: str) -> None:
    taught = {places(template) for template in taught_with(task, "seen")}
    assert {places(TASKS[task][row]) for row in UNSEEN[task]} <= taught
    assert all(row < ASKING for row in UNSEEN["seqrec"])


def test_the_facts_say_how_tasks_shared_the_epoch() -> None:
    plain = fitted(prefixes=2).facts["examples an epoch"]
    weighted = fitted(prefixes=2, weights={"seqrec": 5, "item2index": 3, "fusionseqrec": 0}).facts["examples an epoch"]
    total = sum(weighted.values())
    assert total == sum(plain.values())
    assert weighted["fusionseqrec"] == 0
    n_others = sum(n > 0 for n in weighted.values()) - 2
    assert weighted["seqrec"] / total == pytest.approx(5 / (8 + n_others), abs=0.02)
    even = fitted(prefixes=2, temperature=50).facts["examples an epoch"]
    assert max(even.values()) < 1.3 * min(n for n in even.values() if n)


def test_weights_that_leave_nothing_of_what_has_examples_are_refused() -> None:
    """Here nobody wrote what the other task needs."""
    system: Any = build(
        "lc-rec", {**SMALL, "backbone": NANO, "tasks": ["seqrec", "itemsearch"], "weights": {"seqrec": 0}}
    )
    with pytest.raises(ConfigError, match=r"leave nothing to teach: of the tasks that have examples \(seqrec\) all"):
        system.fit(replace(TRAIN, interactions=TRAIN.interactions.drop("review")), Run(max_steps=1))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"asking": "unseen"}, "asking=unseen needs wordings=seen"),
        ({"wordings": "seen", "templates": 9}, "there are 8 such wordings to ask with, not 9"),
        ({"tasks": ["seqrec"], "weights": {"seqrec": 0}}, "leave nothing to teach"),
        ({"tasks": ["seqrec"], "weights": {"itemsearch": 2}}, "weights are of tasks that are taught"),
        ({"backbone": {**NANO, "objective": "masked"}}, "needs a decoder-only language model"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        fitted(**settings)


def test_the_defaults_teach_everything_as_it_comes() -> None:
    config = LCRecConfig()
    assert (config.weights, config.temperature, config.wordings) == ({}, 1.0, "all")
