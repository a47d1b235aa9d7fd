"""Attention in rows that branch, against plain softmax attention with the mask of what is seen."""

from __future__ import annotations

import torch

from palate.parts.branching import Branching

B, T, M, L, H, D = 2, 6, 3, 4, 2, 8


def test_it_is_attention_to_what_is_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    n = T + M * L
    parts = [torch.randn((B * n, H, D), generator=generator, requires_grad=True) for _ in range(3)]
    branching = Branching(T, torch.tensor([[1, 4, 6], [2, 6, 1]]))
    found = branching.attend(*parts)
    q, k, v = (part.view(B, n, H, D).transpose(1, 2) for part in parts)
    seen = branching.seen(n)[:, None]
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(found, plain)
    weight = torch.randn(found.shape, generator=generator)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), parts),
        torch.autograd.grad((plain * weight).sum(), parts),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_what_is_seen_by_hand() -> None:
    seen = Branching(2, torch.tensor([[1, 2]])).seen(6)[0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]
