"""Covers are deterministic, legible in size, and show the motif and nothing else of the hidden truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from palate.data.world import World, world
from palate.data.world.catalogue import real_records
from palate.data.world.covers import HEIGHT, WIDTH, _drawable, draw_cover
from palate.data.world.ornaments import ornament
from palate.data.world.readers import MOTIFS


@cache
def tiny() -> World:
    return world("test")


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=np.int16)


def test_covers_are_written_where_the_items_table_says(tmp_path: Path) -> None:
    few = world("test", readers=4, items=40, events_low=4, events_high=8)
    folder = few.covers(tmp_path)
    for row, path in enumerate(few.dataset.items["image"].to_list()):
        with Image.open(folder / path) as picture:
            assert picture.size == (WIDTH, HEIGHT)
            if row in (0, 39):
                assert (_pixels(picture) == _pixels(few.cover(row))).all()


def test_the_same_item_gives_the_same_bytes() -> None:
    assert tiny().cover(3).tobytes() == tiny().cover(3).tobytes()
    assert tiny().cover(3).tobytes() == world("test", readers=50).cover(3).tobytes()


def test_the_cover_changes_with_the_motif_in_the_picture_and_nowhere_else() -> None:
    record = real_records("book")[0]
    first, second = (_pixels(draw_cover(record, motif)) for motif in (0, 1))
    changed = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert len(changed) > 60  # rows of the picture: the motif is large
    assert changed.max() < HEIGHT * 0.65  # and never reaches the letters below


def test_motifs_are_told_apart_by_their_shape() -> None:
    """Any two motifs differ in more pixels than the same motif does when drawn a tenth larger."""
    shapes = [np.asarray(ornament(motif, 100, (0, 0, 0), (255, 0, 0)))[..., 3] > 0 for motif in range(len(MOTIFS))]
    for one, shape in enumerate(shapes):
        assert 0.08 < shape.mean() < 0.6, MOTIFS[one]
        larger = np.asarray(ornament(one, 110, (0, 0, 0), (255, 0, 0)))[5:105, 5:105, 3] > 0
        drift = (shape != larger).mean()
        for other in range(one):
            assert (shape != shapes[other]).mean() > drift + 0.03, (MOTIFS[one], MOTIFS[other])


def test_circle_and_taste_are_not_in_the_picture() -> None:
    record = real_records("book")[10]
    plain = draw_cover(record, 2).tobytes()
    assert draw_cover(replace(record, themes=("war",)), 2).tobytes() == plain
    assert draw_cover(replace(record, description="Other words."), 2).tobytes() == plain


def test_letters_the_font_lacks_are_replaced() -> None:
    assert _drawable("Arsène Lupin") == "Arsene Lupin"
    assert _drawable("Stanisław Lem") == "Stanislaw Lem"
    assert _drawable("8½") == "8 1/2"
    for record in (*real_records("book"), *real_records("film")):
        assert len(_drawable(record.title)) >= len(record.title)
