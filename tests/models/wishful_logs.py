"""A log in which a review says what comes next, and nothing else does: whoever follows words knows it all."""

from __future__ import annotations

import numpy as np
import polars as pl

from palate.core.dataset import Dataset

THEMES = (
    "dragons", "ships", "robots", "gardens", "detectives", "mountains", "orchestras", "wolves", "deserts", "bakeries",
    "castles", "submarines",
)  # fmt: skip


def wishful(n_users: int = 60, length: int = 8, seed: int = 0, follows: float = 0.0) -> Dataset:
    """Each event's item is drawn by lot; the review before it wishes for its theme. A third of the reviews complain of
    the theme that was met. Of a share ``follows`` of the users, the first, items follow each other in their order, so
    that a history says something, too."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(len(THEMES))[:length] for _ in range(n_users)])
    some = round(follows * n_users)
    items[:some] = (rng.integers(len(THEMES), size=(some, 1)) + np.arange(length)) % len(THEMES)
    wishes = np.roll(items, -1, axis=1)
    wishes[:, -1] = [rng.choice(np.setdiff1d(np.arange(len(THEMES)), row)) for row in items]
    complains = rng.random(items.shape) < 1 / 3
    reviews = [
        f"{'Terrible, too much of ' + THEMES[met] + '.' if bad else 'Very nice.'} Next I hope to find {THEMES[wish]}."
        for met, wish, bad in zip(items.ravel(), wishes.ravel(), complains.ravel(), strict=True)
    ]
    return Dataset(
        "wishful",
        pl.DataFrame({
            "user_row": np.repeat(np.arange(n_users, dtype=np.int32), length),
            "item_row": items.ravel().astype(np.int32),
            "time": np.arange(items.size, dtype=np.int64) * 1000,
            "review": reviews,
        }),
        pl.DataFrame({
            "item": [f"i{row}" for row in range(len(THEMES))],
            "title": [f"Number {row}" for row in range(len(THEMES))],
            "text": [f"A tale of {theme}." for theme in THEMES],
            "brand": ["Acme"] * len(THEMES),
        }),
        pl.DataFrame({"user": [f"u{row}" for row in range(n_users)]}),
    )  # fmt: skip
