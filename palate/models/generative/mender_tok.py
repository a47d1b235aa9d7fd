"""Mender-Tok: a language model reads a wish and the titles of a history, a decoder says the name of what fits.

Paischer et al., "Preference Discerning with LLM-Enhanced Generative Retrieval", TMLR 2025 (arXiv 2412.08604). After
each event an annotator writes five sentences of what the user would search for and avoid. What is read is one text,
``Instructions: p. Items: title_1 title_2 …``, by a pre-trained language model that stays frozen, or learns as its own
setting ``tune`` says; its states ``h`` are lifted to ``m = W h + b``, and a T5 decoder, trained from scratch, says the
item's name by ``Σ_j log p(c_j | c_<j, m)``. In training ``p`` is, of the positive sentences written after the event
before, the one nearest to the item that came next; in a request it is whatever words stand there. To answer, beam
search over the trie of the live names. Shapes: P packed tokens, b inputs, S tokens of a text, D width of the language
model, d of the decoder, N items.

Where we depart, and why:
- The default language model is MiniLM, frozen but for new rows. Another ``reader`` is tuned as its own settings say,
  whole unless they say otherwise; so is ``tiny()``'s nano, which knows little to begin with. The default annotator
  repeats phrases of reviews and items. Neither needs a network or a key; ``paper()`` names the published kind of
  reader, and ``annotator=chat`` writes with a chat model.
- A quarter of the events are learnt without words and some of the others without a history, so that requests without
  words and newcomers with a wish are answered; a user's first event, which the paper leaves out, is learnt too.
- Sentences are matched with an item's whole text, since titles alone may say little; ``match=title`` is the paper's.
- A text that is too long loses its oldest titles, where the public code loses what stands last.
- A trie instead of dropping what does not exist; AdamW at a constant rate with early stopping on requests without
  words (validation has none); ``paper()`` has the published cosine and sizes.
- Examples of refusals are made unlikely, ``-log(1 - p)``, where the paper subtracts their cross entropy, which has no
  lower bound. Its swapping of instructions within a batch, and decoder rows that begin as code vectors, are left out;
  so are the layer norms, dropout and skips inside its RQ-VAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.backbones.item_text import ItemText
from palate.backbones.text_model import TextModel
from palate.backbones.vectors import item_vectors, text_vectors
from palate.core.config import Part
from palate.core.dataset import Dataset
from palate.core.protocols import Discerner, Encoder, FloatArray, ItemTokenizer, Sentiment
from palate.core.ragged import IntArray, Ragged
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.data.preferences import unit
from palate.data.worded import Lessons, WordedBatch
from palate.parts.item_tower import attend_within
from palate.parts.packing import Packing
from palate.parts.t5 import T5Config, T5Speaker, packed
from palate.parts.worded import SPACE as SPACE  # --tune looks for it in the system's file
from palate.parts.worded import NameDecoder, SaysNames, WordedConfig, by_length, published
from palate.training.loop import optimise
from palate.training.shell import GradientSystem, Lesson

INSTRUCTIONS, ITEMS = "Instructions:", " Items:"
TITLE = ItemText(fields=("title",))
"""What sentences are matched with where ``match`` is ``title``."""


class MenderTokConfig(WordedConfig):
    reader: Part = Part(name="minilm", settings={"tune": "new-rows"})
    """The language model; ``new-rows``, of which there are none, leaves it as it is, ``lora`` adapts it."""
    text: ItemText = ItemText(fields=("title",))
    """How an item reads in the list."""
    title_tokens: int = Field(24, ge=1)
    """The first so many of an item are read."""
    word_tokens: int = Field(160, ge=1)
    """The first so many of the words are read."""
    max_tokens: int = Field(512, ge=32)
    """Of what is read at once; the oldest items are left out first."""


class Network(nn.Module):
    """The reader, the decoder, and the tokens of every item ``[N, S]`` (-1 after the end)."""

    titles: Tensor

    def __init__(
        self, config: MenderTokConfig, reader: nn.Module, width: int, n_items: int, n_tokens: int, ended: bool
    ) -> None:
        super().__init__()
        self.reader = reader
        self.frozen = not any(parameter.requires_grad for parameter in reader.parameters())
        self.decoder = NameDecoder(config.network, n_tokens, ended, width)
        self.register_buffer("titles", torch.full((n_items, config.title_tokens), -1))

    def train(self, mode: bool = True) -> Network:
        """A frozen reader reads as it does when it answers."""
        super().train(mode)
        if self.frozen:
            self.reader.eval()
        return self


class MenderTok(SaysNames, GradientSystem[MenderTokConfig, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = MenderTokConfig, Network

    def __init__(
        self,
        config: MenderTokConfig | None = None,
        *,
        tokenizer: ItemTokenizer,
        reader: TextModel[Any],
        annotator: Discerner,
        sentiment: Sentiment,
        encoder: Encoder,
    ) -> None:
        super().__init__(
            config, tokenizer=tokenizer, reader=reader, annotator=annotator, sentiment=sentiment, encoder=encoder
        )
        self.tokenizer, self.reader, self.annotator = tokenizer, reader, annotator
        self.sentiment, self.encoder = sentiment, encoder
        self._taught: Lessons | None = None
        self._pieces: tuple[object, Ragged] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, train: Dataset, run: Run) -> None:
        self.name_all(train, run)

        def encode(texts: Sequence[str]) -> FloatArray:
            return unit(text_vectors(texts, self.encoder, run=run))

        items = unit(item_vectors(train, self.encoder, run=run, learn=self.network is None))
        wanted = items if self.config.match == "text" else encode(TITLE.render(train))
        self._taught = taught = self.written(train, run.seed, items, wanted, encode)
        if self.network is None:
            read = [f" {text}" for text in (*self.config.text.render(train), *taught.preferences.texts)]
            told = [*read, INSTRUCTIONS, ITEMS]
            self.reader.prepare(told, run, optimise, fitted_on=train.fingerprint)

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {"n_items": train.n_items, "n_tokens": len(self.tokenizer.codes.vocabulary), "ended": self.ended}

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"names": self.names_digest, "reader": self.reader.version}

    def learnt_elsewhere(self) -> tuple[str, ...]:
        return ("reader.",)

    def _build(self, shape: Any) -> Network:
        return Network(self.config, self.reader.model, self.reader.width, **shape)

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        assert self._taught is not None
        network, taught, self._taught = self.fitted(), self._taught, None
        self._pieces = self._named = None
        network.titles.copy_(self._titles(train))
        said = self._words(taught.preferences.texts)
        return Lesson(self.batches(train, taught, run.seed), lambda batch: self.loss(batch, said))

    def loss(self, batch: WordedBatch, said: Ragged) -> Tensor:
        """See ``SaysNames.cost``; ``said`` holds the tokens of each sentence."""
        return self.cost(batch, *self._read(batch.items.numpy(), batch.lengths.numpy(), batch.words.numpy(), said))

    def remarks(self) -> dict[str, Any]:
        return {
            "pretrained": self.reader.pretrained, "reader": self.reader.version, "written by": self.annotator.label
        }  # fmt: skip

    # -- reading -----------------------------------------------------------------------------------------------------

    def _titles(self, catalogue: Dataset) -> Tensor:
        """``[N, S]`` the tokens of each item, -1 after their end."""
        width = self.config.title_tokens
        rows = self.reader.read([f" {text}" for text in self.config.text.render(catalogue)], width, inside=True)
        found = np.full((len(rows), width), -1, dtype=np.int64)
        found[np.arange(width) < rows.lengths[:, None]] = rows.flat()
        return torch.from_numpy(found)

    def _words(self, texts: Sequence[str]) -> Ragged:
        return self.reader.read([f" {text}" for text in texts], self.config.word_tokens, inside=True)

    @property
    def pieces(self) -> Ragged:
        """Token ids: what stands before the words, between words and items, at the end; then each item's."""
        titles = self.fitted().titles
        if self._pieces is None or self._pieces[0] is not titles:
            first = self.reader.read([INSTRUCTIONS]).row(0).tolist()
            between = self.reader.read([ITEMS], inside=True).row(0).tolist()
            framed, bare = self.reader.framed(["a"], 16).row(0).tolist(), self.reader.read(["a"]).row(0).tolist()
            place = next(i for i in range(len(framed)) if framed[i : i + len(bare)] == bare)
            before, after = framed[:place], framed[place + len(bare) :]
            table = titles.cpu().numpy()
            fixed = Ragged.of([[*before, *first], between, after])
            self._pieces = (
                titles,
                Ragged.from_lengths(
                    np.concatenate([fixed.flat(), table[table >= 0]]),
                    np.concatenate([fixed.lengths, (table >= 0).sum(1)]),
                ),
            )
        return self._pieces[1]

    def _read(
        self, items: IntArray, lengths: IntArray, words: IntArray, said: Ragged
    ) -> tuple[Tensor, Packing, Tensor]:
        """Packed items, and the row of ``said`` ``[b]`` that each is asked with (-1 = none) → what is read
        ``[P, d]``, where it lies, and which of the given inputs each is ``[b]``."""
        network = self.fitted()
        tokens, counts = composed(self.pieces, items, lengths, words, said, self.config.max_tokens)
        order = by_length(counts)
        rows = Ragged.from_lengths(tokens, counts.numpy())[order.numpy()]
        device = network.decoder.device
        packing = packed(counts[order], device)
        ids = torch.from_numpy(rows.flat().astype(np.int64)).to(device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not network.frozen):
            states = self.reader.packed_states(self.reader.embed(ids), packing, attend_within(packing))
        return network.decoder.lift(states.float()), packing, order

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def decoder(self) -> NameDecoder:
        return self.fitted().decoder

    @torch.no_grad()
    def _speak(self, requests: Requests) -> T5Speaker:
        read = requests.known(self.naming.n_items).histories.last(self.config.length)
        told = [" ".join(text.split()) for text in requests.words or ("",) * len(requests)]
        asked = np.where([bool(text) for text in told], np.arange(len(told)), -1)
        memory, packing, order = self._read(read.flat(), read.lengths, asked, self._words(told))
        return self.decoder.t5.speaker(memory, packing, order)

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``, so that the next answer may hold it."""
        self.name_more(catalogue)
        network = self.fitted()
        network.titles = self._titles(catalogue).to(network.titles.device)


def composed(
    pieces: Ragged, items: IntArray, lengths: IntArray, words: IntArray, said: Ragged, max_tokens: int
) -> tuple[IntArray, Tensor]:
    """The tokens of ``Instructions: words Items: titles`` for each input, one after another, and how many each has
    ``[b]``. The oldest items are left out where there would be more than ``max_tokens``."""
    fixed, n = 3, len(pieces)
    spoken = words >= 0
    spent = pieces.lengths[:fixed].sum() + np.where(spoken, _lengths(said)[words], 0)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    sizes = pieces.lengths[fixed + items]
    ends = np.cumsum(lengths)
    total = np.concatenate([[0], np.cumsum(sizes)])
    behind = total[ends][owner] - total[:-1]  # its own tokens and those of newer items
    keep = behind <= max_tokens - spent[owner]
    items, lengths = items[keep], np.bincount(owner[keep], minlength=len(lengths))

    counts = fixed + spoken + lengths
    stops = np.cumsum(counts)
    starts = stops - counts
    row = np.full(int(stops[-1]) if len(stops) else 0, -1, dtype=np.int64)
    row[starts] = 0
    row[starts[spoken] + 1] = n + words[spoken]
    row[starts + 1 + spoken] = 1
    row[stops - 1] = 2
    row[row < 0] = fixed + items
    every = Ragged.from_lengths(
        np.concatenate([pieces.flat(), said.flat()]), np.concatenate([pieces.lengths, said.lengths])
    )
    held = every[row]
    per_input = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=held.lengths, minlength=len(counts))
    return held.flat(), torch.from_numpy(per_input.astype(np.int64))


def _lengths(said: Ragged) -> IntArray:
    """Of each sentence; one more at the end stands for none."""
    return np.append(said.lengths, 0)


def tiny() -> MenderTokConfig:
    """Learns on a laptop CPU in a minute or two: ``nano`` reads, few codes, a small decoder, counted words."""
    return MenderTokConfig(
        reader=Part(name="nano", settings={
            "width": 64, "heads": 2, "layers": 2, "forward_width": 128, "length": 512, "steps": 150, "vocabulary": 2048,
        }),
        tokenizer=Part(name="residual-kmeans", settings={"size": 16, "levels": 3, "encoder": "tf-idf"}),
        encoder=Part(name="tf-idf"),
        network=T5Config(width=64, layers=2, heads=4, head_width=16, forward_width=128),
        length=10, prefixes="one", title_tokens=8, word_tokens=64, max_tokens=256,
        training=TrainingConfig(epochs=300, learning_rate=2e-3, warmup_steps=30, judge_every=10, patience=6),
    )  # fmt: skip


def paper() -> MenderTokConfig:
    """The published sizes: FLAN-T5-small reads, frozen or (as for Beauty) with adapters; three codes of 256 and a
    counter. Preferences by a chat model: ``annotator=chat``."""
    return MenderTokConfig(
        reader=Part(name="hub", settings={
            "model": "google/flan-t5-small", "tune": "lora", "lora_rank": 16, "lora_alpha": 1.0,
        }),
        **published(),
        beam=30, batch_size=64,
        training=TrainingConfig(
            epochs=100, learning_rate=3e-4, weight_decay=0.035, warmup_steps=10_000, schedule="cosine",
            judge_every=2, patience=15,
        ),
    )  # fmt: skip
