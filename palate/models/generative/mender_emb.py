"""Mender-Emb: vectors of a wish and of the items met go straight to a decoder, which says the name of what fits.

Paischer et al., "Preference Discerning with LLM-Enhanced Generative Retrieval", TMLR 2025 (arXiv 2412.08604). As
Mender-Tok, but nothing reads in training: a frozen encoder has made one vector of each sentence and of each item's text
once, and the rows ``[e_p, e_1 … e_n]``, lifted by ``W``, are what the decoder attends to. That is cheap; what a word of
the wish says about a word of a title is lost. Words of several sentences have a slot each, as where the paper gives all
five. Shapes: P packed slots, b inputs, D width of the vectors, d of the decoder, N items, S sentences.

Where we depart, and why:
- A slot also carries where it stands, counted from the newest item: the decoder's attention knows no order by itself,
  and the newest item says more than the oldest. ``places=false`` leaves it out, as published.
- Where there are no words, a learnt vector stands in their slot, so that there is always something to attend to.
- Inputs are packed: the public code fills up with vectors of zeros that the decoder sees.
- Vectors of unit length are given the length √D, the size of states that a decoder expects.
- What Mender-Tok departs in beside its reader (annotator, share of silent and lone examples, matching, trie, training)
  is so here too. ``paper()`` has the published sizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palate.backbones.item_text import ItemText
from palate.backbones.vectors import item_vectors, text_vectors
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.protocols import Discerner, Encoder, FloatArray, ItemTokenizer, Sentiment
from palate.core.ragged import Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.data.preferences import unit
from palate.data.worded import Lessons, WordedBatch
from palate.parts.packing import Packing
from palate.parts.t5 import T5Config, T5Speaker, packed
from palate.parts.worded import SPACE as SPACE  # --tune looks for it in the system's file
from palate.parts.worded import NameDecoder, SaysNames, WordedConfig, by_length, published
from palate.training.shell import GradientSystem, Lesson

TITLE = ItemText(fields=("title",))
"""What sentences are matched with where ``match`` is ``title``."""
SENTENCES = 8
"""Slots that the words of a request take at most; what is said after so many sentences joins the last."""
_ENDS = re.compile(r"(?<=[.!?])\s+")


class MenderEmbConfig(WordedConfig):
    places: bool = True
    """Slots say where they stand."""


class Network(nn.Module):
    """The decoder, what stands for silence, where slots stand, and the vectors of the items ``[N, D]``."""

    vectors: Tensor

    def __init__(
        self, config: MenderEmbConfig, n_items: int, n_columns: int, n_tokens: int, ended: bool
    ) -> None:  # fmt: skip
        super().__init__()
        width = config.network.width
        self.decoder = NameDecoder(config.network, n_tokens, ended, n_columns)
        self.silence = nn.Parameter(torch.randn(width))
        self.places = nn.Embedding(config.length + 1, width) if config.places else None
        self.register_buffer("vectors", torch.zeros(n_items, n_columns))

    def memory(self, slots: Tensor, silent: Tensor, places: Tensor) -> Tensor:
        """``[P, D]`` vectors, which of them ``[P]`` stand for silence, their places ``[P]`` → ``[P, d]``."""
        x = torch.where(silent[:, None], self.silence, self.decoder.lift(slots))
        return x if self.places is None else x + self.places(places)


class MenderEmb(SaysNames, GradientSystem[MenderEmbConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = MenderEmbConfig, Network

    def __init__(
        self,
        config: MenderEmbConfig | None = None,
        *,
        tokenizer: ItemTokenizer,
        annotator: Discerner,
        sentiment: Sentiment,
        encoder: Encoder,
    ) -> None:
        super().__init__(config, tokenizer=tokenizer, annotator=annotator, sentiment=sentiment, encoder=encoder)
        self.tokenizer, self.annotator = tokenizer, annotator
        self.sentiment, self.encoder = sentiment, encoder
        self._taught: tuple[FloatArray, Lessons] | None = None
        self._n_columns = 0

    # -- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, train: Dataset, run: Run) -> None:
        self.name_all(train, run)

        def encode(texts: Sequence[str]) -> FloatArray:
            return unit(text_vectors(texts, self.encoder, run=run))

        items = unit(item_vectors(train, self.encoder, run=run, learn=self.network is None))
        wanted = items if self.config.match == "text" else encode(TITLE.render(train))
        self._n_columns = items.shape[1]
        self._taught = items, self.written(train, run.seed, items, wanted, encode)

    def shape(self, train: Dataset) -> dict[str, Any]:
        n_tokens = len(self.tokenizer.codes.vocabulary)
        return {
            "n_items": train.n_items, "n_columns": self._n_columns, "n_tokens": n_tokens, "ended": self.ended
        }  # fmt: skip

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"names": self.names_digest, "encoder": self.encoder.version}

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        assert self._taught is not None
        network, (items, taught) = self.fitted(), self._taught
        self._taught = self._named = None
        network.vectors.copy_(_scaled(items))
        said = _scaled(taught.vectors).to(run.device)
        return Lesson(self.batches(train, taught, run.seed), lambda batch: self.loss(batch, said))

    def loss(self, batch: WordedBatch, said: Tensor) -> Tensor:
        """See ``SaysNames.cost``; ``said`` ``[S, D]`` are the vectors of the sentences."""
        spoken = batch.words >= 0
        return self.cost(batch, *self._read(batch.items, batch.lengths, said[batch.words[spoken]], spoken.long()))

    def remarks(self) -> dict[str, Any]:
        return {"encoder": self.encoder.version, "written by": self.annotator.label}

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read(self, items: Tensor, lengths: Tensor, said: Tensor, spoken: Tensor) -> tuple[Tensor, Packing, Tensor]:
        """Packed items, the vectors of what was said and how many of them each input has ``[b]`` → what is read
        ``[P, d]``, where it lies, and which of the given inputs each is ``[b]``."""
        network = self.fitted()
        device = network.decoder.device
        heard = spoken.clamp(min=1)  # silence has a slot, too
        counts = heard + lengths
        order = by_length(counts)
        ends = torch.cumsum(counts, 0)
        within = torch.arange(int(counts.sum())) - torch.repeat_interleave(ends - counts, counts)
        is_item = within >= torch.repeat_interleave(heard, counts)
        silent = ~is_item & torch.repeat_interleave(spoken == 0, counts)
        slots = network.vectors.new_zeros((len(within), network.vectors.shape[1]))
        slots[is_item.to(device)] = network.vectors[items.to(device)]
        slots[(~is_item & ~silent).to(device)] = said
        ago = torch.repeat_interleave(counts, counts) - within  # 1 = the newest item
        places = torch.where(is_item, ago, 0).clamp(max=self.config.length)
        rows = Ragged.from_lengths(np.arange(len(within)), counts.numpy())[order.numpy()]
        sorted_ = torch.from_numpy(rows.flat())
        memory = network.memory(*(part[sorted_.to(part.device)].to(device) for part in (slots, silent, places)))
        return memory, packed(counts[order], device), order

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def decoder(self) -> NameDecoder:
        return self.fitted().decoder

    @torch.no_grad()
    def _speak(self, requests: Requests) -> T5Speaker:
        network = self.fitted()
        read = requests.known(self.naming.n_items).histories.last(self.config.length)
        told = [in_slots(text) for text in requests.words or ("",) * len(requests)]
        flat = list(dict.fromkeys(sentence for some in told for sentence in some))
        said = network.vectors.new_zeros((0, network.vectors.shape[1]))
        if flat:  # not through the store of vectors: what people ask is not written to disk
            row = {sentence: place for place, sentence in enumerate(flat)}
            vectors = _scaled(unit(self.encoder.encode(flat))).to(said.device)
            said = vectors[torch.tensor([row[sentence] for some in told for sentence in some])]
        memory, packing, order = self._read(
            torch.from_numpy(read.flat().astype(np.int64)), torch.from_numpy(read.lengths.astype(np.int64)), said,
            torch.tensor([len(some) for some in told], dtype=torch.int64),
        )  # fmt: skip
        return self.decoder.t5.speaker(memory, packing, order)

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``, so that the next answer may hold it."""
        self.name_more(catalogue)
        network = self.fitted()
        network.vectors = _scaled(unit(item_vectors(catalogue, self.encoder))).to(network.vectors.device)


def in_slots(words: str) -> Sequence[str]:
    """The sentences of ``words``, at most ``SENTENCES``."""
    found = [text for text in (" ".join(part.split()) for part in _ENDS.split(words)) if text]
    return found if len(found) <= SENTENCES else [*found[: SENTENCES - 1], " ".join(found[SENTENCES - 1 :])]


def _scaled(vectors: FloatArray) -> Tensor:
    """Unit vectors ``[n, D]`` with the length √D."""
    return torch.from_numpy(vectors * np.float32(vectors.shape[1] ** 0.5))


def tiny() -> MenderEmbConfig:
    """Learns on a laptop CPU in a minute: few codes, a small decoder, vectors that count words."""
    return MenderEmbConfig(
        tokenizer=Part(name="residual-kmeans", settings={"size": 16, "levels": 3, "encoder": "tf-idf"}),
        encoder=Part(name="tf-idf"),
        network=T5Config(width=64, layers=2, heads=4, head_width=16, forward_width=128),
        training=TrainingConfig(epochs=60, learning_rate=3e-3, warmup_steps=20, judge_every=2, patience=8),
    )  # fmt: skip


def paper() -> MenderEmbConfig:
    """The published sizes and schedule: sentence vectors of T5, three codes of 256 and a counter. Preferences by a chat
    model: ``annotator=chat``."""
    return MenderEmbConfig(
        **published(), places=False, beam=10, batch_size=256,
        training=TrainingConfig(
            epochs=400, learning_rate=3e-4, weight_decay=0.035, warmup_steps=10_000, schedule="cosine",
            judge_every=2, patience=15,
        ),
    )  # fmt: skip
