"""Abilities. A system has those it can honour and no other; callers ask with ``isinstance``.

Higher scores are better and NaN means "cannot score this", everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from palate.core.ragged import IntArray, Ragged
from palate.core.rankings import Rankings, pick, rank
from palate.core.requests import Requests
from palate.core.run import Run

if TYPE_CHECKING:
    from palate.core.annotations import (
        Choice,
        Intention,
        ItemAttributes,
        ItemProfile,
        Preference,
        StepPreferences,
        UserProfile,
        UserTraits,
    )
    from palate.core.chat import ChatReply, ChatRequest, Usage
    from palate.core.code_health import CodeHealth
    from palate.core.codes import Codes
    from palate.core.config import Config
    from palate.core.dataset import Dataset
    from palate.core.ratings import Predictions, RatingRequests

FloatArray = npt.NDArray[np.float32]

Judge = Callable[["Recommender"], float]
"""Looks at a system while it learns and says how good it is on validation; higher is better. A system under
training sees this number and nothing else of the validation cases."""


@runtime_checkable
class Recommender(Protocol):
    """Learns from a dataset, answers requests."""

    @property
    def config(self) -> Config:
        """What the system is; never how a run goes."""

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Learn from ``train`` alone. A second ``fit`` forgets the first."""

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` items for each request, best first; never one that is left out."""

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` a score for each candidate of each request, flat, row after row."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The system that was saved there."""


RatingJudge = Callable[["RatingPredictor"], float]
"""As ``Judge``, for systems that predict ratings; higher is better here too."""


@runtime_checkable
class RatingPredictor(Protocol):
    """Learns from a dataset with ratings, says what a user would give to an item."""

    @property
    def config(self) -> Config:
        """What the system is; never how a run goes."""

    def fit(self, train: Dataset, run: Run, judge: RatingJudge | None = None) -> Self:
        """Learn from ``train`` alone. A second ``fit`` forgets the first."""

    def predict(self, requests: RatingRequests) -> Predictions:
        """A finite number of stars for each question, inside the range that was learnt; an unknown user, an empty
        history and an item added after training are answered too."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The system that was saved there."""


@runtime_checkable
class ScoresAll(Protocol):
    """A system that scores the whole catalogue writes ``score_blocks``; answering follows from it.

    Inherit from it to get ``recommend`` and ``score``.
    """

    def score_blocks(self, requests: Requests) -> Iterator[FloatArray]:
        """Scores ``[b, N]`` of consecutive requests, in order; the caller may overwrite a block."""
        ...

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` items for each request, exact."""
        return rank(self.score_blocks(requests), k, leave_out=requests.leave_out, candidates=requests.candidates)

    def score(self, requests: Requests, candidates: Ragged) -> npt.NDArray[np.float32]:
        """``[sum of C]`` flat scores of the candidates; an item added after training scores NaN."""
        return pick(self.score_blocks(requests), candidates)


@runtime_checkable
class TakesNotes(Protocol):
    """A system of whose answers more must be said than their figures: failures, what they cost."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the answers given since it was made or loaded."""


@runtime_checkable
class Continues(Protocol):
    """A system that can go on learning from where it stands when the catalogue or the log has grown."""

    def continue_fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Learn on from the present weights; rows of ``train`` begin with the rows of the earlier fit."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Texts → vectors. It knows no interactions."""

    @property
    def version(self) -> str:
        """What the vectors follow from beside the text: model, weights, pooling, lengths."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """``[n, D]``, a row a text."""


@runtime_checkable
class FitsTexts(Protocol):
    """An encoder that must see texts once before it can encode; from then on it stays as it is."""

    @property
    def fitted(self) -> bool:
        """Whether it can encode."""

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn which words there are. A second ``fit`` forgets the first."""


@runtime_checkable
class ItemTokenizer(Protocol):
    """Names items: a short row of tokens for each, no two alike. Learns from training data and item texts alone."""

    @property
    def config(self) -> Config:
        """What the tokenizer is."""

    @property
    def codes(self) -> Codes:
        """The names it gave: encode, decode, add and retire are there."""

    def fit(self, train: Dataset, run: Run) -> Self:
        """Name every item of the catalogue. A second ``fit`` forgets the first."""

    def add(self, catalogue: Dataset) -> Self:
        """Name the items that ``catalogue`` has beyond those named so far; names once given never change."""

    def retire(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> Self:
        """Items whose names lead nowhere from now on, or lead to them again."""

    def health(self, vectors: FloatArray | None = None) -> CodeHealth:
        """Use, balance and collisions of the names; with vectors ``[N, D]`` also if items alike are named alike."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The tokenizer that was saved there."""


@runtime_checkable
class UserTokenizer(Protocol):
    """Names users by what they wrote: a row of codes for each, no two alike. Learns from training data alone."""

    @property
    def config(self) -> Config:
        """What it is."""

    @property
    def numbers(self) -> IntArray:
        """``[U, K]`` the codes of each user, -1 for one of whom nothing is known."""

    def fit(self, train: Dataset, run: Run) -> Self:
        """Name every user of the train part. A second ``fit`` forgets the first."""

    def add(self, train: Dataset, run: Run | None = None) -> Self:
        """Name the users that ``train`` has beyond those named so far; names once given never change."""

    def asked(self, requests: Requests) -> IntArray:
        """``[B, K]`` the codes of who asks; for somebody new what is nearest to the history, -1 where there is none."""

    def spelled(self, numbers: IntArray) -> list[str]:
        """Rows ``[n, K]`` of codes as text; "" for a row of -1."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""


@runtime_checkable
class ReRanks(Protocol):
    """A recommender that puts in order what another one has retrieved: no target outside is ever among the first."""

    def retrieved(self, requests: Requests) -> Rankings:
        """``[B, C]`` what is put in order for each request, best of the retrieving system first, -1 where there is
        less; all other items stand behind."""

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` items for each request, best first; never one that is left out."""


@runtime_checkable
class TwoTower(Protocol):
    """A system whose score of an item is the dot product of two vectors, made without knowing each other."""

    @property
    def vectors_version(self) -> str:
        """What both vectors follow from; another version, other vectors."""

    def user_vectors(self, requests: Requests) -> FloatArray:
        """``[B, D]``; a row of NaN for a request that gives nothing to go by."""

    def item_vectors(self) -> FloatArray:
        """``[N, D]``, an array that nothing changes later; a row of NaN for an item that is never answered."""

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` items of each request, exact."""


@runtime_checkable
class ScoresTexts(Protocol):
    """A recommender whose score of an item follows from how that item reads: another text, another score."""

    @property
    def scores_texts(self) -> bool:
        """Whether it does with these settings."""

    def item_texts(self, catalogue: Dataset) -> list[str]:
        """``[N]`` what is read of each item of the catalogue."""

    def score_texts(self, requests: Requests, texts: Sequence[str]) -> FloatArray:
        """``[B, T]`` what an item would score that reads so, all else as it is; NaN for a request that gives nothing to
        go by."""


@runtime_checkable
class Grows(Protocol):
    """A system that recommends items added after training at once, and stops recommending retired ones."""

    def add_items(self, catalogue: Dataset) -> None:
        """``catalogue`` begins with the items known so far; what is new in it may be answered from now on."""

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items from now on, or answer them again."""


@runtime_checkable
class LanguageModel(Protocol):
    """A network that reads and writes text, behind one door whether it comes from a hub or was taught here.

    Tensors are torch's; core does not import it. Shapes: b texts, S tokens, D width, V tokens of the vocabulary, those
    that were added included. Usable after ``prepare`` or ``load``.
    """

    @property
    def kind(self) -> Literal["causal", "seq2seq", "encoder"]:
        """Whether it goes on with a text, reads one text and writes another, or only reads."""

    @property
    def pretrained(self) -> Literal["no", "encoder", "LM"]:
        """What every table shows of it: ``no`` when it has seen nothing but the data at hand."""

    @property
    def version(self) -> str:
        """What it was before anybody tuned it: weights and text tokenizer."""

    @property
    def model(self) -> Any:
        """The network, a ``transformers`` model: what is optimised, moved to a device and asked to generate."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer of text, with the ids ``start``, ``end``, ``mask`` (each may be None) and ``pad``."""

    @property
    def opening(self) -> IntArray:
        """The ids that every question to it begins with: start and learnt prompt, which is of ids below 0."""

    def prepare(self, texts: Sequence[str], run: Run, optimise: Callable[..., Any]) -> Self:
        """Make it ready for data that reads like ``texts``: fetched, or taught on them by the training loop
        ``optimise``. It begins anew: what was added and tuned is forgotten."""

    def read(self, texts: Sequence[str], max_tokens: int | None = None, *, inside: bool = False) -> Ragged:
        """The token ids of each text, without start, end and padding; the first ``max_tokens`` of them. ``inside``
        reads each as it stands in the middle of a text, where some tokenizers would put a space before it."""

    def spell(self, tokens: Ragged) -> list[str]:
        """The text of each row of token ids."""

    def padded(self, tokens: Ragged, side: Literal["left", "right"] = "right") -> tuple[Any, Any]:
        """Ids ``[b, S]`` filled up on one side, and which of them are no padding ``[b, S]``, where the network is."""

    def add_tokens(self, words: Sequence[str]) -> IntArray:
        """``[n]`` the ids of these words, each one token from now on; those that are new get rows to learn."""

    def embed(self, tokens: Any) -> Any:
        """Ids ``[b, S]`` → input embeddings ``[b, S, D]``."""

    def states(self, embeddings: Any, mask: Any) -> Any:
        """Input embeddings ``[b, S, D]`` and which of them are no padding ``[b, S]`` → the last hidden states
        ``[b, S, D]``; of a seq2seq model those of its encoder."""

    def packed_states(self, embeddings: Any, groups: Any, attend: Callable[..., Any]) -> Any:
        """``[P, D]`` → ``[P, D]``: ``states`` of packed sequences, longest first; ``groups`` says where each lies and
        ``attend`` looks within each (``parts.packing``, ``parts.item_tower.attend_within``)."""

    def branched_states(self, embeddings: Any, places: Any, branching: Any) -> Any:
        """Like ``states`` of a causal model, where rows branch (``parts.branching.Branching``) and each token stands at
        ``places`` ``[b, S]``."""

    def logits(self, states: Any, tokens: Any = None) -> Any:
        """Last hidden states ``[..., D]`` (of a seq2seq model its decoder's) → ``[..., V]``; only of the ids
        ``tokens`` ``[n]``, in their order, where they are given."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The language model that was saved there."""


@runtime_checkable
class ChatModel(Protocol):
    """Messages, and tools it may call → a message. Several threads may ask at once."""

    @property
    def label(self) -> str:
        """Its name: the author of what it writes."""

    @property
    def version(self) -> str:
        """What its answers follow from beside the request: model, address or weights."""

    @property
    def pretrained(self) -> Literal["no", "LM"]:
        """What every table shows of it."""

    @property
    def forms(self) -> frozenset[Literal["tools", "schema"]]:
        """What it takes beside plain text: tools to call, a JSON schema of the answer. A request with anything else
        raises ``FormError``."""

    def reply(self, request: ChatRequest) -> ChatReply:
        """The answer. Raises ``EndpointError`` in one sentence when there is none."""

    def largest(self, request: ChatRequest) -> Usage:
        """The most that ``reply`` can use, every attempt counted: what a budget sets aside before the call."""


@runtime_checkable
class Annotator(Protocol):
    """Puts into words what events and users say. It reads the interactions it is given and no others, so whoever
    gives it a train part gets records without a trace of validation and test."""

    @property
    def config(self) -> Config:
        """What the annotator is."""

    @property
    def label(self) -> str:
        """The author of every record: ``extractive``, or a model's name."""

    def intentions(self, train: Dataset, events: IntArray) -> list[Intention]:
        """One record for each of the events, which are positions in ``train.interactions``."""

    def preferences(self, train: Dataset, histories: Ragged) -> list[Preference]:
        """One record for each row of ``histories``: positions in ``train.interactions`` of one user's events, oldest
        first, none empty."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The annotator that was saved there."""


@runtime_checkable
class Discerner(Protocol):
    """Writes, event by event, what the user would search for next. It reads the event, a few before it and nothing
    that came later."""

    @property
    def label(self) -> str:
        """The author of every record."""

    def step_preferences(self, dataset: Dataset, events: IntArray) -> list[StepPreferences]:
        """One record for each of the events, which are positions in ``dataset.interactions``."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""


@runtime_checkable
class Sentiment(Protocol):
    """Tells whether a sentence is for something or against it."""

    def positive(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """``[n]`` False for a text that complains, or asks to be spared something."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""


@runtime_checkable
class ReadsWords(Protocol):
    """A recommender that follows the words of a request, and answers requests without them too."""

    @property
    def reads_words(self) -> bool:
        """Whether its settings let it."""

    def recommend(self, requests: Requests, k: int) -> Rankings:
        """The best ``k`` items for each request, best first; never one that is left out."""


@runtime_checkable
class Profiler(Protocol):
    """Writes who would like an item, and then what a user would like. It reads the interactions it is given and no
    others, as every annotator does."""

    @property
    def label(self) -> str:
        """The author of every record."""

    def item_profiles(self, train: Dataset, items: IntArray) -> list[ItemProfile]:
        """One record for each of these item rows."""

    def user_profiles(self, train: Dataset, users: IntArray, of_items: Sequence[ItemProfile]) -> list[UserProfile]:
        """One record for each of these user rows, from events of the user; ``of_items`` are the profiles of all items
        in the order of their rows."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""


@runtime_checkable
class Augmenter(Protocol):
    """Writes what a graph lacks: which candidates a user would like and dislike, what items and users are. It reads
    the interactions it is given and no others, as every annotator does."""

    @property
    def label(self) -> str:
        """The author of every record."""

    def choices(self, train: Dataset, users: IntArray, offered: IntArray) -> list[Choice]:
        """One record for each of these user rows ``[n]``, among the item rows ``offered`` ``[n, C]``, -1 = no more."""

    def item_attributes(self, train: Dataset, items: IntArray, names: Sequence[str]) -> list[ItemAttributes]:
        """One record for each of these item rows, a value for each of ``names``."""

    def user_traits(self, train: Dataset, users: IntArray, names: Sequence[str]) -> list[UserTraits]:
        """One record for each of these user rows, a value for each of ``names``."""

    def save(self, folder: Path) -> None:
        """Write everything that ``load`` needs into ``folder``."""


@runtime_checkable
class RemembersLosses(Protocol):
    """Remembers of every event that it learned from how badly it fits the rest."""

    def edge_losses(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Users ``[E]``, items ``[E]`` and losses ``[E]``; NaN where none is known."""
