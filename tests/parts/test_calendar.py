"""Dates by the standard library."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import torch

from palate.parts.calendar import CalendarFeatures, calendar


def test_dates_are_those_of_the_calendar() -> None:
    """Leap days, turns of centuries, times before 1970."""
    odd = ["2000-02-29T23:59:59", "1900-03-01T00:00:00", "2099-12-31T12:00:01", "1969-12-31T23:59:59", "2024-02-29"]
    times = [int(np.datetime64(text, "ms").astype(np.int64)) for text in odd]
    times += np.random.default_rng(0).integers(-2 * 10**12, 4 * 10**12, 500).tolist()
    for found, ms in zip(calendar(torch.tensor(times)).tolist(), times, strict=True):
        date = datetime(1970, 1, 1) + timedelta(milliseconds=ms)
        assert found == [date.year, date.month, date.day, date.hour, date.minute, date.second]


def test_only_the_first_parts_are_told_apart() -> None:
    torch.manual_seed(0)
    features = CalendarFeatures(width=4, n_parts=4, inner=8)
    hour = 3_600_000
    a, b, c = features(torch.tensor([10 * hour, 10 * hour + 59 * 60_000, 11 * hour]))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    features(torch.tensor([10**15]))  # a year beyond the table
