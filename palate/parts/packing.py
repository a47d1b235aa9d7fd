"""Attention over packed sequences: linear layers see no padding, attention sees little.

Sequences come longest first. They are cut into groups of similar length; each group is padded at the end to its own
longest, so a causal mask alone keeps real events from seeing padding, and a group of equal lengths is a plain view.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from palate.parts.dropout import Dropout, kept


class _Spread(torch.autograd.Function):
    """Rows ``[n, ...]`` put into the distinct ``slots`` of ``[size, ...]``, zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots)
        return rows.new_zeros((size, *rows.shape[1:])).index_copy_(0, slots, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """The inverse of ``_Spread``; its gradient needs no sums, because no slot is read twice."""

    @staticmethod
    def forward(ctx: Any, spread: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.size = len(spread)
        return spread.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        rows = grads[0]
        return rows.new_zeros((ctx.size, *rows.shape[1:])).index_copy_(0, ctx.saved_tensors[0], rows), None


_spread: Callable[[Tensor, Tensor, int], Tensor] = _Spread.apply
_gather: Callable[[Tensor, Tensor], Tensor] = _Gather.apply


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences: rows ``[row, row + b)``, tokens ``[start, stop)``, padded to ``[b, longest]``."""

    row: int
    b: int
    start: int
    stop: int
    longest: int
    slots: Tensor | None
    """``[stop - start]`` the place of each token in the padded group; None when nothing is padded."""

    def pad(self, packed: Tensor) -> Tensor:
        """The group's tokens of ``[P, ...]`` as ``[b, longest, ...]``, zeros at the end."""
        tokens = packed[self.start : self.stop]
        rest = tokens.shape[1:]
        if self.slots is None:
            return tokens.reshape(self.b, self.longest, *rest)
        return _spread(tokens, self.slots, self.b * self.longest).view(self.b, self.longest, *rest)

    def unpad(self, padded: Tensor) -> Tensor:
        """``[b, longest, ...]`` → ``[stop - start, ...]``."""
        flat = padded.reshape(self.b * self.longest, *padded.shape[2:])
        return flat if self.slots is None else _gather(flat, self.slots)


class Packing:
    """Where each sequence of a packed batch lies. ``lengths`` is ``[b]`` int64 on the CPU, longest first."""

    def __init__(
        self, lengths: Tensor, device: torch.device | str = "cpu", *, waste: float = 0.7, spare: int | None = None
    ) -> None:
        """A group ends where a sequence is shorter than ``waste`` times the group's longest, and where lengths that
        occur more than once change. With ``spare`` it ends only where its padding would cost more than so many pairs
        of tokens: each group costs a fixed handful of calls, which outweigh a little padding in small batches.
        """
        self.lengths = lengths
        self.device = device
        sizes = lengths.tolist()
        if any(later > earlier for earlier, later in itertools.pairwise(sizes)):
            raise ValueError("packed sequences must come longest first")
        self.groups: list[Group] = []
        row = start = 0
        while row < len(sizes) and sizes[row] > 0:
            longest, stop = sizes[row], start
            end = row
            if spare is not None:
                end, stop = _within_spare(sizes, row, stop, spare)
            exact = spare is None and row + 1 < len(sizes) and sizes[row + 1] == longest
            while spare is None and end < len(sizes) and sizes[end] > 0 and (sizes[end] == longest or not exact):
                if sizes[end] < waste * longest and end > row + 15:
                    break
                stop += sizes[end]
                end += 1
            self.groups.append(self._group(row, lengths[row:end], start, longest))
            row, start = end, stop

    def alongside(self, counts: Tensor) -> list[Group]:
        """The same groups of other packed rows, of which ``counts`` ``[b]`` belong to each sequence."""
        ends = [0, *torch.cumsum(counts, 0).tolist()]
        here = [(group.row, counts[group.row : group.row + group.b]) for group in self.groups]
        return [self._group(row, lengths, ends[row], int(lengths.max())) for row, lengths in here]

    def _group(self, row: int, lengths: Tensor, start: int, longest: int) -> Group:
        b, stop = len(lengths), start + int(lengths.sum())
        slots = None
        if stop - start != b * longest:
            slots = self._within(lengths) + torch.repeat_interleave(torch.arange(b) * longest, lengths)
            slots = slots.to(self.device)
        return Group(row, b, start, stop, longest, slots)

    @staticmethod
    def _within(lengths: Tensor) -> Tensor:
        ends = torch.cumsum(lengths, 0)
        return torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - lengths, lengths)

    @cached_property
    def positions(self) -> Tensor:
        """``[P]`` the place of each event in its own sequence, 0 = oldest."""
        return self._within(self.lengths).to(self.device)

    def places_from_end(self, length: int) -> Tensor:
        """``[P]`` the place of each event where the newest of every sequence has place ``length - 1``."""
        back = torch.repeat_interleave(length - self.lengths, self.lengths)
        return self.positions + back.to(self.device)

    @cached_property
    def last(self) -> Tensor:
        """``[b']`` where the newest event of each non-empty sequence lies."""
        lengths = self.lengths[self.lengths > 0]
        return (torch.cumsum(lengths, 0) - 1).to(self.device)

    def apply(self, attend: Callable[..., Tensor], *packed: Tensor) -> Tensor:
        """``attend(*padded tensors [b, T, ...], group)`` → ``[b, T, ...]``, group by group, packed again."""
        done = [group.unpad(attend(*(group.pad(tensor) for tensor in packed), group)) for group in self.groups]
        return done[0] if len(done) == 1 else torch.cat(done)


def _within_spare(sizes: list[int], row: int, stop: int, spare: int) -> tuple[int, int]:
    """Where the group that begins at ``row`` ends: the next row, the next token."""
    longest, wasted, end = sizes[row], 0, row
    while end < len(sizes) and sizes[end] > 0:
        wasted += longest**2 - sizes[end] ** 2
        if wasted > spare:
            break
        stop += sizes[end]
        end += 1
    return end, stop


def attention(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, *, causal: bool = True, drop: Dropout | None = None
) -> Tensor:
    """Softmax attention within each sequence: ``[P, H, d]`` three times → ``[P, H, d]``.

    ``drop`` is applied to the attention weights while it is active; without it the weights are never held.
    """
    p = drop.p if drop is not None and drop.active else 0.0
    if p > 0 and q.device.type == "cpu":
        return _DroppingAttention.apply(q, k, v, packing, causal, p)  # type: ignore[no-untyped-call]

    def attend(q: Tensor, k: Tensor, v: Tensor, group: Group) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        seen = None if causal else _seen(packing, group, causal)
        return F.scaled_dot_product_attention(q, k, v, seen, dropout_p=p, is_causal=causal).transpose(1, 2)

    return packing.apply(attend, q, k, v)


def _seen(packing: Packing, group: Group, causal: bool) -> Tensor | None:
    """Which events each event may read, broadcast to ``[b, H, T, T]``; None = all. Padding is never read."""
    places = torch.arange(group.longest, device=packing.device)
    if causal:
        return places[None, :] <= places[:, None]
    if group.slots is None:
        return None
    lengths = packing.lengths[group.row : group.row + group.b].to(packing.device)
    return (places < lengths[:, None])[:, None, None, :]


class _DroppingAttention(torch.autograd.Function):
    """Attention with dropout on its weights, as the few matmuls and passes it takes; torch's own is several times
    slower on a CPU. A group's weights ``[b, H, T, T]`` and a byte for each are kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, packing: Packing, causal: bool, p: float) -> Tensor:
        ctx.packing, ctx.factor = packing, q.shape[-1] ** -0.5
        mixed, saved = torch.empty_like(q, memory_format=torch.contiguous_format), []
        scaled = q * ctx.factor
        for group in packing.groups:
            q_, k_, v_ = (group.pad(x).transpose(1, 2) for x in (scaled, k, v))
            scores = q_ @ k_.transpose(2, 3)
            seen = _seen(packing, group, causal)
            if seen is not None:
                scores += torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -torch.inf)
            weights = torch.softmax(scores, -1, out=scores)
            mask, ctx.scale = kept(weights.shape, p)
            mixed[group.start : group.stop] = group.unpad(((weights * mask) @ v_).transpose(1, 2))
            saved += [weights, mask]
        ctx.save_for_backward(q, k, v, *saved)
        return mixed.mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        grad, q = grads[0] * ctx.scale, q * ctx.factor
        grad_q, grad_k, grad_v = (torch.empty_like(q, memory_format=torch.contiguous_format) for _ in range(3))
        for group, weights, mask in zip(ctx.packing.groups, saved[::2], saved[1::2], strict=True):
            here = slice(group.start, group.stop)
            q_, k_, v_, grad_ = (group.pad(x).transpose(1, 2) for x in (q, k, v, grad))
            grad_v[here] = group.unpad(((weights * mask).transpose(2, 3) @ grad_).transpose(1, 2))
            rise = (grad_ @ v_.transpose(2, 3)).mul_(mask)
            rise.sub_((rise * weights).sum(-1, keepdim=True)).mul_(weights)
            grad_q[here] = group.unpad((rise @ k_).transpose(1, 2))
            grad_k[here] = group.unpad((rise.transpose(2, 3) @ q_).transpose(1, 2))
        return grad_q.mul_(ctx.factor), grad_k, grad_v, None, None, None
