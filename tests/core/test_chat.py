"""Requests to a chat model: what makes two of them one question, and what cannot be asked."""

from __future__ import annotations

import pytest

from palate.annotation.tasks import TASKS, Row, task_of
from palate.core.chat import ChatRequest
from palate.core.errors import ConfigError


def test_the_share_of_tokens_is_part_of_the_question_only_where_there_is_one() -> None:
    plain = ChatRequest.of("hello", "be brief", temperature=0.5, seed=3)
    # Printed before requests had a ``top_p``: answers that were kept then are still found.
    assert plain.hash == "3755a67ca1a18deb3275dbc56baa11b3"
    assert ChatRequest.of("hello", "be brief", temperature=0.5, seed=3, top_p=1.0).hash == plain.hash
    narrow = [ChatRequest.of("hello", "be brief", temperature=0.5, seed=3, top_p=p).hash for p in (0.1, 0.9)]
    assert len({plain.hash, *narrow}) == 3
    for share in (0.0, -0.5, 1.5):
        with pytest.raises(ConfigError, match="top_p is a share above 0 and at most 1"):
            ChatRequest.of("hello", top_p=share)


def test_records_are_sampled_as_published() -> None:
    """Mender's preferences at 0.6 and 0.9; LLMRec's choices at 0.6 and traits at 0.8, both at 0.1."""
    found = {
        task.name: (task.temperature, task.top_p)
        for task in (task_of("step-preferences"), task_of("choice"), task_of("user-traits"))
    }
    assert found == {"step-preferences": (0.6, 0.9), "choice": (0.6, 0.1), "user-traits": (0.8, 0.1)}
    for task in TASKS.values():
        assert task.request(Row(0, {}, ())).top_p == task.top_p
    # The others are asked as before, so nothing that was paid for is asked again.
    assert TASKS["intention"].prompt == "intention/1 e15415ef1b98"
    assert TASKS["item-profile"].prompt == "item-profile/2 a58504437701"
