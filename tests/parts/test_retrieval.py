"""Two towers answered from an index: the same as the system where exact, nearly and measured where not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import ConfigError, MissingExtraError, StoreError
from palate.core.protocols import FloatArray, TwoTower
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings, rank
from palate.core.requests import Requests
from palate.core.search import dot_blocks
from palate.parts.retrieval import Exact, Faiss, Indexed, Recall, Usearch, build_index

N, D, B = 3000, 16, 200


class Towers:
    """A user is the mean of what was met; an empty history is asked about elsewhere."""

    def __init__(self, items: FloatArray) -> None:
        self.items, self.version = items, "v1"

    @property
    def vectors_version(self) -> str:
        return self.version

    def item_vectors(self) -> FloatArray:
        return self.items

    def user_vectors(self, requests: Requests) -> FloatArray:
        nothing = np.full(D, np.nan, np.float32)
        items = np.nan_to_num(self.items)
        return np.stack([items[row].mean(0) if len(row) else nothing for row in requests.histories])

    def recommend(self, requests: Requests, k: int) -> Rankings:
        blocks = dot_blocks(np.nan_to_num(self.user_vectors(requests)), self.items)
        return rank(blocks, k, leave_out=requests.leave_out, candidates=requests.candidates)


@pytest.fixture(scope="module")
def towers() -> Towers:
    """Vectors in clumps, as those of real items are; item 7 is retired."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, D))
    items = centres[rng.integers(0, 40, N)] + 0.5 * rng.standard_normal((N, D))
    items = (items / np.linalg.norm(items, axis=1, keepdims=True)).astype(np.float32)
    items[7] = np.nan
    return Towers(items)


@pytest.fixture(scope="module")
def requests() -> Requests:
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, N, rng.integers(1, 9)) for _ in range(B - 1)]
    return Requests(Ragged.of([*histories, []])).leaving_out_history()


def test_exact_retrieval_is_the_systems_own_answer(towers: Towers, requests: Requests) -> None:
    """History left out, the newcomer and one who names candidates included."""
    assert isinstance(towers, TwoTower)
    indexed = Indexed(towers)
    own, found = towers.recommend(requests, 10), indexed.recommend(requests, 10)
    assert found.exact
    np.testing.assert_array_equal(found.item_rows, own.item_rows)
    np.testing.assert_allclose(found.scores, own.scores, atol=1e-6)
    some = replace(requests[:3], candidates=Ragged.of([[5, 7, 9], [1], []]))
    np.testing.assert_array_equal(indexed.recommend(some, 3).item_rows, towers.recommend(some, 3).item_rows)


@pytest.mark.parametrize("kind", ["usearch", "faiss"])
def test_an_index_finds_nearly_the_same_and_says_how_nearly(kind: str, towers: Towers, requests: Requests) -> None:
    pytest.importorskip(kind)
    indexed = Indexed(towers, kind, queries=requests, at_least=0.9, **({"probe_share": 0.5} if kind == "faiss" else {}))
    exact, found = towers.recommend(requests, 10), indexed.recommend(requests, 10)
    same = np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact.item_rows, found.item_rows, strict=True)]) / 10
    assert same > 0.9
    assert not found.exact
    wanted = [set(row) for row in Indexed(towers).recommend(replace(requests, leave_out=None), 100).item_rows.tolist()]
    asked = indexed.index.search(towers.user_vectors(requests)[:-1], 100)[0]
    by_hand = np.mean([len(set(row) & best) / 100 for row, best in zip(asked.tolist(), wanted, strict=False)])
    assert indexed.recall.share == pytest.approx(by_hand, abs=1e-3)
    assert f"recall@100 against exact {indexed.recall.share:.4f} on 199 queries" in str(indexed.recall)
    for row, answer in enumerate(found.item_rows):
        kept = answer[answer >= 0]
        assert not set(kept.tolist()) & {7, *requests.histories.row(row).tolist()}
        assert len(kept) == 10
        np.testing.assert_allclose(
            found.scores[row], towers.items[kept] @ towers.user_vectors(requests)[row] if row < B - 1 else 0, atol=1e-5
        )
    alone = indexed.recommend(requests[4:5], 10)
    np.testing.assert_array_equal(alone.item_rows[0], found.item_rows[4])


def test_who_has_seen_nearly_everything_gets_what_is_left(towers: Towers) -> None:
    pytest.importorskip("usearch")
    few = Towers(towers.items[:30])
    history = Requests(Ragged.of([np.arange(26), [3]])).leaving_out_history()
    found = Indexed(few, "usearch", at_least=0.5).recommend(history, 6)
    assert sorted(found.item_rows[0].tolist()) == [-1, -1, 26, 27, 28, 29]
    assert np.isnan(found.scores[0, 4:]).all()
    assert (found.item_rows[1] >= 0).all()


def test_an_index_below_its_bound_is_refused(towers: Towers) -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match=r"the index faiss finds 0\.\d+ of the 100 best, less than 0\.98"):
        build_index("faiss", towers.items, np.nan_to_num(towers.items[:50]), probe_share=0.01)
    with pytest.raises(ConfigError, match="there is no index 'hnsw'"):
        build_index("hnsw", towers.items, towers.items[:1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="index faiss has no setting 'probes'; did you mean 'probe_share'"):
        build_index("faiss", towers.items, towers.items[:1], probes=3)


def test_an_index_that_nobody_asks_is_refused(towers: Towers) -> None:
    """Nothing asked, nothing missed: that would be a recall of 1."""
    for kind in ("usearch", "faiss"):
        with pytest.raises(ConfigError, match=f"without queries and items the recall of the index {kind} is unknown"):
            build_index(kind, towers.items, towers.items[:0])  # type: ignore[arg-type]
    nobody = Requests(Ragged.of([[], []]))
    with pytest.raises(ConfigError, match="search exactly"):
        Indexed(towers, "usearch", queries=nobody)
    assert str(Indexed(towers, queries=nobody).recall) == "exact search: every item is looked at"


def test_items_that_ask_are_drawn_from_the_whole_catalogue(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thousand are near each other, as the items of one category are: an index that finds only them would
    pass on them."""
    asked: list[FloatArray] = []

    def build(kind: str, vectors: FloatArray, queries: FloatArray, **how: object) -> tuple[Exact, Recall]:
        asked.append(queries)
        return Exact(vectors), Recall("exact", 1.0, 100, len(queries), 0.0)

    monkeypatch.setattr("palate.parts.retrieval.build_index", build)
    indexed = Indexed(towers, "usearch")
    indexed.refresh()
    places = {row.tobytes(): place for place, row in enumerate(towers.items)}
    drawn = np.array([places[row.tobytes()] for row in asked[0]])
    assert len(set(drawn.tolist())) == 1000
    assert (drawn > N / 2).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(asked[0], asked[1])


def test_what_an_index_could_not_follow_stays_refused(towers: Towers, requests: Requests) -> None:
    """A second index below its bound leaves no old one that answers with new vectors."""
    pytest.importorskip("faiss")
    own = Towers(towers.items)
    indexed = Indexed(own, "faiss", queries=requests, at_least=0.0, probe_share=0.01)
    own.version, indexed.at_least = "v2", 1.0
    with pytest.raises(ConfigError, match="less than 1"):
        indexed.refresh()
    with pytest.raises(StoreError, match="call refresh"):
        indexed.recommend(requests, 3)


def test_an_index_of_other_vectors_is_refused(towers: Towers, requests: Requests) -> None:
    own = Towers(towers.items)
    indexed = Indexed(own)
    own.version = "v2"
    with pytest.raises(StoreError, match="have changed since this index was built: call refresh"):
        indexed.recommend(requests, 3)
    indexed.refresh()
    indexed.recommend(requests, 3)


def test_a_missing_library_is_a_sentence(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("usearch.index", Usearch), ("faiss", Faiss)):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(MissingExtraError, match=r"palate\[index\]"):
            kind(towers.items[:3], np.arange(3))
