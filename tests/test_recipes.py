"""Recipes: every committed one is a plan that could start, a wrong one is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from palate.core.config import Part
from palate.core.errors import ConfigError
from palate.evaluation.metrics import metric
from palate.experiment import make_plan
from palate.recipes import Recipe, asked_in_words, read_recipe
from palate.systems import _named, system

FOLDER = Path(__file__).resolve().parents[1] / "recipes"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_plan_that_could_start(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.title
    assert recipe.data
    assert (recipe.source != "") == bool(recipe.published), "a published figure names where it was read"
    for name in recipe.published:
        assert metric(name).name == name
    plan = make_plan(
        recipe.system, recipe.data, preset=recipe.preset, settings=recipe.settings, seeds=recipe.seeds,
        split=recipe.split, split_settings=recipe.split_settings,
    )  # fmt: skip
    assert plan.system == recipe.system


def test_the_folder_is_not_empty() -> None:
    assert list(FOLDER.glob("*.toml"))


def test_the_command_line_goes_before_the_recipe() -> None:
    recipe = Recipe(system="ease", data="world", settings={"reg": 1.0, "half_life_events": 3.0}, seeds=3)
    asked = recipe.also(data="ml-100k", settings={"reg": 2.0}, seeds=None, budget=5.0)
    assert (asked.data, asked.seeds, asked.budget) == ("ml-100k", 3, 5.0)
    assert asked.settings == {"reg": 2.0, "half_life_events": 3.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('sistem = "ease"', "names no system"),
        ('system = "ease"\nsedes = 3', "unknown setting 'sedes'; did you mean 'seeds'"),
        ('system = "ease"\nseeds = 0', "setting 'seeds' cannot be 0"),
        ("system =", "is not TOML"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_recipe(path)


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recipe .*gone\.toml"):
        read_recipe(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("words", "name", "asked"),
    [
        ("ease", "ease", ("ease", None, {})),
        ("rating-average[user]", "rating-average[user]", ("rating-average", "user", {})),
        ("'rating-lm[tiny]' events=20 backbone=nano", "rating-lm[tiny] events=20 backbone=nano",
         ("rating-lm", "tiny", {"events": 20, "backbone": "nano"})),
        ("""x 'text.fields=["category"]'""", 'x text.fields=["category"]', ("x", None, {"text.fields": ["category"]})),
    ],
)  # fmt: skip
def test_a_fit_in_words(words: str, name: str, asked: tuple[str, str | None, dict[str, object]]) -> None:
    called, recipe = asked_in_words(words)
    assert (called, (recipe.system, recipe.preset, recipe.settings)) == (name, asked)


@pytest.mark.parametrize("words", ["", "ease[", "[user]", "a=b", "'ease"])
def test_words_that_name_no_system_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="names no system; write SYSTEM"):
        asked_in_words(words)


def test_a_recipe_is_a_fit_in_words_too() -> None:
    called, recipe = asked_in_words(str(FOLDER / "tiger-beauty-cpu.toml"))
    assert (called, recipe.system) == ("tiger-beauty-cpu", "tiger")


def test_settings_of_components_are_checked_before_any_work() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'levls'; did you mean 'levels'"):
        make_plan("tiger", "world", settings={"tokenizer": "rq-vae", "tokenizer.levls": 3})
    with pytest.raises(ConfigError, match="there is no encoder 'minilmm'; did you mean 'minilm'"):
        make_plan("tiger", "world", settings={"tokenizer.encoder": "minilmm"})


def test_a_component_may_begin_with_one_of_its_presets() -> None:
    _, names = _named("tokenizer", Part(name="rq-vae", preset="paper", settings={"levels": 5}))
    assert (names.levels, names.training.epochs) == (5, 5000)  # type: ignore[attr-defined]
    for foreign in ("nonsense", "dataclass", "RQVAEConfig", "check_usage"):
        with pytest.raises(ConfigError, match=f"tokenizer rq-vae has no preset '{foreign}'"):
            make_plan("tiger", "world", settings={"tokenizer": "rq-vae", "tokenizer.preset": foreign})


def test_the_published_systems_name_items_as_published() -> None:
    for name, epochs in (("tiger", 5000), ("lc-rec", 10_000)):
        config = system(name).config("paper")
        assert _named("tokenizer", config.tokenizer)[1].training.epochs == epochs  # type: ignore[attr-defined]
