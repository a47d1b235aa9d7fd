"""What every system promises about its settings and its row of the table."""

from __future__ import annotations

import inspect
import json

import pytest

from palate.backbones.hub_encoder import minilm_is_here
from palate.core.config import Config, configure
from palate.core.errors import ConfigError
from palate.systems import TABLE, build, default_settings, pretrained, system

ROWS = TABLE
"""Settings are alike for every ability."""


def test_the_default_settings_are_those_of_the_constructor(name: str) -> None:
    kind = system(name).kind
    config = build(name).config
    assert isinstance(config, Config)
    assert config == type(config)() == default_settings(kind)


def test_settings_are_frozen(name: str) -> None:
    config = build(name).config
    field = next(iter(type(config).model_fields))
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, field, None)


def test_an_unknown_setting_names_the_nearest(name: str) -> None:
    fields = list(type(build(name).config).model_fields)
    for field in fields:
        with pytest.raises(ConfigError, match=rf"{name}: unknown setting '{field}x'; did you mean '{field}'\?"):
            build(name, {f"{field}x": 1})


def test_a_wrong_value_is_one_sentence(name: str) -> None:
    config = build(name).config
    field = next(f for f in type(config).model_fields if not isinstance(getattr(config, f), Config))
    with pytest.raises(ConfigError, match=f"{name}: setting '{field}' cannot be "):
        build(name, {field: {"not": "a value"}})


def test_settings_survive_json(name: str) -> None:
    """The default and every preset, there and back."""
    for preset in (None, *system(name).presets):
        config = build(name, preset=preset).config
        again = configure(type(config), json.loads(json.dumps(config.model_dump(mode="json"))))
        assert again == config, preset


def test_settings_reach_the_system(name: str) -> None:
    """A changed setting is in ``config``, and the others stay."""
    default = build(name).config
    changed = {key: value * 2 for key, value in default.model_dump().items() if type(value) in (int, float) and value}
    for key, value in changed.items():
        try:
            config = build(name, {key: value}).config
        except ConfigError:
            continue  # twice as much is out of bounds
        assert config == default.model_copy(update={key: value})


def test_presets_differ_from_the_default_and_are_documented(name: str) -> None:
    module = inspect.getmodule(system(name).kind)
    for preset in system(name).presets:
        assert build(name, preset=preset).config != build(name).config, preset
        assert inspect.getdoc(getattr(module, preset)), preset
    with pytest.raises(ConfigError, match=f"{name} has no preset 'no-such'"):
        build(name, preset="no-such")


def test_the_file_says_what_it_is(name: str) -> None:
    """The module's docstring names its paper's idea and the departures; the row names title, family and paper."""
    row = system(name)
    module = inspect.getmodule(row.kind)
    assert module is not None
    assert len(module.__doc__ or "") > 200
    assert row.title
    assert row.paper
    assert row.family in row.path
    assert row.kind.__name__ == row.path.partition(":")[2]


def test_names_are_unique() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    with pytest.raises(ConfigError, match="there is no system 'item-kn'; did you mean 'item-knn'"):
        build("item-kn")


def test_the_table_says_what_a_system_brings_along(name: str) -> None:
    if not minilm_is_here():
        pytest.skip("MiniLM is not installed")
    assert system(name).pretrained == pretrained(build(name))


@pytest.mark.parametrize(
    ("one", "settings", "brings"),
    [
        ("tiger", {"tokenizer": "random"}, "no"),
        ("tiger", {"tokenizer.encoder": "tf-idf"}, "no"),
        ("p5", {"tokenizer": "rq-vae", "tokenizer.encoder": "minilm"}, "encoder"),
        ("p5", {"checkpoint": "t5-small"}, "LM"),
    ],
)
def test_a_run_says_what_its_own_settings_bring_along(one: str, settings: dict[str, str], brings: str) -> None:
    assert pretrained(build(one, settings)) == brings
