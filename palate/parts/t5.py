"""A T5-shaped encoder and decoder: one that reads packed histories and says names fast.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", JMLR 2020 (arXiv
1910.10683): RMS norms before each part, no biases, attention without 1/√d, learned offsets by relative distance that
all layers of a side share, one token table for input, output and target. ``parts.t5_checkpoint`` fills it with a
published checkpoint's weights. Shapes: P packed input tokens, b sequences, S tokens of the longest, R targets (b or,
with a ``Reach``, more), T tokens of a target, D width, H heads, d width of each, V tokens of the vocabulary, W beams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from palate.core.config import Config
from palate.core.training import TrainingConfig
from palate.parts.decode import in_parts, name_scores
from palate.parts.dropout import Dropout
from palate.parts.norm import RMSNorm
from palate.parts.packing import Group, Packing

SPARE = 24_000
"""Pairs of tokens that a group's padding may cost: about what the calls of one more group cost on a CPU."""
TABLE_PACE = 5.0
"""How many times as fast as others the token table learns with ``paced``; √D would be as its size asks."""


class T5Config(Config):
    width: int = Field(128, ge=1)
    layers: int = Field(4, ge=1)
    """Of the encoder, and again of the decoder."""
    heads: int = Field(6, ge=1)
    head_width: int = Field(64, ge=1)
    forward_width: int = Field(1024, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    gated: bool = False
    """Feed-forward layers gated by GELU, as from version 1.1 on; else ReLU."""
    tied: bool = True
    """The output compares with the token table, divided by √D; else with a table of its own."""
    buckets: int = Field(32, ge=4)
    farthest: int = Field(128, ge=2)
    """Distances from here on share one bucket."""
    reads: Literal["both-ways", "forward"] = "both-ways"
    """Whether a token of the input sees those after it. In published T5s it does; one that reads forward can be asked
    what comes next at every place of one reading (``Reach``). Its tokens cannot know how far from the end they stand,
    so the decoder adds learned offsets by that distance to its attention to them."""
    paced: bool = False
    """Weights learn at paces that follow their first sizes (``paced``); for a network that learns from nothing."""

    @model_validator(mode="after")
    def _far_is_far(self) -> Self:
        if self.farthest <= self.buckets // 2:
            raise ValueError(f"farthest {self.farthest} must be more than half of the {self.buckets} buckets")
        return self


@dataclass(frozen=True, eq=False)
class Reach:
    """Several targets for each packed input, one after another in the order of the inputs.

    counts  ``[b]`` how many each input has, at least one; on the CPU
    tokens  ``[R]`` how many tokens of its input each target may read, from the first on; at least one
    """

    counts: Tensor
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """What the decoder reads of one group of inputs: ``asked`` are the group's targets, ``bias`` broadcasts to
    ``[b, H, Q, S]`` and is -inf where a target must not read; None = each reads everything alike."""

    group: Group
    asked: Group
    bias: Tensor | None


class T5(nn.Module):
    """``vocabulary`` counts every token, that of the start (0) included."""

    def __init__(self, config: T5Config, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(vocabulary, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.encoder_distances = nn.Embedding(config.buckets, config.heads)
        self.decoder_distances = nn.Embedding(config.buckets, config.heads)
        self.cross_distances = nn.Embedding(config.buckets, config.heads) if config.reads == "forward" else None
        self.encoder_norm, self.decoder_norm = RMSNorm(config.width, 1e-6), RMSNorm(config.width, 1e-6)
        self.out = None if config.tied else nn.Embedding(vocabulary, config.width)
        self.drop = Dropout(config.dropout)
        self._draw()

    def _draw(self) -> None:
        """First weights as published: they keep attention without 1/√d in range."""
        c = self.config
        nn.init.normal_(self.tokens.weight, std=1.0)
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.normal_(module.query.weight, std=(c.width * c.head_width) ** -0.5)
                for part in (module.key, module.value):
                    nn.init.normal_(part.weight, std=c.width**-0.5)
                nn.init.normal_(module.out.weight, std=(c.heads * c.head_width) ** -0.5)
            if isinstance(module, Forward):
                for first in filter(None, (module.first, module.gate)):
                    nn.init.normal_(first.weight, std=c.width**-0.5)
                nn.init.normal_(module.second.weight, std=c.forward_width**-0.5)
        for table in filter(None, (self.encoder_distances, self.decoder_distances, self.cross_distances)):
            nn.init.normal_(table.weight, std=c.width**-0.5)
        if self.out is not None:
            nn.init.normal_(self.out.weight, std=c.width**-0.5)

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        return list(self.decoder)  # type: ignore[arg-type]

    @property
    def table(self) -> Tensor:
        """``[V, D]`` what final states are compared with."""
        return (self.tokens if self.out is None else self.out).weight

    def encode(self, tokens: Tensor, packing: Packing, extra: Tensor | None = None) -> Tensor:
        """``[P]`` tokens → ``[P, D]``; ``extra`` ``[P, D]`` is added to their embeddings."""
        x = self.tokens(tokens)
        x = self.drop(x if extra is None else x + extra)
        longest = int(packing.lengths.max())
        places = torch.arange(longest, device=x.device)
        distance, both_ways = places[None, :] - places[:, None], self.config.reads == "both-ways"
        bias = self.encoder_distances(bucket(distance, self.config, both_ways=both_ways)).permute(2, 0, 1)
        if not both_ways:  # which hides padding too: it stands at the end
            bias = bias.masked_fill(distance > 0, -torch.inf)
        for layer in self.encoder:
            x = layer(x, packing, bias, both_ways)
        return self.drop(self.encoder_norm(x))

    def states(self, targets: Tensor, memory: Tensor, packing: Packing, reach: Reach | None = None) -> Tensor:
        """``[R, T, D]`` states that say each of ``targets`` ``[R, T]`` from those before it, given the encoded
        ``memory`` ``[P, D]`` of the packed inputs; compare them with ``table``. Without ``reach`` each input has one
        target, which reads all of it."""
        start = torch.zeros_like(targets[:, :1])
        x = self.drop(self.tokens(torch.cat([start, targets[:, :-1].clamp(min=0)], 1)))
        bias = self.behind(x.shape[1], x.device)
        views = self._views(packing, reach, depth=targets.shape[1])
        for layer in self.decoder:
            x = layer(x, bias, memory, views)
        return self.finish(x)

    def _views(self, packing: Packing, reach: Reach | None, *, depth: int) -> list[View]:
        """What targets of ``depth`` tokens read of each group."""
        counts = torch.ones_like(packing.lengths) if reach is None else reach.counts
        tokens = packing.lengths.to(packing.device) if reach is None else reach.tokens
        views = []
        for group, asked in zip(packing.groups, packing.alongside(counts), strict=True):
            bias = None
            if reach is not None or group.slots is not None or self.cross_distances is not None:
                # A place without a target reads something, so that its weights are numbers.
                bias = self.towards(asked.pad(tokens).clamp(min=1), group.longest)
                bias = bias if asked.longest == 1 else bias.repeat_interleave(depth, 2)
            views.append(View(group, asked, bias))
        return views

    def towards(self, read: Tensor, longest: int) -> Tensor:
        """``[b, H or 1, M, S]`` what the decoder adds to its attention to the input where its M targets ``read``
        ``[b, M]`` so many tokens: -inf from there on, and offsets by the distance from there where it has such."""
        distance = torch.arange(longest, device=read.device) - read[..., None]
        if self.cross_distances is None:
            return torch.zeros(distance.shape, device=read.device).masked_fill_(distance >= 0, -torch.inf)[:, None]
        offsets = self.cross_distances(bucket(distance, self.config, both_ways=False)).permute(0, 3, 1, 2)
        return offsets.masked_fill(distance[:, None] >= 0, -torch.inf)

    def behind(self, depth: int, device: torch.device) -> Tensor:
        """``[H, T, T]`` what the decoder adds to its attention: offsets by distance, -inf for what comes later."""
        places = torch.arange(depth, device=device)
        distance = places[None, :] - places[:, None]
        bias = self.decoder_distances(bucket(distance, self.config, both_ways=False)).permute(2, 0, 1)
        return bias.masked_fill(distance > 0, -torch.inf)

    def widen(self, more: int) -> None:
        """Further tokens at the end of the vocabulary; each begins as the mean of the present ones."""
        if not more:
            return
        for name in ("tokens", "out"):
            table = getattr(self, name)
            if table is not None:
                rows = table.weight.detach()
                wider = torch.cat([rows, rows.mean(0, keepdim=True).expand(more, -1)])
                setattr(self, name, nn.Embedding(len(wider), wider.shape[1], _weight=wider))  # which draws nothing

    def finish(self, x: Tensor) -> Tensor:
        """The decoder's last norm, and the scale that a tied table needs."""
        x = self.drop(self.decoder_norm(x))
        return x * self.config.width**-0.5 if self.out is None else x

    def speaker(self, memory: Tensor, packing: Packing, order: Tensor | None = None) -> T5Speaker:
        """Ready to answer each of the packed inputs; ``order`` ``[b]`` says which request each of them is."""
        return T5Speaker(self, memory, packing, order)


class Attention(nn.Module):
    """Projections of one attention; how they meet is the caller's."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.query, self.key, self.value = (nn.Linear(config.width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, config.width, bias=False)
        self.drop = Dropout(config.dropout)

    def split(self, x: Tensor) -> Tensor:
        """``[..., H * d]`` → ``[..., H, d]``."""
        return x.view(*x.shape[:-1], self.heads, -1)

    def project(self, x: Tensor, *parts: nn.Linear) -> list[Tensor]:
        """``[..., D]`` → ``[..., H, d]`` of each part, in one product."""
        joined = F.linear(x, torch.cat([part.weight for part in parts]))
        return [self.split(one) for one in joined.chunk(len(parts), -1)]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """``[b, Q, H, d]`` with ``[b, K, H, d]`` twice → ``[b, Q, H, d]``; ``bias`` broadcasts to ``[b, H, Q, K]``."""
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if not self.drop.active:
            return F.scaled_dot_product_attention(q, k, v, bias, scale=1.0).transpose(1, 2)
        scores = q @ k.mT
        weights = self.drop(torch.softmax(scores if bias is None else scores + bias, -1))
        return (weights @ v).transpose(1, 2)


class Forward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm = RMSNorm(config.width, 1e-6)
        self.first = nn.Linear(config.width, config.forward_width, bias=False)
        self.gate = nn.Linear(config.width, config.forward_width, bias=False) if config.gated else None
        self.second = nn.Linear(config.forward_width, config.width, bias=False)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` → ``[..., D]``, added to the input."""
        y = self.norm(x)
        first = self.first(y)
        hidden = F.relu(first) if self.gate is None else F.gelu(first, approximate="tanh") * self.gate(y)
        return x + self.drop(self.second(self.drop(hidden)))


class EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm, self.attention = RMSNorm(config.width, 1e-6), Attention(config)
        self.forward_ = Forward(config)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, packing: Packing, bias: Tensor, both_ways: bool) -> Tensor:
        """``[P, D]`` → ``[P, D]``; ``bias`` is ``[H, S, S]``."""
        attention, y = self.attention, self.norm(x)

        def attend(q: Tensor, k: Tensor, v: Tensor, group: Group) -> Tensor:
            here = bias[:, : group.longest, : group.longest]
            if both_ways and group.slots is not None:
                lengths = packing.lengths[group.row : group.row + group.b].to(packing.device)
                past = torch.arange(group.longest, device=packing.device) >= lengths[:, None]
                here = here.masked_fill(past[:, None, None], -torch.inf)
            return attention.mix(q, k, v, here)

        parts = attention.project(y, attention.query, attention.key, attention.value)
        mixed = packing.apply(attend, *parts).flatten(-2)
        return self.forward_(x + self.drop(attention.out(mixed)))


class DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.norm, self.attention = RMSNorm(config.width, 1e-6), Attention(config)
        self.cross_norm, self.cross = RMSNorm(config.width, 1e-6), Attention(config)
        self.forward_ = Forward(config)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, memory: Tensor, views: list[View]) -> Tensor:
        """``[R, T, D]`` → ``[R, T, D]``; ``memory`` ``[P, D]``."""
        x, cross = self.look_back(x, bias), self.cross
        q, (k, v) = cross.split(cross.query(self.cross_norm(x))), self.recall(memory)
        mixed = torch.cat([
            view.asked.unpad(
                cross.mix(view.asked.pad(q).flatten(1, 2), view.group.pad(k), view.group.pad(v), view.bias)
                .reshape(view.group.b, view.asked.longest, *q.shape[1:])
            )
            for view in views
        ])  # fmt: skip
        x = x + self.drop(cross.out(mixed.flatten(-2)))
        return self.forward_(x)

    def look_back(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attention to what was said before."""
        own = self.attention
        q, k, v = own.project(self.norm(x), own.query, own.key, own.value)
        mixed = own.mix(q, k, v, bias)
        return x + self.drop(own.out(mixed.flatten(-2)))

    def recall(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[P, H, d]`` of what was encoded."""
        key, value = self.cross.project(memory, self.cross.key, self.cross.value)
        return key, value


def paced(training: TrainingConfig, config: T5Config, at: str = "t5") -> TrainingConfig:
    """How a T5 of that ``config`` learns as the part ``at`` of a network: where it is ``paced``, its weights have
    shares of the learning rate (``TrainingConfig.rates``, which decides over them).

    Its first weights differ in size: 1 in the token table, 1/√(D d) in queries, about 1/√D elsewhere. T5 was published
    with Adafactor, whose steps are relative to these sizes. A step of Adam is equally long everywhere: against its size
    long for queries, which hold the scale that attention goes without, and short for the table. Queries take their part
    of it, 1/√d; the table takes ``TABLE_PACE`` of them.
    """
    if not config.paced:
        return training
    layers = range(config.layers)
    queries = [f"{at}.{side}.{layer}.attention.query" for side in ("encoder", "decoder") for layer in layers]
    queries += [f"{at}.decoder.{layer}.cross.query" for layer in layers]
    shares = {f"{at}.tokens": TABLE_PACE, **dict.fromkeys(queries, config.head_width**-0.5)}
    own = {name: share for name, share in shares.items() if not name.startswith(tuple(training.rates))}
    return training.model_copy(update={"rates": own | training.rates})


def packed(lengths: Tensor, device: torch.device | str) -> Packing:
    """Where inputs of these lengths lie, longest first; groups as large as pays for this network."""
    return Packing(lengths, device, spare=SPARE)


def bucket(distance: Tensor, config: T5Config, *, both_ways: bool) -> Tensor:
    """Which offset belongs to key minus query place: near ones exact, far ones by their logarithm (2020, 2.1)."""
    n = config.buckets // 2 if both_ways else config.buckets
    after = (distance > 0).long() * n if both_ways else torch.zeros_like(distance)
    distance = distance.abs() if both_ways else -distance.clamp(max=0)
    exact = n // 2
    far = (distance.clamp(min=1).float() / exact).log() / math.log(config.farthest / exact) * (n - exact)
    return after + torch.where(distance < exact, distance, (exact + far.long()).clamp(max=n - 1))


class T5Speaker:
    """Keys and values of a request's input are held once for all its beams; those of the beams' tokens are written
    step after step into one place and never moved."""

    def __init__(self, model: T5, memory: Tensor, packing: Packing, order: Tensor | None = None) -> None:
        self.model, self.packing = model, packing
        b, longest, device = len(packing.lengths), int(packing.lengths.max()), memory.device
        row = torch.arange(b, device=device) if order is None else order.to(device)
        lengths = packing.lengths.to(device)
        read = torch.empty_like(lengths).index_copy_(0, row, lengths)
        self.reading = model.towards(read[:, None], longest)
        slots = torch.repeat_interleave(row * longest, lengths) + packing.positions
        self.cross = []
        for layer in model.decoder_layers:
            pair = layer.recall(memory)
            padded = (part.new_zeros((b * longest, *part.shape[1:])).index_copy_(0, slots, part) for part in pair)
            self.cross.append([part.view(b, longest, *part.shape[1:]).transpose(1, 2).contiguous() for part in padded])
        self.own: list[list[Tensor]] = []
        self.steps: list[int] = []

    def begin(self, n_beams: int, depth: int) -> Tensor:
        self.steps = []
        c, b = self.model.config, len(self.packing.lengths)
        shape = (b, c.heads, 1 + n_beams * max(depth - 1, 0), c.head_width)
        like = self.model.tokens.weight
        self.own = [[like.new_empty(shape), like.new_empty(shape)] for _ in self.model.decoder]
        start = torch.zeros((b, 1), dtype=torch.int64, device=like.device)
        return self._step(start, start.new_zeros((b, 1, 1)))

    def advance(self, tokens: Tensor, ancestors: Tensor) -> Tensor:
        start = torch.zeros_like(ancestors[..., :1])  # the start token stands before all that is counted there
        return self._step(tokens, torch.cat([start, ancestors + 1], 2))

    def say(self, names: Tensor) -> Tensor:
        return in_parts(self._said, names, len(self.model.table))

    def _said(self, names: Tensor) -> Tensor:
        model, (b, n, depth) = self.model, names.shape
        start = torch.zeros((b, n, 1), dtype=torch.int64, device=names.device)
        x = model.tokens(torch.cat([start, names[..., :-1].clamp(min=0)], 2)).flatten(0, 1)
        bias = model.behind(depth, x.device)
        for layer, cross in zip(model.decoder_layers, self.cross, strict=True):
            x = layer.look_back(x, bias)
            asked = layer.cross.query(layer.cross_norm(x)).view(b, n * depth, -1)
            x = x + _ask(layer.cross, asked, cross[0], cross[1], self.reading).view(x.shape)
            x = layer.forward_(x)
        return name_scores(model.finish(x).view(b, n, depth, -1) @ model.table.T, names)

    def _step(self, tokens: Tensor, ancestors: Tensor) -> Tensor:
        """``[B, W]`` tokens, and where they and those before them lie → ``[B, W, V]``."""
        model, (b, width) = self.model, tokens.shape
        first = len(self.steps)
        now = ancestors.shape[2] - 1
        self.steps += [now] * width
        when = torch.tensor(self.steps, device=tokens.device)
        offsets = model.decoder_distances(bucket(when - now, model.config, both_ways=False)).T[None, :, None, :]
        hidden = torch.full((b, width, len(when)), -torch.inf, device=tokens.device).scatter_(2, ancestors, 0.0)
        bias = hidden[:, None] + offsets
        x = model.tokens(tokens)
        for layer, cross, own in zip(model.decoder_layers, self.cross, self.own, strict=True):
            y = layer.norm(x)
            att = layer.attention
            for store, part in zip(own, (att.key, att.value), strict=True):
                store[:, :, first : len(when)] = att.split(part(y)).transpose(1, 2)
            x = x + _ask(att, att.query(y), own[0][:, :, : len(when)], own[1][:, :, : len(when)], bias)
            x = x + _ask(layer.cross, layer.cross.query(layer.cross_norm(x)), cross[0], cross[1], self.reading)
            x = layer.forward_(x)
        return model.finish(x) @ model.table.T


def _ask(attention: Attention, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """``q`` ``[B, W, H * d]`` against stored keys and values ``[B, H, K, d]`` → ``[B, W, D]``."""
    weights = torch.softmax(attention.split(q).transpose(1, 2) @ k.mT + bias, -1)
    return attention.out((weights @ v).transpose(1, 2).flatten(-2))
