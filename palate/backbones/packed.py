"""Any transformer of the hub over packed sequences: linear layers see no padding, attention sees little.

A ``transformers`` model asks a table of functions for its attention. One of them is ours: it is told where each
sequence of a packed batch lies and attends within it. Sequences come longest first (``parts.packing.Packing``).
Models whose attention is more than softmax of scaled products read padded groups instead, to the same states.
Shapes: P packed tokens, D width, b sequences, S tokens of the longest, H heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

NAME = "palate-packed"
"""Of our function in the library's table."""


class Groups(Protocol):
    """Where the sequences of a packed batch lie; ``parts.packing.Packing`` is one."""

    @property
    def positions(self) -> Tensor:
        """``[P]`` the place of each token in its own sequence."""

    @property
    def groups(self) -> Sequence[Any]:
        """Neighbouring sequences that are padded together: ``pad``, ``unpad``, ``b``, ``longest``, ``row``."""

    @property
    def lengths(self) -> Tensor:
        """``[b]`` tokens of each sequence, on the CPU."""


class Branches(Protocol):
    """How rows branch; ``parts.branching.Branching`` is one."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **rest: object) -> Tensor:
        """Attention of all rows' tokens, one row after another, ``[b * S, H, d]``."""

    def seen(self, n_tokens: int) -> Tensor:
        """``[b, S, S]`` whether a token sees another."""


Attend = Callable[..., Tensor]
"""``attend(q, k, v, causal=…, drop=…)``: ``[P, H, d]`` three times → ``[P, H, d]``."""


def can_pack(model: Any) -> bool:
    """Whether ``model`` asks the table for its attention and needs no more of it than ours does."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and not getattr(config, "is_encoder_decoder", False)
        and not kinds - {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and getattr(config, "attn_logit_softcapping", None) is None
    )


def packed_states(model: Any, embeddings: Tensor, positions: Tensor, attend: Attend, *, causal: bool) -> Tensor:
    """Input embeddings ``[P, D]`` of tokens at ``positions`` ``[P]`` → last hidden states ``[P, D]`` of ``model``,
    which has no head. See ``can_pack``."""
    with _packed(model):
        out = model(
            inputs_embeds=embeddings[None], position_ids=positions[None], attend=attend, causal=causal,
            **({"use_cache": False} if causal else {}),
        )  # fmt: skip
    return out.last_hidden_state[0]


def padded_states(read: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, groups: Groups) -> Tensor:
    """The same by ``read(embeddings [b, S, D], mask [b, S])``, group after group, each padded at its end."""
    done = []
    for group in groups.groups:
        lengths = groups.lengths[group.row : group.row + group.b].to(embeddings.device)
        mask = torch.arange(group.longest, device=embeddings.device) < lengths[:, None]
        done.append(group.unpad(read(group.pad(embeddings), mask)))
    return torch.cat(done)


def recompute(model: Any) -> None:
    """Let layers be computed a second time for their gradients, instead of keeping what they made; with the attention
    they had the first time, which by then may be another's."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _attending(model, model.config._attn_implementation)

    # The name until version 5, and the name since.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": contexts})


@contextmanager
def _packed(model: Any) -> Iterator[None]:
    """Inside, the model's attention is ours; a model is used by one thread at a time."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attention)
    with _attending(model, NAME):
        yield


@contextmanager
def _attending(model: Any, name: str) -> Iterator[None]:
    """Inside, the model's attention is the one of that name in the library's table."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: object, *, attend: Attend, causal: bool,
    scaling: float | None = None, dropout: float = 0.0, **rest: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """``[1, H, P, d]``, keys and values with as many heads or fewer → ``[1, P, H, d]``."""
    if scaling is not None and scaling != q.shape[-1] ** -0.5:
        q = q * (scaling * q.shape[-1] ** 0.5)
    shared = q.shape[1] // k.shape[1]
    if shared > 1:  # several heads of queries share one of keys and values
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
    return attend(q, k, v, causal=causal, dropout=dropout)[None], None
