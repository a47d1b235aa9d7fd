"""LLMRec: fusion by definition, choices accepted and rejected, planted groups and noise, saved and gone on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.annotation.chat import ChatAnnotator, ChatAnnotatorConfig
from palate.annotation.choices import chosen
from palate.annotation.extractive import Extractive
from palate.backbones.scripted import Scripted
from palate.backbones.tf_idf import TfIdf
from palate.core import store
from palate.core.annotations import Choice
from palate.core.chat import ChatRequest
from palate.core.config import Part, override
from palate.core.dataset import Dataset
from palate.core.run import Run, Silent
from palate.data.world import world
from palate.experiment import fit, make_plan
from palate.models.alignment.llmrec import LLMRec, LLMRecConfig, Network, accepted, paper
from palate.systems import component
from palate.training.graphs import Ground
from tests.models.factor_logs import everybody, scores
from tests.models.profiled_logs import GROUPS, Helper, sparse_groups
from tests.models.test_lightgcn import dense_adjacency

SMALL: dict[str, Any] = {
    "width": 16, "batch_size": 256, "attributes": ("category", "author"), "traits": ("liked category",),
    "training": {"epochs": 15, "learning_rate": 0.02}, "base": Part(name="lightgcn", settings={
        "width": 16, "batch_size": 256, "training": {"epochs": 5, "learning_rate": 0.02}}),
}  # fmt: skip
NO_FEATURES = {
    "text_scale": 0.0, "profile_scale": 0.0, "attribute_scale": 0.0, "text_bpr": 0.0, "attribute_bpr": 0.0,
    "mask": 0.0,
}  # fmt: skip


def system(helper: Helper | None = None, **settings: Any) -> LLMRec:
    config = override(LLMRecConfig(), {**SMALL, **settings})
    return LLMRec(config, annotator=helper or Helper(), encoder=TfIdf(), base=component("base", config.base))


def network_of(fitted: LLMRec) -> Network:
    assert fitted.network is not None
    return fitted.network


def begun(train: Dataset, **settings: Any) -> tuple[LLMRec, Network, Ground]:
    """Ready to learn, nothing learnt."""
    learner = system(**settings)
    learner.prepare(train, Run(max_steps=2))
    torch.manual_seed(0)
    learner.network = network = learner._build(learner.shape(train))
    learner.lesson(train, Run())
    return learner, network, Ground.of(network, train, "cpu")


def recall(fitted: LLMRec, train: Dataset) -> float:
    """Share of the best seven unmet items that are of the asking user's group; chance is about 0.1."""
    rankings = fitted.recommend(everybody(train).leaving_out_history(), 7)
    return float(np.mean(rankings.item_rows % GROUPS == (np.arange(train.n_users) % GROUPS)[:, None]))


# -- choices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        ({"best": 1, "worst": 2}, (40, 50)), ({"best": 2, "worst": 0}, (50, 30)), ({"best": 1, "worst": 1}, (-1, -1)),
        ({"best": 1, "worst": 3}, (-1, -1)), ({"best": -1, "worst": 2}, (-1, -1)), ({}, (-1, -1)),
        ({"best": 10**30, "worst": 1}, (-1, -1)),
    ],
)  # fmt: skip
def test_an_answer_is_two_indices_or_nothing(said: dict[str, int], rows: tuple[int, int]) -> None:
    assert chosen(said, [30, 40, 50]) == rows


def test_choices_outside_the_candidates_or_alike_are_left_out_and_counted() -> None:
    offered = np.array([[1, 2], [3, 4], [5, 6], [7, -1], [8, 9]])
    answers = np.array([[1, 2], [3, 5], [6, 6], [7, -1], [-1, -1]])
    assert accepted(answers, offered).tolist() == [True, False, False, False, False]
    train = sparse_groups()
    same = Helper(answers=np.zeros((240, 2), dtype=np.int64))
    assert system(same).fit(train, Run(max_steps=2)).facts["choices"] == {"asked": 240, "accepted": 0}
    good = system().fit(train, Run(max_steps=2)).facts["choices"]
    assert good["accepted"] > 150


def test_a_chat_model_writes_all_that_it_reads(tmp_path: Path) -> None:
    """Edges, attributes and traits of a fit come from the model's words, and a second fit asks nothing."""

    def ask(request: ChatRequest) -> str:
        fields = list((request.schema or request.tools[0].parameters)["properties"])
        return json.dumps({"best": 0, "worst": 1} if "best" in fields else {name: f"some {name}" for name in fields})

    train, chat = world("test").dataset, Scripted(answers=ask)
    config = override(LLMRecConfig(), SMALL)

    def learner() -> LLMRec:
        writer = ChatAnnotator(ChatAnnotatorConfig(ledger=str(tmp_path / "l.sqlite")), chat=chat)
        return LLMRec(config, annotator=writer, encoder=TfIdf(), base=component("base", config.base))

    first = learner().fit(train, Run(max_steps=2))
    assert first.facts["choices"] == {"asked": 120, "accepted": 120}
    asked = len(chat.asked)
    assert asked == 120 + 120 + 60, "a choice and traits of each user, attributes of each item"
    assert np.array_equal(scores(learner().fit(train, Run(max_steps=2)), everybody(train)),
                          scores(first, everybody(train)), equal_nan=True)  # fmt: skip
    assert len(chat.asked) == asked


def test_a_fit_shows_how_far_the_chat_model_is(tmp_path: Path) -> None:
    class Watcher(Silent):
        begun: ClassVar[list[tuple[str, int | None]]] = []

        def start(self, what: str, total: int | None) -> None:
            self.begun.append((what, total))

    reply = json.dumps({"best": 0, "worst": 1})
    asking = {
        "annotator": "chat", "annotator.chat": "scripted", "annotator.chat.replies": [reply],
        "annotator.chat.again": True, "annotator.ledger": str(tmp_path / "l.sqlite"),
    }  # fmt: skip
    plan = make_plan("llmrec", "world-test", preset="tiny", settings=asking)
    fit(plan, tmp_path / "run", Run(max_steps=2, progress=Watcher()))
    assert ("writing choice", 120) in Watcher.begun


def test_candidates_were_never_met_and_come_from_the_train_part() -> None:
    whole = sparse_groups()
    late = np.zeros(whole.n_interactions, dtype=bool)
    late[whole.histories.stops - 1] = True
    train, helper = whole.keeping(~late), Helper()
    fitted = system(helper).fit(train, Run(max_steps=2))
    assert fitted.base.facts["fitted_on"] == train.fingerprint  # type: ignore[attr-defined]
    assert helper.offered is not None
    assert helper.offered.shape == (240, 10)
    assert not any(np.isin(row, history).any() for row, history in zip(helper.offered, train.histories, strict=True))


def test_rules_choose_what_shares_most_with_the_user() -> None:
    train = world("test").dataset
    offered = np.tile(np.arange(0, 40, 4), (train.n_users, 1))
    records = Extractive().choices(train, np.arange(train.n_users), offered)
    truth = world("test").truth
    taste = truth.readers.taste[:, :-1] @ truth.themes.T
    liked, disliked = (np.array([getattr(r, name) for r in records]) for name in ("liked", "disliked"))
    rows = np.arange(train.n_users)
    assert taste[rows, liked].mean() > taste[rows][:, offered[0]].mean() + 0.3
    assert taste[rows, disliked].mean() < taste[rows][:, offered[0]].mean() - 0.1


# -- encoding ----------------------------------------------------------------------------------------------------------


def test_without_scales_it_is_lightgcn_and_with_rows_the_published_encoder() -> None:
    train = sparse_groups()
    dense = torch.from_numpy(dense_adjacency(train)).float()
    _, network, ground = begun(train, **NO_FEATURES)
    ego = network.ego().detach()
    wanted = (ego + dense @ ego + dense @ dense @ ego) / 3
    torch.testing.assert_close(torch.cat(network.vectors(ground.graph, ego)), wanted, atol=1e-5, rtol=1e-4)
    _, rows, ground = begun(train, **NO_FEATURES, rows=True)
    met = (dense[:240, 240:] > 0).float()
    to_users, to_items = (m / m.sum(1, keepdim=True).clamp(min=1).sqrt() for m in (met, met.T))
    users, items = rows.split(ego)
    first_users = to_users @ items
    first_items = to_items @ first_users
    last_users = (to_users @ first_items).softmax(-1)
    last_items = (to_items @ last_users).softmax(-1)
    found = rows.vectors(ground.graph, ego)
    torch.testing.assert_close(found[0], (users + first_users + last_users) / 3, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], (items + first_items + last_items) / 3, atol=1e-5, rtol=1e-4)


def test_fusion_by_hand_and_features_ten_times_as_large_change_nothing() -> None:
    """Before anything is learnt: the maps have biases, which begin at 0 and do not grow with the features."""
    train = sparse_groups()
    _, network, ground = begun(train, profile_scale=0.7, text_scale=0.2, attribute_scale=0.3)
    network.eval()
    assert network.features is not None
    features = replace(
        network.features, text=torch.randn(80, network.features.text.shape[1]), text_known=torch.ones(80)
    )
    dense = torch.from_numpy(dense_adjacency(train)).float()
    to_users, to_items = dense[:240, 240:], dense[240:, :240]
    with torch.no_grad():
        ego = network.ego()
        encoded = network.encode(ground.graph, ego, features)
        ids = network.ids(ground.graph, ego)
        traits = to_items @ (network.trait_map(features.traits) * features.traits_known[:, None])
        parts = [network.text_map(features.text), *network.attribute_map(features.attributes)]
        parts[1:] = [part * known[:, None] for part, known in zip(parts[1:], features.attributes_known, strict=True)]
        items = ids[1] + 0.7 * F.normalize(traits, dim=-1)
        users = ids[0] + 0.7 * F.normalize(to_users @ traits, dim=-1)
        for scale, part in zip((0.2, 0.3, 0.3), parts, strict=True):
            users = users + scale * F.normalize(to_users @ part, dim=-1)
            items = items + scale * F.normalize(to_items @ to_users @ part, dim=-1)
        torch.testing.assert_close(encoded.users, users, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoded.items, items, atol=1e-5, rtol=1e-4)
        tenfold = replace(features, **{name: 10 * getattr(features, name) for name in ("text", "traits", "attributes")})
        again = network.encode(ground.graph, ego, tenfold)
    torch.testing.assert_close(again.users, encoded.users, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(again.items, encoded.items, atol=1e-5, rtol=1e-4)


def test_hidden_features_train_the_decoder_and_stay_as_they_were() -> None:
    train = sparse_groups()
    learner = system(mask=0.2)
    before: list[torch.Tensor] = []

    def look(fitted: Any) -> float:
        network = network_of(fitted)
        assert network.features is not None
        before.append(torch.cat([network.features.traits.flatten(), network.features.attributes.flatten()]).clone())
        before.append(network.hidden_traits.decoder[0].weight.detach().clone())
        return 0.0

    learner.fit(train, Run(max_steps=12), look)
    assert torch.equal(before[0], before[-2])
    assert not torch.equal(before[1], before[-1])


# -- what is learnt ----------------------------------------------------------------------------------------------------


def test_no_share_of_choices_is_no_augmentation_to_the_bit() -> None:
    train, run = sparse_groups(), Run(seed=2, max_steps=8)
    seen = [
        scores(system(Helper(answers=answers), augmented=0.0).fit(train, run), everybody(train))
        for answers in (None, np.zeros((240, 2), dtype=np.int64))
    ]
    np.testing.assert_array_equal(*seen)
    assert not np.array_equal(scores(system().fit(train, run), everybody(train)), seen[0])


def test_planted_groups_help_and_nonsense_does_not() -> None:
    """Few events, half of them of any item. Who is told the groups ranks better; random choices bring nothing."""
    told: dict[str, list[float]] = {"ids": [], "no traits": [], "full": [], "blind choices": []}
    for seed in range(2):
        train, run = sparse_groups(seed), Run(seed=seed)
        told["ids"].append(recall(system(augmented=0.0, **NO_FEATURES).fit(train, run), train))
        told["no traits"].append(recall(system(profile_scale=0.0, attribute_bpr=0.0).fit(train, run), train))
        told["full"].append(recall(system(augmented=0.4, attribute_scale=0.5).fit(train, run), train))
        blind = system(Helper(blind=True), augmented=0.4, **NO_FEATURES)
        told["blind choices"].append(recall(blind.fit(train, run), train))
    mean = {name: float(np.mean(values)) for name, values in told.items()}
    assert mean["full"] > mean["no traits"] > mean["ids"], told
    assert mean["full"] > mean["ids"] + 0.05, told
    assert mean["blind choices"] < mean["ids"] + 0.02, told


def test_noise_has_large_losses_and_small_loss_pruning_leaves_it_out() -> None:
    train = sparse_groups(met=6, noise=0.25)
    noisy = {}
    for prune in ("small_loss", "published"):
        fitted = system(prune=prune, prune_rate=0.2, augmented=0.0, negatives=4, **NO_FEATURES).fit(train, Run())
        users, items, losses = fitted.edge_losses()
        wrong = users % GROUPS != items % GROUPS
        assert 0.15 < wrong.mean() < 0.3
        worst = np.argsort(-losses)[: int(wrong.sum())]
        noisy[prune] = float(wrong[worst].mean())
    assert noisy["small_loss"] > 0.6, noisy
    assert noisy["small_loss"] > noisy["published"], noisy


class Flipper(Helper):
    """Takes what is liked for what is not, of every third user."""

    def choices(self, train: Dataset, users: Any, offered: Any) -> list[Choice]:
        return [
            replace(one, liked=one.disliked, disliked=one.liked) if one.user_row % 3 == 0 else one
            for one in super().choices(train, users, offered)
        ]


def share_kept(prune: str, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Of the flipped pairs and of the true ones that were drawn after the fifth epoch, the share that stayed. Pairs
    whose liked item is of the user's group are true; flipped, it is the disliked one that is."""
    seen: list[np.ndarray] = []
    trusted = Network.trusted

    def watched(network: Network, triplets: Any, losses: torch.Tensor) -> torch.Tensor:
        warm = int(network.steps) // network.steps_an_epoch >= 5
        stay = trusted(network, triplets, losses)
        rows = len(triplets.batch) + torch.arange(len(triplets.chosen_users))
        if warm:
            group = triplets.chosen_users % GROUPS
            true, flipped = triplets.liked % GROUPS == group, triplets.disliked % GROUPS == group
            seen.append(torch.stack([true, flipped, torch.isin(rows, stay)], 1).numpy())
        return stay

    monkeypatch.setattr(Network, "trusted", watched)
    system(Flipper(), prune=prune, prune_rate=0.3, augmented=0.5, negatives=4, **NO_FEATURES).fit(
        sparse_groups(met=6, noise=0.0), Run()
    )
    drawn = np.concatenate(seen)
    assert (drawn[:, :2].sum(0) > 200).all(), "both kinds are drawn often"
    return tuple(float(drawn[drawn[:, kind], 2].mean()) for kind in (1, 0))  # type: ignore[return-value]


def test_small_loss_pruning_leaves_out_flipped_pairs_and_the_published_one_keeps_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is remembered of chosen pairs decides about them: seven of ten triplets stay in all."""
    with monkeypatch.context() as patched:
        flipped, true = share_kept("small_loss", patched)
    assert flipped < 0.35, "less than its share of what stays"
    assert true > flipped + 0.3
    with monkeypatch.context() as patched:
        flipped, true = share_kept("published", patched)
    assert flipped > 0.95, "the published direction keeps the flipped ones"
    assert flipped > true


def test_a_stopped_run_goes_on_to_the_same_numbers_with_what_it_remembers(tmp_path: Path) -> None:
    """Pruning by remembered losses begins in epoch 5; the run is stopped in epoch 6."""
    train, settings = sparse_groups(), {"prune_rate": 0.3}
    whole = system(**settings).fit(train, Run(seed=2, max_steps=32))
    kept = Run(seed=2, folder=tmp_path / "run", checkpoint_seconds=0.0)
    system(**settings).fit(train, replace(kept, max_steps=26))
    resumed = system(**settings).fit(train, replace(kept, max_steps=32, resume=True))
    np.testing.assert_array_equal(scores(resumed, everybody(train)), scores(whole, everybody(train)))
    never = system(prune="none").fit(train, Run(seed=2, max_steps=32))
    assert not np.array_equal(scores(never, everybody(train)), scores(whole, everybody(train)))


def test_saved_and_loaded_it_needs_no_features(tmp_path: Path) -> None:
    train = sparse_groups()
    fitted = system().fit(train, Run(max_steps=6))
    fitted.parts["annotator"] = Extractive()  # what is not part of Palate is never loaded
    fitted.save(tmp_path / "llmrec")
    again = store.load(tmp_path / "llmrec")
    assert again.network.features is None
    np.testing.assert_array_equal(scores(again, everybody(train)), scores(fitted, everybody(train)))
    np.testing.assert_array_equal(again.edge_losses()[2], fitted.edge_losses()[2])


def test_the_paper_preset_is_the_published_direction() -> None:
    config = paper()
    assert (config.prune, config.prune_rate, config.augmented, config.rows) == ("published", 0.71, 0.1, True)
    assert LLMRecConfig().prune == "small_loss"
