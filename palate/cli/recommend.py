"""``palate recommend``: what a fitted run would give a user, a history, or everybody."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from palate.ask import Asker
    from palate.questions import Answer


def recommend(
    run: Path,
    /,
    *,
    user: str | None = None,
    history: str | None = None,
    all_users: bool = False,
    out: Path | None = None,
    words: str = "",
    candidates: str | None = None,
    leave_out: str = "",
    filters: Annotated[tuple[str, ...], Parameter(name="--filter", negative="")] = (),
    k: Annotated[int, Parameter(name=["-k", "--k"])] = 10,
    index: Literal["exact", "usearch", "faiss"] = "exact",
    index_settings: Annotated[tuple[str, ...], Parameter(name="--index-set", negative="")] = (),
    why: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Recommend with a fitted RUN: to one user, to a history, or to every user into a file.

    Parameters
    ----------
    run
        A run folder that palate fit wrote.
    user
        A user of the data the run was fitted on.
    history
        Items somebody met, oldest first, by id or exact title: a,b,c. Two commas stand for one inside a title.
    all_users
        Answer every user into --out F.parquet, a piece at a time.
    out
        The Parquet file for --all-users.
    words
        What is wished, such as "something lighter", for systems that read words.
    candidates
        Answer only these items, written as in --history.
    leave_out
        Never answer these items, written as in --history. What was met is never answered.
    filters
        Answer only items of some kind: category=mystery,fantasy or year=1900..1950; may be given often.
    k
        How many items for each.
    index
        Search the item vectors by an index, which finds nearly what exact search does; how nearly is measured first.
    index_settings
        One setting of the index as key=value: reach and effort of usearch, probe_share of faiss, at_least (the recall
        below which it is refused).
    why
        Say which item of the history moved each answer most (its score with that item taken out).
    as_json
        Print JSON.
    """
    from palate.ask import Asker
    from palate.core.config import parse_settings
    from palate.core.errors import MisuseError
    from palate.filters import parse_filter
    from palate.questions import Question
    from palate.runs import FittedRun

    if (user is not None) + (history is not None) + all_users != 1:
        raise MisuseError("say who is asked: one of --user U, --history a,b,c or --all-users --out F.parquet")
    if k < 1:
        raise MisuseError(f"-k {k}: ask for at least one item")
    if all_users and (why or as_json or words or candidates is not None or leave_out or filters):
        raise MisuseError(
            "--all-users writes a Parquet file; "
            "--why, --json, --words, --candidates, --leave-out and --filter are for one request"
        )
    if out is not None and not all_users:
        raise MisuseError("--out is the file of --all-users")
    asker = Asker(FittedRun.open(run))
    asker.use_index(index, **parse_settings(index_settings))
    if asker.recall is not None:
        print(asker.recall, file=sys.stderr)
    if all_users:
        _everyone(asker, out, k)
        return
    question = Question(
        user=user, history=None if history is None else _listed(history), words=words,
        candidates=None if candidates is None else _listed(candidates), leave_out=_listed(leave_out),
        filters=[parse_filter(one) for one in filters],
    )  # fmt: skip
    (answer,) = asker.answers([asker.read(question)], k, why=why, texts=why)
    print(json.dumps(_plain(answer), indent=2, ensure_ascii=False)) if as_json else _show(answer)


def _listed(text: str) -> list[str]:
    return [name.strip().replace("\0", ",") for name in text.replace(",,", "\0").split(",") if name.strip()]


def _everyone(asker: Asker, out: Path | None, k: int) -> None:
    from palate.cli.progress import watcher
    from palate.core.errors import MisuseError

    if out is None:
        raise MisuseError("--all-users writes a file: add --out F.parquet")
    n_users = asker.everyone(out, k, watcher())
    print(f"{n_users:,} users answered, {k} items each → {out}")


def _plain(answer: Answer) -> dict[str, Any]:
    """The answer as JSON; what was not asked for is left out."""
    plain = {key: value for key, value in asdict(answer).items() if value is not None}
    plain["recommended"] = [
        {key: value for key, value in one.items() if value is not None} for one in plain["recommended"]
    ]
    return plain


def _show(answer: Answer) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    recent = answer.history[-8:]
    before = answer.events - len(recent)
    if recent:
        earlier = f"({before} earlier) … " if before else ""
        console.print(f"[bold]Lately:[/] {earlier}{escape(' · '.join(event.title for event in recent))}")
    else:
        console.print("[bold]A newcomer[/] with no history")
    table = Table(title=f"{answer.run} recommends", title_justify="left", header_style="bold")
    table.add_column("", justify="right")
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    explained = any(one.because is not None for one in answer.recommended)
    if explained:
        table.add_column("moved most by (score change when taken out)", overflow="fold")
    for one in answer.recommended:
        row = [str(one.rank), escape(one.title), "" if one.score is None else f"{one.score:.3g}"]
        if explained:
            parts = [f"{escape(why.title)} ({-why.drop:+.2g})" for why in one.because or ()]
            parts += [] if one.words_drop is None else [f"the words ({-one.words_drop:+.2g})"]
            parts += [f"“{escape(part.text)}” ({-part.drop:+.2g})" for part in one.text_parts or ()]
            row.append(" · ".join(parts))
        table.add_row(*row)
    console.print(table)
    if answer.methods is not None:
        console.print(f"Events: {answer.methods.because}; parts of the text: {answer.methods.text_parts}.")
