"""Typed settings, frozen; an unknown key is an error that names the nearest. What a model is, never how a run goes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from palate.core.errors import ConfigError, nearest


class Config(BaseModel):
    """The one ancestor of every settings class. Defaults are the best known practice."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttentionConfig(Config):
    """Settings of a network whose heads share its width."""

    width: int = Field(64, ge=1)
    heads: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared equally by {self.heads} heads")
        return self


class Part(Config):
    """A component that a system's settings name: ``tokenizer=rq-vae``, with its own settings as ``tokenizer.levels=3``,
    on top of one of its presets where ``tokenizer.preset=paper`` names one.

    ``systems.build`` looks the name up, checks the settings against the component's own and passes what it made to the
    system's constructor under the name of the field.
    """

    name: str
    preset: str | None = None
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        """A bare name, or a name with settings beside it. Another name leaves the earlier one's settings behind."""
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, Mapping):
            return given
        beside = {key: value for key, value in given.items() if key not in ("name", "preset", "settings")}
        settings = given.get("settings") or {}
        if not isinstance(settings, Mapping):
            raise ValueError("settings of a component are written as tokenizer.levels=3")
        name = given.get("name")
        return {"name": name, "preset": given.get("preset"), "settings": _merge(settings, beside, str(name))}


C = TypeVar("C", bound=Config)


def configure(kind: type[C], settings: Mapping[str, Any] | None = None, where: str = "") -> C:
    """Checked settings of ``kind``. ``settings`` may nest; keys may be dotted (``training.epochs``).

    Raises ``ConfigError`` in one sentence: the key, the nearest valid key, or what the value should have been.
    """
    nested = nest(settings or {})
    try:
        return kind.model_validate(nested)
    except ValidationError as failure:
        raise ConfigError(_sentence(kind, failure, where or kind.__name__)) from None


def override(config: C, settings: Mapping[str, Any], where: str = "") -> C:
    """A copy of ``config`` with some keys changed, checked like ``configure``; what is not named stays."""
    return configure(type(config), _merge(config.model_dump(), nest(settings), where or type(config).__name__), where)


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"training.epochs": 5}`` → ``{"training": {"epochs": 5}}``."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        step: Any = nest(value) if isinstance(value, Mapping) else value
        for name in (last, *reversed(parents)):
            step = {name: step}
        _add(nested, step, key)
    return nested


def _add(settings: dict[str, Any], more: dict[str, Any], key: str) -> None:
    """Put ``more`` into ``settings``, where a name is either a plain value or a section, never both."""
    for name, value in more.items():
        before = settings.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            _add(before, value, key)
        elif isinstance(before, dict) and isinstance(value, str):  # tokenizer.levels=3 tokenizer=rq-vae
            _add(before, {"name": value}, key)
        elif isinstance(before, str) and isinstance(value, dict):
            settings[name] = {"name": before, **value}
        elif name in settings and isinstance(before, dict) != isinstance(value, dict):
            raise ConfigError(f"'{key}' makes '{name}' both a plain value and a section of settings")
        else:
            settings[name] = value


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """``["width=64", "loss=gbce"]`` → a mapping; values are read as JSON where they are JSON, else as text."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{assignment}' is not a setting; write key=value, such as width=64")
        try:
            settings[key.strip()] = json.loads(text)
        except json.JSONDecodeError:
            settings[key.strip()] = text.strip()
    return settings


def _merge(old: Mapping[str, Any], new: Mapping[str, Any], where: str, inside: str = "") -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if isinstance(before, (int, float)) and isinstance(value, Mapping):
            raise ConfigError(f"{where}: setting '{inside}{key}' cannot be {value!r}: it is one number, {before!r}")
        if isinstance(value, str) and isinstance(before, dict) and "name" in before:  # tokenizer=rq-vae
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(before, dict) and not _another(before, value):
            merged[key] = _merge(before, value, where, f"{inside}{key}.")
        else:
            merged[key] = value
    return merged


def _another(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether ``value`` names another component, which begins with its own defaults."""
    return "name" in before and value.get("name", before["name"]) != before["name"]


def _sentence(kind: type[BaseModel], failure: ValidationError, where: str) -> str:
    problem = failure.errors()[0]
    path = [str(step) for step in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(kind, path[:-1])
        return f"{where}: unknown setting '{key}'{nearest(path[-1], fields)}"
    said, value = problem["msg"].removeprefix("Value error, "), problem.get("input")
    if not path:  # settings that do not go together
        return f"{where}: {said}"
    if problem["type"] == "value_error" and isinstance(value, Mapping):  # a section whose settings do not go together
        return f"{where}: setting '{key}': {said}"
    return f"{where}: setting '{key}' cannot be {value!r}: {said}"


def _fields_at(kind: type[BaseModel], path: list[str]) -> list[str]:
    for step in path:
        annotation = kind.model_fields[step].annotation if step in kind.model_fields else None
        # A section may be optional: Training | None
        inner = next((one for one in (annotation, *get_args(annotation)) if _is_section(one)), None)
        if inner is None:
            break
        kind = inner
    return list(kind.model_fields)


def _is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
