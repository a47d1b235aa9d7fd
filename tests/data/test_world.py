"""The world's catalogue, sizes, determinism and guards."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from functools import cache

import numpy as np
import polars as pl
import pytest

from palate.core.errors import ConfigError
from palate.data.world import VERSION, World, WorldConfig, world
from palate.data.world.catalogue import SLOTS, THEMES, real_records
from palate.data.world.readers import FILMS
from palate.data.world.simulate import CAUSES, END_MS, FREE, RELEASE_MS, START_MS


@cache
def small() -> World:
    return world("small")


@cache
def tiny() -> World:
    return world("test")


@pytest.mark.parametrize("domain", ["book", "film"])
def test_records_are_well_formed(domain: str) -> None:
    records = real_records(domain)
    assert len(records) == {"book": 300, "film": 150}[domain]
    assert len({(record.title, record.author) for record in records}) == len(records)
    for record in records:
        assert record.title
        assert record.author
        assert -800 <= record.year <= 2020
        assert record.year != 0
        assert record.genres
        assert 2 <= len(record.themes) <= SLOTS
        assert len(set(record.themes)) == len(record.themes)
        assert 12 <= len(record.description.split()) <= 36, record.title
        assert record.description.endswith("."), record.title
        assert (record.series is None) == (record.series_position is None)


@pytest.mark.parametrize("domain", ["book", "film"])
def test_every_theme_of_a_record_is_named_in_its_description(domain: str) -> None:
    for record in real_records(domain):
        for theme in record.themes:
            assert re.search(rf"\b({THEMES[theme][1]})\b", record.description, re.IGNORECASE), (record.title, theme)


def test_every_theme_is_common_enough_to_be_learned() -> None:
    carried = [theme for record in real_records("book") for theme in record.themes]
    assert min(carried.count(theme) for theme in THEMES) >= 10


def test_positions_in_a_series_are_distinct_and_follow_the_years() -> None:
    series: dict[str, list[tuple[int, int]]] = {}
    for record in (*real_records("book"), *real_records("film")):
        if record.series:
            series.setdefault(record.series, []).append((record.series_position or 0, record.year))
    assert len(series) >= 60
    for name, volumes in series.items():
        positions = [position for position, _ in sorted(volumes)]
        years = [year for _, year in sorted(volumes)]
        assert len(positions) >= 2, name
        assert positions[0] == 1, name
        assert len(set(positions)) == len(positions), name
        assert years == sorted(years), name


@pytest.mark.parametrize(("name", "readers", "items"), [("small", 800, 300), ("test", 120, 60)])
def test_named_worlds_have_their_sizes(name: str, readers: int, items: int) -> None:
    built = small() if name == "small" else tiny()
    data = built.dataset
    assert (data.n_users, data.n_items) == (readers, items)
    assert data.name == f"world-{name}"
    assert data.clock == "unix"
    assert data.about.simulated
    lengths = np.bincount(data.user_rows)
    assert lengths.min() >= built.config.events_low
    assert lengths.max() <= built.config.events_high
    assert lengths.min() < lengths.max()


def test_ids_are_unique_and_rows_agree_with_the_catalogue() -> None:
    data = small().dataset
    assert len(set(data.item_ids)) == data.n_items
    assert len(set(data.user_ids)) == data.n_users
    assert data.item_ids[:2] == ["b001", "b002"]
    assert data.user_ids[41] == "r0042"
    assert data.titles == [record.title for record in small().catalogue.records]
    assert data.items["image"][16] == "covers/b017.png"
    assert "themes" not in data.items.columns


def test_nobody_reads_twice_and_times_only_move_on() -> None:
    data = small().dataset
    pairs = data.interactions.select("user_row", "item_row")
    assert pairs.n_unique() == data.n_interactions
    times, same = data.interactions["time"].to_numpy(), np.diff(data.user_rows) == 0
    assert (np.diff(times)[same] > 0).all()
    assert times.min() >= START_MS
    assert times.max() < END_MS + 100
    assert set(data.interactions["rating"].unique()) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_same_arguments_same_bytes_and_another_seed_another_world() -> None:
    again, other = world("test"), world("test", seed=1)
    for table in ("interactions", "items", "users"):
        assert getattr(again.dataset, table).equals(getattr(tiny().dataset, table)), table
    assert not other.dataset.interactions.equals(again.dataset.interactions)
    assert (other.truth.items.circle != again.truth.items.circle).any()


def _words(built: World) -> str:
    """A hash of every word a system may read."""
    data = built.dataset
    columns = (data.items["text"], data.users["preference"], data.interactions["review"])
    text = "\n".join("\n".join(column.to_list()) for column in columns)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_version_1_is_frozen() -> None:
    """A change of these hashes is a change of the world: bump VERSION and measure everything again."""
    assert VERSION == "1"
    assert (small().dataset.fingerprint, _words(small())) == ("8e1cfc91f1070fa7b70ef38a27ba2397", "e2a7346a02eeef38")
    assert (tiny().dataset.fingerprint, _words(tiny())) == ("53292c08a71fd3861e14704d5d5d296c", "5cafa4af4e541215")
    both = world("two-domains")
    assert (both.dataset.fingerprint, _words(both)) == ("f17008c7557bb22328ab17ceaeed7029", "154e4bc0b5419dfa")


def test_global_random_state_is_untouched() -> None:
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    world("test", seed=3)
    assert (np.random.get_state()[1] == before).all()


def test_importing_loads_no_heavy_library() -> None:
    code = "import sys, palate.data.world; print([m for m in ('torch', 'scipy', 'polars', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_series_are_read_in_order_but_for_noise() -> None:
    """Without noise no volume is read before the one that precedes it."""
    planted = world("test", noise=0.0)
    before, data = planted.truth.items.before_in_series, planted.dataset
    place = np.full((data.n_users, data.n_items), np.inf)
    place[data.user_rows, data.item_rows] = np.arange(data.n_interactions)
    volumes = np.flatnonzero(before >= 0)
    read = np.isfinite(place[:, volumes])
    assert read.sum() > 100
    assert (place[:, before[volumes]] < place[:, volumes])[read].all()
    assert (planted.truth.cause >= FREE).all()
    assert {CAUSES[cause] for cause in np.unique(planted.truth.cause)} == {"free", "series", "author", "cold"}


def test_two_domains_share_some_readers() -> None:
    planted = world("two-domains")
    data = planted.dataset
    film = (data.items["domain"] == "film").to_numpy()
    assert film.sum() == 150
    assert all(name.startswith("f" if flag else "b") for name, flag in zip(data.item_ids, film, strict=True))
    watched = np.bincount(data.user_rows, weights=film[data.item_rows], minlength=data.n_users)
    read = np.bincount(data.user_rows, minlength=data.n_users) - watched
    both = ((watched > 0) & (read > 0)).mean()
    assert 0.45 < both < 0.55
    assert 0.15 < ((watched > 0) & (read == 0)).mean() < 0.25
    assert 0.25 < ((watched == 0) & (read > 0)).mean() < 0.35
    # a reader of both begins in one domain and meets the other halfway, so that one can predict the other
    place = np.arange(data.n_interactions) - np.searchsorted(data.user_rows, data.user_rows)
    early = place < np.bincount(data.user_rows)[data.user_rows] // 2
    assert (film[data.item_rows] == (planted.truth.readers.begins == FILMS)[data.user_rows])[early].all()
    assert data.interactions.select("user_row", "item_row").n_unique() == data.n_interactions
    kinds = data.interactions["kind"].to_numpy()
    assert (kinds == np.where(film[data.item_rows], "watch", "read")).all()


def test_large_worlds_invent_visibly_and_keep_every_rule() -> None:
    planted = world(readers=10_000, items=5_000, reviews=False, events_low=6, events_high=12)
    data = planted.dataset
    assert (data.n_users, data.n_items) == (10_000, 5_000)
    invented = data.items["invented"].to_numpy()
    assert (invented == (np.arange(5_000) >= 300)).all()
    assert data.items.filter(pl.col("invented"))["title"].str.starts_with("Volume ").all()
    assert data.items["title"].filter(pl.Series(invented)).n_unique() == 4_700
    assert data.interactions.select("user_row", "item_row").n_unique() == data.n_interactions
    cold = planted.truth.items.cold[data.item_rows]
    assert planted.truth.items.cold.sum() == 500
    assert (data.interactions["time"].to_numpy()[cold] >= RELEASE_MS).all()
    # readers simulated in different chunks respond to their own taste, so no chunk has another's readers
    loved, themes = planted.truth.readers.taste[:, :-1], planted.truth.themes
    match = (loved[data.user_rows] * themes[data.item_rows]).sum(1)
    for chunk in (data.user_rows < 2048, data.user_rows >= 8_192):
        assert match[chunk].mean() > 0.5
    assert "review" not in data.interactions.columns


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "smal"}, "no world 'smal'.*small"),
        ({"tast": 1.0}, "unknown setting 'tast'.*taste"),
        ({"events_low": 30, "events_high": 20}, "below events_low"),
        ({"items": 40}, "too many for 40 items"),
        ({"name": "two-domains", "items": 900}, "need candidates=1050"),
        ({"shuffled": "colour"}, "setting 'shuffled'"),
    ],
)
def test_bad_settings_are_one_clear_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        world(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(failure.value).strip() or "shuffled" in settings


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        WorldConfig().taste = 0.0  # type: ignore[misc]
