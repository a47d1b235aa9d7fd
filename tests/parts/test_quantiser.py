"""Residual quantisation: which term moves what, restarts, and agreement with an independent implementation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palate.parts.kmeans import squared_distances
from palate.parts.quantiser import ResidualQuantiser
from palate.parts.sinkhorn import UniformConfig, sinkhorn


def quantiser(levels: int = 3, size: int = 8, width: int = 4, **more: int) -> ResidualQuantiser:
    made = ResidualQuantiser(levels, size, width, **more)
    with torch.no_grad():
        made.codebooks.copy_(torch.randn(levels, size, width, generator=torch.Generator().manual_seed(1)))
    return made


def points(n: int = 50, width: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_codes_sum_and_terms_by_hand() -> None:
    made, z = quantiser(), points()
    found = made.eval()(z)
    residual, total, errors = z.detach(), torch.zeros_like(z), []
    for level, codebook in enumerate(made.codebooks.detach()):
        plain = ((residual[:, None] - codebook) ** 2).sum(2)
        torch.testing.assert_close(made.distances(z.detach(), found.codes, level), plain, rtol=1e-4, atol=1e-4)
        chosen = plain.argmin(1)
        assert torch.equal(found.codes[:, level], chosen)
        errors.append(((residual - codebook[chosen]) ** 2).mean())
        residual, total = residual - codebook[chosen], total + codebook[chosen]
    torch.testing.assert_close(found.vectors, total)
    torch.testing.assert_close(found.codebook, torch.stack(errors).mean())
    torch.testing.assert_close(found.commitment, torch.stack(errors).mean())


def test_each_term_moves_what_it_should() -> None:
    made, z = quantiser(), points()
    found = made(z)
    by_codebook = torch.autograd.grad(found.codebook, [z, made.codebooks], allow_unused=True, retain_graph=True)
    by_commitment = torch.autograd.grad(found.commitment, [z, made.codebooks], allow_unused=True, retain_graph=True)
    by_output = torch.autograd.grad(found.vectors.sum(), [z, made.codebooks], allow_unused=True)
    assert by_codebook[0] is None
    assert bool((by_codebook[1].abs().sum((1, 2)) > 0).all())  # every level
    assert by_commitment[1] is None
    assert bool((by_commitment[0].abs().sum(1) > 0).all())
    torch.testing.assert_close(by_output[0], torch.ones_like(z))  # straight through
    assert by_output[1] is None
    # The commitment of every level reaches z: the gradient is the mean of 2 r_h over levels, points and width.
    residual, sum_of_residuals = z.detach(), torch.zeros_like(z)
    for level, codebook in enumerate(made.codebooks.detach()):
        residual = residual - codebook[found.codes[:, level]]
        sum_of_residuals += residual
    torch.testing.assert_close(by_commitment[0], 2 * sum_of_residuals / (3 * z.numel()))


def test_only_the_last_level_is_spread() -> None:
    made, z = quantiser(), points(64)
    plain, even = made.eval()(z), made(z, UniformConfig())
    assert torch.equal(plain.codes[:, :2], even.codes[:, :2])
    distances = made.distances(z.detach(), plain.codes, 2)
    assert torch.equal(even.codes[:, 2], sinkhorn(distances, UniformConfig()).argmax(1))
    assert not torch.equal(plain.codes[:, 2], even.codes[:, 2])


def test_the_beginning_is_k_means_of_what_is_left() -> None:
    made = quantiser(levels=3, size=16)
    z = points(400).detach()
    made.begin(z, torch.Generator().manual_seed(0))
    residual, errors = z, []
    for codebook in made.codebooks.detach():
        near = squared_distances(residual, codebook).argmin(1)
        means = torch.stack([residual[near == code].mean(0) for code in range(16)])
        assert float((means - codebook).abs().max()) < 0.2  # about each cluster's mean
        residual = residual - codebook[near]
        errors.append(float(residual.square().mean()))
    assert errors[0] < 0.4 * float(z.square().mean())
    assert errors[2] < 0.6 * errors[1] < 0.4 * errors[0]


def test_dead_codes_start_again_on_points_of_the_batch() -> None:
    made, z = quantiser(restart_steps=2), points().detach()
    with torch.no_grad():
        made.codebooks[:, 5] = 100.0
    before = made.codebooks.detach().clone()
    made(z)
    assert torch.equal(before, made.codebooks)  # not yet
    torch.manual_seed(0)
    made(z)
    assert int(made.used.sum()) == 0
    assert min(float((z - code).abs().sum(1).min()) for code in made.codebooks[0, 5:6].detach()) == 0
    alive = torch.bincount(made.eval()(z).codes[:, 0], minlength=8) > 0
    assert bool(alive[5])
    made.eval()
    steps = int(made.steps)
    made(z)
    assert int(made.steps) == steps  # looking is not training


def test_agreement_with_an_independent_library() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    made, z = quantiser(levels=4, size=16, width=6), points(200, 6).detach()
    theirs = library.ResidualVQ(dim=6, codebook_size=16, num_quantizers=4).eval()
    for layer, codebook in zip(theirs.layers, made.codebooks.detach(), strict=True):
        layer._codebook.embed.copy_(codebook[None])
        layer._codebook.initted.fill_(True)
    vectors, codes, _ = theirs(z[None])
    found = made.eval()(z)
    assert torch.equal(codes[0], found.codes)
    torch.testing.assert_close(vectors[0], found.vectors, rtol=1e-5, atol=1e-5)
