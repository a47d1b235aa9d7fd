"""Beam search over the names of a catalogue: exact where the beam is wide, never an item that does not exist.

A beam's keys and values are never reordered. Every step puts those of all beams behind those of earlier steps, and a
beam attends to its own ancestors through a mask. So a request's prompt is read once and held once, however many beams
grow from it. Shapes: B requests, W beams, C children, V tokens of the vocabulary, S prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from palate.core.errors import TrainingError
from palate.parts.trie import ROOT, Gate, Trie

LOGITS = 2**26
"""Logits alive at once while names are scored or searched, all requests and beams together."""
ROW = 512
"""Tokens of names that stand side by side in one sequence of a causal model while they are scored: each has a row of
the mask."""


class Speaker(Protocol):
    """A model in the middle of saying names to B requests."""

    def begin(self, n_beams: int, depth: int) -> Tensor:
        """``[B, 1, V]`` logits of the first token; at most ``depth`` tokens of ``n_beams`` beams will follow."""

    def say(self, names: Tensor) -> Tensor:
        """``[B, n]`` log-probabilities of whole names ``[B, n, T]``, -1 after the end of each."""

    def advance(self, tokens: Tensor, ancestors: Tensor) -> Tensor:
        """``[B, W, V]`` logits after ``tokens`` ``[B, W]``. ``ancestors`` ``[B, W, t]``: where among all the tokens
        said so far, step after step and beam after beam, each beam's own ones lie; the last is the present one."""


@dataclass(frozen=True, eq=False)
class Found:
    """items   ``[B, k]`` best first, -1 = no more
    scores  ``[B, k]`` their log-probabilities
    exact   ``[B]`` whether it is proven that no other item belongs here: a score only falls as a name goes on, so
            nothing that was cut away with less than the last score can come back
    """

    items: Tensor
    scores: Tensor
    exact: Tensor


def name_scores(logits: Tensor, names: Tensor) -> Tensor:
    """``[..., T, V]`` logits of each token of ``names`` ``[..., T]``, -1 after the end → ``[...]``."""
    said = logits.gather(-1, names.clamp(min=0)[..., None])[..., 0].float() - logits.float().logsumexp(-1)
    return said.masked_fill(names < 0, 0.0).sum(-1)


def in_parts(score: Callable[[Tensor], Tensor], names: Tensor, vocabulary: int, row: int | None = None) -> Tensor:
    """``[B, n]`` what ``score`` says of names ``[B, n, T]``: so many of them at a time that no more than ``LOGITS``
    logits, and in a request no more than ``row`` tokens, are alive; one name of each request at least."""
    b, n, depth = names.shape
    most = LOGITS // max(b * depth * vocabulary, 1)
    if row is not None:
        most = min(most, row // max(depth - 1, 1))
    return (
        torch.cat([score(part) for part in torch.split(names, max(most, 1), 1)], 1)
        if n
        else names.new_zeros((b, 0)).float()
    )


@torch.no_grad()
def beam_search(
    speaker: Speaker, trie: Trie, b: int, *, beam: int, k: int | None = None, gate: Gate | None = None
) -> Found:
    """The best ``k`` names by log-probability that ``beam`` beams find; equal ones by item row.

    A name's score is the sum of its tokens' log-probabilities over the whole vocabulary. ``gate`` comes from
    ``Trie.gate``. With ``beam`` no less than the items, it equals scoring every item.
    """
    device = trie.tokens.device
    nodes = torch.full((b, 1), ROOT, device=device)
    scores = torch.zeros((b, 1), device=device)
    ancestors = torch.zeros((b, 1, 0), dtype=torch.int64, device=device)
    cut = torch.full((b,), -torch.inf, device=device)
    said = 0
    logits = speaker.begin(beam, trie.depth)
    for step in range(trie.depth):
        children = _open_children(trie, nodes, gate)
        grown = _grown(trie, nodes, scores, children, logits)
        flat = grown.flatten(1)
        width = min(beam, flat.shape[1])
        scores, place = torch.topk(flat, min(width + 1, flat.shape[1]), dim=1)
        if scores.shape[1] > width:
            cut = torch.maximum(cut, scores[:, width])
            scores, place = scores[:, :width], place[:, :width]
        parents = place // grown.shape[2]
        nodes = children.flatten(1).gather(1, place).clamp(min=0)
        if step + 1 == trie.depth or not bool(((trie.items[nodes] < 0) & scores.isfinite()).any()):
            break
        slots = torch.arange(said, said + width, device=device).expand(b, width)
        said += width
        ancestors = torch.cat([ancestors.gather(1, parents[..., None].expand(-1, -1, step)), slots[..., None]], 2)
        logits = speaker.advance(trie.tokens[nodes].clamp(min=0), ancestors)
    return _best(trie.items[nodes], scores, cut, k or beam)


def _open_children(trie: Trie, nodes: Tensor, gate: Gate | None) -> Tensor:
    """``[B, W, C]`` children that lead somewhere for their request, -1 elsewhere."""
    children = trie.children(nodes)
    if gate is None:
        return children
    request = torch.arange(len(nodes), device=nodes.device)[:, None, None]
    return torch.where(gate.passes(request, children), children, -1)


def _grown(trie: Trie, nodes: Tensor, scores: Tensor, children: Tensor, logits: Tensor) -> Tensor:
    """``[B, W, C]`` scores of the children; -inf where there is none."""
    said = logits.gather(2, trie.tokens[children.clamp(min=0)].clamp(min=0)).float()
    said = said - logits.float().logsumexp(2, keepdim=True)
    said = said.masked_fill((children == nodes[..., None]), 0.0)  # a name that ended says nothing more
    return (scores[..., None] + said).masked_fill(children < 0, -torch.inf)


def _best(items: Tensor, scores: Tensor, cut: Tensor, k: int) -> Found:
    items = items.masked_fill(scores.isneginf(), -1)
    order = torch.argsort(items, dim=1, stable=True)
    order = order.gather(1, torch.argsort(scores.gather(1, order), dim=1, descending=True, stable=True))[:, :k]
    items, scores = items.gather(1, order), scores.gather(1, order)
    last = scores[:, -1] if scores.shape[1] == k else torch.full_like(cut, -torch.inf)
    return Found(items, scores, cut.isneginf() | (last > cut))


class CausalSpeaker:
    """A causal language model of the transformers library that takes a mask ``[B, 1, Q, K]`` and positions, as Llama,
    Qwen, Mistral, Gemma and Phi do.

    The beams of a request stand side by side in one sequence; positions and mask say who sees whom. ``tokens``
    ``[B, S]`` are padded on the left, ``seen`` ``[B, S]`` says which are real. A model whose layers see only the last
    so many tokens is asked what fits into that window, where every layer sees everything.
    """

    def __init__(self, model: Any, tokens: Tensor, seen: Tensor) -> None:
        self.model, self.tokens, self.seen = model, tokens, seen.bool()
        self.lengths = self.seen.sum(1)
        self.cache: Any = None
        self.said = 0
        self.asked: Tensor | None = None

    def begin(self, n_beams: int, depth: int) -> Tensor:
        """Reads the prompts, once: whatever was said after them before is forgotten."""
        window, longest = _window(self.model.config), int(self.lengths.max()) + depth
        if window is not None and longest > window:
            raise TrainingError(
                f"this language model sees only the last {window:,} tokens in some layers, and a prompt with a name "
                f"has {longest:,}: let it read less (length), or use a model without such a window"
            )
        if self.asked is None:
            self.asked = self._read()
        elif more := self.cache.get_seq_length() - self.tokens.shape[1]:
            self.cache.crop(-more)
        self.said = 0
        return self.asked

    def _read(self) -> Tensor:
        places = (self.seen.cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(self.tokens.shape[1:] * 2, dtype=torch.bool, device=self.tokens.device).tril()
        mask = (causal & self.seen[:, None, :]) | torch.eye(len(causal), dtype=torch.bool, device=causal.device)
        out = self.model(
            input_ids=self.tokens, attention_mask=_additive(mask, self.model.dtype), position_ids=places,
            past_key_values=self._empty_cache(), use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.cache = out.past_key_values
        return out.logits

    def _empty_cache(self) -> Any:
        """Where layers have a window, a cache of the model's kind that drops nothing: beams side by side may be more
        tokens than the window. None = the model makes its own."""
        if _window(self.model.config) is None:
            return None
        return type(self.model(input_ids=self.tokens[:1, -1:], use_cache=True).past_key_values)()

    def say(self, names: Tensor) -> Tensor:
        def score(some: Tensor) -> Tensor:
            return name_scores(self.logits(some), some)

        return in_parts(score, names, self.model.get_input_embeddings().num_embeddings, ROW)

    def logits(self, names: Tensor) -> Tensor:
        """``[B, n, T, V]`` of each token of whole names ``[B, n, T]``, all of which stand in one sequence."""
        b, n, depth = names.shape
        first = self.begin(n, depth)[:, :, None]
        if depth == 1:
            return first.expand(b, n, 1, -1)
        rows = torch.arange(n * (depth - 1), device=names.device)
        own = (rows[:, None] // (depth - 1) == rows // (depth - 1)) & (rows <= rows[:, None])
        mask = torch.cat([self.seen[:, None, :].expand(b, len(rows), -1), own.expand(b, -1, -1)], 2)
        out = self.model(
            input_ids=names[..., :-1].clamp(min=0).flatten(1), attention_mask=_additive(mask, self.model.dtype),
            position_ids=self.lengths[:, None] + rows % (depth - 1), past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        return torch.cat([first.expand(b, n, 1, -1), out.logits.view(b, n, depth - 1, -1)], 2)

    def advance(self, tokens: Tensor, ancestors: Tensor) -> Tensor:
        b, width = tokens.shape
        self.said += width
        own = torch.zeros((b, width, self.said), dtype=torch.bool, device=tokens.device)
        own.scatter_(2, ancestors, True)
        mask = torch.cat([self.seen[:, None, :].expand(b, width, -1), own], 2)
        places = (self.lengths + ancestors.shape[2] - 1)[:, None].expand(b, width)
        out = self.model(
            input_ids=tokens, attention_mask=_additive(mask, self.model.dtype), position_ids=places,
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        return out.logits


def _window(config: Any) -> int | None:
    """How many tokens the layers of a model see that see the fewest; None = all."""
    if not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, 1, Q, K]`` 0 where ``mask`` ``[B, Q, K]`` lets through."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, lowest)[:, None]


class MeanSpeaker:
    """Several speakers that answer the same B requests as one: the normalised geometric mean of their probabilities,
    token by token. Beam search over it finds the best names under the mean, not the mean of several lists."""

    def __init__(self, speakers: Sequence[CausalSpeaker]) -> None:
        self.speakers = speakers

    def begin(self, n_beams: int, depth: int) -> Tensor:
        return _mean([speaker.begin(n_beams, depth) for speaker in self.speakers])

    def say(self, names: Tensor) -> Tensor:
        def score(some: Tensor) -> Tensor:
            return name_scores(_mean([speaker.logits(some) for speaker in self.speakers]), some)

        words = self.speakers[0].model.get_input_embeddings().num_embeddings * len(self.speakers)
        return in_parts(score, names, words, ROW)

    def advance(self, tokens: Tensor, ancestors: Tensor) -> Tensor:
        return _mean([speaker.advance(tokens, ancestors) for speaker in self.speakers])


def _mean(logits: Sequence[Tensor]) -> Tensor:
    # Whoever scores a token with it normalises it once more.
    return torch.stack([one.float().log_softmax(-1) for one in logits]).mean(0)


class TrieLogits:
    """A logits processor for ``generate`` of the transformers library: only tokens that lead to an item survive.

    ``prompt`` is the number of tokens before the first one of a name (1 for a seq2seq model's start token). After the
    end of a name only ``end`` may follow.
    """

    def __init__(self, trie: Trie, prompt: int, end: int) -> None:
        self.trie, self.prompt, self.end = trie, prompt, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        nodes = torch.full((len(input_ids),), ROOT, device=input_ids.device)
        ended = torch.zeros_like(nodes, dtype=torch.bool)
        for tokens in input_ids[:, self.prompt :].unbind(1):
            ended |= self.trie.items[nodes.clamp(min=0)] >= 0
            nodes = torch.where(ended, nodes, self.trie.walk(nodes, tokens))
        ended |= self.trie.items[nodes.clamp(min=0)] >= 0
        children = self.trie.children(nodes.clamp(min=0))
        following = torch.where(ended[:, None], self.end, self.trie.tokens[children.clamp(min=0)])
        open_ = (children >= 0) & (nodes >= 0)[:, None]
        # A closed place points at the row's first open one, which is let through already.
        first = following.gather(1, open_.int().argmax(1, keepdim=True))
        allowed = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, torch.where(open_, following, first), True)
        return scores.masked_fill(~(allowed & open_.any(1, keepdim=True)), -torch.inf)
