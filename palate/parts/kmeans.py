"""k-means by chunked matrix products: careful seeding, empty clusters refilled, and clusters of equal size.

Seeding: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007. Everything is a function
of its arguments and of a generator. Shapes: n points, V centres, D width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from palate.parts.sinkhorn import column_prices

BALANCED_ROUNDS = 5
"""Of equal shares, after plain k-means has found where the points are."""
CHUNK = 8192
"""Points whose distances to all centres are alive at once."""


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """``[n, V]`` squared Euclidean distances of ``[n, D]`` and ``[V, D]``, in the precision of the points; rounding may
    leave a tiny negative."""
    centres = centres.to(points.dtype)
    squares = (points * points).sum(1, keepdim=True) + (centres * centres).sum(1)
    return torch.addmm(squares, points, centres.T, alpha=-2)


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """``[n]`` the nearest centre of each point, the lowest where two are equally near, and its squared distance."""
    found = [squared_distances(part, centres).min(1) for part in torch.split(points, CHUNK)]
    return torch.cat([one.indices for one in found]), torch.cat([one.values for one in found]).clamp_min(0)


def kmeans(
    points: Tensor, n_centres: int, generator: torch.Generator, *, rounds: int = 30, balanced: bool = False
) -> Tensor:
    """``[V, D]`` centres of ``points`` ``[n, D]``; with ``balanced`` clusters of n / V points, one more or less.

    Where there are fewer distinct points than centres, the centres beyond them repeat points.
    """
    centres = seed_centres(points, n_centres, generator)
    before: Tensor | None = None
    for _ in range(rounds):
        labels, distance = nearest(points, centres)
        if before is not None and torch.equal(labels, before):
            break
        centres, before = _means(points, labels, distance, centres), labels
    for _ in range(BALANCED_ROUNDS if balanced else 0):
        labels = equal_shares(points, centres)
        centres = _means(points, labels, (points - centres[labels]).square().sum(1), centres)
    return centres


def seed_centres(points: Tensor, n_centres: int, generator: torch.Generator) -> Tensor:
    """k-means++: each centre is a point drawn in proportion to its squared distance from the centres before it."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    centres = points.new_empty((n_centres, points.shape[1]))
    centres[0] = points[first]
    squares = (points * points).sum(1)
    distance = torch.full_like(squares, torch.inf)
    for place in range(1, n_centres):
        centre = centres[place - 1]
        torch.minimum(distance, (squares - 2 * (points @ centre) + centre @ centre).clamp_min_(0), out=distance)
        # Rounding leaves a trace of distance at the point itself: what is that near is the same point.
        mass = torch.where(distance > 1e-6 * squares, distance, 0).double().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64).to(mass.device)
        # Where every point is a centre already, the same sum over ones draws any of them.
        mass = mass if mass[-1] > 0 else torch.ones_like(mass).cumsum(0)
        chosen = int(torch.searchsorted(mass, draw * mass[-1], right=True))
        centres[place] = points[min(chosen, len(points) - 1)]
    return centres


def _means(points: Tensor, labels: Tensor, distance: Tensor, centres: Tensor) -> Tensor:
    """New centres; an empty cluster moves to one of the points farthest from their own centres."""
    sizes = torch.bincount(labels, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, labels, points)
    new = sums / sizes.clamp_min(1).unsqueeze(1)
    empty = torch.nonzero(sizes == 0).flatten()[: len(points)]
    if len(empty):
        new[empty] = points[torch.topk(distance, len(empty)).indices]
    return new


def equal_shares(points: Tensor, centres: Tensor) -> Tensor:
    """``[n]`` the centre of each point, so that every centre has n / V points, rounded down or up.

    Prices from the entropic transport plan make crowded centres dearer; then each point takes the cheapest centre that
    keeps it, and a full centre keeps its cheapest points. Holds ``[n, V]`` distances.
    """
    distances = squared_distances(points, centres).double()
    costs = (distances + column_prices(distances)).numpy()
    n, n_centres = costs.shape
    room = np.full(n_centres, n // n_centres)
    wanted = np.bincount(costs.argmin(1), minlength=n_centres)
    room[np.argsort(-wanted, kind="stable")[: n % n_centres]] += 1
    return torch.from_numpy(fill(costs, room))


def fill(costs: npt.NDArray[np.floating], room: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """``[n]`` a place for each row of ``costs`` ``[n, V]``, at most ``room`` ``[V]`` rows a place; rounds, not rows,
    are looped over.

    Each row asks for its cheapest place; a place that is asked by too many keeps the cheapest of them and the rest ask
    again elsewhere (deferred acceptance, Gale and Shapley 1962). There must be room for all.
    """
    if len(costs) > room.sum():
        raise ValueError(f"{len(costs)} rows do not fit into {int(room.sum())} places")
    open_costs = np.where(room > 0, costs, np.inf)
    place = np.full(len(costs), -1, dtype=np.int64)
    waiting = np.arange(len(costs))
    while len(waiting):
        wish = open_costs[waiting].argmin(1)
        place[waiting] = wish
        asked = np.zeros(costs.shape[1], dtype=bool)
        asked[wish] = True
        held = np.flatnonzero(asked[place] & (place >= 0))  # who stands at a place that was asked now
        order = held[np.lexsort((costs[held, place[held]], place[held]))]
        first = np.searchsorted(place[order], place[order])
        waiting = order[np.arange(len(order)) - first >= room[place[order]]]
        open_costs[waiting, place[waiting]] = np.inf
        place[waiting] = -1
    return place
