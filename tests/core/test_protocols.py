"""A system that writes ``score_blocks`` can answer; abilities are asked with ``isinstance``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate.core.protocols import Continues, FloatArray, Recommender, ScoresAll
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Progress, Run, Silent


class Fixed(ScoresAll):
    """Scores do not depend on who asks, except that the last item of a history is liked again."""

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        for start in range(0, len(requests), 2):
            some = requests[start : start + 2]
            block = np.tile(np.array([0.1, 0.3, 0.2, np.nan], dtype=np.float32), (len(some), 1))
            last = some.histories.last(1)
            block[last.row_numbers(), last.flat()] = 1
            yield block


def test_answers_follow_from_score_blocks() -> None:
    requests = Requests.of([[], [0], [2, 1]])
    rankings = Fixed().recommend(requests, 2)
    assert rankings.item_rows.tolist() == [[1, 2], [0, 1], [1, 2]]
    assert rankings.exact
    left = Fixed().recommend(requests.leaving_out_history(), 4)
    assert left.item_rows.tolist() == [[1, 2, 0, -1], [1, 2, -1, -1], [0, -1, -1, -1]]
    some = Requests.of([[], [0], [2, 1]], candidates=Ragged.of([[3, 0], [2], []]))
    assert Fixed().recommend(some, 2).item_rows.tolist() == [[0, -1], [2, -1], [-1, -1]]


def test_score_agrees_with_recommend() -> None:
    requests = Requests.of([[], [0], [2, 1]])
    scores = Fixed().score(requests, Ragged.of([[1, 3, 9], [0], []]))
    np.testing.assert_array_equal(scores, np.array([0.3, np.nan, np.nan, 1.0], dtype=np.float32))


def test_abilities_are_what_a_system_has() -> None:
    assert isinstance(Fixed(), ScoresAll)
    assert not isinstance(Fixed(), Recommender)
    assert not isinstance(Fixed(), Continues)


def test_a_run_watches_nobody_unless_asked() -> None:
    progress: Progress = Run().progress
    assert isinstance(progress, Silent)
    progress.start("work", None)
    progress.advance(2, loss=1.0)
    progress.finish()
