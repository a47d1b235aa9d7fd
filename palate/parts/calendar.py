"""When an event happened, as a vector: year, month, day, hour, minute and second, each with a table of its own.

HLLM (arXiv 2409.12740, side features): six tables of 512, joined and mapped to the width by a small network. The first
``n_parts`` are kept; four of them mean that minutes are not told apart. Shapes: P events, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from palate.core.dataset import Dataset
from palate.core.errors import ConfigError

CLOCK_PARTS = {"order": 0, "day": 3, "unix": 6}
"""How many of the parts a clock knows."""
SIZES = (2100, 13, 32, 24, 60, 60)
"""Of the tables; a year at or beyond 2100 reads as 2099."""
DAY = 86_400


def calendar(times: Tensor) -> Tensor:
    """``[P]`` int64 ms since 1970, UTC → ``[P, 6]`` year, month, day, hour, minute, second."""
    seconds = torch.div(times, 1000, rounding_mode="floor")
    days, clock = torch.div(seconds, DAY, rounding_mode="floor"), seconds.remainder(DAY)
    # Civil date from days, in eras of 400 years that begin on the first of March (Hinnant 2013).
    shifted = days + 719_468
    era = torch.div(shifted, 146_097, rounding_mode="floor")
    of_era = shifted - era * 146_097
    year = torch.div(of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096, 365, rounding_mode="floor")
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = torch.where(month < 10, month + 3, month - 9)
    year = year + era * 400 + (month <= 2).long()
    return torch.stack([year, month, day, clock // 3600, clock // 60 % 60, clock % 60], 1)


class CalendarFeatures(nn.Module):
    """``[P]`` ms → ``[P, D]``."""

    def __init__(self, width: int, n_parts: int, inner: int = 512) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, inner) for size in SIZES[:n_parts])
        self.mix = nn.Sequential(nn.Linear(inner * n_parts, width), nn.SiLU(), nn.Linear(width, width))
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, times: Tensor) -> Tensor:
        parts = calendar(times)[:, : len(self.tables)]
        limits = torch.tensor(SIZES[: len(self.tables)], device=times.device) - 1
        parts = torch.minimum(parts.clamp(min=0), limits)
        return self.mix(torch.cat([table(parts[:, place]) for place, table in enumerate(self.tables)], 1))


def check_clock(train: Dataset, parts: int) -> None:
    """Raises ``ConfigError`` where the clock of ``train`` does not know so many parts."""
    known = 0 if train.times is None else CLOCK_PARTS[train.clock]
    if parts > known and train.n_interactions:
        raise ConfigError(
            f"'{train.name}' knows {known} of year, month, day, hour, minute and second of its events; "
            f"time_parts cannot be {parts}"
        )
