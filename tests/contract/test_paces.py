"""Every system with a T5 takes its paces: each kind of weight learns at the share that is meant for it."""

from __future__ import annotations

from typing import Any

import pytest

from palate.core.protocols import Recommender
from palate.core.run import Run
from palate.core.split import Split
from palate.training.loop import rated
from tests.contract.questions import small

PLACES = {"tiger": "t5", "p5": "t5", "mender-tok": "decoder.t5", "mender-emb": "decoder.t5"}
"""Where the T5 stands in each network."""


@pytest.mark.parametrize("one", PLACES)
def test_queries_and_token_table_learn_at_their_own_paces(one: str, split: Split, fits: dict[str, Recommender]) -> None:
    inside = PLACES[one]
    if one not in fits:
        fits[one] = small(one).fit(split.train, Run(max_steps=60))
    system: Any = fits[one]
    even = system.config
    network = even.network.model_copy(update={"paced": True})
    try:
        system.config = even.model_copy(update={"network": network})
        groups = rated(system.network, system.training)
    finally:
        system.config = even
    shares = {id(weight): group["share"] for group in groups for weight in group["params"]}
    for name, weight in system.network.named_parameters():
        if not name.startswith(f"{inside}."):
            continue
        if name == f"{inside}.tokens.weight":
            assert shares[id(weight)] == 5
        elif ".query." in name:
            assert shares[id(weight)] == network.head_width**-0.5
        else:
            assert shares[id(weight)] == 1, name
    assert {5, 1, network.head_width**-0.5} <= set(shares.values())
