"""Tags are the survey's words, every paradigm has a recipe over the same data, and what is called frozen stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from palate.cli.systems import systems
from palate.core.config import Part
from palate.core.errors import ConfigError
from palate.core.run import Run
from palate.core.split import Split
from palate.data.ratings import rating_cases
from palate.data.split import leave_one_out
from palate.data.world import world
from palate.recipes import Recipe, read_recipe
from palate.systems import COMPONENTS, TABLE, build, system
from palate.taxonomy import PARADIGM, REPRESENTATION, tagged
from palate.training import shell
from palate.training.checkpoint import digest
from palate.training.learnt import by_part

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
RECIPES = {path.stem: read_recipe(path) for path in sorted(FOLDER.rglob("*.toml"))}
OURS = {path.stem: RECIPES[path.stem] for path in sorted((FOLDER / "paradigms").glob("*.toml"))}
KINDS = {tag.partition("/")[0] for tag in PARADIGM}

NANO = {"width": 32, "heads": 2, "layers": 1, "forward_width": 64, "vocabulary": 400, "steps": 3}
NAMES = {"name": "rq-vae", "size": 8, "levels": 2, "width": 8, "hidden": [16], "encoder": "tf-idf",
         "least_usage": 0, "training": {"epochs": 3}}  # fmt: skip
SMALLER: dict[str, dict[str, Any]] = {
    "rating-lm": {f"backbone.{name}": value for name, value in NANO.items()} | {"batch_size": 8},
    "rating-prompted": {f"backbone.{name}": value for name, value in NANO.items()},
    "rank-prompted": {f"backbone.{name}": value for name, value in NANO.items()},
    "lc-rec": {f"backbone.{name}": value for name, value in NANO.items()} | {"tokenizer": NAMES, "batch_size": 16},
    "lite-llm4rec": {f"item_model.{name}": value for name, value in NANO.items()},
}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_one_out(world("test").dataset)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_row_says_how_items_are_represented_and_which_parts_learn(row: Any) -> None:
    assert set(row.tags) & set(REPRESENTATION)
    assert {tag for tag in row.tags if tag.partition("/")[0] in KINDS} <= set(PARADIGM)
    config = row.config()
    named = {field for field in type(config).model_fields if isinstance(getattr(config, field), Part)}
    said = {name.partition(".")[0] for name in (*row.learns, *row.frozen)}
    assert named - {"annotator", "sentiment"} <= said, "a part learns or is frozen"
    assert said - {"network", "chat"} - named <= {"counts", "similarities", "weights", "factors", "averages"}
    assert not set(row.learns) & set(row.frozen)


def test_a_tag_asks_for_its_whole_kind_and_several_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    systems(tag=("prompting", "text"), as_json=True)
    found = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert found == ["rank-prompted", "rating-prompted"]
    systems(tag=("pre-training/masked",))
    shown = capsys.readouterr().out
    assert "bert4rec" in shown
    assert "Kang & McAuley" not in shown
    assert {row.name for row in tagged(TABLE, ["prompt-tuning"])} >= {"rating-lm", "lc-rec"}
    with pytest.raises(ConfigError, match="there is no tag 'promptng'; did you mean 'prompting'"):
        systems(tag=("promptng",))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_tagged_as_its_system_can_be(name: str) -> None:
    recipe = RECIPES[name]
    assert set(recipe.tags) & set(REPRESENTATION)
    assert set(recipe.tags) & set(PARADIGM)
    assert set(recipe.tags) <= set(system(recipe.system).tags)
    assert not set(recipe.learns) & set(recipe.frozen)


def test_every_paradigm_has_a_recipe_over_the_same_data_and_split() -> None:
    assert {tag for recipe in OURS.values() for tag in recipe.tags} >= set(PARADIGM)
    assert {(recipe.data, recipe.split) for recipe in OURS.values()} == {("world", "leave-one-out")}
    for protocol in ("rating-", "ranking-"):
        kinds = {tag.partition("/")[0] for name, one in OURS.items() if name.startswith(protocol) for tag in one.tags}
        assert {"pre-training", "fine-tuning", "prompt-tuning", "prompting"} <= kinds
    assert {one.system for one in tagged(list(RECIPES.values()), ["instruction-tuning/lora"])} == {"lc-rec"}


def test_the_page_lists_every_first_stage_and_every_system_that_tunes_a_prompt() -> None:
    page = (FOLDER.parent / "docs" / "paradigms.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| `retriever` |"))
    assert set(re.findall("`([a-z0-9-]+)`", row)) - {"retriever"} == set(COMPONENTS["retriever"])
    listed = page.split("All systems with a tunable language model take it:")[1].split(".")[0]
    tuned = {one.name for one in tagged(TABLE, ["prompt-tuning/soft"])}
    assert set(re.findall("`([a-z0-9-]+)`", listed)) == tuned
    (row,) = (line for line in page.splitlines() if line.startswith("| `search.rounds`"))
    searched = {one.name for one in tagged(TABLE, ["prompt-tuning/hard"])}
    assert searched == {"rating-prompted", "rank-prompted"}
    commands = re.findall("recipes/paradigms/([a-z-]+).toml", page)
    assert set(commands) == set(OURS), "every recipe of the folder is on the page, and no other"


def small(recipe: Recipe) -> Any:
    return build(recipe.system, {**recipe.settings, **SMALLER.get(recipe.system, {})}, preset=recipe.preset)


def state(network: torch.nn.Module, parts: dict[str, Any]) -> dict[str, str]:
    """The hash of the weights of each part."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for row, (part, weights) in enumerate(by_part(network, parts)):
        found.setdefault(part, {})[str(row)] = weights
    return {part: digest(weights) for part, weights in found.items()}


class Watch:
    """Weights and loss before and after the training loop of a system."""

    def __init__(self, made: Any, monkeypatch: pytest.MonkeyPatch, n_batches: int = 0) -> None:
        self.n_batches = n_batches
        self.states: list[dict[str, str]] = []
        self.losses: list[float] = []
        whole: Callable[..., Any] = shell.optimise

        def watched(network: Any, batches: Any, loss: Any, *given: Any, **more: Any) -> Any:
            self.look(made, network, batches, loss)
            outcome = whole(network, batches, loss, *given, **more)
            self.look(made, network, batches, loss)
            return outcome

        monkeypatch.setattr(shell, "optimise", watched)

    def look(self, made: Any, network: Any, batches: Any, loss: Any) -> None:
        self.states.append(state(network, made.parts))
        with torch.no_grad():
            self.losses.append(sum(float(loss(batch)) for batch in islice(batches.epoch(0), self.n_batches)))


ASKED = {"rating-prompted", "rank-prompted"}
LEARN = [name for name, one in OURS.items() if one.system not in ASKED]


@pytest.mark.parametrize("name", LEARN)
def test_what_is_called_frozen_stays_and_what_is_said_to_learn_does(
    name: str, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hash of every part's weights before and after the training loop."""
    recipe = OURS[name]
    made = small(recipe)
    watch = Watch(made, monkeypatch)
    made.fit(split.train, Run(max_steps=3))
    before, after = watch.states
    changed = {part for part in before if before[part] != after[part]}
    assert changed == set(recipe.learns) - {"tokenizer"}
    assert set(before) - changed == {part for part in recipe.frozen if "." not in part}
    assert set(made.facts["learnt"]) == changed
    if "backbone.prompt" in changed:
        assert made.facts["learnt"]["backbone.prompt"] == 16 * NANO["width"]  # type: ignore[operator]


@pytest.mark.parametrize("name", [name for name in OURS if name not in LEARN])
def test_asking_teaches_nothing_and_says_what_came_of_it(name: str, split: Split) -> None:
    """Not even a search over the words of the prompt changes a weight; only it changes words."""
    recipe = OURS[name]
    made = small(recipe).fit(split.train, Run(max_steps=3))
    assert recipe.frozen == ("backbone",)
    assert ("search" in made.facts) == ("prompt-tuning/hard" in recipe.tags) == ("prompt" in recipe.learns)
    if "search" in made.facts:
        searched = made.facts["search"]
        assert searched["tried"] == 3, "a seed prompt and two others, as many as a check of three steps may score"
        assert searched["train"]["winner"] >= searched["train"]["seed"]
    else:
        other_words = "prompting/conventional" in recipe.tags or name == "rating-chain-of-thought"
        assert bool(made.facts["wording"]) == other_words
    before = digest(dict(made.backbone.model.named_parameters()))
    if recipe.system == "rank-prompted":
        found = made.recommend(split.test.requests[:6], 5)
        assert (found.item_rows >= 0).all()
        assert f"{6 * made.config.orders} questions" in made.notes[0]
    else:
        made.predict(rating_cases(split).requests[:6])  # type: ignore[index]
    assert digest(dict(made.backbone.model.named_parameters())) == before


def test_one_set_of_prompts_serves_who_is_asked_and_who_is_tuned(split: Split) -> None:
    """Zero-shot, tuned whole and with a learnt prompt, all read the same pieces."""
    prompts = set()
    for name in ("rating-zero-shot", "rating-full", "rating-soft-prompt"):
        made = small(OURS[name]).fit(split.train, Run(max_steps=1))
        prompts.add(made.facts["prompt"])
    assert len(prompts) == 1


@pytest.mark.parametrize("name", ["rating-lm", "lc-rec"])
def test_a_learnt_prompt_is_all_that_learns_of_a_frozen_model(
    name: str, split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ratings, and items whose names are words of the model: m times D numbers learn, the loss falls, saved is
    loaded."""
    own = (
        {"head": "classification", "length": 1, "text_tokens": 4}
        if name == "rating-lm"
        else {"tokenizer": "random", "length": 5}
    )
    nano = {"name": "nano", **NANO, "steps": 40, "tune": "prompt", "prompt_vectors": 7}
    training = {"epochs": 99, "learning_rate": 0.05, "warmup_steps": 0}
    made: Any = build(name, {"backbone": nano, "batch_size": 16, "training": training, **own})
    watch = Watch(made, monkeypatch, n_batches=4)
    made.fit(split.train, Run(max_steps=40))
    before, after = watch.states
    assert [part for part in before if before[part] != after[part]] == ["backbone.prompt"]
    assert made.facts["learnt"] == {"backbone.prompt": 7 * NANO["width"]}
    # Before a hundred other tokens a prompt of a nano that knows next to nothing moves little.
    assert watch.losses[1] < watch.losses[0] - (1e-4 if name == "rating-lm" else 0.02)
    made.save(tmp_path / "saved")
    again = type(made).load(tmp_path / "saved")
    if name == "rating-lm":
        asked = rating_cases(split).requests
        assert (again.predict(asked).stars == made.predict(asked).stars).all()
    else:
        some = split.test.requests[:4]
        assert (again.recommend(some, 5).item_rows == made.recommend(some, 5).item_rows).all()


PROMPTED = {**NANO, "name": "nano", "tune": "prompt", "prompt_vectors": 3}


@pytest.mark.parametrize(
    ("name", "settings", "learns"),
    [
        (
            "lite-llm4rec",
            {"item_model": PROMPTED, "rec_model": PROMPTED},
            {"item_model.prompt", "rec_model.prompt", "network"},
        ),
        ("hllm", {"item_model": PROMPTED}, {"item_model.prompt", "user_model", "network"}),
        ("mender-tok", {"reader": PROMPTED, "tokenizer": NAMES, "encoder": "tf-idf"}, {"reader.prompt", "network"}),
        (
            "ulmrec",
            {
                "backbone": {**PROMPTED, "vocabulary": 800},
                "retriever": "popularity",
                "max_tokens": 1024,
                "user_index": {"name": "reviews", "preset": "tiny", "training": {"epochs": 1}},
            },
            {"backbone.prompt"},
        ),
    ],
)
def test_every_system_that_tunes_a_language_model_can_learn_a_prompt(
    name: str, settings: dict[str, Any], learns: set[str], split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read: its weights change; nothing else of the model does."""
    made = build(name, settings, preset="tiny")
    watch = Watch(made, monkeypatch)
    made.fit(split.train, Run(max_steps=2))
    before, after = watch.states[:2]
    assert {part for part in before if before[part] != after[part]} == learns
    assert (made.recommend(split.test.requests[:3], 4).item_rows >= 0).all()
