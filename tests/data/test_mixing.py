"""How tasks share an epoch: by hand, and counted over ten thousand draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from palate.data.instruction_batches import InstructionBatches, Pool
from palate.data.instructions import Examples, Phrasebook, Templates, pieces_of
from palate.data.mixing import quotas, shares
from tests.data.test_instructions import EVENTS, NAMES, PAD, TASKS, letters

WEIGHTS = {0: 5.0, 1: 2.0}
"""The third task weighs 1."""


def test_shares_by_hand() -> None:
    sizes = {0: 90, 1: 9, 2: 1, 3: 0}
    assert shares(sizes) == pytest.approx({0: 0.9, 1: 0.09, 2: 0.01})
    assert shares(sizes, temperature=2) == pytest.approx(
        {0: 90**0.5 / 13.4868, 1: 3 / 13.4868, 2: 1 / 13.4868}, rel=1e-4
    )
    assert shares(sizes, {0: 3, 1: 0}) == pytest.approx({0: 0.75, 1: 0.0, 2: 0.25})
    assert shares({0: 0}) == {}
    assert quotas([0.75, 0.0, 0.25], 10, 0.0).tolist() == [7, 0, 3]
    assert quotas([0.75, 0.0, 0.25], 10, 0.6).tolist() == [8, 0, 2]
    assert all(quotas([1, 1, 1], 10, lot).sum() == 10 for lot in np.linspace(0, 0.999, 50))


def mixed(mix: dict[int, float] | None, batch_size: int = 8) -> InstructionBatches:
    """A task with single questions and windows, one of four examples, one of two."""
    pieces = pieces_of(TASKS)
    n = len(pieces)
    texts = [[" a title"] * 4, [" a text"] * 4, [" more", " less"], [" likes a"]]
    phrases = [*pieces, " ->", ",", "$", "^", *NAMES, *(text for some in texts for text in some)]
    first = {"name": n + 4, "title": n + 8, "description": n + 12, "wish": n + 16, "preference": n + 18}
    book = Phrasebook(letters(phrases), first, n + 1, n + 3, Templates.of(TASKS, pieces, mark=n, end=n + 2))
    whole = Examples.about(np.array([3, 1]), start=np.array([0, 4]), stop=np.array([3, 6]))
    pools = [
        Pool(0, Examples.about(np.array([0, 3]))), Pool(0, whole, together=True),
        Pool(1, Examples.about(np.arange(4))),
        Pool(2, Examples.about(np.array([1, 2]), wish=np.array([0, 1]))),
    ]  # fmt: skip

    class Train:
        item_rows = np.array(EVENTS)

    return InstructionBatches(Train(), book, pools, batch_size=batch_size, seed=0, pad=PAD, mix=mix)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [WEIGHTS, {0: 1.0, 1: 1.0, 2: 6.0}])
def test_ten_thousand_draws_keep_the_weights_within_two_percent(weights: dict[int, float]) -> None:
    sizes = {0: 7, 1: 4, 2: 2}
    wanted = shares(sizes, weights)
    batches = mixed(wanted)
    drawn: Counter[int] = Counter()
    epoch = 0
    while drawn.total() < 10_000:
        examples, chosen, asked = batches.examples(epoch)
        for template, n in zip(chosen.tolist(), asked.tolist(), strict=True):
            drawn[int(batches.book.templates.task[template])] += max(n, 1)
        assert (examples.stop - examples.start)[asked > 0].tolist() == asked[asked > 0].tolist()
        epoch += 1
    for task, share in wanted.items():
        assert drawn[task] / drawn.total() == pytest.approx(share, abs=0.02)
    assert drawn.total() == epoch * sum(sizes.values())


def test_a_mixed_epoch_is_as_long_as_another_and_every_batch_has_questions() -> None:
    plain, other = mixed(None), mixed(shares({0: 7, 1: 4, 2: 2}, {0: 1.0, 1: 1.0, 2: 8.0}))
    assert len(plain) == len(other) == 2
    for batches in (plain, other):
        made = list(batches.epoch(3))
        assert len(made) == 2
        assert all(batch.alone is not None or batch.branched is not None for batch in made)
    again = list(other.epoch(3, skip=1))
    assert len(again) == 1
