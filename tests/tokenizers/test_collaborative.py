"""The graph counted by hand, clusters against scikit-learn, planted blocks, and graphs in pieces."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_array

from palate.core.errors import ConfigError
from palate.core.run import Run
from palate.tokenizers.collaborative import bottom_eigenvectors, co_occurrence, cut, spectral, tree
from tests.tokenizers.item_logs import blocks, fitted, log, names


def same_first(train_items: np.ndarray, first: list[str]) -> float:
    """Share of pairs of one block whose names begin alike."""
    pairs = [(a, b) for a, b in combinations(range(len(first)), 2) if train_items[a] == train_items[b]]
    return float(np.mean([first[a] == first[b] for a, b in pairs]))


def graph(seed: int, n: int, n_blocks: int = 3) -> csr_array:
    """A connected weighted graph with blocks."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % n_blocks
    upper = np.triu(rng.poisson(np.where(kind[:, None] == kind, 2.0, 0.4)), 1)
    upper[np.arange(n - 1), np.arange(1, n)] += 1  # a chain, so that it is connected
    return csr_array((upper + upper.T).astype(np.float32))


def test_the_graph_counts_users_of_both() -> None:
    train = log([[0, 1, 1, 2], [2, 0], [3], [1, 0]], 5)
    found = co_occurrence(train).toarray()
    by_hand = Counter(pair for row in ({0, 1, 2}, {2, 0}, {3}, {1, 0}) for pair in combinations(sorted(row), 2))
    for a in range(5):
        for b in range(5):
            assert found[a, b] == (by_hand[min(a, b), max(a, b)] if a != b else 0)
    assert found[0, 2] == 2  # not neighbours in the first history


@pytest.mark.parametrize("n", [60, 150, 600])
def test_clusters_are_those_of_scikit_learn(n: int) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    metrics = pytest.importorskip("sklearn.metrics")
    affinity = graph(n, n)
    for count in (3, 5):
        theirs = cluster.SpectralClustering(
            count, affinity="precomputed", assign_labels="cluster_qr", random_state=0
        ).fit_predict(affinity.toarray())  # fmt: skip
        ours = spectral(affinity, count, 0)
        assert metrics.adjusted_rand_score(theirs, ours) > (0.99 if count == 3 else 0.9)


def test_lanczos_finds_the_eigenvectors_of_the_whole_matrix() -> None:
    affinity = graph(1, 450, 4)
    found = bottom_eigenvectors(affinity, 4, 0)
    whole = affinity.toarray().astype(float)
    degree = whole.sum(1)
    values, vectors = np.linalg.eigh(np.eye(450) - whole / np.sqrt(degree[:, None] * degree))
    expected = vectors[:, :4] / np.sqrt(degree)[:, None]
    assert values[4] - values[3] > 0.01  # the four are told apart from the fifth
    span, _ = np.linalg.qr(expected)
    np.testing.assert_allclose(found, span @ (span.T @ found), atol=1e-8)


def test_planted_blocks_begin_alike_and_shuffled_ones_do_not() -> None:
    block = np.arange(200) % 4
    for loyal in (0.7, 1.0):
        found = names(fitted("collaborative", blocks(loyal=loyal), clusters=4, leaf=60))
        assert same_first(block, [name[0] for name in found]) > 0.95
    found = names(fitted("collaborative", blocks(loyal=0.0), clusters=4, leaf=60))
    assert same_first(block, [name[0] for name in found]) == pytest.approx(0.25, abs=0.1)


@pytest.mark.parametrize("kind", ["path", "shared"])
def test_no_leaf_is_too_large_and_clusters_begin_alike(kind: str) -> None:
    train = blocks(200, 600, 8, loyal=0.8)
    tokenizer = fitted("collaborative", train, clusters=3, leaf=12, names=kind)
    found = [tuple(name) for name in names(tokenizer)]
    assert len(set(found)) == 200
    sizes = Counter(name[:-1] for name in found)
    assert max(sizes.values()) <= 12
    leaves, parents = tree(co_occurrence(train), 3, 12, 0)
    assert sorted(np.concatenate(list(leaves.values())).tolist()) == list(range(200))
    for members in leaves.values():
        assert len({found[row][:-1] for row in members}) == 1
        places = sorted(int(found[row][-1].strip("<>").split("_")[1]) for row in members)
        assert places == list(range(len(members)))
    words = {word for name in found for word in name}
    if kind == "shared":
        assert len(words) <= 12
    else:
        ways = {word for name in found for word in name[:-1]}
        assert len(ways) == len(parents)  # one token a part
        assert all(name[-1].startswith("<leaf_") for name in found)
    assert (np.diff(parents) >= 0).all()


def test_deep_shared_names_number_parts_breadth_first() -> None:
    train = blocks(60, 200, 4)
    path = names(fitted("collaborative", train, clusters=4, leaf=5))
    shared = names(fitted("collaborative", train, clusters=4, leaf=5, names="shared"))
    assert [len(name) for name in path] == [len(name) for name in shared]
    first = {a[0]: b[0] for a, b in zip(path, shared, strict=True)}
    assert first == {f"<C_{at}>": f"<CI_{at}>" for at in range(4)}
    second = {a[1]: b[1] for a, b in zip(path, shared, strict=True) if len(a) == 3}
    assert second["<C_0.0>"] == "<CI_4>"
    assert second["<C_0.1>"] == "<CI_0>"  # number 5, modulo 5


def test_items_without_events_have_a_word_of_their_own() -> None:
    tokenizer = fitted("collaborative", log([[0, 1], [2, 1], [4, 0]], 6), clusters=2, leaf=2)
    assert names(tokenizer)[3] == ["<item_3>"]
    assert names(tokenizer)[5] == ["<item_5>"]
    np.testing.assert_array_equal(tokenizer.path_lengths()[[3, 5]], 0)


def test_an_empty_graph_is_split_equally() -> None:
    alone = log([[row] for row in range(100)], 100)
    found = names(fitted("collaborative", alone, clusters=4, leaf=10))
    sizes = Counter(tuple(name[:-1]) for name in found)
    assert set(sizes.values()) <= {6, 7}  # 100 → 25 → 6 or 7
    assert names(fitted("collaborative", log([[0, 1]], 2), clusters=4, leaf=1)) == [["<C_0>", "<leaf_0>"],
                                                                                    ["<C_1>", "<leaf_0>"]]  # fmt: skip
    assert fitted("collaborative", log([[]], 3)).codes.n_items == 3


def test_pieces_of_a_graph_stay_whole_where_they_can() -> None:
    """Four blocks that never meet, two of them alike in size, and thirty items alone."""
    rng = np.random.default_rng(0)
    starts, sizes = [0, 40, 80, 120], [40, 40, 40, 50]
    rows = [(rng.integers(0, size, 6) + start).tolist() for start, size in zip(starts, sizes, strict=True)
            for _ in range(200)]  # fmt: skip
    rows += [[row] for row in range(170, 200)]
    affinity = co_occurrence(log(rows, 200))
    labels = cut(affinity, 5, 0)
    for start, size in zip(starts, sizes, strict=True):
        assert len(set(labels[start : start + size].tolist())) == 1
    assert len(set(labels[170:].tolist())) == 1
    assert len(set(labels.tolist())) == 5
    large = cut(affinity, 20, 0)
    assert np.bincount(large).max() <= 20
    assert not set(large[:40].tolist()) & set(large[40:].tolist())


def test_the_same_names_again() -> None:
    train = blocks(450, 900)
    tokenizer = fitted("collaborative", train, clusters=5, leaf=20)
    before = tokenizer.codes.tokens
    np.testing.assert_array_equal(before, tokenizer.fit(train, Run()).codes.tokens)


def test_too_few_shared_names() -> None:
    with pytest.raises(ConfigError, match=r"with names=shared, leaf \(4\) must be at least clusters \(20\)"):
        fitted("collaborative", blocks(20, 20), names="shared", leaf=4)
