"""What the speed of a head over all items rests on, counted: one reading of as many places as items, whatever is asked.

No time is asserted anywhere: another machine, or this one when it is busy, has others. What the benchmark measures is
in ``docs/results.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import lite_vs_beam as bench
from palate.core.ragged import Ragged
from palate.core.requests import Requests


def places_read(model: Any, call: Callable[[], Any]) -> list[int]:
    """Of each forward of ``model``, sequences times places, while ``call`` runs."""
    found: list[int] = []

    def seen(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next(kwargs[name] for name in ("inputs_embeds", "input_ids") if kwargs.get(name) is not None)
        found.append(given.shape[0] * given.shape[1])

    hook = model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        call()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize(("items", "beams"), [(500, 5), pytest.param(bench.ITEMS, bench.BEAMS, marks=pytest.mark.slow)])
def test_an_answer_is_one_reading_of_twenty_places_and_a_search_reads_many(items: int, beams: int) -> None:
    """The head: 20 places once. ``generate``: four forwards, a prompt of 80 tokens for each beam and a token a beam
    after that. Our own search: the prompt once for all its beams, and then the beams."""
    history = np.random.default_rng(1).integers(0, items, bench.HISTORY)
    lite, asked = bench.served(items), Requests(Ragged.of([history]))
    for k in (1, bench.K, 200):
        assert places_read(lite.rec_model.model, lambda k=k: lite.recommend(asked, k)) == [bench.HISTORY]
    names, speller = bench.draw_names(items), bench.network()
    prompt = torch.from_numpy(names[history].reshape(1, -1))
    spelt, more = bench.HISTORY * bench.LEVELS, bench.LEVELS - 1
    generate = places_read(speller.model, bench.generator(speller, names, prompt, beams))
    assert generate == [beams * spelt, *([beams] * more)]
    search = places_read(speller.model, bench.searcher(speller, names, prompt, beams))
    assert search[0] == spelt
    assert len(search) == 1 + more
    assert sum(search) <= spelt + more * beams


@pytest.mark.slow
def test_the_whole_benchmark_has_its_figures() -> None:
    """Both lines, each a ratio of two medians that were measured, after both sides were found to agree."""
    lines = bench.run()
    assert [line.name for line in lines] == ["lite-vs-beam", "lite-vs-beam, our own search"]
    for line, rival in zip(lines, ("generate", "our beam search"), strict=True):
        assert line.reference.startswith(f"{bench.BEAMS} beams of four tokens by {rival} (matmul ")
        assert all(isfinite(figure) and figure > 0 for figure in (line.seconds, line.reference_seconds, line.peak_mb))
        assert line.ratio == pytest.approx(line.seconds / line.reference_seconds)
