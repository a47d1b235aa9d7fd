"""RQ-VAE, residual k-means and product quantisation on vectors whose kinds are planted."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from palate.core import store
from palate.core.code_health import health
from palate.core.config import configure
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, DataError, TrainingError
from palate.core.naming import NamesVectors, fitting_size
from palate.core.protocols import FloatArray
from palate.core.run import Run
from palate.parts.repair import collisions
from palate.tokenizers import product, residual_kmeans, rq_vae
from palate.tokenizers.product import Product, ProductConfig
from palate.tokenizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from palate.tokenizers.rq_vae import RQVAE, RQVAEConfig
from tests.tokenizers.item_logs import log, longer

SMALL = {"size": 16, "width": 8, "hidden": [32], "levels": 3, "training.epochs": 30, "batch_size": 256}


def kinds(n: int = 600, n_kinds: int = 12, width: int = 24, noise: float = 0.5, seed: int = 0) -> FloatArray:
    """``[n, width]`` item ``i`` is of kind ``i % n_kinds``."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_kinds, width))
    return (centres[np.arange(n) % n_kinds] + noise * rng.normal(size=(n, width))).astype(np.float32)


def everything(n: int) -> Dataset:
    return log([list(range(n))], n)


def rq(vectors: FloatArray, seed: int = 0, **settings: Any) -> RQVAE:
    config = configure(RQVAEConfig, {**SMALL, **settings})
    return RQVAE(config).fit(everything(len(vectors)), Run(seed=seed), vectors)


def purity(first: np.ndarray, n_kinds: int) -> float:
    """Share of items whose kind is the most frequent one among those with their first code."""
    kind = np.arange(len(first)) % n_kinds
    table = np.zeros((int(first.max()) + 1, n_kinds))
    np.add.at(table, (first, kind), 1)
    return float(table.max(1).sum() / len(first))


def test_the_error_falls_with_levels_and_codes_are_used() -> None:
    vectors = kinds()
    errors = []
    for levels in (1, 2, 4):
        network = rq(vectors, levels=levels, tie_break="counter").network
        assert network is not None
        error, used = network.quality(torch.from_numpy(vectors))
        errors.append(error)
        assert (used >= 0.8 * 16).all()
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.9  # of standardised vectors, whose variance is 1


def test_the_loss_is_that_of_the_paper_term_by_term() -> None:
    """Computed point by point and level by level; ``beta`` and ``weight`` each change it as they say."""
    torch.manual_seed(0)
    vectors = torch.randn(20, 6)
    settings = RQVAEConfig(levels=3, size=4, width=3, hidden=(5,), uniform_last=False)
    network = rq_vae.Network(settings, 6).eval()
    network.measure(vectors)
    inputs = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    commitment, rebuilt = 0.0, []
    for z in network.encoder(inputs).detach():
        residual, total = z, torch.zeros(3)
        for book in network.quantiser.codebooks.detach():
            code = min(range(4), key=lambda v: float((residual - book[v]).square().sum()))
            commitment += float((residual - book[code]).square().mean()) / 3 / 20
            total, residual = total + book[code], residual - book[code]
        rebuilt.append(network.decoder(total))
    error = float((torch.stack(rebuilt).detach() - inputs).square().mean())
    for beta, weight in ((0.25, 1.0), (0.0, 1.0), (2.0, 1.0), (0.25, 3.0)):
        config = settings.model_copy(update={"beta": beta, "weight": weight})
        # The codebook term has the value of the commitment term; only what they move differs.
        expected = error + weight * (1 + beta) * commitment
        network.config = config
        assert network.loss(vectors).item() == pytest.approx(expected, rel=1e-5)


def test_a_fit_says_which_levels_are_thin_and_that_batches_were_too_small() -> None:
    thin = rq(kinds(), start="random", restart_epochs=0, least_usage=0.0, **{"training.epochs": 3})
    assert any(note.startswith("level 1 uses ") for note in thin.facts["notes"])
    assert "note: level 1 uses " in thin.health().table()
    small = rq(kinds(), batch_size=15, **{"training.epochs": 1})
    assert any("no batch (of 15) has as many as a level has codes (16)" in n for n in small.facts["notes"])
    assert rq_vae.remarks(np.array([16, 13, 16]), 600, 600, RQVAEConfig(levels=3, size=16)) == []
    (note,) = rq_vae.remarks(np.array([16, 12, 16]), 600, 600, RQVAEConfig(levels=3, size=16))
    assert note.startswith("level 2 uses 12 of the 16 codes that it could (75%)")


def test_without_k_means_fewer_codes_are_used() -> None:
    vectors, used = kinds(), {}
    for start in ("k-means", "random"):
        network = rq(vectors, start=start, restart_epochs=0, least_usage=0.0, **{"training.epochs": 8}).network
        assert network is not None
        used[start] = network.quality(torch.from_numpy(vectors))[1].sum()
    assert used["random"] < used["k-means"]


@pytest.mark.parametrize("name", ["rq-vae", "residual-kmeans", "product"])
def test_items_of_one_kind_begin_alike(name: str) -> None:
    vectors = kinds()
    kind: type[NamesVectors[Any]] = {"rq-vae": RQVAE, "residual-kmeans": ResidualKMeans, "product": Product}[name]
    more = SMALL if name == "rq-vae" else {"size": 16, "levels": 3}
    tokenizer = kind(configure(kind.config_type, more)).fit(everything(600), Run(), vectors)
    assert purity(tokenizer.codes.tokens[:, 0], 12) > 0.5  # chance is about 0.15
    found = health(tokenizer.codes, vectors, tokenizer.facts, ordered=name != "product")
    assert found.agreement is not None
    assert found.collisions == 0
    assert found.collisions_first is not None
    assert found.agreement.first > 4 * found.agreement.first_chance
    assert found.agreement.overlap > 4 * found.agreement.chance
    assert all(place.balance > 0.7 for place in found.places)


def test_spreading_the_last_level_meets_fewer_collisions() -> None:
    vectors = kinds(900, 12, noise=0.3)
    near, even = (rq(vectors, size=64, uniform_last=spread).facts["repair"] for spread in (False, True))
    assert near["first_pass"] == near["nearest"] > 60  # no two vectors are alike
    assert 10 * even["first_pass"] <= near["first_pass"]
    log_domain = rq(vectors, **{"uniform.domain": "log", "training.epochs": 3}).facts["repair"]
    assert log_domain["first_pass"] < log_domain["nearest"]


def test_too_many_items_are_refused_before_anything_is_learnt() -> None:
    with pytest.raises(DataError, match="600 items do not fit into 64 names: more levels or codes"):
        rq(kinds(), levels=3, size=4, **{"training.epochs": 10**6})


def twins(n: int = 40) -> FloatArray:
    """Five texts, eight items each."""
    return kinds(5, 5, noise=0.0)[np.arange(n) % 5]


@pytest.mark.parametrize("kind", [RQVAE, ResidualKMeans])
def test_the_counter_tells_twins_apart_and_goes_on(kind: type[Any], tmp_path: Path) -> None:
    settings = {"levels": 3, "size": 6, "tie_break": "counter"}
    if kind is RQVAE:
        settings |= {"width": 4, "hidden": [8], "training.epochs": 3, "uniform_last": False}
    train = everything(40)
    tokenizer = kind(configure(kind.config_type, settings)).fit(train, Run(), twins())
    numbers = tokenizer.numbers()
    for text in range(5):
        rows = np.arange(text, 40, 5)
        assert len(np.unique(numbers[rows, :3], axis=0)) == 1
        assert sorted(numbers[rows, 3].tolist()) == list(range(8))  # more than the six codes of a level
    assert collisions(numbers[:, :3]) == 35
    assert tokenizer.facts["repair"]["counted"] == tokenizer.facts["twins"] == 35
    np.testing.assert_array_equal(tokenizer.facts["places"], [6, 6, 6, 8])
    tokenizer.save(tmp_path / "names")
    loaded = store.load(tmp_path / "names")
    for one in (tokenizer, loaded):
        grown = one.add(longer(train, 3), twins()[[0, 0, 3]])
        np.testing.assert_array_equal(grown.numbers()[:40], numbers)
        np.testing.assert_array_equal(grown.numbers()[40:, 3], [8, 9, 8])
        np.testing.assert_array_equal(grown.numbers()[40:, :3], numbers[[0, 0, 3], :3])
        assert grown.codes.vocabulary[-2:] == ("<d_8>", "<d_9>")
        np.testing.assert_array_equal(grown.codes.decode(grown.codes.tokens), np.arange(43))


@pytest.mark.parametrize("kind", [RQVAE, ResidualKMeans, Product])
def test_one_text_for_all_items(kind: type[Any]) -> None:
    """Sixty items that nothing tells apart in 4³ names, and four more."""
    settings = {"levels": 3, "size": 4} | ({"width": 4, "hidden": [], "training.epochs": 2} if kind is RQVAE else {})
    vectors = np.ones((60, 6), dtype=np.float32)
    tokenizer = kind(configure(kind.config_type, settings)).fit(everything(60), Run(), vectors)
    assert tokenizer.facts["repair"]["moved_up"] > 0
    assert len(np.unique(tokenizer.codes.tokens, axis=0)) == 60
    grown = tokenizer.add(longer(everything(60), 4), vectors[:4])
    assert len(np.unique(grown.codes.tokens, axis=0)) == 64


def test_a_collapsed_codebook_stops_training() -> None:
    with pytest.raises(TrainingError, match=r"the codebook of level 1 collapsed: \d of 16 codes are in use for 600"):
        rq(kinds(), start="random", restart_epochs=0, least_usage=0.5, **{"training.learning_rate": 1.0})
    rq_vae.check_usage(np.array([16, 1, 1]), 12, RQVAEConfig(levels=3, size=16))  # one level tells twelve apart
    with pytest.raises(TrainingError, match="the codebook of level 2 collapsed: 1 of 16 codes are in use for 100"):
        rq_vae.check_usage(np.array([16, 1, 1]), 100, RQVAEConfig(levels=3, size=16))


def test_token_of_level_and_code() -> None:
    tokenizer = rq(kinds(100), size=32)
    codes = tokenizer.codes
    assert codes.atomic
    assert len(codes.vocabulary) == 3 * 32
    assert codes.vocabulary[32 + 17] == "<b_17>"
    np.testing.assert_array_equal(codes.tokens // 32, np.tile([0, 1, 2], (100, 1)))
    np.testing.assert_array_equal(tokenizer.numbers(), codes.tokens % 32)


def test_a_kill_costs_nothing(tmp_path: Path) -> None:
    """A resumed fit gives the same names."""
    vectors, train = kinds(300), everything(300)
    config = configure(RQVAEConfig, {**SMALL, "training.epochs": 6})
    whole = RQVAE(config).fit(train, Run(folder=tmp_path / "a"), vectors).codes.tokens
    assert (tmp_path / "a" / "checkpoint.safetensors").exists()
    RQVAE(config).fit(train, Run(folder=tmp_path / "b", max_steps=5), vectors)
    resumed = RQVAE(config).fit(train, Run(folder=tmp_path / "b", resume=True), vectors)
    np.testing.assert_array_equal(resumed.codes.tokens, whole)


def test_half_precision_changes_no_name() -> None:
    vectors, config = kinds(200), configure(RQVAEConfig, {**SMALL, "restart_epochs": 1, "training.epochs": 5})
    plain, half = (
        RQVAE(config).fit(everything(200), Run(precision=precision), vectors).codes.tokens
        for precision in ("fp32", "bf16")
    )
    np.testing.assert_array_equal(plain, half)


def test_balanced_residual_k_means() -> None:
    vectors = np.concatenate([kinds(300, 2, noise=0.1), kinds(60, 20)])
    sizes = {}
    for balanced in (False, True):
        config = ResidualKMeansConfig(levels=2, size=8, balanced=balanced, tie_break="counter")
        tokenizer = ResidualKMeans(config).fit(everything(360), Run(), vectors)
        sizes[balanced] = np.bincount(tokenizer.numbers()[:, 0], minlength=8)
    assert set(sizes[True].tolist()) == {45}
    assert sizes[False].max() > 60


def test_residual_k_means_levels_leave_less_and_less() -> None:
    vectors = kinds(500, 20)
    config = ResidualKMeansConfig(levels=4, size=16, normalise=False, tie_break="counter")
    tokenizer = ResidualKMeans(config).fit(everything(500), Run(), vectors)
    coder, codes = tokenizer.coder, torch.from_numpy(tokenizer.numbers()[:, :4])
    assert coder is not None
    residual = coder.points(torch.from_numpy(vectors))
    left = [float(residual.square().mean())]
    for level in range(4):
        # The codes are the nearest ones of what the levels above leave.
        assert torch.equal(coder.distances(residual if level == 0 else coder.points(torch.from_numpy(vectors)), codes,
                                           level).argmin(1), codes[:, level])  # fmt: skip
        residual = coder.after(residual, level, codes[:, level])
        left.append(float(residual.square().mean()))
    assert all(after < 0.9 * before for before, after in pairwise(left))


def test_the_rotation_rebuilds_better_and_turns_nothing_else() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(800, 4)) @ rng.normal(size=(4, 18))).astype(np.float32)  # correlated columns
    errors = {}
    for rotations in (0, 8):
        config = ProductConfig(levels=4, size=16, rotations=rotations)
        coder = product.learn(torch.from_numpy(vectors), config, torch.Generator().manual_seed(0))
        points = coder.points(torch.from_numpy(vectors))
        assert points.shape == (800, 20)  # 18 columns filled up to 4 pieces of 5
        torch.testing.assert_close(coder.rotation @ coder.rotation.T, torch.eye(20), atol=1e-4, rtol=0)
        errors[rotations] = float((points - coder.rebuilt(points)).square().sum(1).mean())
    assert errors[8] < 0.9 * errors[0]


def test_product_error_is_that_of_faiss() -> None:
    faiss = pytest.importorskip("faiss")
    vectors = kinds(2000, 40, 32)
    theirs = faiss.ProductQuantizer(32, 4, 5)
    centred = vectors - vectors.mean(0)
    theirs.train(centred)
    rebuilt = theirs.decode(theirs.compute_codes(centred))
    config = ProductConfig(levels=4, size=32, rotations=0)
    coder = product.learn(torch.from_numpy(vectors), config, torch.Generator().manual_seed(0))
    points = coder.points(torch.from_numpy(vectors))
    ours = float((points - coder.rebuilt(points)).square().sum(1).mean())
    assert ours < 1.05 * float(((centred - rebuilt) ** 2).sum(1).mean())


def test_presets_are_settings() -> None:
    assert rq_vae.tiger().tie_break == "counter"
    assert rq_vae.paper().hidden == (512, 256, 128)
    assert rq_vae.lc_rec().uniform_last
    assert len(rq_vae.lc_rec().hidden) == 6
    assert residual_kmeans.ResidualKMeansConfig().levels == RQVAEConfig().levels == 4


@pytest.mark.parametrize(("n_items", "size"), [(1, 2), (60, 16), (300, 32), (1_682, 64), (12_101, 256), (10**6, 256)])
def test_the_number_of_codes_suits_the_items(n_items: int, size: int) -> None:
    assert fitting_size(n_items) == size


@pytest.mark.parametrize("kind", [RQVAE, ResidualKMeans, Product])
def test_codes_that_suit_the_items_are_kept_with_the_names(kind: type[Any], tmp_path: Path) -> None:
    config = configure(kind.config_type, {"levels": 3, **({"training.epochs": 2} if kind is RQVAE else {})})
    tokenizer = kind(config).fit(everything(60), Run(), kinds(60))
    assert tokenizer.facts["places"] == [16, 16, 16]
    tokenizer.save(tmp_path / "names")
    kept = kind.load(tmp_path / "names")
    assert kept.sized.size == 16
    assert kept.config.size == 0
    np.testing.assert_array_equal(kept.codes.tokens, tokenizer.codes.tokens)
    assert tokenizer.fit(everything(300), Run(), kinds(300)).sized.size == 32, "a second fit forgets the first"


def test_one_code_is_refused() -> None:
    with pytest.raises(ConfigError, match="one code tells nothing apart"):
        configure(ResidualKMeansConfig, {"size": 1})
