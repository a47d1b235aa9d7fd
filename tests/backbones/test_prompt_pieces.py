"""Prompts put together from pieces read as one text would, and are never longer than their model was made for."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers")

from checkpoints import llama_of_letters

from palate.backbones.hub import Hub, HubConfig
from palate.core.errors import ConfigError
from palate.core.ragged import Ragged
from palate.core.run import Run
from palate.data.rating_prompts import Pieces
from palate.parts.lettered import ASK, Script
from palate.parts.prompting import in_one_token
from palate.parts.ranked_answers import Manner, Question, ask_model, prompts_of
from palate.parts.rating_prompts import PromptTokens

PLACES = 1024
NOTHING = np.zeros(0, dtype=np.int64)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """Reads single letters and puts a space before every text that it is given."""
    folder = tmp_path_factory.mktemp("letters")
    llama_of_letters(folder)
    return Hub(HubConfig(model=str(folder))).prepare([], Run())


def spelled(lm: Hub, tokens: np.ndarray) -> str:
    return "".join(str(lm.tokenizer.inner.id_to_token(token)) for token in tokens.tolist()).replace("▁", " ")


def script(lm: Hub, max_tokens: int) -> Script:
    return Script.of(
        lm, ["Emma", "Dune"], candidates=2, length=2, title_tokens=8, index_tokens=4, max_tokens=max_tokens
    )  # fmt: skip


def test_a_prompt_of_letters_reads_as_one_text(lm: Hub) -> None:
    told = script(lm, 600)
    index = lm.read([" <a_1>"], inside=True)
    found = spelled(lm, told.asked(index, Ragged.of([[1, 0]]), Ragged.of([[0, 1]])).row(0))
    said = "\nHistory: (1) Dune (2) Emma\nCandidates: (A) Emma (B) Dune\nAnswer: ("
    assert found == f"<s> {ASK} <a_1>{said}"
    assert spelled(lm, told.letters) == "AB"
    assert spelled(lm, told.preferred(index, index)[0].row(0)).startswith("<s> Say what")
    with pytest.raises(ConfigError, match="max_tokens=1025 is more than the 1024 that this language model can read"):
        script(lm, PLACES + 1)


def test_a_prompt_of_ratings_reads_as_one_text(lm: Hub) -> None:
    pieces = Pieces(("Emma", "Dune"), np.arange(1, 6, dtype=np.float32))
    rows = np.array([[0, 1, 3, 14, 12, 4, 15, 5]])
    prompt = PromptTokens.of(lm, pieces, 20).prompts(rows).row(0)
    assert spelled(lm, prompt) == f"<s> {pieces.text(rows[0])}"
    single, ids, before = in_one_token(lm, ["1", "2"])
    assert (single, spelled(lm, ids), spelled(lm, np.array([before]))) == ([0, 1], "12", " ")


def asked(n_lines: int, n_examples: int) -> Question:
    lines, examples = (tuple(f"{word} {n}" + "x" * 90 for n in range(many)) for word, many in
                       (("line", n_lines), ("example", n_examples)))  # fmt: skip
    return Question(0, np.arange(2), ("Emma", "Dune"), lines, examples, "one", "letters")


def test_a_long_question_loses_old_lines_then_examples(lm: Hub) -> None:
    questions = [asked(20, 2), asked(3, 14), asked(2, 1)]
    prompts = prompts_of(lm, questions, NOTHING)
    for question, prompt in zip(questions, prompts, strict=True):
        fewest = next(n for n in range(40) if len(lm.read([question.without(n).prompt]).row(0)) < PLACES)
        assert spelled(lm, prompt) == f"<s> {question.without(fewest).prompt}"
    fewer = questions[1].without(3)
    assert (fewer.told, fewer.examples) == (questions[1].told[2:], questions[1].examples[1:])
    assert questions[2].prompt in spelled(lm, prompts.row(2)), "what fits stays whole"
    assert len(ask_model(lm, questions, Manner(False, False, "letters", 10, 1))) == 3
    with pytest.raises(ConfigError, match="with one item of the history does not fit into the 33 that"):
        prompts_of(lm, questions[2:], NOTHING, behind=PLACES - 34)
