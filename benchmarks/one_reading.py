"""One step of learning all events of a window from one reading of it, against a reading for each event.

TIGER's T5 reads forward and is asked at every place; LC-Rec tells all questions about a window as branches of one row.
The reference is the same network with the same targets, each after a prefix of its own, in batches of like length. The
losses must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch

from benchmarks.harness import Result, compare, must
from palate.core.dataset import Dataset
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.data.batches import PrefixBatches
from palate.data.build import dataset_from
from palate.data.instruction_batches import InstructionBatch, InstructionBatches
from palate.data.instructions import Examples
from palate.models.generative.lc_rec import LCRec, item_words
from palate.models.generative.tiger import TIGER
from palate.parts.instructions import Words
from palate.systems import build

USERS, LENGTH, ITEMS, AT_ONCE = 32, 20, 1000, 128
T5 = {"width": 128, "layers": 3, "heads": 4, "head_width": 32, "forward_width": 512, "dropout": 0.0, "reads": "forward"}
LLAMA = {"width": 96, "heads": 4, "layers": 3, "forward_width": 256, "vocabulary": 512, "steps": 0}


def run(quick: bool = False) -> list[Result]:
    users, length, repeats = (4, 5, 1) if quick else (USERS, LENGTH, 7)
    log = histories(users, length + 1)
    said = "a reading for each event"
    results = []
    for name, (once, apart) in {"t5": of_t5(log, length), "branches": of_branches(log, length)}.items():
        must(np.isclose(once(), apart(), rtol=1e-4), f"{name}: the losses differ")
        results.append(compare(f"one-reading, {name}", once, {said: apart}, repeats=repeats))
    return results


def histories(users: int, events: int) -> Dataset:
    """Everybody meets so many items, drawn."""
    rng = np.random.default_rng(0)
    table = pl.DataFrame({
        "user": np.repeat([f"u{user:03d}" for user in range(users)], events),
        "item": [f"i{item:04d}" for item in rng.integers(0, ITEMS, users * events)],
        "time": np.tile(np.arange(events) * 1000, users),
    })  # fmt: skip
    return dataset_from("drawn", table)


def step(network: torch.nn.Module, losses: Sequence[tuple[Callable[[], torch.Tensor], float]]) -> float:
    """Loss and gradients of parts that count so much each."""
    network.zero_grad()
    total = 0.0
    for loss, share in losses:
        part = loss() * share
        part.backward()
        total += part.item()
    return total


def of_t5(log: Dataset, length: int) -> tuple[Callable[[], float], Callable[[], float]]:
    system = build("tiger", {"tokenizer": "independent", "network": T5, "length": length, "batch_size": len(log.users)})
    assert isinstance(system, TIGER)
    network = system.fit(log, Run(max_steps=1)).fitted()
    (together,) = system.lesson(log, Run()).batches.epoch(0)
    prefixes = list(PrefixBatches(log, length=length, batch_size=AT_ONCE, seed=0).epoch(0))
    n = sum(len(batch.targets) for batch in prefixes)
    must(n == len(together.targets), "both sides have the same targets")

    def once() -> float:
        return step(network, [(lambda: system.loss(network, together), 1.0)])

    def apart() -> float:
        return step(
            network, [(lambda b=batch: system.loss(network, b), len(batch.targets) / n) for batch in prefixes]  # type: ignore[misc]
        )  # fmt: skip

    return once, apart


def of_branches(log: Dataset, length: int) -> tuple[Callable[[], float], Callable[[], float]]:
    users = len(log.users)
    system = build(
        "lc-rec", {"tokenizer": "independent", "backbone": {"name": "nano", "settings": LLAMA}, "tasks": ["seqrec"],
                   "length": length, "batch_size": users * (length + 1)},
    )  # fmt: skip
    assert isinstance(system, LCRec)
    network = system.fit(log, Run(max_steps=1)).fitted()
    system._words = Words.of(log, *item_words(log, system.config.description), system.annotator, ("seqrec",))
    batches = system.lesson(log, Run()).batches
    assert isinstance(batches, InstructionBatches)
    examples, chosen, asked = batches.examples(0)
    window = np.flatnonzero(asked)
    together = batches._batch(chosen[window], examples[window], asked[window])
    each = separate(examples[window], asked[window], batches.events)
    wording = np.repeat(chosen[window], asked[window])
    order = np.argsort(each.stop - each.start, kind="stable")
    alone: list[InstructionBatch] = [
        batches._batch(wording[rows], each[rows], np.zeros(len(rows), dtype=np.int64))
        for rows in np.split(order, range(AT_ONCE, len(order), AT_ONCE))
    ]
    shares = np.array([float(batch.alone.taught.sum()) for batch in alone if batch.alone is not None])

    def once() -> float:
        return step(network, [(lambda: system.loss(together), 1.0)])

    def apart() -> float:
        parts = zip(alone, shares / shares.sum(), strict=True)
        return step(network, [(lambda b=batch: system.loss(b), share) for batch, share in parts])  # type: ignore[misc]

    return once, apart


def separate(windows: Examples, asked: np.ndarray, events: np.ndarray) -> Examples:
    """A question for each place of each window."""
    places = Ragged.from_lengths(np.arange(asked.sum()), asked)
    nth = places.flat() - np.repeat(places.offsets()[:-1], asked) + 1
    start = np.repeat(windows.start, asked)
    return Examples.about(events[start + nth], start=start, stop=start + nth)
