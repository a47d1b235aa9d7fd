"""k-means against faiss-free oracles: brute force distances, scikit-learn's error, the assignment problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from palate.parts.kmeans import equal_shares, fill, kmeans, nearest, seed_centres


def blobs(n: int, n_blobs: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(n_blobs, width, generator=g)
    return centres[torch.arange(n) % n_blobs] + 0.1 * torch.randn(n, width, generator=g)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_nearest_centre_is_the_nearest() -> None:
    points, centres = torch.randn(20_000, 6, generator=seeded()), torch.randn(30, 6, generator=seeded(1))
    labels, distance = nearest(points, centres)
    plain = torch.cdist(points.double(), centres.double()) ** 2
    torch.testing.assert_close(distance.double(), plain.min(1).values, rtol=1e-4, atol=1e-4)
    assert float((labels == plain.argmin(1)).double().mean()) > 0.999


def test_every_blob_is_found() -> None:
    points = blobs(600, 12)
    labels, distance = nearest(points, kmeans(points, 12, seeded()))
    for blob in range(12):
        assert len(set(labels[blob::12].tolist())) == 1
    assert len(set(labels.tolist())) == 12
    assert float(distance.mean()) < 8 * 0.1**2 * 1.1


def test_the_error_is_that_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    points = torch.randn(2000, 10, generator=seeded())
    ours = np.mean([float(nearest(points, kmeans(points, 40, seeded(s), rounds=50))[1].mean()) for s in range(3)])
    theirs = cluster.KMeans(40, n_init=3, random_state=0).fit(points.numpy()).inertia_ / len(points)
    assert ours < 1.03 * theirs


def test_fewer_points_than_centres() -> None:
    points = torch.tensor([[0.0, 0], [1, 0], [1, 0], [5, 5]])
    centres = kmeans(points, 8, seeded())
    labels, distance = nearest(points, centres)
    assert float(distance.max()) == 0
    assert labels[1] == labels[2]
    assert len(set(labels.tolist())) == 3
    assert {tuple(row) for row in centres.tolist()} == {(0.0, 0.0), (1.0, 0.0), (5.0, 5.0)}


def test_seeding_spreads_over_what_is_there() -> None:
    points = blobs(400, 10)
    assert len(set((seed_centres(points, 10, seeded()) - points[:10]).norm(dim=1).argmin().reshape(1).tolist())) == 1
    chosen = nearest(seed_centres(points, 10, seeded()), points[:10])[0]
    assert len(set(chosen.tolist())) == 10


def test_the_same_seed_gives_the_same_bits() -> None:
    points = torch.randn(500, 5, generator=seeded())
    before = torch.get_rng_state()
    first = kmeans(points, 20, seeded(3))
    assert torch.equal(first, kmeans(points, 20, seeded(3)))
    assert not torch.equal(first, kmeans(points, 20, seeded(4)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("n", "n_centres"), [(103, 10), (200, 8), (5, 9), (64, 64)])
def test_equal_shares_are_equal_and_cheap(n: int, n_centres: int) -> None:
    points = torch.randn(n, 4, generator=seeded()) ** 3
    centres = torch.randn(n_centres, 4, generator=seeded(1))
    labels = equal_shares(points, centres)
    sizes = np.bincount(labels.numpy(), minlength=n_centres)
    assert sizes.min() >= n // n_centres
    assert sizes.max() <= -(-n // n_centres)
    costs = (torch.cdist(points, centres) ** 2).numpy()
    seats = np.repeat(np.arange(n_centres), -(-n // n_centres))
    rows, columns = linear_sum_assignment(costs[:, seats])
    assert costs[np.arange(n), labels.numpy()].sum() < 1.25 * costs[rows, seats[columns]].sum()


def test_balanced_clusters() -> None:
    points = torch.cat([blobs(300, 2), blobs(30, 2, seed=1)])
    plain = nearest(points, kmeans(points, 6, seeded()))[0]
    even = equal_shares(points, kmeans(points, 6, seeded(), balanced=True))
    assert np.bincount(plain.numpy()).max() > 60
    assert set(np.bincount(even.numpy()).tolist()) == {55}


def test_a_full_place_keeps_its_cheapest() -> None:
    costs = np.array([[1.0, 5, 9], [2, 3, 9], [3, 4, 9], [4, 9, 5]])
    np.testing.assert_array_equal(fill(costs, np.array([1, 1, 2])), [0, 1, 2, 2])
    np.testing.assert_array_equal(fill(costs, np.array([4, 0, 0])), [0, 0, 0, 0])
    np.testing.assert_array_equal(fill(np.zeros((3, 2)), np.array([1, 2])), [0, 1, 1])
    with pytest.raises(ValueError, match="4 rows do not fit into 3 places"):
        fill(costs, np.array([1, 1, 1]))
