"""Typed records from a chat model, whatever it can do: a tool call, an answer under a JSON schema, or plain text.

The forms make a ladder, ``tools`` → ``schema`` → ``text``. Each request begins on the highest that the model says it
takes and steps down where its server refuses one: what one request was refused says nothing of the next. Only a form
that never worked, while requests that it was refused were answered in a lower one, is given up for good. Whatever comes
is read in steps that are counted: as it stands, out of a code fence, between the outermost brackets, as a Python
literal; then the model is asked to repair it; then it has failed, visibly, as has a request that is refused in every
form. A record has the fields of its type and no other, so words inside the data cannot change what it is.
"""

from __future__ import annotations

import ast
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from palate.core.chat import NOTHING_USED, ChatReply, ChatRequest, Message, Tool, Usage
from palate.core.errors import EndpointError, FormError, RefusedError
from palate.core.protocols import ChatModel

Form = Literal["tools", "schema", "text"]
LADDER: tuple[Form, ...] = ("tools", "schema", "text")
STEPS = ("plain", "fenced", "brackets", "literal", "repaired", "failed", "refused")
GIVEN_UP = 2
"""A form that never worked is not tried again after so many requests that were answered in a lower one."""
SHOWN_AGAIN = 4
"""Bytes of a bad answer that the model sees when it repairs it, for each token that it may write."""
TOOL = "answer"
LONGEST = 100_000
"""Characters of an answer that are looked at."""

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """A record, or None and the ``problem``. ``step`` says how it was read; ``replies`` are all that were paid for;
    ``lost`` is what attempts without a reply may have cost at most. Of a request that no form was taken of, the step is
    ``refused``, and there are no replies."""

    value: R | None
    problem: str
    form: Form
    step: str
    replies: tuple[ChatReply, ...]
    lost: Usage = NOTHING_USED

    @property
    def usage(self) -> Usage:
        """Everything: good answers, bad ones, and lost attempts."""
        return sum((reply.charged for reply in self.replies), self.lost)


class Structured:
    """Asks a chat model for records. Threads share it. ``counts`` tells how often each step was needed."""

    def __init__(self, model: ChatModel, repairs: int = 1) -> None:
        self.model, self.repairs = model, repairs
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._forms = [form for form in LADDER if form == "text" or form in model.forms]
        self._worked: set[Form] = set()
        self._missed: Counter[Form] = Counter()

    @property
    def form(self) -> Form:
        """The highest form that was not given up so far."""
        return self._forms[0]

    @property
    def forms(self) -> tuple[Form, ...]:
        """What is tried for a request, highest first."""
        with self._lock:
            return tuple(self._forms)

    def largest(self, request: ChatRequest, kind: type[BaseModel]) -> Usage:
        """The most that ``ask`` can use: every form that may be refused, then an answer and its repairs."""
        answer = Message("assistant", "x" * SHOWN_AGAIN * request.max_tokens)
        most = NOTHING_USED
        for form in self.forms:
            one = formed(request, kind, form)
            most = most + self.model.largest(one)
        for _ in range(self.repairs):
            one = formed(request, kind, "text")
            one = replace(one, messages=(*one.messages, answer, _mend("x" * 2400)))
            most = most + self.model.largest(one)
        return most

    def ask(self, request: ChatRequest, kind: type[R]) -> Answer[R]:
        """A record of ``kind``, or why there is none. Raises ``EndpointError`` where the model gives no reply, and that
        is not about this request."""
        lost, refused = NOTHING_USED, list[Form]()
        for form in self.forms:
            try:
                found = self._asked(request, kind, form)
            except (FormError, RefusedError) as refusal:
                lost = lost + (refusal.lost or NOTHING_USED)
                refused.append(form)
                problem = str(refusal)
                continue
            except EndpointError as failure:
                known = None if failure.lost is None else lost + failure.lost
                raise EndpointError(str(failure), known) from None
            self._answered(form, refused)
            break
        else:
            found = Answer[R](None, problem, form, "refused", ())
        with self._lock:
            self.counts[found.step] += 1
        return replace(found, lost=found.lost + lost)

    def _answered(self, form: Form, refused: Sequence[Form]) -> None:
        """A request that was ``refused`` some forms was answered in this one, so it was the forms."""
        with self._lock:
            self._worked.add(form)
            for other in refused:
                self._missed[other] += 1
                if other in self._forms and other not in self._worked and self._missed[other] >= GIVEN_UP:
                    self._forms.remove(other)

    def _asked(self, request: ChatRequest, kind: type[R], form: Form) -> Answer[R]:
        request = formed(request, kind, form)
        replies = [self.model.reply(request)]
        lost = NOTHING_USED
        value, problem, step = read_reply(replies[0], kind)
        for _ in range(self.repairs):
            if value is not None or replies[-1].finish == "refused":
                break
            bad = Message("assistant", _cut(written(replies[-1]), SHOWN_AGAIN * request.max_tokens))
            again = replace(
                request, messages=(*request.messages, bad, _mend(problem)), tools=(),
                schema=request.schema if form == "schema" else None,
            )  # fmt: skip
            try:
                replies.append(self.model.reply(again))
            except (FormError, RefusedError) as refusal:  # such as an answer that makes the question too long
                problem, lost = str(refusal), lost + (refusal.lost or NOTHING_USED)
                break
            except EndpointError as failure:  # nobody answers any more: the request may be asked anew one day
                paid = sum((reply.charged for reply in replies), lost)
                raise EndpointError(str(failure), None if failure.lost is None else paid + failure.lost) from None
            value, problem, _ = read_reply(replies[-1], kind)
            step = "repaired"
        return Answer(value, problem, form, step if value is not None else "failed", tuple(replies), lost)


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def formed(request: ChatRequest, kind: type[BaseModel], form: Form) -> ChatRequest:
    """The request that asks for a record of ``kind`` in this form."""
    schema = schema_of(kind)
    if form == "tools":
        tool = Tool(TOOL, "Gives the answer.", schema)
        return _told(replace(request, tools=(tool,)), f"Answer with one call of the tool '{TOOL}'.")
    if form == "schema":
        return replace(request, schema=schema)
    return _told(request, f"Answer with one JSON object and nothing else. Its JSON schema: {json.dumps(schema)}")


def _told(request: ChatRequest, instruction: str) -> ChatRequest:
    """The request with ``instruction`` at the end of its system message."""
    first, *rest = request.messages
    if first.role != "system":
        return replace(request, messages=(Message("system", instruction), *request.messages))
    return replace(request, messages=(replace(first, content=f"{first.content}\n\n{instruction}"), *rest))


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a record as strict servers want it: every field required, no other allowed."""
    schema = kind.model_json_schema()

    def strict(node: Any) -> Any:
        if isinstance(node, list):
            return [strict(one) for one in node]
        if not isinstance(node, Mapping):
            return node
        closed = {key: strict(value) for key, value in node.items() if key != "default"}
        if isinstance(node.get("properties"), Mapping):
            closed |= {"additionalProperties": False, "required": list(node["properties"])}
        return closed

    return strict(schema)


def read_reply(reply: ChatReply, kind: type[R]) -> tuple[R | None, str, str]:
    """The record, or None and why; and the step that read it. The text is looked at where no tool was called."""
    if reply.finish == "refused":
        return None, f"the model refused: {reply.text[:200]}", "failed"
    try:
        found, step = read_json(written(reply))
    except ValueError as failure:
        cut = "the answer was cut off: " if reply.finish == "length" else ""
        return None, f"{cut}{failure}", "failed"
    value, problem = checked(_arguments(found), kind)
    return value, problem, "failed" if value is None else step


def checked(found: Any, kind: type[R]) -> tuple[R | None, str]:
    """What somebody wrote as a record of ``kind``, or None and why it is none."""
    try:
        return kind.model_validate(found), ""
    except ValidationError as failure:
        wrong = failure.errors()[0]
        where = ".".join(str(key) for key in wrong["loc"])
        return None, f"'{where}': {wrong['msg']}"[:500]


def written(reply: ChatReply) -> str:
    """What holds the answer: the arguments of the first call, else the text."""
    return reply.message.tool_calls[0].raw if reply.message.tool_calls else reply.text


def _arguments(found: Any) -> Any:
    """A server without the right parser leaves a call in the text, wrapped with the tool's name."""
    if isinstance(found, Mapping) and found.get("name") == TOOL:
        inner = found.get("arguments", found.get("parameters"))
        if isinstance(inner, Mapping):
            return inner
    return found


_FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)```", re.DOTALL)


def read_json(text: str) -> tuple[Any, str]:
    """The JSON value in what a model wrote, and the step that found it. Raises ``ValueError`` where there is none."""
    text = text[:LONGEST].strip()
    fenced = _FENCE.search(text)
    inner = fenced[1].strip() if fenced else text
    starts = [place for place in (inner.find("{"), inner.find("[")) if place >= 0]
    stop = max(inner.rfind("}"), inner.rfind("]"))
    between = inner[min(starts) : stop + 1] if starts else ""
    for step, candidate in (("plain", text), ("fenced", inner if fenced else ""), ("brackets", between)):
        if candidate:
            try:
                return json.loads(candidate), step
            except (ValueError, RecursionError):
                continue
    if between:
        try:  # single quotes, trailing commas, True and None: data, never code
            return ast.literal_eval(between), "literal"
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            pass
    raise ValueError("no JSON in the answer")


def _mend(problem: str) -> Message:
    return Message(
        "user",
        f"That was not the answer asked for ({problem}). Write it again: one JSON object of the schema, nothing else.",
    )
