"""Covers: palette by genre, a quiet pattern by item, the motif large in a medallion, title and author set legibly.

The motif is drawn from the hidden truth and from nothing else, so only the picture shows it. Volumes of a series share
palette, frame and pattern, as a publisher would have it. Everything is drawn at twice the size and reduced, which
smooths the edges; the same item gives the same bytes.
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from palate.data.world.catalogue import Record
from palate.data.world.ornaments import Colour, ornament

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 240, 360
_SCALE = 2
_W, _H = WIDTH * _SCALE, HEIGHT * _SCALE
_LEADING = 1.14  # from line to line, in font sizes
_SMALL = {"of", "the", "a", "an", "and", "in", "to", "on", "or", "for", "with"}

# ground, ground for the pattern, medallion, motif, detail and letters; two or three palettes a genre
_PALETTES: dict[str, tuple[str, ...]] = {
    "science fiction": ("1b2340 222c52 f2efe4 1b2340 e4572e f2efe4", "0f3b43 134a54 e8f1ee 0f3b43 f2a541 e8f1ee"),
    "fantasy": ("3c2a4d 48345c f3e6d0 3c2a4d c98b2b f3e6d0", "24473c 2c5548 f4e9cf 24473c c4622d f4e9cf"),
    "mystery": ("2a2a2e 35353a e9dcc3 2a2a2e b3242b e9dcc3", "5a1620 681d28 f0e2cc 5a1620 c79a3b f0e2cc"),
    "thriller": ("1f2d33 283940 f1ede2 1f2d33 d7432f f1ede2", "30302f 3b3b39 f4d35e 30302f b8331f f4d35e"),
    "horror": ("1d1a22 28242f d9cfc0 1d1a22 8f1d2c d9cfc0", "33241f 3f2e28 e0c9a6 33241f 9c2f1f e0c9a6"),
    "children's": (
        "f2b544 f6c263 fff6e3 2f5d7c e0533d 24404f",
        "8cc5c0 9dd0cb fff8ea 2d4a5e ef6f53 22404c",
        "ee8a6c f29a7f fff3e4 35506b f0b23a 3a2a2a",
    ),
    "adventure": ("1f4e5f 276073 f5e7c8 1f4e5f d9772b f5e7c8", "7a3b1e 8a4726 f6e6c5 7a3b1e 2d6a6a f6e6c5"),
    "romance": ("b5566b c0677a fbeee6 8c3248 d9a441 fff4ee", "e9c7bd eed3ca fffaf4 8a3f4d c98a3a 5b2733"),
    "humour": ("f0d264 f4dc82 fffaea 3a4a6b d9523c 2e3a55", "7fb08a 8ebb98 fdf8e6 2f4a45 e2683c 233a35"),
    "philosophy": ("e7dfd0 ded4c1 fbf8f1 3a3a3a a8472f 2d2d2d", "c9cdc4 bec3b8 f7f6f0 34434a b0672c 273238"),
    "poetry": ("dce3e8 d0d9df fbfcfa 3b4d63 b06a5b 2c3a4b", "efe3e6 e7d7db fffafa 5a3b52 b98a3c 43293d"),
    "historical": ("6b2d2a 783733 f2e2c0 6b2d2a b8862f f2e2c0", "3b4a2f 475839 f1e8cb 3b4a2f b86a2f f1e8cb"),
    "novel": (
        "34495e 3e566d f3ece0 34495e c46a3a f3ece0",
        "e8dcc6 dfd1b7 fdf9f0 4a3b32 a5502f 3b2e27",
        "4f5d4e 5b6a5a f2eddd 4f5d4e c99a3d f2eddd",
    ),
    "comedy": ("f3c04b f6cc6d fff7e2 2f3e5c d8503a 28354e", "e9e1cf e0d5bd fffdf6 31505a d65f3c 26404a"),
    "drama": ("5b3a46 684652 f4e8dc 5b3a46 c98f3a f4e8dc", "d9d2c3 cfc6b3 faf7ef 3b3f4a a14a35 2c3039"),
    "crime": ("23262b 2e3238 ece3d0 23262b c0392b ece3d0", "4a2327 562b30 eee0c9 4a2327 c99b3f eee0c9"),
    "western": ("b5652f c0733e faecd0 5c2d16 2f6a6a fff3dc", "d9a45b e0b173 fdf3de 5e3418 a8402a 43240f"),
    "war film": ("4b4f3a 575b45 ece6cf 4b4f3a b5562f ece6cf",),
    "animation": ("5aa7c7 6cb3d0 fff9ec 234a63 f0803c 17374b", "a6c76c b3d080 fffbea 2f5140 e2603e 243f31"),
}
_FALLBACK = "novel"


def draw_cover(record: Record, motif: int, seed: int = 0) -> Image.Image:
    """The cover of one item as an RGB picture of 240 × 360 pixels."""
    from PIL import Image, ImageDraw

    rng = np.random.default_rng([seed, zlib.crc32(f"{record.title}/{record.author}".encode())])
    family = zlib.crc32((record.series or record.title).encode())
    palette = _palette(record, family)
    ground, second, plate, ink, glow, letters = palette
    picture = Image.new("RGB", (_W, _H), ground)
    draw = ImageDraw.Draw(picture)
    _PATTERNS[family // 7 % len(_PATTERNS)](draw, second, rng)
    title_first = family // 97 % 3 == 2
    centre = (_W / 2, _H * (0.645 if title_first else 0.335))
    radius = _W * float(rng.uniform(0.33, 0.37))
    _medallion(draw, family // 31 % 4, centre, radius, plate, glow)
    side = int(radius * float(rng.uniform(1.28, 1.42)))
    tile = ornament(motif, side, ink, glow)
    picture.paste(tile, (int(centre[0] - side / 2), int(centre[1] - side / 2)), tile)
    _letters(picture, record, letters, ground, glow, title_first)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _palette(record: Record, family: int) -> list[Colour]:
    genre = next((name for name in record.genres if name in _PALETTES), _FALLBACK)
    choices = _PALETTES[genre]
    hexes = choices[family % len(choices)].split()
    return [(int(h[:2], 16), int(h[2:4], 16), int(h[4:], 16)) for h in hexes]


def _stripes(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    gap, slant = int(rng.integers(26, 46)), int(rng.choice([-1, 0, 1])) * _H
    for x in range(-_H, _W + _H, gap):
        d.line((x, 0, x + slant, _H), fill=colour, width=gap // 2)


def _dots(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    gap = int(rng.integers(28, 46))
    for row, y in enumerate(range(0, _H + gap, gap)):
        for x in range(0, _W + gap, gap):
            cx, r = x + (gap // 2 if row % 2 else 0), gap * 0.22
            d.ellipse((cx - r, y - r, cx + r, y + r), fill=colour)


def _scales(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    gap = int(rng.integers(44, 72))
    for row, y in enumerate(range(-gap, _H + gap, gap // 2)):
        for x in range(-gap, _W + gap, gap):
            cx = x + (gap // 2 if row % 2 else 0)
            d.arc((cx, y, cx + gap, y + gap), 0, 180, fill=colour, width=5)


def _rays(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    n, cx, cy = int(rng.integers(14, 24)), _W / 2, _H * 0.335
    for ray in range(n):
        a, b = (ray + 0.0) / n * math.tau, (ray + 0.5) / n * math.tau
        d.polygon([(cx, cy), *((cx + _H * math.cos(t), cy + _H * math.sin(t)) for t in (a, b))], fill=colour)


def _lattice(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    gap = int(rng.integers(40, 64))
    for x in range(-_H, _W + _H, gap):
        d.line((x, 0, x + _H, _H), fill=colour, width=4)
        d.line((x, 0, x - _H, _H), fill=colour, width=4)


def _hills(d: ImageDraw.ImageDraw, colour: Colour, rng: np.random.Generator) -> None:
    gap, tall, long = int(rng.integers(26, 40)), float(rng.uniform(6, 16)), float(rng.uniform(60, 120))
    for number, y in enumerate(range(0, _H + gap, gap)):
        line = [(x, y + tall * math.sin(x / long * math.tau / 2 + number * 0.6)) for x in range(0, _W + 12, 12)]
        d.line(line, fill=colour, width=5)


_PATTERNS = (_stripes, _dots, _scales, _rays, _lattice, _hills)


def _medallion(
    d: ImageDraw.ImageDraw, shape: int, centre: tuple[float, float], r: float, plate: Colour, glow: Colour
) -> None:
    """A plain ground for the motif, so that it reads on any pattern: disc, arch, square or octagon."""
    x, y = centre
    for grow, colour in ((10, glow), (5, plate)):
        q = r + grow
        if shape == 0:
            d.ellipse((x - q, y - q, x + q, y + q), fill=colour)
        elif shape == 1:
            d.pieslice((x - q, y - q, x + q, y + q), 180, 360, fill=colour)
            d.rectangle((x - q, y - 1, x + q, y + q * 0.92), fill=colour)
        elif shape == 2:
            d.rounded_rectangle((x - q * 0.92, y - q * 0.92, x + q * 0.92, y + q * 0.92), radius=q * 0.16, fill=colour)
        else:
            turns = [(k + 0.5) * math.tau / 8 for k in range(8)]
            d.polygon([(x + q * math.cos(turn), y + q * math.sin(turn)) for turn in turns], fill=colour)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=size)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _drawable(text: str) -> str:
    """The bundled font has plain letters only: "Arsène" → "Arsene", "8½" → "8 1/2"."""
    text = text.replace("½", " 1/2").replace("ł", "l").replace("Ł", "L")
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _fitted(text: str, width: int, height: int, sizes: range) -> tuple[list[str], int]:
    """The largest size at which ``text`` fits into ``width × height`` pixels, and its lines."""
    for size in sizes:
        wrapped = _wrapped(text, size, width)
        if len(wrapped) * size * _LEADING <= height and max(_font(size).getlength(line) for line in wrapped) <= width:
            break
    # an article alone at the end of a line looks like an accident: let it start the next one
    for place in range(len(wrapped) - 1):
        words = wrapped[place].split()
        moved = f"{words[-1]} {wrapped[place + 1]}"
        if len(words) > 1 and words[-1].lower() in _SMALL and _font(size).getlength(moved) <= width:
            wrapped[place], wrapped[place + 1] = " ".join(words[:-1]), moved
    return wrapped, size


def _letters(
    picture: Image.Image, record: Record, letters: Colour, ground: Colour, glow: Colour, title_first: bool
) -> None:
    """Title and author on a quiet band of the ground colour, below the medallion or above it."""
    from PIL import ImageDraw

    d = ImageDraw.Draw(picture)
    band = (0, 0, _W, int(_H * 0.33)) if title_first else (0, int(_H * 0.655), _W, _H)
    d.rectangle(band, fill=ground)
    wide, room = int(_W * 0.86), band[3] - band[1]
    author, small = _fitted(_drawable(record.author).upper(), wide, 28, range(24, 13, -1))
    rule = 22
    title, size = _fitted(_drawable(record.title), wide, int(room * 0.88) - 2 * rule - small, range(54, 24, -2))
    step = int(size * _LEADING)
    tall = step * len(title) + 2 * rule + small
    y = band[1] + (band[3] - band[1] - tall) // 2 + step // 2
    for line in title:
        d.text((_W / 2, y), line, font=_font(size), fill=letters, anchor="mm", stroke_width=1, stroke_fill=letters)
        y += step
    y += rule - step // 2
    d.line((_W / 2 - 34, y, _W / 2 + 34, y), fill=glow, width=4)
    d.text((_W / 2, y + rule + small // 2 - 4), author[0], font=_font(small), fill=letters, anchor="mm")
