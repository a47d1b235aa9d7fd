"""Settings: one sentence for every mistake, and what is not named stays."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from pydantic import ValidationError

from palate.core.config import AttentionConfig, Config, Part, configure, nest, override, parse_settings
from palate.core.errors import ConfigError


class Loop(Config):
    epochs: int = 10
    learning_rate: float = 1e-3


class System(Config):
    width: int = 64
    dropout: float = 0.5
    loss: Literal["softmax", "gbce"] = "softmax"
    training: Loop = Loop()
    tuning: Loop | None = None


def test_defaults_and_nested_keys() -> None:
    assert configure(System) == System()
    made = configure(System, {"width": 8, "training.epochs": 2, "training": {"learning_rate": 0.1}, "tuning.epochs": 1})
    assert made == System(width=8, training=Loop(epochs=2, learning_rate=0.1), tuning=Loop(epochs=1))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"widht": 8}, "System: unknown setting 'widht'; did you mean 'width'?"),
        ({"training.epoch": 8}, "System: unknown setting 'training.epoch'; did you mean 'epochs'?"),
        ({"tuning": {"epoch": 8}}, "System: unknown setting 'tuning.epoch'; did you mean 'epochs'?"),
        ({"zzz": 1}, "System: unknown setting 'zzz'; known: dropout, loss, training, tuning, width"),
        ({"width": "wide"}, "System: setting 'width' cannot be 'wide'"),
        ({"dropout": float("nan")}, "System: setting 'dropout' cannot be nan"),
        ({"loss": "l2"}, "System: setting 'loss' cannot be 'l2': Input should be 'softmax' or 'gbce'"),
        ({"training": 3}, "System: setting 'training' cannot be 3"),
        ({"width.inner": 3}, "System: setting 'width' cannot be {'inner': 3}"),
    ],
)
def test_each_mistake_is_one_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match="^" + re.escape(sentence)) as caught:
        configure(System, settings)
    assert "\n" not in str(caught.value)


def test_the_sentence_says_where() -> None:
    with pytest.raises(ConfigError, match=r"^recipe\.toml: unknown setting"):
        configure(System, {"widht": 8}, where="recipe.toml")


def test_override_keeps_the_rest() -> None:
    before = System(width=8, training=Loop(epochs=3))
    after = override(before, {"training.learning_rate": 0.5, "loss": "gbce"})
    assert after == System(width=8, loss="gbce", training=Loop(epochs=3, learning_rate=0.5))
    assert before == System(width=8, training=Loop(epochs=3))
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        override(before, {"training.epohcs": 5})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        System().width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "settings",
    [{"a.b": 1, "a": {"c": 2}}, {"a": {"c": 2}, "a.b": 1}, {"a": {"b": 1, "c": 2}}, {"a.b": 1, "a.c": 2}],
)
def test_dotted_and_nested_keys_meet_in_any_order(settings: dict[str, object]) -> None:
    assert nest(settings) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("settings", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}, {"a.b.c": 1, "a.b": 2}])
def test_a_name_is_a_value_or_a_section(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="both a plain value and a section"):
        nest(settings)


def test_parse_settings_reads_json_else_text() -> None:
    assert parse_settings(
        ["width=64", "rate=1e-3", "loss=gbce", "on=true", "sizes=[1,2]", "name=a=b", " x = y ", "e="]
    ) == {
        "width": 64,
        "rate": 1e-3,
        "loss": "gbce",
        "on": True,
        "sizes": [1, 2],
        "name": "a=b",
        "x": "y",
        "e": "",
    }


@pytest.mark.parametrize("text", ["width", "=3", " =3"])
def test_what_is_no_setting_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a setting; write key=value"):
        parse_settings([text])


# -- components that settings name --


class Whole(Config):
    width: int = 8
    tokenizer: Part = Part(name="rq-vae")


@pytest.mark.parametrize(
    "given",
    [
        ["tokenizer=collaborative", "tokenizer.clusters=20"],
        ["tokenizer.clusters=20", "tokenizer=collaborative"],
        ["tokenizer.name=collaborative", "tokenizer.clusters=20"],
    ],
)
def test_a_component_is_named_with_its_settings_in_any_order(given: list[str]) -> None:
    config = override(Whole(), parse_settings(given))
    assert config.tokenizer == Part(name="collaborative", settings={"clusters": 20})
    assert configure(Whole, config.model_dump()) == config


def test_settings_alone_go_to_the_component_that_is_named_already() -> None:
    config = override(Whole(), parse_settings(["tokenizer.levels=3"]))
    assert config.tokenizer == Part(name="rq-vae", settings={"levels": 3})
    config = override(config, parse_settings(["tokenizer.beta=0.5"]))
    assert config.tokenizer.settings == {"levels": 3, "beta": 0.5}
    assert override(config, {"tokenizer": "title"}).tokenizer.settings == {}, "another's settings stay behind"


def test_settings_that_do_not_go_together_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^sasrec: width 64 cannot be shared equally by 5 heads$"):
        configure(AttentionConfig, {"heads": 5}, "sasrec")
