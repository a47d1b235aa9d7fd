"""Sequence files: one user a line, ``user item item …``, already in the order of time.

S3-Rec (K. Zhou et al., *S3-Rec*, CIKM 2020; files of RUCAIBox/CIKM2020-S3Rec) prepared Amazon 2014, Yelp and Last.fm
this way: ``<Name>.txt`` with ids from 1, ``<Name>_item2attributes.json`` (item → attribute numbers) and, in the P5
line of work (Wenyueh/LLM-RecSys-ID), ``datamaps.json`` with the first publisher's ids (``outside``: an ASIN, a Yelp
business) and the names of attributes (brands and categories). Only the order is known. ``irec`` (CTLab-ITMO/IRec)
numbers the same events anew and adds ``<Name>_timestamps.txt``, line by line the Unix seconds of each event: days.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.core.dataset import About
from palate.core.errors import DataError
from palate.data.lines import line_chunks, open_bytes
from palate.data.reading import BadRows, Reading, Tables, about_with

_LICENCE = "research use, under the terms of the data's first publisher"


def s3rec(folder: Path, reading: Reading) -> Tables:
    """Events in order, without times; what is known of an item are its attributes."""
    path = _sequence_file(folder)
    stem = path.name.split(".")[0]
    bad = BadRows(reading.skip_bad)
    events = _sequences(path, bad)
    about = About(
        title=f"{stem.replace('_', ' ')} (sequences of S3-Rec)",
        source="https://github.com/RUCAIBox/CIKM2020-S3Rec",
        licence=_LICENCE,
        ties="the order of the file",
    )
    return Tables(events, _items(folder, stem, events), clock="order", about=about_with(about, bad))


def irec(folder: Path, reading: Reading) -> Tables:
    """Events with the day of each; events of one day keep the order of the file."""
    path = _sequence_file(folder)
    stem = path.name.split(".")[0]
    bad = BadRows(reading.skip_bad)
    events = _sequences(path, bad)
    times_path = _file(folder, f"{stem}_timestamps.txt")
    times = _sequences(times_path, bad).rename({"item": "time"})
    differ = _first_difference(events["user"], times["user"])
    if differ is not None:
        raise DataError(
            f"{times_path}: its events do not stand beside those of {path.name}: user {differ} has another number"
        )
    events = events.with_columns(time=times["time"] * 1000)
    about = About(
        title=f"{stem.replace('_', ' ')} (sequences and days of IRec)",
        source="https://github.com/CTLab-ITMO/IRec",
        licence=_LICENCE,
    )
    return Tables(events, clock="day", about=about_with(about, bad))


def _first_difference(left: pl.Series, right: pl.Series) -> int | None:
    """The first user whose number of events differs between two aligned files."""
    if len(left) == len(right) and (left == right).all():
        return None
    shorter = min(len(left), len(right))
    differs = np.flatnonzero(left[:shorter].to_numpy() != right[:shorter].to_numpy())
    place = int(differs[0]) if len(differs) else shorter
    longer = left if len(left) > shorter else right
    return int(longer[min(place, len(longer) - 1)])


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} has no file '{name}' (plain or .gz)")


def _sequence_file(folder: Path) -> Path:
    found = sorted(
        path for end in (".txt", ".txt.gz") for path in folder.glob("*" + end) if "_timestamps.txt" not in path.name
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: expected one file of sequences (.txt, plain or .gz), found {names}")
    return found[0]


def _sequences(path: Path, bad: BadRows) -> pl.DataFrame:
    """``user``, ``item`` int64, one row an event, in the order of the file."""
    parts = [pl.DataFrame(schema={"user": pl.Int64, "item": pl.Int64})]
    for lines in line_chunks(path):
        frame = pl.DataFrame({"text": lines.texts.str.strip_chars()}).with_row_index("line", lines.first)
        frame = frame.filter(pl.col("text") != "")
        words = frame.select("line", word=pl.col("text").str.split(" ")).explode("word")
        words = words.with_columns(number=pl.col("word").cast(pl.Int64, strict=False))
        wrong = words.filter(pl.col("number").is_null()).unique("line", keep="first", maintain_order=True)
        for line, word, _ in wrong.iter_rows():
            bad.add(DataError.at(path, "whole numbers separated by spaces: user item item …", line=line, value=word))
        if wrong.height:
            words = words.filter(~pl.col("line").is_in(wrong["line"].implode()))
        first = words["line"].shift(1).ne_missing(words["line"])
        users = words.with_columns(user=pl.when(first).then("number").forward_fill()).filter(~first)
        parts.append(users.select("user", item="number"))
    return pl.concat(parts, rechunk=True)


def _items(folder: Path, stem: str, events: pl.DataFrame) -> pl.DataFrame | None:
    """Attributes of the items that have events, in the order of their numbers."""
    attributes = _json(folder, f"{stem}_item2attributes.json")
    maps = _json(folder, "datamaps.json")
    table = events.select(pl.col("item").unique().sort()).with_columns(item=pl.col("item").cast(pl.String))
    ids = table["item"].to_list()
    if maps is not None:
        outside = maps.get("id2item", {})
        table = table.with_columns(pl.Series("outside", [outside.get(item) for item in ids], dtype=pl.String))
    if attributes is not None:
        names = _names(attributes, maps or {})
        said = [
            list(dict.fromkeys(names.get(number, f"attribute {number}") for number in attributes.get(item, ())))
            for item in ids
        ]
        table = table.with_columns(pl.Series("category", said, dtype=pl.List(pl.String)))
        if names:
            table = table.with_columns(text=pl.col("category").list.join(", "))
    return table


def _names(attributes: dict[str, Any], maps: dict[str, Any]) -> dict[int, str]:
    """What each attribute number means, where that can be proved; empty otherwise.

    ``datamaps.json`` numbers every attribute, S3-Rec only those that appear often enough, in the same order. Which
    numbers belong together is decided by how often each appears: all counts must agree, else no name is given.
    """
    counts = Counter(number for numbers in attributes.values() for number in numbers)
    used = sorted(counts)
    named = [str(name) for name in maps.get("id2attribute", {}).values()]
    if len(used) == len(named) and used[-1:] == [len(named)]:
        return dict(zip(used, named, strict=True))
    totals = [int(total) for total in maps.get("attributeid2num", {}).values()]
    for least in sorted(set(totals)):
        kept = [place for place, total in enumerate(totals) if total >= least]
        if [totals[place] for place in kept] == [counts[number] for number in used]:
            return {number: named[place] for number, place in zip(used, kept, strict=True)}
    return {}


def _json(folder: Path, name: str) -> dict[str, Any] | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            with open_bytes(path) as stream:
                try:
                    found = json.load(stream)
                except (ValueError, EOFError) as failure:
                    raise DataError(f"{path} is not the JSON it should be: {failure}") from None
            if not isinstance(found, dict):
                raise DataError(f"{path}: expected a JSON object, found {type(found).__name__}")
            return found
    return None
