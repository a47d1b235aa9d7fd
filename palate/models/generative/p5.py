"""P5 with an index of items: a T5 reads a prompt in words about a user and a history, and writes the item's name.

Hua et al., "How to Index Item IDs for Recommendation Foundation Models", SIGIR-AP 2023 (arXiv 2305.06569), on the
backbone of Geng et al., "Recommendation as Language Processing (P5)", RecSys 2022 (arXiv 2203.13366). Everything is
text; what an item is called is a tokenizer's choice, and that choice is what the study compares. A prompt's
embedding is that of the token plus that of the word it belongs to. All weights learn ``-Σ_j log p(y_j | y_<j, prompt)``
over the whole vocabulary, ``y`` being ``item_`` and the name. To answer, beam search over the trie of the live names.
Shapes: P packed tokens, b prompts, T tokens of a name, D width, N items, U users.

Where we depart, and why:
- By default the T5 is small and starts from nothing, with a text tokenizer taught on its own prompts and names, whose
  numbers split into pairs of digits. ``checkpoint`` names a published T5 instead; ``paper()`` is the published setting.
- The prompts are our own. Beside the sequential ones there are straightforward ones that name the user alone; the
  study teaches the former only. One template is drawn for each example, anew every epoch.
- A share of examples names nobody, so that strangers can be asked about. Users are called by their row.
- Early stopping on validation at a constant learning rate; ``paper()`` has the published fall to 0, after 500 steps of
  warm-up where the study has a twentieth of all steps.
- A published T5's embeddings of numerals stay; the official command draws them anew for random numbers.
- A network that reads forward (``network.reads``) is asked with prompts that end with the history. ``small()`` does,
  with paces (``parts.t5.paced``) that stand in for the optimiser T5 was published with.
- Names are never cut. ``name_tokens`` restores the cap of the public code, under which a longer name is never found.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.backbones.hub_files import hub_folder
from palate.backbones.text_tokenizer import TextTokenizer
from palate.core.codes import Codes
from palate.core.config import Config, Part
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError
from palate.core.naming import padded
from palate.core.protocols import ItemTokenizer
from palate.core.ragged import Ragged
from palate.core.rankings import Rankings
from palate.core.requests import Requests
from palate.core.run import Run
from palate.core.space import Choice, Range, SearchSpace
from palate.core.training import TrainingConfig
from palate.data.batches import asked_sequences, prefix_batches
from palate.data.phrases import Asking, Phrases, PromptBatch, PromptBatches, Prompts, Templates, pieces, up_to_history
from palate.parts import losses, newcomers
from palate.parts.naming import Naming
from palate.parts.negatives import Popularity
from palate.parts.packing import Packing
from palate.parts.t5 import T5, Reach, T5Config, T5Speaker, paced, packed
from palate.parts.t5_checkpoint import described, read_hub
from palate.training.shell import GradientSystem, Lesson

SEQUENTIAL = (
    "{user} went from one to the next : {history} and then to",
    "after {history} what will {user} choose ?",
    "the list of {user} so far is {history} ; name what follows",
    "given {history} in this order , the next one for {user} is",
    "{user} has already met {history} and now looks for",
    "which item comes next for {user} after {history} ?",
    "go on with what {user} began : {history}",
    "predict the next choice of {user} , who met {history}",
    "{history} were picked by {user} ; suggest one more",
    "what would {user} pick right after {history} ?",
)
"""Questions are asked with the first."""
STRAIGHTFORWARD = (
    "what should we recommend to {user} ?",
    "choose one item for {user}",
    "{user} asks for a suggestion",
    "which item suits {user} ?",
    "pick something that {user} would like",
)
ITEM, PERSON, NOBODY = "item_", "user_", "someone"
WORDS = 512
"""Words of a prompt that are told apart; all later ones count as the last."""


class P5Config(Config):
    tokenizer: Part = Part(name="hybrid")
    """What names the items."""
    network: T5Config = T5Config(width=128, layers=3, heads=4, head_width=32, forward_width=512)
    checkpoint: str | None = None
    """A published T5 to begin with, a folder or a name on the hub; its sizes replace those of ``network``."""
    download: bool = False
    """Fetch the checkpoint from the hub when it is not here."""
    vocabulary: int = Field(3000, ge=300)
    """Tokens of text at most, where the text tokenizer is taught here; those of items come on top."""
    whole_words: bool = True
    """Tell the network which tokens make up one word."""
    tasks: tuple[Literal["sequential", "straightforward"], ...] = Field(("sequential", "straightforward"), min_length=1)
    """Prompts that are taught."""
    nameless: float = Field(0.1, ge=0, le=1)
    """Share of examples that do not say who the user is."""
    length: int = Field(20, ge=1)
    """The last so many items are read."""
    prefixes: Literal["all", "one"] = "all"
    """Targets of an epoch: every event, or one of each user, drawn anew. Where ``network.reads`` is "forward", all
    events of a window of ``length`` are taught with one reading, and prompts end with the history."""
    name_tokens: int | None = Field(None, ge=1)
    """Names are cut after so many tokens, ``item_`` and the end included, and then never answered; None = never."""
    beam: int = Field(20, ge=1)
    batch_size: int = Field(128, ge=1)
    """Prompts read in a step."""
    training: TrainingConfig = TrainingConfig(
        epochs=100, learning_rate=2e-3, weight_decay=0.01, warmup_steps=10, clip_norm=1.0, judge_every=2, patience=8
    )


SPACE: SearchSpace = {
    "network.dropout": Range(0.05, 0.3),
    "network.layers": Range(2, 4, whole=True),
    "nameless": Range(0.0, 0.5),
    "training.learning_rate": Range(3e-4, 3e-3, log=True),
    "length": Choice((10, 20)),
}
"""What ``--tune`` searches."""


class Network(nn.Module):
    """The T5, an embedding for each word of a prompt, which users taught something (``met`` ``[U]``) and how often
    each item occurred."""

    met: Tensor
    popularity: Popularity

    def __init__(self, config: P5Config, vocabulary: int, n_users: int, n_items: int, network: dict[str, Any]) -> None:
        super().__init__()
        self.t5 = T5(T5Config(**network), vocabulary)
        self.words = nn.Embedding(WORDS, self.t5.config.width) if config.whole_words else None
        if self.words is not None:  # small, so that words disturb the meaning of tokens as little as they must
            nn.init.normal_(self.words.weight, std=0.1)
        self.register_buffer("met", torch.zeros(n_users, dtype=torch.bool))
        self.popularity = Popularity(n_items)

    @property
    def device(self) -> torch.device:
        return self.t5.tokens.weight.device

    @property
    def forward_only(self) -> bool:
        """Whether no token of a prompt sees those after it."""
        return self.t5.config.reads == "forward"

    def read(self, prompts: Prompts) -> tuple[Tensor, Packing]:
        """``[P, D]`` the encoded prompts, and where each lies."""
        packing = packed(prompts.lengths, self.device)
        words = None
        if self.words is not None:
            words = self.words(prompts.words.to(self.device).clamp(max=WORDS - 1))
        return self.t5.encode(prompts.tokens.to(self.device), packing, words), packing


@dataclass(frozen=True, eq=False)
class Speech:
    """Users and items in the network's words.

    asking  how prompts are written
    naming  how items are answered; the first ``name_tokens`` of ``naming.tokens`` are taught
    live    ``[N]`` items that can be answered
    """

    asking: Asking
    naming: Naming
    live: npt.NDArray[np.bool_]


class Reading:
    """Users and items in the tokens of ``text``. Each is read once, since its words never change: a catalogue that
    grows reads what is new, and one that shrinks nothing."""

    def __init__(self, text: TextTokenizer) -> None:
        self.text = text
        self.users = self.items = Phrases.of(Ragged.of([]))
        self.named: Codes | None = None

    def holds(self, text: TextTokenizer, codes: Codes) -> bool:
        """Whether nothing that was read reads otherwise now: neither system nor tokenizer was fitted anew."""
        return self.text is text and (self.named is None or self.named.begins(codes))

    def of(self, n_users: int, codes: Codes) -> tuple[Phrases, Phrases]:
        self.users = self.users.up_to(n_users, lambda new: _read(self.text, [f"{PERSON}{row}" for row in new]))
        self.items = self.items.up_to(
            codes.n_items,
            lambda new: _read(self.text, [ITEM + codes.spell(row) for row in new], one_word=codes.atomic),
        )
        self.named = codes
        return self.users, self.items


class P5(GradientSystem[P5Config, Network]):
    """The recommender. ``network`` is None until fitted or loaded."""

    config_type, network_type = P5Config, Network

    def __init__(self, config: P5Config | None = None, *, tokenizer: ItemTokenizer) -> None:
        super().__init__(config, tokenizer=tokenizer)
        self.tokenizer = tokenizer
        self.text: TextTokenizer  # from the first fit or from the folder
        self._sizes: dict[str, Any] = {}
        self._weights: dict[str, Tensor] = {}
        self._speech: tuple[object, Speech] | None = None
        self._reading: Reading | None = None

    @property
    def pretrained(self) -> Literal["no", "LM"]:
        """What every table shows of it."""
        return "LM" if self.config.checkpoint else "no"

    # -- learning ----------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingConfig:
        return paced(self.config.training, self.config.network)

    def prepare(self, train: Dataset, run: Run) -> None:
        if self.network is not None:
            self.tokenizer.add(train)
        else:
            self.tokenizer.fit(train, run.inside("tokenizer", share=0.25))
            self._begin(self.tokenizer.codes)
        self._learn_words()

    def _begin(self, codes: Codes) -> None:
        """The text tokenizer, and the weights and sizes of a checkpoint where there is one."""
        self._weights = {}
        if self.config.checkpoint is None:
            self.text = taught_text(codes, self.config.vocabulary)
            self._sizes = self.config.network.model_dump(mode="json")
            return
        if self.config.network.reads == "forward":
            raise ConfigError("a published T5 reads both ways; network.reads=forward needs one from nothing")
        if self.config.network.paced:
            raise ConfigError("network.paced follows first weights that are drawn; a published T5 has others")
        from safetensors.torch import load_file

        folder = hub_folder(self.config.checkpoint, self.config.download)
        self.text = TextTokenizer.of_model(folder)
        if self.text.end is None:
            raise ConfigError(f"the text tokenizer in {folder} has no token for the end of a text; P5 needs one")
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = described(settings).model_copy(update={"dropout": self.config.network.dropout})
        self._sizes = sizes.model_dump(mode="json")
        for path in sorted(folder.glob("*.safetensors")):
            self._weights |= load_file(path)
        self.text.fill_up(len(self._weights["shared.weight"]))

    def _learn_words(self) -> None:
        """Tokens of items that are words of their own become words of the text tokenizer."""
        if self.tokenizer.codes.atomic:
            self.text.add(self.tokenizer.codes.vocabulary)

    def shape(self, train: Dataset) -> dict[str, Any]:
        return {
            "vocabulary": self.text.size, "n_users": train.n_users, "n_items": train.n_items, "network": self._sizes,
        }  # fmt: skip

    def identity(self, train: Dataset) -> dict[str, object]:
        return super().identity(train) | {"names": digest(self.tokenizer.codes.tokens.tobytes()).hexdigest()}

    def _build(self, shape: Any) -> Network:
        network = super()._build(shape)
        if self._weights:  # of a fit that has just begun
            read_hub(network.t5, self._weights)
            self._weights = {}
        return network

    def lesson(self, train: Dataset, run: Run) -> Lesson:
        network, config = self.fitted(), self.config
        met = np.bincount(train.user_rows, minlength=train.n_users) > 0
        network.met.copy_(torch.from_numpy(met))
        network.popularity.count(train.item_counts)
        prefixes = prefix_batches(
            train, length=config.length, batch_size=config.batch_size, seed=run.seed, prefixes=config.prefixes,
            forward=network.forward_only,
        )  # fmt: skip
        batches = PromptBatches(prefixes, self.speech.asking, met, nameless=config.nameless, seed=run.seed)
        return Lesson(batches, lambda batch: self.loss(network, batch))

    def loss(self, network: Network, batch: PromptBatch) -> Tensor:
        """``-log p`` of the targets' tokens, mean over tokens."""
        memory, packing = network.read(batch.prompts)
        targets = self.speech.naming.tokens[batch.targets.to(network.device)][:, : self.config.name_tokens]
        reach = Reach(batch.counts, batch.read.to(network.device)) if network.forward_only else None
        states = network.t5.states(targets, memory, packing, reach)
        said = targets >= 0
        return losses.full_softmax(states[said], network.t5.table, targets[said])

    # -- answering ---------------------------------------------------------------------------------------------------

    @property
    def speech(self) -> Speech:
        """Made anew when names or network have changed."""
        network, codes = self.fitted(), self.tokenizer.codes
        state = (codes, network, network.device, len(network.met))
        if self._reading is None or not self._reading.holds(self.text, codes):
            self._reading = Reading(self.text)
        if self._speech is None or self._speech[0] != state:
            self._speech = state, spoken(self._reading, codes, self.config, network)
        return self._speech[1]

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` that the beam finds, at least ``k`` wide; for one of whom nothing is known, by counts."""

        def search(some: Requests, k: int) -> Rankings:
            return self.speech.naming.recommend(some, k, self._speak, beam=self.config.beam)

        return newcomers.recommend(requests, k, search, self._silent(requests), self._shares())

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` log-probabilities of the candidates' names; NaN for an item that cannot be answered."""

        def search(some: Requests, asked: Ragged) -> npt.NDArray[np.float32]:
            return self.speech.naming.score(some, asked, self._speak, self.speech.live)

        return newcomers.score(requests, candidates, search, self._silent(requests), self._shares())

    def _silent(self, requests: Requests) -> npt.NDArray[np.bool_]:
        network = self.fitted()
        return newcomers.silent_ones(requests, self.speech.naming.n_items, network.met.cpu().numpy())

    def _shares(self) -> npt.NDArray[np.float32]:
        """``[N]`` the log of each item's share of events, the least for one added later; NaN where it has no name."""
        shares = self.fitted().popularity.log_share.cpu().numpy()
        live = self.speech.live
        shares = np.pad(shares, (0, len(live) - len(shares)), constant_values=shares.min(initial=0))
        return np.where(live, shares, np.nan).astype(np.float32)

    @torch.no_grad()
    def _speak(self, requests: Requests) -> T5Speaker:
        network, speech = self.fitted(), self.speech
        (batch,) = asked_sequences(
            requests, length=self.config.length, n_items=speech.naming.n_items, batch_size=len(requests)
        )
        who = np.full(len(requests), -1) if requests.user_rows is None else np.asarray(requests.user_rows)
        users = speech.asking.user(who[batch.order.numpy()], network.met.cpu().numpy())
        lengths = batch.lengths.numpy()
        chosen = speech.asking.templates.asked(lengths == 0)
        prompts = speech.asking.prompts(chosen, users, batch.items.numpy(), lengths)
        memory, packing = network.read(prompts)
        return network.t5.speaker(memory, packing, batch.order[prompts.order])

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Name what is new in ``catalogue``, so that the next answer may hold it."""
        network = self.fitted()
        self.tokenizer.add(catalogue)
        self._learn_words()
        network.t5.widen(self.text.size - len(network.t5.tokens.weight))

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again."""
        self.tokenizer.retire(item_rows, back=back)

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """The index of items and the text tokenizer go with the weights."""
        network = self.fitted()
        shape = {**self.facts["shape"], "vocabulary": len(network.t5.tokens.weight)}
        self.facts = {**self.facts, "shape": shape, "text": self.text.facts()}
        super().save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        system = super().load(folder)
        system.text = TextTokenizer.from_facts(system.facts["text"])
        system._sizes = system.facts["shape"]["network"]
        return system


def taught_text(codes: Codes, vocabulary: int) -> TextTokenizer:
    """A tokenizer of the prompts' words and of names that are text; numbers split into pairs of digits."""
    said = [f" {piece}" for piece in (*pieces([*SEQUENTIAL, *STRAIGHTFORWARD]), NOBODY)]
    names = [] if codes.atomic else [re.sub(r"\d+", " ", codes.spell(row)) for row in range(codes.n_items)]
    text = TextTokenizer.taught([*said, *names], vocabulary)
    text.add([ITEM, PERSON, *(f"{pair:02d}" for pair in range(100))])
    return text


def spoken(reading: Reading, codes: Codes, config: P5Config, network: Network) -> Speech:
    """Every user and item of the present catalogue in the network's words."""
    ways = {"straightforward": STRAIGHTFORWARD, "sequential": SEQUENTIAL}
    asked = [template for task in ways if task in config.tasks for template in ways[task]]
    if network.forward_only:
        asked = up_to_history(asked)
    known = pieces(asked)
    text, n_users = reading.text, len(network.met)
    gap = "" if config.checkpoint else " "  # a published T5 puts the space there itself
    users, items = reading.of(n_users, codes)
    assert text.end is not None
    end = Ragged.of([[text.end]])
    phrases = Phrases.joined([
        _read(text, [gap + piece for piece in known]), Phrases.of(end), users, _read(text, [gap + NOBODY]), items,
    ])  # fmt: skip
    first_user = len(known) + 1
    templates = Templates.of(asked, known, last=None if network.forward_only else len(known))
    asking = Asking(phrases, templates, first_user, first_user + n_users + 1)
    live = codes.live & (items.tokens.lengths < (config.name_tokens or np.inf))  # the end is a token too
    naming = Naming(
        padded(items.tokens), len(network.t5.tokens.weight), live,
        end=text.end, device=network.device,
    )  # fmt: skip
    return Speech(asking, naming, live)


def _read(text: TextTokenizer, phrases: list[str], *, one_word: bool = False) -> Phrases:
    return Phrases.of(text.read(phrases), None if one_word else text.words(phrases))


def tiny() -> P5Config:
    """Learns on a laptop CPU in a minute or two."""
    return P5Config(
        network=T5Config(width=64, layers=2, heads=4, head_width=16, forward_width=128),
        training=TrainingConfig(
            epochs=40, learning_rate=5e-3, weight_decay=0.01, warmup_steps=10, clip_norm=1.0, judge_every=2, patience=5
        ),
    )  # fmt: skip


def small() -> P5Config:
    """All targets of a window with one reading of a sequential prompt, at the paces of a T5 from nothing: minutes on
    one core for a thousand users."""
    return P5Config(
        network=T5Config(width=128, layers=3, heads=4, head_width=32, forward_width=512, reads="forward", paced=True),
        tasks=("sequential",), batch_size=32,
        training=TrainingConfig(epochs=40, learning_rate=2e-3, weight_decay=0.01, warmup_steps=100, schedule="cosine",
                                clip_norm=1.0, judge_every=8, patience=40),
    )  # fmt: skip


def paper() -> P5Config:
    """The published setting: T5-small, fully tuned on sequential prompts alone; the model must be here or fetched."""
    return P5Config(
        checkpoint="t5-small", tasks=("sequential",), nameless=0.0, batch_size=128,
        training=TrainingConfig(
            epochs=20, learning_rate=1e-3, weight_decay=0.01, betas=(0.9, 0.999), warmup_steps=500,
            schedule="linear", clip_norm=1.0, patience=20,
        ),
    )  # fmt: skip
