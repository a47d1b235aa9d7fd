"""A process of its own that writes many records through a ledger, until it is done or killed."""

from __future__ import annotations

import sys

from palate.annotation.ledger import Budget, Ledger
from palate.annotation.tasks import TASKS, Row
from palate.annotation.writing import write
from palate.backbones.chat_endpoint import ChatEndpoint, ChatEndpointConfig


def rows(n: int) -> list[Row]:
    return [Row(i, {"title": f"book {i}", "review": f"I wanted ships, number {i}"}, (i,)) for i in range(n)]


def model(url: str, parallel: int) -> ChatEndpoint:
    return ChatEndpoint(
        ChatEndpointConfig(
            url=url, model="m", tools=False, wait_seconds=0.001, timeout_seconds=20.0, tries=8, parallel=parallel,
            money_read=1.0, money_written=2.0,
        )
    )  # fmt: skip


if __name__ == "__main__":
    path, url, n, parallel, tokens = sys.argv[1:]
    with Ledger(path, Budget(tokens=int(tokens))) as ledger:
        write(TASKS["intention"], rows(int(n)), model(url, int(parallel)), ledger, parallel=int(parallel))
