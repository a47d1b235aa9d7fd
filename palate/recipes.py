"""A recipe: everything ``palate fit`` is asked for, as a TOML file that reproduces one published result.

    title = "…"          what it reproduces, in one line
    system = "tiger"     data = "amazon-2014-beauty"     preset, split, seeds, precision, budget as on the command line
    tags, learns, frozen what it is in the words of ``palate.taxonomy``, and which of its parts a fit changes
    [settings]           on top of the preset; keys may be dotted
    [published]          the paper's figures under the names of our metrics, with ``source`` saying where they were read

What the command line says beside a recipe goes before it.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from palate.core.config import Config, configure, parse_settings
from palate.core.errors import ConfigError


class Recipe(Config):
    """One fit. ``budget`` is minutes a seed."""

    system: str
    data: str | None = None
    title: str = ""
    paper: str = ""
    tags: tuple[str, ...] = ()
    """How items are represented and by what paradigm it learns, in the words of ``palate.taxonomy``."""
    learns: tuple[str, ...] = ()
    """What the fit changes: ``network``, parts by field, or what is put into a frozen one (``backbone.prompt``)."""
    frozen: tuple[str, ...] = ()
    """Parts that it reads and does not change."""
    note: str = ""
    """What a person should know before starting it: how long, on what."""
    preset: str | None = None
    settings: dict[str, Any] = {}
    split: str = "leave-one-out"
    split_settings: dict[str, Any] = {}
    seeds: int = Field(1, ge=1)
    budget: float | None = Field(None, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    published: dict[str, float] = {}
    source: str = ""

    def also(self, **asked: Any) -> Recipe:
        """With what the command line says; None leaves the recipe's own, settings are put on top of its own."""
        given = {name: value for name, value in asked.items() if value is not None}
        for name in ("settings", "split_settings"):
            given[name] = {**getattr(self, name), **given.get(name, {})}
        return self.model_copy(update=given)


def read_recipe(path: Path) -> Recipe:
    """The recipe in that file. Raises ``ConfigError`` in one sentence: the file, and what is wrong with it."""
    try:
        told: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not TOML: {problem}") from None
    if "system" not in told:
        raise ConfigError(f"{path} is no recipe: it names no system")
    return configure(Recipe, told, where=str(path))


_SYSTEM = re.compile(r"([^\[\]\s=]+)(?:\[([^\[\]\s]+)\])?")


def asked_in_words(words: str) -> tuple[str, Recipe]:
    """``"SYSTEM[PRESET] key=value key=value"``, or the path of a recipe, → what it is called beside others, and the
    recipe. Preset and settings may be left out. Raises ``ConfigError`` in one sentence."""
    if words.endswith(".toml"):
        return Path(words).stem, read_recipe(Path(words))
    try:
        name, *settings = shlex.split(words)
    except ValueError:
        name, settings = "", []
    found = _SYSTEM.fullmatch(name)
    if found is None:
        raise ConfigError(f"'{words}' names no system; write SYSTEM, SYSTEM[PRESET] or 'SYSTEM[PRESET] key=value'")
    return " ".join([name, *settings]), Recipe(system=found[1], preset=found[2], settings=parse_settings(settings))
