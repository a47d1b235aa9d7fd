"""The readers: what each of them loves and avoids, the circle they belong to, the cover they fall for.

All of it is hidden truth. What a system may see of a reader is the sentence in ``users.preference``, which names two
of the loved themes and one avoided theme, and two attributes that mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from palate.data.world.catalogue import THEMES
from palate.data.world.dials import WorldConfig

if TYPE_CHECKING:
    import polars as pl

MOTIFS: tuple[str, ...] = ("sun", "wave", "tower", "bird", "tree", "key", "moon", "mountain")

BOTH, BOOKS, FILMS = 0, 1, 2  # which domains a reader uses

_WISHES = (
    "I look for stories about {a} and about {b}.",
    "Give me {a}, or {b}, and I am happy.",
    "I read for {a}; {b} is welcome too.",
    "My favourites are about {a} and {b}.",
)
_REFUSALS = (
    " Nothing about {x}, please.",
    " I would rather avoid {x}.",
    " I have had enough of {x}.",
    " No {x} for me.",
)
_FORMATS = ("paper", "e-book", "audio")


@dataclass(frozen=True, eq=False)
class Readers:
    """Arrays over U readers. ``taste`` has one column more than there are themes: the empty slot, always 0."""

    taste: npt.NDArray[np.float32]  # [U, 27] +1 loved, -1 avoided
    circle: npt.NDArray[np.int16]  # [U]
    motif: npt.NDArray[np.int16]  # [U] the favourite motif, -1 = does not choose by the cover
    group: npt.NDArray[np.int8]  # [U] BOTH, BOOKS or FILMS
    begins: npt.NDArray[np.int8]  # [U] BOOKS or FILMS: a reader of both knows only this one for half the history
    wants: npt.NDArray[np.int16]  # [U, 2] stated themes, both loved (-1 where there are fewer)
    avoids: npt.NDArray[np.int16]  # [U] stated theme, avoided (-1 = none stated)
    length: npt.NDArray[np.int64]  # [U] events
    wording: npt.NDArray[np.int16]  # [U] which sentence
    joined: npt.NDArray[np.int16]  # [U] year
    format: npt.NDArray[np.int8]  # [U]

    def __len__(self) -> int:
        return len(self.circle)

    def table(self, shuffled: npt.NDArray[np.int64] | None = None) -> pl.DataFrame:
        """The users table; ``shuffled`` gives every reader another reader's sentence (the control)."""
        import polars as pl

        width = max(4, len(str(len(self))))
        said = np.arange(len(self)) if shuffled is None else shuffled
        return pl.DataFrame(
            {
                "user": pl.int_range(1, len(self) + 1, eager=True).cast(pl.String).str.zfill(width),
                "preference": self._sentences().gather(said),
                "joined": pl.Series(self.joined, dtype=pl.Int32),
                "format": pl.Series(_FORMATS, dtype=pl.String).gather(self.format.astype(np.int64)),
            }
        ).with_columns(pl.concat_str(pl.lit("r"), "user").alias("user"))

    def _sentences(self) -> pl.Series:
        import polars as pl

        asked = pl.Series([phrase for phrase, _ in THEMES.values()])
        # every reader's sentence is put together from three columns, so no loop over readers is needed
        parts = pl.DataFrame(
            {
                "wish": pl.Series(_WISHES).gather(self.wording % len(_WISHES)),
                "refusal": pl.Series(_REFUSALS).gather(self.wording // len(_WISHES)),
                "a": asked.gather(np.maximum(self.wants[:, 0], 0)),
                "b": asked.gather(np.maximum(self.wants[:, 1], 0)),
                "x": asked.gather(np.maximum(self.avoids, 0)),
                "refuses": self.avoids >= 0,
            }
        )
        wish = pl.col("wish").str.replace("{a}", pl.col("a"), literal=True)
        wish = wish.str.replace("{b}", pl.col("b"), literal=True)
        refusal = pl.col("refusal").str.replace("{x}", pl.col("x"), literal=True)
        tail = pl.when("refuses").then(refusal).otherwise(pl.lit(""))
        return parts.select(pl.concat_str(wish, tail)).to_series()


def readers(config: WorldConfig) -> Readers:
    """Draw every reader's hidden traits from the seed."""
    rng = np.random.default_rng([config.seed, 1])
    n, n_themes = config.readers, len(THEMES)
    order = np.argsort(rng.random((n, n_themes), dtype=np.float32), axis=1)
    taste = np.zeros((n, n_themes + 1), dtype=np.float32)
    loved, avoided = order[:, : config.loved], order[:, config.loved : config.loved + config.avoided]
    np.put_along_axis(taste, loved, 1.0, axis=1)
    np.put_along_axis(taste, avoided, -1.0, axis=1)
    fans = rng.random(n) < config.motif_fans
    motif = np.where(fans, rng.integers(len(MOTIFS), size=n), -1)
    split = rng.random(n)
    group = np.where(
        split < config.book_only, BOOKS, np.where(split < config.book_only + config.film_only, FILMS, BOTH)
    )
    return Readers(
        taste=taste,
        circle=rng.integers(config.circles, size=n).astype(np.int16),
        motif=motif.astype(np.int16),
        group=(group if config.films else np.full(n, BOOKS)).astype(np.int8),
        wants=loved[:, [0, min(1, config.loved - 1)]].astype(np.int16),
        avoids=(avoided[:, 0] if config.avoided else np.full(n, -1)).astype(np.int16),
        length=rng.integers(config.events_low, config.events_high + 1, size=n),
        wording=rng.integers(len(_WISHES) * len(_REFUSALS), size=n).astype(np.int16),
        joined=rng.integers(2015, 2021, size=n).astype(np.int16),
        format=rng.integers(len(_FORMATS), size=n).astype(np.int8),
        begins=np.where(group == BOTH, rng.integers(BOOKS, FILMS + 1, size=n), group).astype(np.int8),
    )
