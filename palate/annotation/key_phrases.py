"""What a text is about and how it feels, by rules alone: key phrases, words of praise and of blame.

A candidate phrase is a run of words between stop words and punctuation, as in RAKE (Rose et al. 2010). Among the
phrases of one text those count most that few other texts hold. A sentence feels good or bad by the words of a small
lexicon, turned round by a negation shortly before. The word lists are English; in another language phrases come out
longer, and every sentence reads as neutral. Shapes: n texts, M phrases.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from palate.core.ragged import Ragged


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


STOP = _set_of(
    """
    a about above after again against all almost along also although always am among an and another any anyone
    anything are as at away back be became because become been before being below between both but by came can
    cannot come could did do does done down each either else enough etc even ever every few find finish first for
    found from full further gave get gets give given go goes going gone got had has have having he her here hers
    herself him himself his hope hoped how however i if in into is it its itself just keep kept know last least less
    let like likely little long look lot made make makes many may me might mine more most mostly much must my myself
    need neither never next no none nor not nothing now number of off often on once one only or other others our
    ours out over own part perhaps piece put quite rather readers really s same say see seem seems several shall she
    should side simply since so some something start still such t take taken taste than that the their theirs them
    themselves then there these they thing things this those though through time to together too took toward two
    under until up upon us use used very want wanted was way we well went were what when where whether which while
    who whole whom whose why will wish with within without would written yes yet you your yours yourself
    """
)
GOOD = _set_of(
    """
    admirable amazing awesome beautiful best brilliant charming clever comfortable compelling delight delighted
    delightful durable easy effective elegant enjoy enjoyable enjoyed enjoying excellent excited exciting fabulous
    fantastic fascinating favorite favourite fine flawless fun glad good gorgeous great happy helpful impressed
    impressive incredible love loved lovely loves masterful masterpiece moving nice outstanding perfect perfectly
    pleasant pleased recommend recommended reliable satisfied smooth solid splendid strong stunning superb superior
    terrific thrilled thrilling wonderful worth worthy
    """
)
BAD = _set_of(
    """
    annoyed annoying avoid awful bad badly bored boring breaks broke broken cheap cheaply clumsy confusing crap
    defective disappointed disappointing disappointment disappoints dislike disliked dragged dreadful dreary dull
    failed fails failure faulty flimsy frustrating garbage hate hated horrible inferior irritating junk lousy
    mediocre mess overpriced overrated pointless poor poorly regret return returned ridiculous sad slow tedious
    terrible tired ugly unbearable unhappy unpleasant useless waste wasted weak weird worse worst worthless wrong
    """
)
NEGATIONS = _set_of(
    """
    not no never hardly barely without isn't wasn't don't doesn't didn't cannot can't nothing
    """
)
FEELINGS = (GOOD | BAD) - {"love"}
"""Words that are no phrase; stories are about love, too."""
WISHES = re.compile(r"\b(wish|hope|hoping|want|wanted|looking for|would like|next time|need)\b", re.IGNORECASE)
REACH = 3
"""Words before a word of feeling in which a negation turns it round."""

_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_CLAUSES = re.compile(r"[^\w\s'’-]+|\s-+\s")
_WORDS = re.compile(r"[^\W\d_][\w'’-]*")


def sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCES.split(text) if sentence.strip()]


def feeling(sentence: str) -> int:
    """Words of praise less words of blame."""
    words = [word.replace("’", "'").lower() for word in _WORDS.findall(sentence)]
    total = 0
    for place, word in enumerate(words):
        value = (word in GOOD) - (word in BAD)
        if value:
            negated = not NEGATIONS.isdisjoint(words[max(0, place - REACH) : place])
            total += -value if negated else value
    return total


def wishful(sentence: str) -> bool:
    """Whether it says what somebody would like to have."""
    return WISHES.search(sentence) is not None


def candidates(text: str, longest: int) -> list[str]:
    """Phrases of at most ``longest`` words in lower case, as they stand; words of feeling are none of them."""
    found = []
    for clause in _CLAUSES.split(text):
        run: list[str] = []
        for word in (*_WORDS.findall(clause.lower()), ""):
            if word and word not in STOP and word not in FEELINGS and len(word) > 2:
                run.append(word)
                continue
            if run:
                found.append(" ".join(run[-longest:]))
            run = []
    return found


@dataclass(frozen=True, eq=False)
class KeyPhrases:
    """Phrases of a collection of texts.

    phrases  ``[M]`` in alphabetical order
    rarity   ``[M]`` ``log(1 + n / texts that hold the phrase)``
    held     one row a text: its phrases, each once, ascending
    """

    phrases: tuple[str, ...]
    rarity: np.ndarray
    held: Ragged

    @classmethod
    def of(cls, collected: Sequence[Iterable[str]]) -> KeyPhrases:
        """From the candidates of each text."""
        sets = [sorted(set(phrases)) for phrases in collected]
        counts = Counter(phrase for phrases in sets for phrase in phrases)
        known = sorted(counts)
        row = {phrase: place for place, phrase in enumerate(known)}
        rarity = np.log1p(len(sets) / np.array([counts[phrase] for phrase in known], dtype=np.float64))
        return cls(tuple(known), rarity, Ragged.of([[row[phrase] for phrase in phrases] for phrases in sets]))

    def best(self, groups: Ragged, n: int) -> list[list[str]]:
        """The ``n`` phrases that say most of each group of texts: those that many of its texts and few others hold.
        One inside another that was chosen is left out."""
        texts = self.held[groups.flat()]
        group = np.repeat(groups.row_numbers(), texts.lengths)
        keys, counts = np.unique(group * max(len(self.phrases), 1) + texts.flat(), return_counts=True)
        group, phrase = np.divmod(keys, max(len(self.phrases), 1))
        order = np.lexsort((phrase, -counts * self.rarity[phrase], group))
        group, phrase = group[order], phrase[order]
        offsets = np.searchsorted(group, np.arange(len(groups) + 1))
        # A few more than asked for, since some say the same.
        reach = np.minimum(offsets[:-1] + 3 * n, offsets[1:])
        return [apart((self.phrases[row] for row in phrase[a:b]), n) for a, b in zip(offsets[:-1], reach, strict=True)]


def apart(phrases: Iterable[str], n: int) -> list[str]:
    """The first ``n`` of which none is part of another."""
    chosen: list[str] = []
    for phrase in phrases:
        if len(chosen) == n:
            break
        if not any(f" {phrase} " in f" {other} " or f" {other} " in f" {phrase} " for other in chosen):
            chosen.append(phrase)
    return chosen


def listed(phrases: Sequence[str]) -> str:
    """``a, b and c``."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
