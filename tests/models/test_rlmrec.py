"""RLMRec: both alignments against their definition, the base model to the bit, planted profiles, shuffled ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from palate.annotation.extractive import Extractive
from palate.backbones.tf_idf import TfIdf
from palate.core import store
from palate.core.config import Part, override
from palate.core.errors import ConfigError
from palate.core.run import Run
from palate.data.pairs import PairBatch
from palate.experiment import make_plan
from palate.models.alignment.rlmrec import PUBLISHED, Network, Profiles, RLMRec, RLMRecConfig, paper, paper_generative
from palate.systems import COMPONENTS, build, component
from palate.training.graphs import Ground, Taught
from tests.models.collaborative_logs import log_of
from tests.models.factor_logs import everybody, scores
from tests.models.profiled_logs import GROUPS, Knower, sparse_groups

GRAPHS = tuple(COMPONENTS["graph"])
SMALL: dict[str, Any] = {"width": 16, "batch_size": 256, "training": {"epochs": 12, "learning_rate": 0.02}}


def system(graph: str = "lightgcn", graph_settings: dict[str, Any] | None = None, **settings: Any) -> RLMRec:
    part = Part(name=graph, settings={**SMALL, **(graph_settings or {})})
    config = override(RLMRecConfig(graph=part), settings)
    return RLMRec(config, graph=component("graph", part), annotator=Knower(), encoder=TfIdf())


def recall(fitted: Any, seed: int = 0) -> float:
    """Share of the best seven unmet items that are of the asking user's group; chance is about 0.1."""
    train = sparse_groups(seed)
    rankings = fitted.recommend(everybody(train).leaving_out_history(), 7)
    return float(np.mean(rankings.item_rows % GROUPS == (np.arange(train.n_users) % GROUPS)[:, None]))


def network_of(fitted: RLMRec) -> Network:
    assert fitted.network is not None
    return fitted.network


# -- the base model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("alignment", ["contrastive", "generative"])
def test_strength_zero_is_the_graph_recommender_to_the_bit(graph: str, alignment: str) -> None:
    train, run = sparse_groups(), Run(seed=3, max_steps=6)
    alone = build(graph, SMALL).fit(train, run)
    off = system(graph, alignment=alignment, strength=0.0).fit(train, run)
    np.testing.assert_array_equal(scores(off, everybody(train)), scores(alone, everybody(train)))  # type: ignore[arg-type]
    on = system(graph, alignment=alignment, strength=0.5).fit(train, run)
    assert not np.array_equal(scores(on, everybody(train)), scores(alone, everybody(train)))  # type: ignore[arg-type]


def test_at_least_one_node_is_hidden() -> None:
    with pytest.raises(ConfigError, match="'mask' cannot be 0"):
        system(mask=0.0)


# -- the losses --------------------------------------------------------------------------------------------------------


def four_by_four(alignment: str) -> tuple[Network, Profiles, Taught]:
    """Four users, four items; nothing is known of user 1."""
    config = RLMRecConfig.model_validate({"alignment": alignment, "temperature": 0.4, "graph": "lightgcn"})
    torch.manual_seed(5)
    graph = type(component("graph", Part(name="lightgcn"))).network_type(
        component("graph", Part(name="lightgcn", settings={"width": 3})).config, n_users=4, n_items=4
    )
    network = Network(config, graph, 5)  # type: ignore[arg-type]
    known = torch.tensor([True, False, *[True] * 6])
    profiles = Profiles(torch.randn(8, 5) * known[:, None], known, 4)
    return (
        network,
        profiles,
        Taught(torch.zeros(()), torch.randn(4, 3), torch.randn(4, 3), torch.tensor([[2], [2], [0]])),
    )


def test_contrastive_alignment_by_hand() -> None:
    """Users among all known users; positives and negatives among those of the batch, as often as they occur."""
    network, profiles, taught = four_by_four("contrastive")
    batch = PairBatch(torch.tensor([0, 1, 3]), torch.tensor([1, 3, 1]))
    down = network.adapter(profiles.vectors)

    def nce(e: torch.Tensor, own: torch.Tensor, among: list[torch.Tensor]) -> torch.Tensor:
        alike = [F.cosine_similarity(e, s, dim=0) / 0.4 for s in among]
        return -F.cosine_similarity(e, own, dim=0) / 0.4 + torch.stack(alike).exp().sum().log()

    users = [nce(taught.users[u], down[u], [down[0], down[2], down[3]]) for u in (0, 3)]
    wanted = torch.stack(users).mean()
    for items in ([1, 3, 1], [2, 2, 0]):
        keys = [down[4 + i] for i in items]
        wanted = wanted + torch.stack([nce(taught.items[i], down[4 + i], keys) for i in items]).mean()
    torch.testing.assert_close(network.contrastive(taught, batch, profiles), wanted)
    without = network.contrastive(replace(taught, negatives=None), batch, profiles)
    assert without < wanted


def test_generative_alignment_by_hand() -> None:
    network, profiles, taught = four_by_four("generative")
    hidden = torch.tensor([6, 1, 0, 3])
    up = network.adapter(torch.cat([taught.users, taught.items]))
    alike = F.cosine_similarity(up[[6, 0, 3], None], profiles.vectors[None, [6, 0, 3]], dim=-1) / 0.4
    wanted = (alike.logsumexp(1) - alike.diagonal()).mean()
    torch.testing.assert_close(network.generative(taught, hidden, profiles), wanted)
    assert network.generative(taught, torch.tensor([1]), profiles).item() == 0, "nothing is known of the only one"


def test_hidden_nodes_learn_nothing_and_the_token_does() -> None:
    """With BPR, the same run ranks and reconstructs; without ``reg``, a hidden ego embedding has no gradient."""
    train = sparse_groups()
    learner = system("lightgcn", {"reg": 0.0, "loss": "bpr"}, alignment="generative", mask=0.3)
    learner.prepare(train, Run())
    learner.network = network = learner._build(learner.shape(train))
    ground = Ground.of(network.graph, train, "cpu")
    torch.manual_seed(0)
    hidden = torch.randperm(train.n_users + train.n_items)[: round(0.3 * 320)]
    torch.manual_seed(0)
    batch = PairBatch(*(torch.from_numpy(rows.astype(np.int64)) for rows in (train.user_rows, train.item_rows)))
    network.loss(ground, batch, learner._profiles).backward()  # type: ignore[no-untyped-call]
    assert network.graph.users.weight.grad is not None
    assert network.graph.items.weight.grad is not None
    gradient = torch.cat([network.graph.users.weight.grad, network.graph.items.weight.grad]).abs().sum(1)
    others = torch.ones(320, dtype=torch.bool)
    others[hidden] = False
    assert (gradient[hidden] == 0).all()
    assert (gradient[others] > 0).float().mean() > 0.95
    assert network.token.grad is not None
    assert network.token.grad.abs().sum() > 0


# -- what is learnt ----------------------------------------------------------------------------------------------------


def places(fitted: RLMRec) -> np.ndarray:
    """The share of other groups whose profile is as near as the own one, for each known user: 0 is best."""
    network, profiles = network_of(fitted), fitted._profiles
    assert profiles is not None
    with torch.no_grad():
        keys = F.normalize(network.adapter(profiles.vectors[: profiles.n_users]), dim=-1)
        alike = F.normalize(network.graph.user_vectors, dim=-1) @ keys.T
    of_groups = torch.stack([alike[:, group + GROUPS] for group in range(GROUPS)], dim=1)
    own = of_groups[torch.arange(240), torch.arange(240) % GROUPS]
    return ((of_groups >= own[:, None]).sum(1) - 1).float().numpy()[2:] / (GROUPS - 1)


def test_vectors_find_their_own_profiles_better_and_better() -> None:
    train = sparse_groups()
    after = [float(places(system(strength=1.0).fit(train, Run(max_steps=steps))).mean()) for steps in (1, 4, 16)]
    assert after[0] > after[1] > after[2]
    assert after[2] < 0.05


def test_hidden_nodes_are_told_from_what_the_graph_says_of_them() -> None:
    """Every tenth node is hidden, in turn; the profile that its vector is nearest to. By lot one in eight is right."""
    train = sparse_groups(noise=0.2)
    learner = system(alignment="generative", strength=1.0)

    def right(fitted: RLMRec) -> float:
        network, profiles = network_of(fitted), fitted._profiles
        assert profiles is not None
        group = torch.cat([torch.arange(240), torch.arange(80)]) % GROUPS
        of_groups = F.normalize(profiles.vectors[8 : 8 + GROUPS], dim=-1)  # users 8 to 15, a group each
        found = torch.zeros(320, dtype=torch.bool)
        ground = Ground.of(network.graph, train, "cpu")
        for first in range(10):
            hidden = torch.arange(first, 320, 10)
            with torch.no_grad():
                ego = network.graph.ego().index_put((hidden,), network.token.expand(len(hidden), -1))
                up = network.adapter(torch.cat(network.graph.vectors(ground.graph, ego))[hidden])
            found[hidden] = (F.normalize(up, dim=-1) @ of_groups.T).argmax(1) == group[hidden]
        return float(found.float().mean())

    early = right(learner.fit(train, Run(max_steps=1)))
    late = right(system(alignment="generative", strength=1.0).fit(train, Run()))
    assert early < 0.4, "a step teaches little"
    assert late > 0.8, (early, late)


@pytest.mark.parametrize("alignment", ["contrastive", "generative"])
def test_planted_profiles_help_and_shuffled_ones_do_not(alignment: str) -> None:
    """Mean of three logs; three events a user say little, the profile says all."""
    told: dict[str, list[float]] = {"base": [], "aligned": [], "shuffled": []}
    for seed in range(3):
        train, run = sparse_groups(seed), Run(seed=seed)
        told["base"].append(recall(system(strength=0.0).fit(train, run), seed))
        told["aligned"].append(recall(system(alignment=alignment, strength=1.0).fit(train, run), seed))
        told["shuffled"].append(recall(system(alignment=alignment, strength=1.0, shuffled=True).fit(train, run), seed))
    base, aligned, shuffled = (np.mean(told[name]) for name in told)
    gain = 0.1 if alignment == "contrastive" else 0.03
    assert aligned > base + gain, told
    assert shuffled < base + 0.02, told


def test_profiles_are_written_items_first_and_not_needed_after(tmp_path: Path) -> None:
    """From which events: ``test_what_prompts_show``."""
    train = sparse_groups()
    fitted = system().fit(train, Run(max_steps=4))
    knower = fitted.annotator
    assert isinstance(knower, Knower)
    assert knower.order == ["items", "users"]
    assert fitted.facts["profiles"] == {"users": 239, "items": 79}
    assert fitted.facts["written by"] == "knower"
    before = scores(fitted, everybody(train))
    fitted._profiles = None
    del network_of(fitted).adapter
    np.testing.assert_array_equal(scores(fitted, everybody(train)), before)


def test_the_graph_recommender_is_saved_whole_and_goes_on_alone(tmp_path: Path) -> None:
    """What was aligned is a beginning for the recommender by itself (pre-training)."""
    train = sparse_groups()
    fitted = system(strength=1.0).fit(train, Run())
    fitted.parts["annotator"] = Extractive()  # what is not part of Palate is never loaded
    fitted.save(tmp_path / "rlmrec")
    again, alone = store.load(tmp_path / "rlmrec"), store.load(tmp_path / "rlmrec" / "graph")
    np.testing.assert_array_equal(scores(again, everybody(train)), scores(fitted, everybody(train)))
    np.testing.assert_array_equal(scores(alone, everybody(train)), scores(fitted, everybody(train)))


def test_what_was_aligned_is_a_better_beginning(tmp_path: Path) -> None:
    """Pre-training on an earlier log, three epochs on a later one: aligned at least as good as the base recommender's
    own beginning, that better than none. Only the contrastive form is at least as good: where the generative one stands
    to the base turns with its strength and mask on logs as small as these, so it is held against no beginning."""
    earlier, later = sparse_groups(0), sparse_groups(1)
    found: dict[str, float] = {}
    for name, settings in {
        "base": {"strength": 0.0}, "contrastive": {"strength": 1.0},
        "generative": {"strength": 1.0, "alignment": "generative"},
    }.items():  # fmt: skip
        begun = system(**settings).fit(earlier, Run())
        begun.parts["annotator"] = Extractive()  # what is not part of Palate is never loaded
        begun.save(tmp_path / name)
        alone: Any = store.load(tmp_path / name / "graph")
        alone.config = override(alone.config, {"training": {"epochs": 3, "learning_rate": 2e-3}})
        found[name] = recall(alone.continue_fit(later, Run()), 1)
    found["none"] = recall(build("lightgcn", alone.config.model_dump()).fit(later, Run()), 1)
    assert found["contrastive"] > found["base"] + 0.1, found
    assert found["base"] > found["none"] + 0.2, found
    assert found["generative"] > found["none"] + 0.2, found


def test_fake_events_take_less_from_who_reads_profiles() -> None:
    """A fifth more events, of any items: what the plain recommender loses and what the aligned one does; three logs."""
    lost: dict[float, list[float]] = {0.0: [], 0.2: []}
    for seed in range(3):
        train, rng = sparse_groups(seed), np.random.default_rng([seed, 9])
        rows = [row.tolist() for row in train.histories]
        for user in rng.permutation(train.n_users)[: round(0.2 * train.n_interactions)]:
            rows[user].append(int(rng.choice(np.setdiff1d(np.arange(train.n_items), rows[user]))))
        faked = log_of(rows, train.n_items)
        assert faked.n_interactions == round(1.2 * train.n_interactions)
        for strength, losses in lost.items():
            before, after = (
                system(strength=strength).fit(log, Run(seed=seed)).recommend(everybody(log).leaving_out_history(), 7)
                for log in (train, faked)
            )
            own = (np.arange(train.n_users) % GROUPS)[:, None]
            losses.append(float(np.mean(before.item_rows % GROUPS == own) - np.mean(after.item_rows % GROUPS == own)))
    plain, aligned = (float(np.mean(losses)) for losses in lost.values())
    assert plain > 0.05, lost
    assert aligned < 0.6 * plain, lost


def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    train = sparse_groups()
    whole = system(alignment="generative").fit(train, Run(seed=2, max_steps=9))
    kept = Run(seed=2, folder=tmp_path / "run", checkpoint_seconds=0.0)
    system(alignment="generative").fit(train, replace(kept, max_steps=4))
    resumed = system(alignment="generative").fit(train, replace(kept, max_steps=9, resume=True))
    np.testing.assert_array_equal(scores(resumed, everybody(train)), scores(whole, everybody(train)))


def test_published_settings() -> None:
    assert {graph for graph, _ in PUBLISHED} == set(GRAPHS)
    assert (paper().strength, paper().temperature, paper().alignment) == (1e-2, 0.2, "contrastive")
    gen = paper_generative()
    assert (gen.strength, gen.temperature, gen.mask) == (0.1, 0.5, 0.15)
    assert build("rlmrec", preset="paper").graph.config.loss == "bpr"  # type: ignore[attr-defined]
    assert build("rlmrec", {"graph": "simgcl"}).graph.config.noise == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("data", ["amazon-book", "yelp", "steam"])
def test_the_paper_presets_are_those_of_the_graph_and_the_data(graph: str, data: str) -> None:
    (strength, tau), (mask, of_generative, tau_of_generative) = PUBLISHED[graph, data]
    for settings in ({"graph": graph}, {"graph.name": graph}, {"graph": {"name": graph}}):
        config: Any = make_plan("rlmrec", data, preset="paper", settings=settings).config
        assert (config["strength"], config["temperature"], config["alignment"]) == (strength, tau, "contrastive")
    config = make_plan("rlmrec", data, preset="paper_generative", settings={"graph": graph}).config
    assert (config["mask"], config["strength"], config["temperature"]) == (mask, of_generative, tau_of_generative)
    other = make_plan("rlmrec", data, preset="paper", settings={"graph": graph, "alignment": "generative"}).config
    assert other == config
    assert config["graph"]["settings"]["training"]["patience"] == 5


def test_the_paper_presets_hold_the_graphs_own_settings_and_what_is_said_beside_them() -> None:
    made: Any = build("rlmrec", {"graph": "simgcl"}, preset="paper")
    own = made.graph.config
    assert (own.loss, own.layers, own.reg, own.noise, own.ssl_weight) == ("bpr", 3, 1e-5, 0.9, 0.1)
    assert (made.config.strength, made.config.temperature) == (1e-2, 0.2)
    changed: Any = build("rlmrec", {"graph": "gccf", "strength": 0.5, "graph.layers": 4}, preset="paper")
    assert (changed.config.strength, changed.config.temperature, changed.graph.config.layers) == (0.5, 0.1, 4)
    assert changed.graph.config.reg == 1e-6
    elsewhere: Any = make_plan("rlmrec", "world-test", preset="paper", settings={"graph": "autocf"}).config
    assert elsewhere["strength"] == 0.1, "Amazon-book stands for what was not published"
    said = "rlmrec was published over .*, not over 'simgc'; did you mean 'simgcl'"
    with pytest.raises(ConfigError, match=said):
        build("rlmrec", {"graph": "simgc"}, preset="paper")
