"""ReDial: people talk about movies. CC BY 4.0.

R. Li et al., *Towards Deep Conversational Recommendations*, NeurIPS 2018.
``train_data.jsonl`` and ``test_data.jsonl``, a conversation a line. An event is a movie that was mentioned, seen from
the person who seeks (``initiatorWorkerId``): ``kind`` is ``suggested`` or ``mentioned``, ``rating`` 1 for liked, 0 for
not liked, null where the seeker did not say. Movies follow by their first mention (``@id`` in a message); conversations
by their place in the files, for only the order is known. The two files are untested on the originals: 1,000
conversations in the original format (``redial_valid_data.jsonl``) are what the loader was tried on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.json_lines import records
from palate.data.reading import UNTESTED, BadRows, Reading, Tables, about_with, find_optional

FILES = ("train_data.jsonl", "redial_valid_data.jsonl", "test_data.jsonl")
_MENTION = re.compile(r"@(\d+)")
_SCHEMA = {"user": pl.String, "item": pl.String, "kind": pl.String, "rating": pl.Float64, "conversation": pl.String}


def redial(folder: Path, reading: Reading) -> Tables:
    """Movies mentioned in conversations, with what the seeker said about them."""
    bad = BadRows(reading.skip_bad)
    paths = [path for name in FILES if (path := find_optional(folder, name)) is not None]
    if not paths:
        raise DataError(f"{folder} has none of the files {', '.join(FILES)} (plain or .gz)")
    events: list[tuple[str, str, str, float | None, str]] = []
    titles: dict[str, str] = {}
    for path in paths:
        for line, talk in records(path, bad):
            try:
                events += _events(talk)
                titles.update((item, title) for item, title in _named(talk.get("movieMentions")).items() if title)
            except (KeyError, TypeError, AttributeError) as failure:
                bad.add(DataError.at(path, f"a conversation of ReDial ({failure!r})", line=line))
    items = pl.DataFrame({"item": list(titles), "title": list(titles.values())}, schema_overrides={"item": pl.String})
    items = items.with_columns(
        pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars(),
        year=pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32),
    ).with_columns(text=pl.col("title"))
    about = About(title="ReDial", source="https://redialdata.github.io/website/", licence="CC BY 4.0")
    whole = {path.name.removesuffix(".gz") for path in paths} >= {"train_data.jsonl", "test_data.jsonl"}
    notes = (UNTESTED,) if whole else (f"only {', '.join(path.name for path in paths)}",)
    table = pl.DataFrame(events, schema=_SCHEMA, orient="row")
    return Tables(table, items, clock="order", about=about_with(about, bad, *notes))


def _events(talk: dict[str, Any]) -> list[tuple[str, str, str, float | None, str]]:
    movies = _named(talk.get("movieMentions"))
    answers = _named(talk.get("initiatorQuestions"))
    spoken = [item for message in talk["messages"] for item in _MENTION.findall(message["text"])]
    ordered = [item for item in dict.fromkeys([*spoken, *movies]) if item in movies]
    events = []
    for item in ordered:
        answer = answers.get(item, {})
        kind = "suggested" if answer.get("suggested") == 1 else "mentioned"
        rating = {0: 0.0, 1: 1.0}.get(answer.get("liked", 2))
        events.append((str(talk["initiatorWorkerId"]), item, kind, rating, str(talk["conversationId"])))
    return events


def _named(value: Any) -> dict[str, Any]:
    """A mapping; the original writes an empty one as an empty list."""
    return value if isinstance(value, dict) else {}
