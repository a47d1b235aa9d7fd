"""Every planted signal is there, its control is empty, and oracles reach what the world promises."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from palate.data.world import SIGNALS, World, world
from palate.data.world.__main__ import card
from palate.data.world.oracle import ALL, last_events, noise_chances, oracle_scores, recall_at_10
from palate.data.world.signals import CONTRASTS, cold_targets, named_themes, presence
from palate.data.world.simulate import COLD, NOISE, RELEASE_MS, affinity

# contrast: the least a planted world must show, and the most a shuffled one may
MARGINS = {
    "taste": (0.40, 0.05),
    "circle": (0.10, 0.02),
    "order": (0.25, 0.03),
    "motif": (0.05, 0.02),
    "reviews: tone": (0.85, 0.05),
    "reviews: wants": (0.40, 0.05),
    "preferences": (0.90, 0.08),
    "noise": (0.20, 0.03),
    "popularity": (0.10, 0.03),
}


@cache
def built(shuffled: str | None = None) -> World:
    return world("small", shuffled=shuffled)  # type: ignore[arg-type]


def _recall(planted: World, *knows: str, cold_only: bool = False) -> float:
    targets, before = last_events(planted)
    scores = oracle_scores(planted, knows)
    if not cold_only:
        return float(recall_at_10(scores, targets, before).mean())
    cold = planted.truth.items.cold
    asked = cold[targets]
    return float(recall_at_10(scores[asked], targets[asked], before[asked], cold).mean())


@pytest.mark.parametrize("contrast", list(CONTRASTS))
def test_signal_is_planted_and_its_control_is_empty(contrast: str) -> None:
    least, most = MARGINS[contrast]
    assert CONTRASTS[contrast](built()) > least
    assert abs(CONTRASTS[contrast](built(contrast.split(":")[0]))) < most


@pytest.mark.parametrize("shuffled", SIGNALS)
def test_a_control_removes_its_own_signal_and_no_other(shuffled: str) -> None:
    found = presence(built(shuffled))
    for contrast, value in found.items():
        if contrast.split(":")[0] == shuffled:
            continue
        # noise is told apart by taste, circle and motif, so it fades a little without one of them
        least = MARGINS[contrast][0] * (0.4 if contrast == "noise" else 0.6)
        assert value > least, (shuffled, contrast)


def test_noise_share_and_marks() -> None:
    noise = built().truth.noise
    assert 0.09 < noise.mean() < 0.11
    assert (noise == (built().truth.cause == NOISE)).all()
    stars = built().dataset.interactions["rating"].to_numpy()
    assert stars[noise].mean() < stars[~noise].mean() - 0.5


def test_noise_finds_every_warm_item_alike() -> None:
    """Noise is even over items, so it does not follow popularity as the planned events do."""
    planted = built()
    rows, noise = planted.dataset.item_rows, planted.truth.noise
    warm = np.flatnonzero(~planted.truth.items.cold)
    by_noise = np.bincount(rows[noise], minlength=planted.dataset.n_items)[warm]
    planned = np.bincount(rows[~noise], minlength=planted.dataset.n_items)[warm]
    head = np.argsort(-planned)[: len(warm) // 10]
    assert by_noise[head].sum() / by_noise.sum() < 0.12
    assert planned[head].sum() / planned.sum() > 0.30


def test_cold_items_come_late_and_often_enough_to_measure() -> None:
    planted = built()
    targets, early = cold_targets(planted)
    assert early == 0
    assert targets >= 60
    data, cold = planted.dataset, planted.truth.items.cold
    assert cold.sum() == 30
    event_is_cold = cold[data.item_rows]
    from_end = np.searchsorted(data.user_rows, data.user_rows, side="right") - np.arange(data.n_interactions)
    assert from_end[event_is_cold].max() == 2
    assert ((from_end == 2) & event_is_cold).sum() >= 30
    assert (event_is_cold == (planted.truth.cause == COLD)).all()
    assert ((data.interactions["time"].to_numpy() >= RELEASE_MS) == (from_end <= 2)).all()
    assert (planted.truth.items.next_in_series[cold] < 0).all()


def test_text_of_cold_items_predicts_them_through_taste_only() -> None:
    chance = _recall(built(), cold_only=True)
    assert 0.30 < chance < 0.37
    assert _recall(built(), "taste", cold_only=True) > chance + 0.35
    assert _recall(built(), "stated", cold_only=True) > chance + 0.2
    assert _recall(built("taste"), "taste", cold_only=True) < chance + 0.1


@pytest.mark.parametrize("signal", ["taste", "circle"])
def test_knowing_a_signal_helps_the_oracle_only_where_it_is_planted(signal: str) -> None:
    base = ("popularity", "order")
    gain = _recall(built(), *base, signal) - _recall(built(), *base)
    lost = _recall(built(signal), *base, signal) - _recall(built(signal), *base)
    assert gain > 0.03
    assert lost < gain / 2


def test_order_is_a_strong_signal_only_in_order() -> None:
    assert _recall(built(), "popularity", "order") > _recall(built(), "popularity") + 0.15
    assert _recall(built("order"), "order") < _recall(built(), "order") - 0.1


def test_full_truth_beats_every_part_and_leaves_noise() -> None:
    full = _recall(built(), *ALL)
    assert 0.45 < full < 0.75
    for part in ALL:
        assert full > _recall(built(), *(name for name in ALL if name != part)) + 0.002, part


def test_collaboration_sees_the_circle_and_text_does_not() -> None:
    """Items of one circle share readers beyond what their themes explain; their texts share no theme more often."""
    planted, control = built(), built("circle")
    for among, expected in ((planted, True), (control, False)):
        data, traits = among.dataset, among.truth.items
        warm = np.flatnonzero(~traits.cold)
        read = np.zeros((data.n_users, data.n_items))
        read[data.user_rows, data.item_rows] = 1.0
        alike = np.corrcoef(read[:, warm].T)
        same = traits.circle[warm][:, None] == traits.circle[warm]
        other = ~np.eye(len(warm), dtype=bool)
        gap = alike[same & other].mean() - alike[~same].mean()
        assert (gap > 0.015) == expected
        shared = among.truth.themes[warm] @ among.truth.themes[warm].T
        assert abs(shared[same & other].mean() - shared[~same].mean()) < 0.1


def test_motif_is_independent_of_the_text() -> None:
    traits, themes = built().truth.items, built().truth.themes
    shared = themes @ themes.T
    same = traits.motif[:, None] == traits.motif
    other = ~np.eye(len(themes), dtype=bool)
    assert abs(shared[same & other].mean() - shared[~same].mean()) < 0.1


def test_preference_sentences_name_loved_and_avoided_themes() -> None:
    who, sentences = built().truth.readers, built().dataset.users["preference"]
    named = named_themes(sentences)
    everyone = np.arange(len(who))
    for column in range(2):
        assert named[everyone, who.wants[:, column]].all()
        assert (who.taste[everyone, who.wants[:, column]] == 1).all()
    assert named[everyone, who.avoids].all()
    assert (who.taste[everyone, who.avoids] == -1).all()
    assert sentences.n_unique() > 700
    assert not sentences.str.contains(r"[{}]").any()


def test_reviews_are_whole_sentences_that_follow_the_rating() -> None:
    table = built().dataset.interactions
    assert not table["review"].str.contains(r"[{}]").any()
    assert table["review"].str.ends_with(".").all()
    praise = table["review"].str.contains("masterpiece|superb|Wonderful|put it down").to_numpy()
    stars = table["rating"].to_numpy()
    assert praise[stars == 5].mean() > 0.7
    assert praise[stars <= 3].mean() < 0.01


def test_taste_is_not_in_the_harmless_attributes() -> None:
    who, users = built().truth.readers, built().dataset.users
    for column in ("joined", "format"):
        for value in users[column].unique():
            mask = (users[column] == value).to_numpy()
            assert np.abs(who.taste[mask, :-1].mean(0) - who.taste[:, :-1].mean(0)).max() < 0.15


def test_the_page_states_what_the_card_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "world.md").read_text("utf-8")
    head, *_, figures = card("small").partition("contrast ")
    assert head.splitlines()[1] in page
    for line in figures.splitlines():
        assert line in page, line


def test_who_knows_the_truth_finds_noise_and_moved_marks_by_chance() -> None:
    built = world("small")
    at, chance = noise_chances(built)
    users = built.dataset.user_rows
    from_end = np.searchsorted(users, users, side="right") - np.arange(len(users))
    assert at.tolist() == np.flatnonzero(from_end > 2).tolist()
    worst = np.argsort(-chance, kind="stable")
    n = int(built.truth.noise[at].sum())
    assert built.truth.noise[at][worst[:n]].mean() > 0.7
    moved = world("small", shuffled="noise").truth.noise[at]
    assert moved[worst[:n]].mean() == pytest.approx(moved.mean(), abs=0.02)


@pytest.mark.parametrize("signal", ["taste", "circle", "popularity"])
def test_an_oracle_gains_nothing_from_a_signal_that_was_destroyed(signal: str) -> None:
    built = world("test", readers=300, shuffled=signal)  # type: ignore[arg-type]

    def found(knows: tuple[str, ...]) -> float:
        at, chance = noise_chances(built, knows)
        noise = built.truth.noise[at]
        return float(noise[np.argsort(-chance, kind="stable")[: int(noise.sum())]].mean())

    assert found(tuple(name for name in ALL if name != signal)) > found(ALL)


def test_a_domain_that_is_closed_yet_lends_no_chance() -> None:
    built = world("two-domains", readers=200)
    at, chance = noise_chances(built)
    who = built.truth.readers
    both = who.begins[built.dataset.user_rows[at]] != who.group[built.dataset.user_rows[at]]
    assert both.any()
    assert built.truth.noise[at][both].mean() == pytest.approx(chance[both].mean(), abs=0.03)


def test_a_chance_of_noise_is_bayes_rule_over_what_had_been_read() -> None:
    built = world("test")
    at, chance = noise_chances(built, ("popularity", "taste"))
    data, traits = built.dataset, built.truth.items
    for event, found in list(zip(at.tolist(), chance.tolist(), strict=True))[:60]:
        user, item = int(data.user_rows[event]), int(data.item_rows[event])
        first = int(np.searchsorted(data.user_rows, user))
        left = [row for row in range(data.n_items) if not traits.cold[row] and row not in data.item_rows[first:event]]
        parts = affinity(built.config, built.truth.readers, built.catalogue, traits, np.array([user]), np.array([left]))
        weights = np.exp(parts["popularity"][0].astype(float) + parts["taste"][0])
        planned = 0.9 * weights[left.index(item)] / weights.sum()
        assert found == pytest.approx(0.1 / len(left) / (0.1 / len(left) + planned), rel=1e-4)
