"""Names that differ: groups spread, matched at the least cost, moved where there is no room; given names stay."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from palate.core.errors import DataError
from palate.parts.kmeans import squared_distances
from palate.parts.repair import Rows, collisions, count_ties, encode, groups_of, name_all, name_more, separate
from palate.parts.sinkhorn import UniformConfig


class Grid:
    """Residual codes ``[H, V, D]`` without learning."""

    def __init__(self, levels: int, size: int, width: int = 3, seed: int = 0, shrink: float = 0.3) -> None:
        g = torch.Generator().manual_seed(seed)
        self.books = torch.stack([shrink**h * torch.randn(size, width, generator=g) for h in range(levels)])

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.books.shape[1],) * len(self.books)

    def distances(self, points: Tensor, codes: Tensor, level: int) -> Tensor:
        residual = points
        for above in range(level):
            residual = residual - self.books[above][codes[:, above]]
        return squared_distances(residual, self.books[level])


def around(n: int, noise: float, width: int = 3, seed: int = 0) -> Tensor:
    """``[n, width]`` points about one place."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(1, width, generator=g) + noise * torch.randn(n, width, generator=g)


def in_order(n: int) -> Rows:
    return np.arange(n)


def different(codes: Rows) -> bool:
    return len(np.unique(codes, axis=0)) == len(codes)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 30), st.booleans())
def test_nobody_shares_a_name_and_nobody_given_moves(n: int, kinds: int, more: int, spread: bool) -> None:
    """Any number of items of any number of different vectors, up to as many as there are names (5³ = 125)."""
    grid, texts = Grid(3, 5), around(kinds, 1.0, seed=n)
    points = texts[torch.arange(n) % kinds]
    codes, repair = name_all(grid, points, np.random.default_rng(0).permutation(n), "match",
                             UniformConfig() if spread else None)  # fmt: skip
    assert different(codes)
    assert codes.min() >= 0
    assert codes.max() < 5
    assert repair.nearest == n - len(np.unique(encode(grid, points), axis=0))
    later = name_more(grid, texts[torch.arange(more) % kinds], codes, "match")
    assert different(np.concatenate([codes, later]))


def test_more_items_than_names() -> None:
    with pytest.raises(DataError, match="126 items do not fit into 125 names: more levels or codes"):
        name_all(Grid(3, 5), around(126, 1.0), in_order(126), "match")
    codes, _ = name_all(Grid(3, 5), torch.zeros(125, 3), in_order(125), "match")
    assert different(codes)  # every name there is, for items of one text
    with pytest.raises(DataError, match="126 items do not fit into 125 names"):
        name_more(Grid(3, 5), around(1, 1.0), codes, "match")


def test_who_does_not_share_keeps_the_nearest_codes() -> None:
    grid, points = Grid(3, 32), around(200, 1.0)
    nearest = encode(grid, points)
    codes, _ = name_all(grid, points, in_order(200), "match")
    assert np.bincount(groups_of(nearest[:, :2])).max() <= 32  # so that nobody must move up
    alone = np.bincount(groups_of(nearest))[groups_of(nearest)] == 1
    assert 20 < alone.sum() < 190
    np.testing.assert_array_equal(codes[alone], nearest[alone])
    assert different(codes)


def test_the_matching_costs_least() -> None:
    """Four items that share a name, five last codes of which one is taken: all assignments tried."""
    grid = Grid(2, 5)
    points = torch.cat([grid.books[0, 0] + grid.books[1, 0] + 0.01 * torch.randn(4, 3),
                        (grid.books[0, 0] + grid.books[1, 3])[None]])  # fmt: skip
    nearest = encode(grid, points)
    assert len(np.unique(nearest[:4], axis=0)) == 1
    codes, repair = separate(grid, points, nearest, in_order(5))
    assert repair.matched == 4
    np.testing.assert_array_equal(codes[4], nearest[4])
    costs = grid.distances(points[:4], torch.from_numpy(nearest[:4]), 1).double().numpy()
    free = [code for code in range(5) if code != nearest[4, 1]]
    least = min(costs[np.arange(4), list(choice)].sum() for choice in permutations(free, 4))
    np.testing.assert_allclose(costs[np.arange(4), codes[:4, 1]].sum(), least)


def test_a_full_code_sends_the_farthest_on() -> None:
    """Ten items want one first code which has room for four; those nearest to it stay."""
    grid = Grid(2, 4, width=2)
    grid.books[0] = torch.tensor([[0.0, 0], [1, 0], [0, 9], [9, 0]])
    points = torch.stack([torch.linspace(0, 0.45, 10), torch.zeros(10)], 1)
    assert set(encode(grid, points)[:, 0].tolist()) == {0}
    codes, repair = separate(grid, points, encode(grid, points), np.random.default_rng(0).permutation(10))
    assert repair.moved_up == 6
    np.testing.assert_array_equal(codes[:4, 0], 0)
    np.testing.assert_array_equal(np.bincount(codes[:, 0], minlength=4)[:2], [4, 4])
    assert different(codes)


@pytest.mark.parametrize(("n", "noise", "least", "most"), [
    (50, 0.3, 0, 0), (50, 0.1, 0, 0), (50, 1e-5, 1, 12), (120, 0.3, 0, 6), (120, 1e-5, 20, 50),
])  # fmt: skip
def test_a_group_is_spread_in_one_round(n: int, noise: float, least: int, most: int) -> None:
    """Near twins, a hundred-thousandth of the codes' distances apart, still meet now and then; further rounds and, in
    the end, the matching part them."""
    for trial in range(3):
        grid = Grid(2, 256, width=32, seed=trial)
        points = around(1, 0, 32, trial) + noise * around(n, 1.0, 32, trial + 50)
        first = np.zeros((n, 2), dtype=np.int64)
        codes, repair = separate(grid, points, first, in_order(n), uniform=UniformConfig())
        assert repair.nearest == n - 1
        assert least <= repair.first_pass <= most
        assert different(codes)


def test_large_groups_and_identical_items_need_the_matching() -> None:
    grid = Grid(2, 256, width=32)
    crowd, first = around(200, 1.0, 32), np.zeros((200, 2), dtype=np.int64)
    codes, repair = separate(grid, crowd, first, in_order(200), uniform=UniformConfig())
    assert 0 < repair.first_pass < 60
    assert different(codes)
    twins = around(1, 1.0, 32).repeat(30, 1)
    codes, repair = separate(grid, twins, first[:30], in_order(30), uniform=UniformConfig())
    assert (repair.first_pass, repair.after_uniform, repair.matched) == (29, 29, 30)
    assert different(codes)
    assert len(np.unique(codes[:, 0])) == 1


def test_ties_are_counted_and_go_on() -> None:
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2], [0, 1]])
    np.testing.assert_array_equal(count_ties(codes, in_order(5)), [0, 0, 1, 2, 0])
    np.testing.assert_array_equal(count_ties(codes, in_order(5)[::-1]), [2, 0, 1, 0, 0])
    taken = np.column_stack([codes, [0, 0, 1, 2, 0]])
    more = np.array([[1, 2], [3, 3], [1, 2], [3, 3], [0, 0]])
    np.testing.assert_array_equal(count_ties(more, in_order(5), taken), [3, 0, 4, 1, 1])
    np.testing.assert_array_equal(count_ties(more[:0], in_order(0), taken), [])


def test_groups_and_collisions() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (200, 4))
    group = groups_of(codes)
    same = (codes[:, None] == codes[None]).all(2)
    np.testing.assert_array_equal(group[:, None] == group[None], same)
    assert collisions(codes) == 200 - len(np.unique(codes, axis=0))
    assert collisions(codes[:0]) == 0
    long = np.random.default_rng(0).integers(0, 256, (50, 64))  # more combinations than an integer holds
    assert collisions(np.concatenate([long, long])) == 50


def test_spreading_passes_over_codes_that_neighbours_hold() -> None:
    """Two items share the second of four codes; its neighbours are held: one moves to the last, though it is far."""
    grid = Grid(1, 4, width=1)
    grid.books[0] = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    points = torch.tensor([[0.0], [1.0], [1.2], [2.0]])
    named, repair = separate(grid, points, encode(grid, points), in_order(4), uniform=UniformConfig(), match=False)
    assert (repair.nearest, repair.first_pass) == (1, 0)
    assert named[:, 0].tolist() == [0, 1, 3, 2]
