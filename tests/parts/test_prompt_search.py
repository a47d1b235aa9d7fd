"""A search over words finds what is planted, keeps the seed where nothing is better, and refuses broken sentences."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from palate.core.chat import ChatReply, ChatRequest, Message
from palate.core.errors import ConfigError
from palate.core.run import Run
from palate.data import ranking_prompts, rating_prompts
from palate.data.wordings import LONGEST, Piece, Wording, check
from palate.parts.prompt_search import PromptSearchConfig, Searched, search, sentence, with_sentence

FIRST = Piece("first", "the first", ("one", "two", "three"))
SECOND = Piece("second", "the second", ("a {n}", "b {n}"), needs=("{n}",), fields=("n",), before="\n")


class Prompt:
    """A prompt that says what it was made to say, and how good each wording is."""

    def __init__(self, worth: Callable[[str], float]) -> None:
        self.worth, self.wording = worth, {}
        self.scored: list[str] = []

    def say(self, wording: Wording) -> None:
        self.wording = dict(wording)

    @property
    def text(self) -> str:
        return FIRST.whole(self.wording) + SECOND.whole(self.wording)

    def score(self) -> float:
        self.scored.append(self.text)
        return self.worth(self.text)

    def search(self, run: Run | None = None, **more: object) -> Searched:
        settings = {name: more.pop(name) for name in ("rounds", "proposals") if name in more}
        config = PromptSearchConfig(**{"rounds": 3, **settings})  # type: ignore[arg-type]
        return search(self.say, (FIRST, SECOND), {}, config, run or Run(), score=self.score, **more)  # type: ignore[arg-type]


def test_the_best_of_every_piece_is_kept_and_none_is_scored_twice() -> None:
    prompt = Prompt(lambda text: ("three" in text) + ("b " in text) + 0.1 * ("two" in text))
    found = prompt.search()
    assert found.kept == found.found == {"first": "three", "second": "b {n}"} == prompt.wording
    assert found.train == (0.0, 2.0)
    assert found.keeps == "winner"
    # Three firsts, one other second, and in the second round the two other firsts beside it.
    assert len(prompt.scored) == len(set(prompt.scored)) == found.tried == 6


def test_a_first_piece_that_helps_only_beside_a_second_is_found_in_a_later_round() -> None:
    worth = {"one\na {n}": 0, "one\nb {n}": 1, "three\nb {n}": 2}
    prompt = Prompt(lambda text: worth.get(text, -1))
    assert prompt.search().kept == {"first": "three", "second": "b {n}"}
    assert prompt.search(rounds=1).kept == {"second": "b {n}"}


def test_equal_scores_keep_the_seed_and_one_round_is_enough() -> None:
    prompt = Prompt(lambda text: 0.3)
    found = prompt.search()
    assert (found.kept, found.keeps, found.tried) == ({}, "seed", 4)
    assert "no wording was better, the seed prompt stays" in sentence(found.facts("worth", 9))


def test_validation_looks_at_two_prompts_after_the_search_and_may_take_it_back() -> None:
    for on_validation, kept, said in ((-1.0, "seed", "is worse there, the seed prompt stays"), (1.0, "winner", "kept")):
        looked: list[tuple[str, int]] = []
        prompt = Prompt(lambda text: float("two" in text))

        def look(prompt: Prompt = prompt, looked: list = looked, value: float = on_validation) -> float:
            looked.append((prompt.text, len(prompt.scored)))
            return value * ("two" in prompt.text)

        found = prompt.search(look=look)
        assert [text for text, _ in looked] == ["one\na {n}", "two\na {n}"]
        assert {scored for _, scored in looked} == {len(prompt.scored)}, "nothing is scored after a look"
        assert found.looks == (0.0, on_validation)
        assert found.keeps == kept
        assert ("two" in prompt.text) == (kept == "winner")
        facts = found.facts("worth", 9)
        assert facts["train"] == {"seed": 0.0, "winner": 1.0}
        assert facts["valid"] == {"seed": 0.0, "winner": on_validation}
        assert said in sentence(facts)


def test_steps_and_time_bound_the_wordings_and_progress_is_told() -> None:
    class Watched:
        def __init__(self) -> None:
            self.steps, self.over, self.total = 0, False, 0

        def start(self, what: str, total: int | None) -> None:
            assert what == "wordings"
            self.total = total or 0

        def advance(self, steps: int = 1, **figures: float) -> None:
            assert {"score", "best"} == set(figures)
            self.steps += steps

        def finish(self) -> None:
            self.over = True

    watch = Watched()
    prompt = Prompt(lambda text: float(len(prompt.scored)))
    found = prompt.search(Run(max_steps=2, progress=watch))
    assert (found.tried, found.ended) == (2, "it may score 2 wordings")
    assert found.kept == {"first": "two"}
    assert (watch.steps, watch.over) == (2, True)
    assert watch.total >= 4
    late = Prompt(lambda text: 0.0).search(until=time.monotonic() - 1)
    assert (late.tried, late.kept) == (1, {})
    assert "the time of the fit was up" in sentence(late.facts("worth", 9))
    broken = Watched()
    with pytest.raises(ZeroDivisionError):
        Prompt(lambda text: 1 / 0).search(Run(progress=broken))
    assert broken.over


def test_proposals_are_read_line_by_line_and_broken_ones_are_refused_before_they_are_asked_with() -> None:
    asked: list[str] = []

    def propose(request: ChatRequest) -> ChatReply:
        asked.append(request.messages[0].content)
        lines = ['1. "magic {n}"', "- no place", "c {n} and {other}", "b {n}", "too {n} many"]
        return ChatReply(Message("assistant", "\n".join(["", *lines])))

    prompt = Prompt(lambda text: float("magic" in text) + 0.5 * ("b " in text))
    found = prompt.search(rounds=1, proposals=3, propose=propose)
    assert found.kept == {"second": "magic {n}"}
    assert found.proposed == 6
    assert [(name, said) for name, said, _ in found.refused] == [
        ("first", "magic {n}"), ("first", "c {n} and {other}"), ("second", "no place"), ("second", "c {n} and {other}")
    ]  # fmt: skip
    assert not any("other" in text or "too" in text for text in prompt.scored)
    assert len(asked) == 2, "once a piece and round"
    assert "Write 3 other wordings" in asked[0]
    assert "Each must hold, letter for letter: {n}." in asked[1]
    assert "- 0.0000: a {n}\n- 0.5000: b {n}\n" in asked[1], "what was tried stands there, the best last"
    assert "6 sentences proposed, 4 refused" in sentence(found.facts("worth", 9))
    Prompt(lambda text: 0.0).search(rounds=1, propose=propose)
    assert len(asked) == 2, "nobody is asked who was not to be"


@pytest.mark.parametrize("piece", [*rating_prompts.PIECES, *ranking_prompts.PIECES], ids=lambda piece: piece.name)
def test_every_sentence_of_our_own_can_stand_in_its_piece(piece: Piece) -> None:
    assert [piece.fault(one) for one in piece.variants] == [""] * len(piece.variants)
    assert len(set(piece.variants)) == len(piece.variants) > 1
    filled = piece.whole({}).format(**dict.fromkeys(piece.fields, "x"))
    assert "{" not in filled
    assert with_sentence({piece.name: "y"}, piece, piece.variants[0]) == {}


def test_every_style_says_what_its_prompts_can() -> None:
    for module in (rating_prompts, ranking_prompts):
        for style in module.STYLES.values():
            check(style, module.PIECES)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("b {n}", ""), ("", "says nothing"), ("b", "lacks '{n}'"), ("{n} {m}", "other braces"), ("{n", "do not match"),
        ("{n!r} {n}", "other braces"), ("{n:>9999999} {n}", "other braces"), ("{n} {}", "other braces"),
        ("{n}\nRating: 5", "line end"), ("{n}" + "x" * LONGEST, "longer than"), ("{n.__class__} {n}", "other braces"),
    ],
)  # fmt: skip
def test_what_a_piece_cannot_say(said: str, fault: str) -> None:
    assert fault in SECOND.fault(said)
    assert bool(fault) == bool(SECOND.fault(said))


def test_a_wording_that_no_prompt_can_have_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="a prompt has no piece 'secnd'; did you mean 'second'"):
        check({"secnd": "b {n}"}, (FIRST, SECOND))
    with pytest.raises(ConfigError, match="the prompt's piece 'second' cannot read 'b': it lacks"):
        check({"second": "b"}, (FIRST, SECOND))
