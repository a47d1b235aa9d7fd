"""The eight cover motifs, drawn as plain figures a person names at a glance.

Each function draws into a square tile of side ``s`` pixels in two colours: ``ink`` carries the shape, ``glow`` the
small details. Tiles are transparent elsewhere, so a motif sits on any ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from palate.data.world.readers import MOTIFS

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Draw = Callable[["ImageDraw.ImageDraw", float, Colour, Colour], None]


def ornament(motif: int, side: int, ink: Colour, glow: Colour) -> Image.Image:
    """The motif number ``motif`` as an RGBA tile ``side × side``."""
    from PIL import Image, ImageDraw

    tile = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    _DRAWN[MOTIFS[motif]](ImageDraw.Draw(tile), float(side), ink, glow)
    return tile


def _disc(d: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: Colour | tuple[int, int, int, int]) -> None:
    d.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _polygon(d: ImageDraw.ImageDraw, s: float, points: list[tuple[float, float]], fill: Colour) -> None:
    d.polygon([(x * s, y * s) for x, y in points], fill=fill)


def _curve(*points: tuple[float, float], steps: int = 24) -> list[tuple[float, float]]:
    """Points of a Bézier curve of any degree."""
    n = len(points) - 1
    line = []
    for step in range(steps + 1):
        t = step / steps
        weights = [math.comb(n, i) * t**i * (1 - t) ** (n - i) for i in range(n + 1)]
        line.append(
            (
                sum(w * x for w, (x, _) in zip(weights, points, strict=True)),
                sum(w * y for w, (_, y) in zip(weights, points, strict=True)),
            )
        )
    return line


def _sun(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    for ray in range(16):
        angle = ray * math.tau / 16
        far, wide = (0.48 if ray % 2 == 0 else 0.40), 0.10
        tip = (0.5 + far * math.cos(angle), 0.5 + far * math.sin(angle))
        feet = [(0.5 + 0.27 * math.cos(angle + w), 0.5 + 0.27 * math.sin(angle + w)) for w in (-wide * 1.6, wide * 1.6)]
        _polygon(d, s, [tip, *feet], ink)
    _disc(d, s / 2, s / 2, 0.24 * s, ink)
    _disc(d, s / 2, s / 2, 0.15 * s, glow)


def _wave(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    back = _curve((0.03, 0.86), (0.10, 0.40), (0.34, 0.10), (0.66, 0.14))
    lip = _curve((0.66, 0.14), (0.86, 0.16), (0.94, 0.34), (0.84, 0.50))
    inside = _curve((0.84, 0.50), (0.82, 0.30), (0.56, 0.26), (0.50, 0.46), (0.48, 0.66), (0.74, 0.80), (0.97, 0.72))
    _polygon(d, s, [*back, *lip, *inside, (0.97, 0.86)], ink)
    for drop in ((0.92, 0.14, 0.030), (0.80, 0.08, 0.022), (0.95, 0.27, 0.020)):
        _disc(d, drop[0] * s, drop[1] * s, drop[2] * s, ink)
    for low in (0.0, 0.09):
        foam = [(0.12 + 0.76 * t / 30, 0.78 - low + 0.025 * math.sin(t / 30 * 4 * math.pi)) for t in range(31)]
        start = 0 if low == 0 else 2
        d.line([(x * s, y * s) for x, y in foam[start : 31 - 14 * (low > 0)]], fill=glow, width=max(2, int(s * 0.028)))


def _tower(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    _polygon(d, s, [(0.33, 0.36), (0.67, 0.36), (0.71, 0.92), (0.29, 0.92)], ink)
    _polygon(d, s, [(0.25, 0.22), (0.75, 0.22), (0.75, 0.30), (0.67, 0.37), (0.33, 0.37), (0.25, 0.30)], ink)
    for left in (0.25, 0.378, 0.506, 0.634):
        _polygon(d, s, [(left, 0.12), (left + 0.09, 0.12), (left + 0.09, 0.23), (left, 0.23)], ink)
    _polygon(d, s, [(0.70, 0.12), (0.75, 0.12), (0.75, 0.23), (0.70, 0.23)], ink)
    for x, y in ((0.43, 0.44), (0.53, 0.56)):
        d.rounded_rectangle((x * s, y * s, (x + 0.055) * s, (y + 0.11) * s), radius=0.027 * s, fill=glow)
    door = [(0.43, 0.92), *_curve((0.43, 0.80), (0.43, 0.70), (0.57, 0.70), (0.57, 0.80)), (0.57, 0.92)]
    _polygon(d, s, door, glow)
    _polygon(d, s, [(0.18, 0.92), (0.82, 0.92), (0.82, 0.955), (0.18, 0.955)], ink)


def _bird(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    body = _curve((0.16, 0.74), (0.34, 0.72), (0.52, 0.72), (0.70, 0.58), (0.72, 0.44), (0.86, 0.36))
    belly = _curve((0.90, 0.43), (0.92, 0.62), (0.74, 0.86), (0.46, 0.86), (0.30, 0.84), (0.07, 0.88))
    _polygon(d, s, [*body, (0.98, 0.42), *belly], ink)
    _disc(d, 0.84 * s, 0.43 * s, 0.078 * s, ink)
    near = [
        *_curve((0.68, 0.62), (0.60, 0.40), (0.40, 0.12), (0.10, 0.10)),
        *_curve((0.10, 0.10), (0.20, 0.44), (0.30, 0.66), (0.46, 0.72)),
    ]
    _polygon(d, s, near, ink)
    far = [
        *_curve((0.74, 0.56), (0.76, 0.36), (0.66, 0.10), (0.56, 0.04)),
        *_curve((0.56, 0.04), (0.50, 0.20), (0.52, 0.34), (0.58, 0.46)),
    ]
    _polygon(d, s, far, ink)
    for shift in (0.0, 0.08, 0.16):
        feather = _curve((0.24 + shift, 0.24 + shift * 1.1), (0.34 + shift, 0.40 + shift * 0.8), (0.52, 0.62))
        d.line([(x * s, y * s) for x, y in feather], fill=glow, width=max(2, int(s * 0.018)))
    _disc(d, 0.865 * s, 0.415 * s, 0.017 * s, glow)


def _tree(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    trunk = [
        *_curve((0.40, 0.95), (0.46, 0.84), (0.46, 0.70), (0.46, 0.52)),
        *_curve((0.54, 0.52), (0.54, 0.70), (0.54, 0.84), (0.60, 0.95)),
    ]
    _polygon(d, s, trunk, ink)
    for x, y, r in (
        (0.5, 0.25, 0.20),
        (0.30, 0.40, 0.18),
        (0.70, 0.40, 0.18),
        (0.40, 0.52, 0.14),
        (0.60, 0.52, 0.14),
        (0.5, 0.40, 0.2),
    ):
        _disc(d, x * s, y * s, r * s, ink)
    for x, y in ((0.42, 0.22), (0.58, 0.30), (0.28, 0.40), (0.72, 0.42), (0.45, 0.42), (0.60, 0.52), (0.37, 0.55)):
        _disc(d, x * s, y * s, 0.032 * s, glow)


def _key(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    for x, y in ((0.5, 0.14), (0.37, 0.28), (0.63, 0.28)):
        _disc(d, x * s, y * s, 0.125 * s, ink)
        _disc(d, x * s, y * s, 0.062 * s, (0, 0, 0, 0))
    _disc(d, 0.5 * s, 0.25 * s, 0.06 * s, ink)
    d.rectangle((0.455 * s, 0.30 * s, 0.545 * s, 0.95 * s), fill=ink)
    d.rectangle((0.42 * s, 0.40 * s, 0.58 * s, 0.45 * s), fill=glow)
    d.rectangle((0.42 * s, 0.49 * s, 0.58 * s, 0.52 * s), fill=ink)
    for top, far in ((0.70, 0.76), (0.79, 0.70), (0.88, 0.76)):
        d.rectangle((0.54 * s, top * s, far * s, (top + 0.06) * s), fill=ink)


def _moon(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    _disc(d, 0.46 * s, 0.52 * s, 0.40 * s, ink)
    _disc(d, 0.63 * s, 0.42 * s, 0.335 * s, (0, 0, 0, 0))
    for x, y, r in ((0.66, 0.36, 0.13), (0.88, 0.60, 0.07), (0.86, 0.17, 0.06)):
        points = []
        for corner in range(8):
            reach = r if corner % 2 == 0 else r * 0.28
            angle = corner * math.pi / 4
            points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
        _polygon(d, s, points, glow)


def _mountain(d: ImageDraw.ImageDraw, s: float, ink: Colour, glow: Colour) -> None:
    _polygon(d, s, [(0.42, 0.88), (0.72, 0.36), (0.99, 0.88)], ink)
    _polygon(d, s, [(0.01, 0.88), (0.40, 0.12), (0.76, 0.88)], ink)
    cap = [(0.40, 0.12), (0.533, 0.40), (0.47, 0.35), (0.42, 0.44), (0.36, 0.36), (0.30, 0.42), (0.267, 0.38)]
    _polygon(d, s, cap, glow)
    _polygon(d, s, [(0.72, 0.36), (0.80, 0.515), (0.755, 0.49), (0.72, 0.54), (0.68, 0.48), (0.654, 0.475)], glow)


_DRAWN: dict[str, Draw] = {
    "sun": _sun,
    "wave": _wave,
    "tower": _tower,
    "bird": _bird,
    "tree": _tree,
    "key": _key,
    "moon": _moon,
    "mountain": _mountain,
}
