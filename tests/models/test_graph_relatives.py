"""GCCF, SGL, SimGCL, AutoCF: each against dense references, planted groups, people without a name, stopped runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.core.errors import ConfigError
from palate.core.requests import Requests
from palate.core.run import Run
from palate.data.pairs import PairBatch, Unmet
from palate.models.graph.autocf import Attention, AutoCFConfig, Links, around, attended
from palate.models.graph.autocf import Network as AutoCFNetwork
from palate.models.graph.gccf import GCCFConfig
from palate.models.graph.gccf import Network as GCCFNetwork
from palate.models.graph.sgl import Network as SGLNetwork
from palate.models.graph.sgl import SGLConfig
from palate.models.graph.simgcl import Network as SimGCLNetwork
from palate.models.graph.simgcl import SimGCLConfig
from palate.parts.pair_losses import full_softmax, info_nce, two_views
from palate.parts.propagation import BipartiteGraph, layers, step
from palate.systems import build
from tests.models.collaborative_logs import dense_user_items, random_log
from tests.models.factor_logs import everybody, group_recall, scores, two_groups

NAMES = ("gccf", "sgl", "simgcl", "autocf")
SMALL = {"width": 8, "batch_size": 64, "training.epochs": 30, "training.learning_rate": 1e-2}


def graph_of(seed: int = 4, *, loops: bool = False) -> BipartiteGraph:
    train = random_log(seed)
    rows = (torch.from_numpy(part.copy()) for part in (train.user_rows, train.item_rows))
    return BipartiteGraph.of(*rows, train.n_users, train.n_items, loops=loops)


def whole_matrix(seed: int = 4) -> torch.Tensor:
    """``[U + N, U + N]`` ones at the edges, in float64."""
    met = torch.from_numpy((dense_user_items(random_log(seed)) > 0).astype(float))
    u, n = met.shape
    return torch.cat(
        [torch.cat([torch.zeros(u, u), met], 1), torch.cat([met.T, torch.zeros(n, n)], 1)]
    ).double()  # fmt: skip


# -- the graph ---------------------------------------------------------------------------------------------------------


def test_layers_with_loops_and_their_gradients_equal_the_dense_ones() -> None:
    graph, plain = graph_of(loops=True), whole_matrix()
    looped = plain + torch.eye(len(plain), dtype=torch.float64)
    scale = looped.sum(1).rsqrt()
    dense = scale[:, None] * looped * scale
    ego = torch.randn((len(dense), 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, other = ego.clone().requires_grad_(), ego.float().requires_grad_()
    wanted = torch.cat([torch.linalg.matrix_power(dense, n) @ one for n in range(3)], 1)
    found = torch.cat([*layers(graph.adjacency, other, 2, graph.loop_weights)], 1)
    torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-4)
    (wanted**2).sum().backward()
    (found**2).sum().backward()
    assert one.grad is not None
    torch.testing.assert_close(other.grad, one.grad.float(), atol=1e-4, rtol=1e-4)
    network = GCCFNetwork(GCCFConfig(width=3, layers=2), graph.n_users, graph.n_items)
    torch.testing.assert_close(
        torch.cat(network.vectors(graph, ego.float())), wanted.detach().float(), atol=1e-5, rtol=1e-4
    )


def test_a_thinned_graph_loses_edges_both_ways_and_keeps_weights() -> None:
    graph = graph_of()
    torch.manual_seed(0)
    thin, whole = graph.thinned(0.7).to_dense(), graph.adjacency.to_dense()
    torch.testing.assert_close(thin, thin.T, rtol=0, atol=0)
    kept = thin != 0
    torch.testing.assert_close(thin[kept], whole[kept], rtol=0, atol=0)
    assert 0.6 < kept.sum() / (whole != 0).sum() < 0.8
    assert not torch.equal(thin, graph.thinned(0.7).to_dense())


def test_a_part_of_the_graph_counts_degrees_anew() -> None:
    graph = graph_of()
    kept = torch.arange(len(graph.users)) % 3 > 0
    part = graph.part(kept)
    again = BipartiteGraph.of(graph.users[kept], graph.items[kept], graph.n_users, graph.n_items)
    torch.testing.assert_close(part.adjacency.to_dense(), again.adjacency.to_dense(), rtol=0, atol=0)


# -- finding nodes again -----------------------------------------------------------------------------------------------


def test_info_nce_equals_its_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    anchors, keys = (torch.randn((n, 5), generator=generator).requires_grad_() for n in (3, 6))
    own, weights, counts = torch.tensor([2, 0, 5]), torch.tensor([1, 3, 2]), torch.tensor([1, 2, 1, 1, 4, 1])
    found = info_nce(anchors, keys, own, 0.3, weights, counts)
    alike = F.cosine_similarity(anchors[:, None], keys[None], dim=-1) / 0.3
    each = -(alike[torch.arange(3), own] - (counts * alike.exp()).sum(1).log())
    wanted = (each * weights).sum() / 6
    torch.testing.assert_close(found, wanted)
    for got, due in zip(
        torch.autograd.grad(found, [anchors, keys]), torch.autograd.grad(wanted, [anchors, keys]), strict=True
    ):
        torch.testing.assert_close(got, due, atol=1e-6, rtol=1e-4)
    assert info_nce(anchors[:0], keys, own[:0], 0.3).item() == 0


@pytest.mark.parametrize("among", ["all", "batch"])
def test_two_views_tell_from_all_or_from_the_batch(among: str) -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn((6, 4), generator=generator) for _ in range(2))
    rows = torch.tensor([1, 4, 4, 0])
    mean = rows if among == "all" else torch.tensor([0, 1, 4])
    keys = torch.arange(6) if among == "all" else mean
    alike = F.cosine_similarity(first[:, None], second[None], dim=-1) / 0.5
    wanted = (alike[:, keys].logsumexp(1) - alike.diagonal())[mean].mean()
    torch.testing.assert_close(two_views(first, second, rows, 0.5, among), wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgl", "simgcl"])
def test_the_loss_is_that_of_lightgcn_plus_both_contrasts(name: str) -> None:
    train, batch = random_log(5), PairBatch(torch.tensor([0, 7, 7, 30]), torch.tensor([3, 4, 1, 20]))
    edges = torch.from_numpy(train.user_rows.copy()), torch.from_numpy(train.item_rows.copy())
    kind, config = (SGLNetwork, SGLConfig) if name == "sgl" else (SimGCLNetwork, SimGCLConfig)
    network = kind(config(width=4, ssl_weight=0.3), train.n_users, train.n_items)  # type: ignore[arg-type]
    graph, ego, unmet = network.connect(*edges), network.ego(), Unmet(train)
    torch.manual_seed(1)
    whole = network.teach(graph, batch, unmet, ego)  # type: ignore[arg-type]
    users, items = network.vectors(graph, ego)  # type: ignore[arg-type]
    torch.manual_seed(1)
    contrast = network.contrast(graph, batch, ego)  # type: ignore[arg-type]
    rest = full_softmax(users, items, batch) + network.penalty(batch, None)
    assert contrast.item() > 0
    torch.testing.assert_close(whole.loss, rest + 0.3 * contrast)


def test_noise_has_its_length_and_stays_in_the_orthant() -> None:
    network = SimGCLNetwork(SimGCLConfig(width=6, layers=1, noise=0.25), 33, 32)
    graph = graph_of().adjacency
    ego = network.ego().detach()
    moved = torch.cat(network.noisy(graph, ego)) * 2 - ego
    still = step(graph, ego)
    reached = still.abs().sum(1) > 0
    delta = (moved - still)[reached]
    torch.testing.assert_close(delta.norm(dim=1), torch.full((len(delta),), 0.25), atol=1e-5, rtol=1e-4)
    assert (delta * still[reached] >= 0).all()


# -- the masked auto-encoder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
def test_edges_around_seeds_are_hidden(depth: int) -> None:
    graph = graph_of()
    seeds = torch.tensor([1, graph.n_users + 3])
    hidden, touched = around(graph, seeds, depth)
    matrix, near = whole_matrix(), torch.zeros(graph.n_nodes, dtype=torch.bool)
    near[seeds] = True
    for _ in range(depth - 1):
        near |= matrix[near].sum(0) > 0
    wanted = near[graph.users] | near[graph.items + graph.n_users]
    assert 0 < int(wanted.sum()) < len(wanted)
    torch.testing.assert_close(hidden, wanted)
    torch.testing.assert_close(touched, near)


def test_attention_equals_dense_softmax_over_those_attended_to() -> None:
    graph = graph_of()
    n, heads, d = graph.n_nodes, 2, 6
    attention = Attention(d, heads)
    x = torch.randn((n, d), generator=torch.Generator().manual_seed(3))
    one, other = torch.tensor([0, 2]), torch.tensor([1, 2])
    rows, columns = attended(graph, (torch.cat([one, other]), torch.cat([other, one])))
    allowed = whole_matrix() + torch.eye(n)
    allowed[[0, 1], [1, 0]] = 1
    assert len(rows) == int(allowed.sum())
    q, k, v = (linear(x).view(n, heads, d // heads) for linear in (attention.query, attention.key, attention.value))
    logits = torch.einsum("ahd,bhd->hab", q, k).clamp(-10, 10).masked_fill(allowed == 0, -torch.inf)
    wanted = torch.einsum("hab,bhd->ahd", logits.softmax(-1), v).reshape(n, d)
    torch.testing.assert_close(attention(x, rows, columns), wanted, atol=1e-5, rtol=1e-4)


def test_resemblance_is_the_cosine_with_the_neighbourhood() -> None:
    graph = graph_of()
    network = AutoCFNetwork(AutoCFConfig(width=4), graph.n_users, graph.n_items)
    ego, matrix = network.ego().detach(), whole_matrix().float()
    walks = matrix + matrix @ matrix - torch.diag(matrix.sum(1))  # two steps that do not turn back
    mean = (walks @ ego) / walks.sum(1, keepdim=True).clamp(min=1e-8)
    wanted = torch.sigmoid(F.cosine_similarity(mean, ego, dim=-1))
    torch.testing.assert_close(network.resemblance(Links(graph), ego), wanted, atol=1e-5, rtol=1e-4)


def test_the_encoder_does_not_see_what_is_hidden() -> None:
    graph = graph_of()
    network = AutoCFNetwork(AutoCFConfig(width=4, seeds=0.05, complement=0.5), graph.n_users, graph.n_items)
    resemblance = network.resemblance(Links(graph), network.ego()).detach()
    torch.manual_seed(0)
    adjacency, (rows, columns) = network.masked(graph, resemblance)
    seen, whole = adjacency.to_dense() != 0, graph.adjacency.to_dense() != 0
    assert seen.sum() < whole.sum()
    assert (seen <= whole).all()
    pairs = torch.zeros_like(seen)
    pairs[rows, columns] = True
    assert (seen <= pairs).all()
    assert pairs.diagonal().all()
    assert torch.equal(pairs, pairs.T)
    assert (pairs & ~whole).sum() > len(pairs), "random pairs are attended to"


# -- what is learnt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_planted_groups_are_recovered_with_and_without_a_name_and_histories_are_exact(name: str) -> None:
    train = two_groups()
    system = build(name, SMALL).fit(train, Run())
    group = np.arange(train.n_users) % 2
    for named in (True, False):
        assert group_recall(system, everybody(train, named=named), group) > 0.88  # type: ignore[arg-type]
    with_history = scores(system, everybody(train))  # type: ignore[arg-type]
    by_name = scores(system, Requests.of([[]] * 60, user_rows=np.arange(60)))  # type: ignore[arg-type]
    np.testing.assert_allclose(with_history, by_name, atol=2e-4 * np.abs(by_name).max())


@pytest.mark.parametrize("name", ["sgl", "simgcl", "autocf"])
def test_a_stopped_run_goes_on_to_the_same_numbers(name: str, tmp_path: Path) -> None:
    """Views, noise and masks are drawn for each batch, so nothing of them must be kept."""
    train = two_groups()
    whole = build(name, SMALL).fit(train, Run(seed=2, max_steps=12))
    kept = Run(seed=2, folder=tmp_path / "run", checkpoint_seconds=0.0)
    build(name, SMALL).fit(train, replace(kept, max_steps=5))
    resumed = build(name, SMALL).fit(train, replace(kept, max_steps=12, resume=True))
    np.testing.assert_array_equal(scores(resumed, everybody(train)), scores(whole, everybody(train)))  # type: ignore[arg-type]


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ConfigError, match="width 10 cannot be shared equally by 4 heads"):
        build("autocf", {"width": 10})
