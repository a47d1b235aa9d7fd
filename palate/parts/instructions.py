"""What a language model is taught so that names of items mean something to it: six tasks, each in many words.

The tasks are those of LC-Rec (Zheng et al. 2024, arXiv 2311.09049): say what comes next (``seqrec``), name an item by
its text and tell the text by the name (``item2index``, ``index2item``), mix names and text in one history
(``fusionseqrec``: names to a title, names to a description, titles to a name), find what somebody looks for
(``itemsearch``), and tell from a history what somebody likes (``preferenceobtain``). The wording is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from palate.core.dataset import Dataset
from palate.core.protocols import Annotator
from palate.core.ragged import IntArray, Ragged
from palate.data.batches import windows_of
from palate.data.instruction_batches import Pool
from palate.data.instructions import Examples, Phrasebook, Template

TaskName = Literal["seqrec", "item2index", "index2item", "fusionseqrec", "itemsearch", "preferenceobtain"]

MARK = "\nResponse:"
"""Between instruction and response."""
SEPARATOR = ","
"""Between the entries of a list."""

TASKS: dict[str, tuple[Template, ...]] = {
    # Questions are asked with the first ones; those without a history are for people who have none yet.
    "seqrec": (
        Template("These items were chosen one after another: {history}. Which one comes next?", "{name}"),
        Template("A user went through {history} in this order. Name the item that follows.", "{name}"),
        Template("Continue the list {history} with one more item.", "{name}"),
        Template("After {history}, what does the user pick?", "{name}"),
        Template("The choices so far are {history}. Predict the next choice.", "{name}"),
        Template("Somebody took {history}. Suggest what to take now.", "{name}"),
        Template("What should be recommended to a user with this record: {history}?", "{name}"),
        Template("Read the sequence {history} and say its next entry.", "{name}"),
        Template("The user has met {history}. What is met afterwards?", "{name}"),
        Template("Given the order of the choices {history}, find the most likely next item.", "{name}"),
        Template("A new user asks for a first item. Which one do you suggest?", "{name}"),
        Template("Nothing is known of this user yet. Name an item to begin with.", "{name}"),
    ),
    "item2index": (
        Template("Which item is called {title}?", "{name}"),
        Template("Give the index of the item with the title {title}.", "{name}"),
        Template("The title is {title}. Say the index.", "{name}"),
        Template("Look up {title} in the catalogue.", "{name}"),
        Template("Which item is described like this? {description}", "{name}"),
        Template("Find the index of the item that reads: {description}", "{name}"),
        Template("The description is: {description} Which index belongs to it?", "{name}"),
        Template("An item called {title} is described as: {description} What is its index?", "{name}"),
        Template("Title: {title}. Description: {description} Index?", "{name}"),
        Template("Name the item of this title and text. {title}. {description}", "{name}"),
    ),
    "index2item": (
        Template("What is {name} called?", "{title}"),
        Template("Say the title of {name}.", "{title}"),
        Template("Which title stands for the index {name}?", "{title}"),
        Template("Write the title that belongs to item {name}.", "{title}"),
        Template("Describe {name}.", "{description}"),
        Template("What is item {name} about?", "{description}"),
        Template("Tell a user what {name} is like.", "{description}"),
        Template("Give title and description of {name}.", "{title}. {description}"),
        Template("What do you know about the item {name}?", "{title}. {description}"),
        Template("Present {name} with its title and a text.", "{title}. {description}"),
    ),
    "fusionseqrec": (
        Template("These items were chosen: {history}. What is the title of the next one?", "{title}"),
        Template("After {history}, say by its title what the user picks.", "{title}"),
        Template("Continue {history}, and answer with a title.", "{title}"),
        Template("Name the title that suits a user who took {history}.", "{title}"),
        Template("These items were chosen: {history}. Describe the next one.", "{description}"),
        Template("After {history}, what is the thing like that the user picks?", "{description}"),
        Template("Continue {history}, and answer with a description.", "{description}"),
        Template("Describe what suits a user who took {history}.", "{description}"),
        Template("The titles chosen so far are {titles}. Which index comes next?", "{name}"),
        Template("A user went through {titles} in this order. Say the index of what follows.", "{name}"),
        Template("Continue the titles {titles} with the index of an item.", "{name}"),
        Template("Which index should be recommended after {titles}?", "{name}"),
    ),
    "itemsearch": (
        Template("A user asks: {wish} Which item fits?", "{name}"),
        Template("Find an item for this request. {wish}", "{name}"),
        Template("Search the catalogue. {wish}", "{name}"),
        Template("Answer the wish with an item: {wish}", "{name}"),
        Template("The user chose {history}. The wish is now: {wish} Which item fits?", "{name}"),
        Template("Knowing the record {history}, find an item for this request. {wish}", "{name}"),
        Template("After {history} a user asks: {wish} Suggest an item.", "{name}"),
        Template("About the user: {preference} The wish is now: {wish} Which item fits?", "{name}"),
        Template("Search the catalogue for somebody. {preference} The request is: {wish}", "{name}"),
        Template("The user chose {history}. In words: {preference} The wish is now: {wish} Name an item.", "{name}"),
    ),
    "preferenceobtain": (
        Template("A user chose {history}. What does this user like?", "{preference}"),
        Template("Sum up the taste behind {history}.", "{preference}"),
        Template("Read {history} and put the preference of the user into words.", "{preference}"),
        Template("The record is {history}. Describe the user.", "{preference}"),
        Template("What can be learnt about somebody who took {history}?", "{preference}"),
        Template("Tell from {history} what kind of items the user enjoys.", "{preference}"),
        Template("Which interests show in {history}?", "{preference}"),
    ),
}
"""The templates of each task, by its name."""

ASKING = sum("{history}" in template.ask for template in TASKS["seqrec"])
"""Templates that questions can be asked with: the first so many of ``seqrec``."""

UNSEEN: dict[str, tuple[int, ...]] = {
    "seqrec": (8, 9), "item2index": (3, 6, 9), "index2item": (3, 6, 9), "fusionseqrec": (3, 7, 11),
    "itemsearch": (3, 6, 8), "preferenceobtain": (6,),
}  # fmt: skip
"""Templates of each task that can be kept from teaching, to see whether other words for a task are understood. Each
asks for what another of its task asks for too."""


def taught_with(task: str, wordings: Literal["all", "seen"]) -> tuple[Template, ...]:
    """The templates that a task is taught with."""
    unseen = UNSEEN[task] if wordings == "seen" else ()
    return tuple(one for number, one in enumerate(TASKS[task]) if number not in unseen)


def asked_with(wordings: Literal["all", "seen"], asking: Literal["seen", "unseen"]) -> list[int]:
    """Which templates of ``seqrec`` questions with a history can be asked with."""
    if asking == "unseen":
        return list(UNSEEN["seqrec"])
    return [row for row in range(ASKING) if wordings == "all" or row not in UNSEEN["seqrec"]]


MISSING = {
    "seqrec": "there are no events",
    "item2index": "no item has a title or a description",
    "index2item": "no item has a title or a description",
    "fusionseqrec": "no item has a title or a description, or no user met two items, or fused is 0",
    "itemsearch": "no last event of a user has a review to write an intention from",
    "preferenceobtain": "no user met two items that have a title, a description or a category",
}
"""Why a task was left out."""


@dataclass(frozen=True, eq=False)
class Words:
    """Everything a train part says in words; an empty text is not known.

    titles, descriptions  ``[N]``
    wishes       two texts for each intention; ``searched`` ``[n]`` the event that each is about
    preferences  two texts for each preference; ``liking`` ``[n]`` the users, ascending
    """

    titles: list[str]
    descriptions: list[str]
    wishes: list[str]
    searched: IntArray
    preferences: list[str]
    liking: IntArray

    @classmethod
    def of(
        cls, train: Dataset, titles: list[str], descriptions: list[str], annotator: Annotator, tasks: Sequence[TaskName]
    ) -> Self:
        """Intentions of each user's last event and preferences from the events before it, where a task needs them.
        Nothing but ``train`` is read."""
        histories = train.histories
        wishes: list[str] = []
        preferences: list[str] = []
        searched, liking = [], []
        if "itemsearch" in tasks:
            last = histories.stops[histories.lengths > 0] - 1
            for intention in annotator.intentions(train, last):
                if intention.wish or intention.traits:
                    wishes += _both(intention.wish, intention.traits)
                    searched.append(intention.event)
        if {"itemsearch", "preferenceobtain"} & set(tasks):
            users = np.flatnonzero(histories.lengths > 1)
            before = Ragged(np.arange(train.n_interactions), histories.starts[users], histories.stops[users] - 1)
            for liked in annotator.preferences(train, before):
                longer = " ".join(line for line in (liked.long_term, liked.short_term) if line)
                if liked.brief or longer:
                    preferences += _both(liked.brief, longer)
                    liking.append(liked.user_row)
        return cls(
            titles, descriptions, wishes, np.array(searched, dtype=np.int64), preferences,
            np.array(liking, dtype=np.int64),
        )  # fmt: skip

    @property
    def texts(self) -> list[str]:
        return [*self.titles, *self.descriptions, *self.wishes, *self.preferences]

    def first_of(self, about: IntArray, wanted: IntArray) -> IntArray:
        """Where the two texts about each of ``wanted`` begin; -1 where there are none. ``about`` ascends."""
        if not len(about):
            return np.full(len(wanted), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(about, wanted), len(about) - 1)
        return np.where(about[place] == wanted, 2 * place, -1)


def _both(one: str, other: str) -> tuple[str, str]:
    """Two ways to say it; what is said in one way only stands twice."""
    return one or other, other or one


def pools_of(
    train: Dataset,
    book: Phrasebook,
    words: Words,
    tasks: Sequence[TaskName],
    *,
    length: int,
    prefixes: int | None,
    fused: float,
) -> list[Pool]:
    """What an epoch draws its examples from, a pool a task; none is empty-handed of a template that fits.

    Events are those of ``train`` and no others. Histories hold at most ``length`` events; ``prefixes`` events of each
    user are asked about, and ``fused`` times as many in ``fusionseqrec``. With None all are: a user's first event, and
    those of a window of ``length`` together.
    """
    users, items = train.user_rows.astype(np.int64), train.item_rows.astype(np.int64)
    begun = train.histories.starts[users]
    liked = words.first_of(words.liking, users)

    def before(events: IntArray) -> dict[str, IntArray]:
        return {"start": np.maximum(begun[events], events - length), "stop": events}

    every, last = np.arange(len(items)), train.histories.stops[words.liking] - 1
    next_items, catalogue = Examples.about(items, **before(every)), Examples.about(np.arange(train.n_items))
    searches = Examples.about(
        items[words.searched], wish=2 * np.arange(len(words.searched)), preference=liked[words.searched],
        **before(words.searched),
    )  # fmt: skip
    tastes = Examples.about(np.full(len(last), -1), preference=2 * np.arange(len(last)), **before(last))
    asked = [Pool(0, next_items, users, prefixes)]
    if prefixes is None:
        read, _ = windows_of(train.histories, length, "all")
        together = Examples.about(items[read.stops], start=read.starts, stop=read.stops)
        asked = [Pool(0, next_items[every[every == begun]]), Pool(0, together, together=True)]
    fusions = round(fused * sum(map(len, asked)))
    pools = {
        "seqrec": asked,
        "item2index": [Pool(0, catalogue)],
        "index2item": [Pool(0, catalogue)],
        "fusionseqrec": [Pool(0, next_items[every[every > begun]], at_most=fusions)],
        "itemsearch": [Pool(0, searches, twofold=True)],
        "preferenceobtain": [Pool(0, tastes, twofold=True)],
    }
    numbered = [(task, pool) for task, name in enumerate(tasks) for pool in pools[name]]
    return [_sayable(replace(pool, task=task), book, items) for task, pool in numbered]


def _sayable(pool: Pool, book: Phrasebook, items: IntArray) -> Pool:
    """Without the examples that no template of the task can say."""
    _, fits = book.templates.fitting(pool.task, book.known(pool.examples, items))
    rows = np.flatnonzero(fits.any(1))
    return replace(pool, examples=pool.examples[rows], users=None if pool.users is None else pool.users[rows])
