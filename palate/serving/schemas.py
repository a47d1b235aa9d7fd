"""What may be asked over HTTP: strict types, every size bounded, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from palate.questions import Filter, Question
from palate.serving.ledger import Event

MOST_ANSWERS = 200
MOST_EVENTS = 1000
MOST_QUESTIONS = 256
MOST_EXPLAINED = 20
MOST_ASKED = 2000
LATEST_MS = 32_503_680_000_000
"""The year 3000."""

WHY: bool = Field(False, description="Name the events and words that moved the scores; explain tells of texts too")

_PLAIN = r"^[^\x00-\x1f\x7f]+$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_PLAIN)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_PLAIN)]
"""An id or an exact title."""
Short = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_PLAIN)]
Words = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00-\x08\x0e-\x1f\x7f]*$")]
Value = Text | int | float | bool | Annotated[list[Short], Field(max_length=50)]


def _none(**said: Any) -> Any:
    """A list that may be left out: an empty one is made, as copying one costs more, and the file says so."""
    return Field(default_factory=list, json_schema_extra={"default": []}, **said)


class Strict(BaseModel):
    """The ancestor of every body: no type is guessed, no field is ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FilterBody(Strict):
    """Either ``any_of`` or one or both ends of a range."""

    column: Short = Field(description="A column of the catalogue")
    any_of: list[Short] | None = Field(None, min_length=1, max_length=50, description="Values that may be answered")
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.any_of is None) == (self.least is None and self.most is None):
            raise ValueError("say either any_of or least and most")
        return self

    def filter(self) -> Filter:
        return Filter(self.column, tuple(self.any_of or ()), self.least, self.most)


class Who(Strict):
    """Who is asked about: a user, or a history (empty for a newcomer)."""

    user: Id | None = Field(None, description="A user of the data, or one whose events were sent")
    history: list[Name] | None = Field(None, max_length=MOST_EVENTS, description="Ids or exact titles, oldest first")
    words: Words = Field("", description="What is wished, for systems that read words")
    candidates: list[Name] | None = Field(None, max_length=MOST_EVENTS, description="Only these may be answered")
    leave_out: list[Name] = _none(max_length=MOST_EVENTS, description="Never answered, beside what was met")
    filters: list[FilterBody] = _none(max_length=20, description="Only items that pass all may be answered")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.user is None) == (self.history is None):
            raise ValueError("say who is asked: either a user or a history")
        return self

    def question(self) -> Question:
        filters = [one.filter() for one in self.filters]
        return Question(self.user, self.history, (), self.words, self.candidates, self.leave_out, filters)


class OfRun(Strict):
    run: Id | None = Field(None, description="Which run answers; may be left out where only one is served")


class Recommend(Who, OfRun):
    k: int = Field(10, ge=1, le=MOST_ANSWERS)
    why: bool = WHY


class RecommendBatch(OfRun):
    k: int = Field(10, ge=1, le=MOST_ANSWERS)
    why: bool = WHY
    questions: list[Who] = Field(min_length=1, max_length=MOST_QUESTIONS)


class Similar(OfRun):
    item: Name
    k: int = Field(10, ge=1, le=MOST_ANSWERS)


class Explain(Who, OfRun):
    items: list[Name] = Field(min_length=1, max_length=MOST_EXPLAINED)


class EventBody(Strict):
    key: Id = Field(description="The sender's own name of this event: the same key twice is the same event")
    user: Id
    item: Id
    time: int | None = Field(None, ge=0, le=LATEST_MS, description="Milliseconds; now, where it is left out")
    kind: Short | None = None
    rating: float | None = None

    def event(self) -> Event:
        return Event(self.key, self.user, self.item, self.time, self.kind, self.rating)


class Events(OfRun):
    events: list[EventBody] = Field(min_length=1, max_length=MOST_EVENTS)


class NewItem(OfRun):
    item: Id
    title: Name | None = None
    text: Text | None = None
    category: list[Short] | None = Field(None, max_length=50)
    attributes: dict[Short, Value] = Field({}, max_length=50, description="Further columns of the catalogue")

    def content(self) -> dict[str, Any]:
        """The item as a row of the catalogue; what is not known of it is left out."""
        known = {"item": self.item, "title": self.title, "text": self.text, "category": self.category}
        return dict(self.attributes) | {column: value for column, value in known.items() if value is not None}


class Retire(OfRun):
    items: list[Name] = Field(min_length=1, max_length=MOST_EVENTS)
    back: bool = Field(False, description="Answer them again")


class Audience(OfRun):
    item: Name
    k: int = Field(10, ge=1, le=MOST_ANSWERS, description="Among how many answers the item must be")
    users: int = Field(500, ge=1, le=MOST_ASKED, description="How many users are asked about, evenly chosen")


class Problem(BaseModel):
    """What went wrong, in one sentence, and a word for programs."""

    error: str
    code: str
