"""Random, independent, title, sequential, semantic and hybrid names, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from palate.core.errors import ConfigError, DataError
from palate.core.naming import counted, digits, level_words, read_digits
from palate.core.run import Run
from palate.systems import component
from tests.tokenizers.item_logs import blocks, fitted, log, longer, names, part

HISTORIES = [[4, 2, 4], [2, 0], [7, 1, 0, 5]]
"""Items 3, 6, 8 and 9 are never met."""


def numbers(tokenizer: object) -> list[int]:
    codes = tokenizer.codes  # type: ignore[attr-defined]
    assert not codes.atomic
    return [int(codes.spell(row)) for row in range(codes.n_items)]


def test_digits_there_and_back() -> None:
    given = np.array([0, 7, 10, 1001, 13_000, 99_999])
    written = digits(given)
    assert written.tolist()[2] == [1, 0, -1, -1, -1]
    np.testing.assert_array_equal(read_digits(written), given)


def test_counting_within_groups() -> None:
    groups = np.array([5, 1, 5, 5, 1])
    np.testing.assert_array_equal(counted(groups, np.arange(5)), [0, 0, 1, 2, 1])
    np.testing.assert_array_equal(counted(groups, np.array([3, 4, 2, 1, 0])), [2, 1, 1, 0, 0])


def test_words_of_many_places() -> None:
    words = level_words([1] * 60)
    assert words[25:28] == ["<z_0>", "<aa_0>", "<ab_0>"]
    assert words[52] == "<ba_0>"
    assert len(set(words)) == 60
    assert level_words([2, 3], known=["<b_0>", "<a_0>", "<b_1>", "<a_1>"]) == ["<b_2>"]


def test_random_numbers_fill_the_range_and_grow_out_of_it() -> None:
    train = log(HISTORIES, 10)
    drawn = numbers(fitted("random", train))
    assert len(set(drawn)) == 10
    assert 1000 <= min(drawn) <= max(drawn) <= 13_000
    assert max(drawn) - min(drawn) > 5000  # all over the range
    tight = fitted("random", train, low=5, high=8)
    assert sorted(numbers(tight)) == list(range(5, 15))
    assert sorted(numbers(tight.add(longer(train, 3)))) == list(range(5, 18))
    with pytest.raises(ConfigError, match="there is no number from 9 to 8"):
        fitted("random", train, low=9, high=8)


def test_random_numbers_say_nothing_about_who_is_bought_together() -> None:
    train = blocks(200, 300)
    drawn = np.array(numbers(fitted("random", train)))
    near = np.argsort(drawn) % 4
    assert np.mean(near[1:] == near[:-1]) == pytest.approx(0.25, abs=0.1)


def test_independent_names_share_nothing() -> None:
    tokenizer = fitted("independent", log(HISTORIES, 10))
    assert names(tokenizer) == [[f"<item_{row}>"] for row in range(10)]
    assert tokenizer.codes.atomic


def test_titles_missing_and_alike() -> None:
    titles = ["Dune", "The  [Hobbit]", None, "Dune", "", "Dune (2)", "Dune"]
    train = log([[0]], 7, title=titles)
    tokenizer = fitted("title", train)
    spelt = [tokenizer.codes.spell(row) for row in range(7)]
    assert spelt[1] == "[The [Hobbit]]"
    assert (spelt[2], spelt[4]) == ("[title_i2]", "[title_i4]")
    assert len({spelt[row] for row in (0, 3, 5, 6)}) == 4
    assert {"[Dune]", "[Dune (2)]", "[Dune (3)]"} <= {spelt[row] for row in (0, 3, 5, 6)}
    assert names(tokenizer)[1] == ["[", "The", " ", "[", "Hobbit", "]", "]"]
    assert not tokenizer.codes.atomic
    grown = tokenizer.add(longer(train, 2, title=["Dune", "New World"]))
    assert grown.codes.spell(7) not in spelt
    assert grown.codes.spell(7).startswith("[Dune (")
    assert grown.codes.spell(8) == "[New World]"


def test_without_titles() -> None:
    assert fitted("title", log([[0, 1]], 2)).codes.spell(1) == "[title_i1]"


def test_sequential_numbers_by_hand() -> None:
    found = numbers(fitted("sequential", log(HISTORIES, 10)))
    shown = [4, 2, 0, 7, 1, 5]
    assert [found[item] for item in shown] == list(range(1001, 1007))
    assert sorted(found[item] for item in (3, 6, 8, 9)) == list(range(1007, 1011))


@pytest.mark.parametrize(("order", "shown"), [("short-first", [2, 0, 4, 7, 1, 5]), ("long-first", [7, 1, 0, 5, 4, 2])])
def test_sequential_orders_of_users(order: str, shown: list[int]) -> None:
    found = numbers(fitted("sequential", log(HISTORIES, 10), order=order))
    assert [found[item] for item in shown] == list(range(1001, 1007))


def test_sequential_orders_number_the_same_set() -> None:
    train = blocks(60, 80)
    found = [numbers(fitted("sequential", train, order=order)) for order in ("file", "random", "short-first")]
    assert all(sorted(one) == list(range(1001, 1061)) for one in found)
    assert found[0] != found[1] != found[2]
    tokenizer = fitted("sequential", train, first=1)
    assert max(numbers(tokenizer)) == 60
    assert numbers(tokenizer.add(longer(train, 2)))[60:] == [61, 62]


TREE = [["Beauty", "Hair", "Shampoo"], ["Beauty", "Hair"], ["Beauty", "Hair", "Shampoo"], ["Beauty", "Skin"],
        None, ["Beauty", "Hair", "Shampoo"]]  # fmt: skip


def test_semantic_names_follow_the_tree() -> None:
    train = log([[0]], 6, category=TREE)
    tokenizer = fitted("semantic", train)
    found = names(tokenizer)
    shampoo = [found[row] for row in (0, 2, 5)]
    assert all(name[:2] == ["<1:Hair>", "<2:Shampoo>"] for name in shampoo)
    assert sorted(name[2] for name in shampoo) == ["<same_0>", "<same_1>", "<same_2>"]
    assert found[1] == ["<1:Hair>", "<same_0>"]
    assert found[3] == ["<1:Skin>", "<same_0>"]
    assert found[4] == ["<same_0>"]
    assert tokenizer.facts["root"] == "Beauty"
    np.testing.assert_array_equal(tokenizer.path_lengths(), [2, 1, 2, 1, 0, 2])
    grown = names(tokenizer.add(longer(train, 3, category=[TREE[0], ["Beauty", "Nails"], TREE[0]])))
    assert grown[6:] == [
        ["<1:Hair>", "<2:Shampoo>", "<same_3>"], ["<1:Nails>", "<same_0>"], ["<1:Hair>", "<2:Shampoo>", "<same_4>"]
    ]  # fmt: skip


def test_what_is_counted_is_counted_in_a_drawn_order() -> None:
    train = log([[0]], 50, category=[["a", "b"]] * 50)
    first, second = (names(fitted("semantic", train, seed=seed)) for seed in (0, 1))
    assert first != second
    assert sorted(name[-1] for name in first) == sorted(f"<same_{row}>" for row in range(50))


def test_semantic_tags_without_a_tree() -> None:
    tags = [["rare", "food", "bar"], ["bar", "food"], ["food"], ["bar", "late"], ["late", "bar", "food", "open"]]
    train = log([[0]], 5, category=tags)
    tokenizer = fitted("semantic", train, least_items=1, most_tags=2)
    assert tokenizer.facts["shape"] == "tags"  # bar and food stand on several levels
    found = names(tokenizer)
    assert [name[:-1] for name in found] == [
        ["<tag:bar>", "<tag:food>"], ["<tag:bar>", "<tag:food>"], ["<tag:food>"], ["<tag:bar>", "<tag:late>"],
        ["<tag:bar>", "<tag:food>"],
    ]  # fmt: skip
    kept = fitted("semantic", train, shape="tree")
    assert names(kept)[0][:3] == ["<1:rare>", "<2:food>", "<3:bar>"]


def test_semantic_needs_categories() -> None:
    with pytest.raises(DataError, match="items of 'planted' have no column 'category'; use another tokenizer"):
        fitted("semantic", log([[0]], 2))


def test_a_hybrid_keeps_the_way_and_ends_with_a_word_of_its_own() -> None:
    train = blocks(60, 300)
    way = fitted("collaborative", train, clusters=4, leaf=8)
    hybrid = fitted("hybrid", train, first={"name": "collaborative", "clusters": 4, "leaf": 8})
    found = names(hybrid)
    assert [name[:-1] for name in found] == [name[:-1] for name in names(way)]
    assert [name[-1] for name in found] == [f"<item_{row}>" for row in range(60)]
    last = [name[-1] for name in names(way)]
    assert len(set(last)) < 60  # places in leaves repeat, private words do not
    assert not any(word.startswith("<leaf_") for word in hybrid.codes.vocabulary)
    assert hybrid.codes.atomic
    assert hybrid.fitted_on == train.fingerprint


def test_other_hybrids() -> None:
    train = log(HISTORIES, 6 + 4, category=[*TREE, *[["Beauty", "Skin"]] * 4])
    semantic = names(fitted("semantic", train))
    found = names(fitted("hybrid", train, first="semantic", second="independent"))
    assert found == [[*name[:-1], f"<item_{row}>"] for row, name in enumerate(semantic)]
    numbered = names(fitted("sequential", train))
    found = names(fitted("hybrid", train, first="sequential", second="independent"))
    assert found == [[*(f"<{d}>" for d in name), f"<item_{row}>"] for row, name in enumerate(numbered)]
    graph = names(fitted("collaborative", train))
    both = names(fitted("hybrid", train, first="semantic", second="collaborative"))
    assert both == [[*a[:-1], *b] for a, b in zip(semantic, graph, strict=True)]
    turned = names(fitted("hybrid", train, first="collaborative", second="semantic"))
    assert turned == [[*b[:-1], *a] for a, b in zip(semantic, graph, strict=True)]


def test_hybrids_that_cannot_be() -> None:
    train = log(HISTORIES, 10)
    with pytest.raises(ConfigError, match="'sequential' writes plain text and cannot end a hybrid name"):
        fitted("hybrid", train, first="independent", second="sequential")
    with pytest.raises(ConfigError, match="first and second are both 'random'; name two kinds"):
        fitted("hybrid", train, first="random", second="random")
    kind = type(component("tokenizer", part("hybrid", {})))
    with pytest.raises(ConfigError, match="a hybrid needs its two tokenizers"):
        kind().fit(train, Run())
