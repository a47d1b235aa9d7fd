"""Users answered from item vectors that lie ready, against the bare User LLM and a product; and how those vectors are
made. All on the CPU: the harness knows no other device.

Ours begins at ``Requests`` with a history to leave out and ends at ``Rankings``. The reference is handed a tensor: the
User LLM's forward pass over the history's vectors by the transformers library, one product with the normalised item
vectors, and ``torch.topk``. Equal results first. The words beside a line hold the median and the 95th percentile of
single answers, and the parts: reading the user, scanning the items, the rest. The index line stands against our exact
search and says its recall. Two more lines say rates: users a second where 64 ask at once, and items a second where a
catalogue is encoded by a text model of MiniLM's size, packed, against the library's batches padded in catalogue order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import Result, compare, must
from benchmarks.item_encoding import Drawn, padded, texts
from palate.core.item_vectors import ItemVectors, keys_of
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.search import exact_top_k
from palate.models.hierarchical.hllm import HLLM
from palate.parts.item_tower import ItemTower
from palate.parts.retrieval import Indexed
from palate.systems import build
from palate.training.loop import seeded

WIDTH, HISTORY, K, USERS = 384, 50, 10, 64
SIZES = (10_000, 100_000)
LARGE, NARROW = 1_000_000, 128
BATCH = 16
"""Items that the reference encodes together."""
ROUNDING = 1e-4


def run(quick: bool = False) -> list[Result]:
    if quick:
        return [one_user(500, 32, repeats=2), many_users(500, 32, repeats=2), encoding(24, 1), index(500, 32)]
    lines = [one_user(n, WIDTH, repeats=21) for n in SIZES]
    rates = [many_users(SIZES[0], WIDTH, repeats=7), encoding(128, 3)]
    return [*lines, one_user(LARGE, NARROW, repeats=21), *rates, index(SIZES[0], WIDTH)]


def one_user(n: int, width: int, *, repeats: int) -> Result:
    system, requests = serving(n, width)
    indexed = Indexed(system)
    ask = requests[:1]
    bare = bare_answer(system, ask)
    rows, best = bare()
    found = indexed.recommend(ask, K)
    seen = set(ask.histories.row(0).tolist())
    kept = [(row, score) for row, score in zip(rows.tolist(), best.tolist(), strict=True) if row not in seen][:K]
    must(np.allclose(found.scores[0], [score for _, score in kept], atol=ROUNDING), "the scores differ")
    words = f"forward + product + topk; single answers {latencies(indexed, requests)}"
    name = f"two-tower-serving, {n:,} items of {width}"
    return compare(name, lambda: indexed.recommend(ask, K), {words: bare}, repeats=repeats)


def serving(n: int, width: int) -> tuple[HLLM, Requests]:
    """A system as drawn, whose item vectors are given in clumps, and users with a full history each."""
    rng = np.random.default_rng(0)
    nano = {"width": 16, "heads": 2, "layers": 1, "forward_width": 16, "vocabulary": 300, "steps": 0}
    settings = {
        "item_model": {"name": "nano", "settings": nano}, "user_model.width": width, "length": HISTORY, "dropout": 0.0,
    }  # fmt: skip
    system = build("hllm", settings)
    assert isinstance(system, HLLM)
    with seeded(Run()):
        system.item_model.prepare(["a text"], Run())
        system.user_model.prepare(width, Run())
        system.network = system._build({"n_items": n}).eval()
    centres = rng.standard_normal((100, width), dtype=np.float32)
    vectors = centres[rng.integers(0, 100, n)] + 0.7 * rng.standard_normal((n, width), dtype=np.float32)
    system.items.held = ItemVectors("drawn", keys_of([""] * n), vectors, np.ones(n, dtype=bool))
    histories = Ragged.from_lengths(rng.integers(0, n, USERS * HISTORY), np.full(USERS, HISTORY))
    return system, Requests(histories).leaving_out_history()


def bare_answer(system: HLLM, ask: Requests) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """What cannot be left out; enough answers are fetched that those seen can be dropped."""
    tables = system.tables
    read = tables.read[torch.from_numpy(ask.histories.row(0).astype(np.int64))][None]
    model, compared = system.user_model.model, tables.compared

    @torch.no_grad()
    def answer() -> tuple[torch.Tensor, torch.Tensor]:
        state = model(inputs_embeds=read, use_cache=False).last_hidden_state[0, -1]
        best, rows = torch.topk(compared @ F.normalize(state, dim=0), min(K + HISTORY, len(compared)))
        return rows, best

    return answer


def latencies(indexed: Indexed, requests: Requests) -> str:
    """p50 and p95 of single answers, and what the parts of them take at the median."""
    whole, reading, scanning = [], [], []
    for row in range(len(requests)):
        ask = requests[row : row + 1]
        begun = time.perf_counter()
        indexed.recommend(ask, K)
        whole.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        users = indexed.system.user_vectors(ask)
        reading.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        exact_top_k(users, indexed.index.vectors, K)  # type: ignore[attr-defined]
        scanning.append(time.perf_counter() - begun)
    middle, late = (1e3 * float(np.quantile(whole, share)) for share in (0.5, 0.95))
    parts = [1e3 * float(np.median(some)) for some in (reading, scanning)]
    rest = max(middle - sum(parts), 0.0)
    return f"p50 {middle:.2f} ms, p95 {late:.2f} ms (user {parts[0]:.2f}, scan {parts[1]:.2f}, rest {rest:.2f})"


def many_users(n: int, width: int, *, repeats: int) -> Result:
    """All users in one call."""
    system, requests = serving(n, width)
    indexed, model, tables = Indexed(system), system.user_model.model, system.tables
    read = tables.read[torch.from_numpy(requests.histories.flat().astype(np.int64))].view(USERS, HISTORY, -1)

    @torch.no_grad()
    def bare() -> torch.Tensor:
        states = model(inputs_embeds=read, use_cache=False).last_hidden_state[:, -1]
        return torch.topk(F.normalize(states, dim=1) @ tables.compared.T, min(K + HISTORY, n)).values

    best = indexed.recommend(replace(requests, leave_out=None), K).scores
    must(np.allclose(best, bare()[:, :K].numpy(), atol=ROUNDING), "the scores of many users differ")
    name = f"two-tower-serving, {USERS} users at once, {n:,} items of {width}"
    line = compare(name, lambda: indexed.recommend(requests, K), {"forward + product + topk": bare}, repeats=repeats)
    return replace(line, reference=f"{line.reference}; {USERS / line.seconds:,.0f} users/s on the CPU")


class ItemModel(Drawn):
    """As wide and as deep as MiniLM."""

    hidden, layers, forward_width = 384, 6, 1032


def encoding(n: int, repeats: int) -> Result:
    """A catalogue read once, before anybody asks."""
    tokens, model = texts(n, np.random.default_rng(0)), ItemModel().prepare([], Run())
    tower = ItemTower(model.model, model.width, "mean", chunk_tokens=16_384)
    rows = torch.arange(n)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return tower(model, tokens, rows)

    @torch.no_grad()
    def plain() -> torch.Tensor:
        return torch.cat([padded(model, tokens, some) for some in rows.split(BATCH)])

    must(torch.allclose(ours(), plain(), atol=ROUNDING), "the vectors of packed and padded items differ")
    name = f"two-tower-serving, {n:,} items encoded"
    line = compare(name, ours, {f"batches of {BATCH}, padded": plain}, repeats=repeats)
    return replace(line, reference=f"{line.reference}; {n / line.seconds:,.0f} items/s on the CPU")


def index(n: int, width: int) -> Result:
    """Many users by a graph of neighbours against exact search."""
    system, requests = serving(n, width)
    users, items = system.user_vectors(requests), system.item_vectors()
    indexed = Indexed(system, "usearch", queries=requests, at_least=0.5)
    said = f"exact search; usearch has {indexed.recall}"
    return compare(
        f"two-tower-serving, {USERS} users by usearch, {n:,} items", lambda: indexed.index.search(users, K),
        {said: lambda: exact_top_k(users, items, K)},
    )  # fmt: skip
