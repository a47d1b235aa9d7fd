"""How an item reads: one explicit template from the columns of the item table to a text.

The template is part of every cache key, so vectors of two templates are never mixed. Data sets differ in what they
know: the world and MovieLens hold a ``text`` that begins with the title and names the genres, a table of one's own may
hold a description beside a title, Amazon 2014 Beauty knows brand and category names only. The default reads well for
all of them: it takes title, text and category, and leaves out what another of them already says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import DataError

if TYPE_CHECKING:
    import polars as pl

RULES = 1
"""Raised when the rules below change what an unchanged template writes."""

_ENDS = ["", ".", ",", ";", ":"]
"""What may follow a title that another field begins with."""


class ItemText(Config):
    """The template. Its settings and ``RULES`` decide every letter of the texts."""

    fields: tuple[str, ...] = Field(("title", "text", "category"), min_length=1)
    """Columns of the item table, in the order of writing. One that the table lacks is left out, as is an empty one."""
    named: bool = False
    """Write each field's name before it: ``title: Dune``."""
    separator: str = ". "
    """Between fields. What a field ends with is not doubled."""
    list_separator: str = ", "
    """Between the entries of a list."""
    once: bool = True
    """Leave out a field that another one begins with as a clause of its own, and a list that another one holds word
    for word; letters may differ in case. Of two that are the same the first is written."""
    max_chars: int = Field(2000, ge=1)
    """A longer text is cut at a word."""
    unknown: str = Field("unknown item", min_length=1)
    """The text of an item of which no field is known."""

    @property
    def key(self) -> str:
        """What the texts follow from beside the item table."""
        return f"item-text/{RULES} {self.model_dump_json()}"

    def render(self, catalogue: Dataset) -> list[str]:
        """``[N]`` the text of each item. Raises ``DataError`` where the table has none of the fields."""
        import polars as pl

        items = catalogue.items
        known = [field for field in self.fields if field in items.columns]
        if not known:
            raise DataError(
                f"items of '{catalogue.name}' have no text: none of {', '.join(self.fields)} is a column "
                f"({', '.join(items.columns)} are); name others as text.fields"
            )
        written = items.select(_plain(items, field, self.list_separator).alias(field) for field in known)
        if self.once:
            lists = {field for field in known if items.schema[field] == pl.List}
            written = written.with_columns(
                pl.when(_said_elsewhere(field, known, lists)).then(pl.lit("")).otherwise(pl.col(field)).alias(field)
                for field in known
            )
        whole = written.select(_joined(known, self.separator, self.named).alias("whole")).to_series()
        return [_cut(text, self.max_chars) or self.unknown for text in whole.to_list()]


def texts_of(catalogue: Dataset, template: ItemText | None = None) -> list[str]:
    """``[N]`` the text of each item, by the default template where none is given."""
    return (template or ItemText()).render(catalogue)


def _plain(items: pl.DataFrame, field: str, list_separator: str) -> pl.Expr:
    """A column as text: lists joined, white space single, unknown = empty."""
    import polars as pl

    column = pl.col(field)
    if items.schema[field] == pl.List:
        column = column.list.eval(pl.element().cast(pl.String)).list.drop_nulls().list.join(list_separator)
    return column.cast(pl.String).fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()


def _said_elsewhere(field: str, known: Sequence[str], lists: set[str]) -> pl.Expr:
    import polars as pl

    own = pl.col(field).str.strip_chars_end(". ").str.to_lowercase()
    said = pl.lit(False)
    for place, other in enumerate(known):
        if other == field:
            continue
        text = pl.col(other).str.to_lowercase()
        same = own == text.str.strip_chars_end(". ")
        after = text.str.slice(own.str.len_chars()).str.strip_chars_start().str.slice(0, 1)
        here = text.str.starts_with(own) & after.is_in(_ENDS)
        if field in lists:
            here = here | text.str.contains(own, literal=True)
        said = said | (here & ~same)
        if place < known.index(field):
            said = said | same
    return said & (own != "")


def _joined(known: Sequence[str], separator: str, named: bool) -> pl.Expr:
    """Fields one after another without the empty ones; only the last keeps the full stop it may end with."""
    import polars as pl

    ending = separator.strip() or "\n"  # nothing to strip where the separator is white space
    parts = []
    for field in known:
        text = pl.concat_str(pl.lit(f"{field}: "), pl.col(field)) if named else pl.col(field)
        # A null is left out, an empty text would leave a separator behind.
        parts.append(pl.when(pl.col(field) != "").then(text))
    listed = pl.concat_list(parts).list.drop_nulls()
    begun = listed.list.head(listed.list.len() - pl.min_horizontal(listed.list.len(), pl.lit(1)))
    begun = begun.list.eval(pl.element().str.strip_chars_end(f"{ending} "))
    return pl.concat_list(begun, listed.list.tail(1)).list.join(separator)


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    # One letter more shows whether the cut falls between two words.
    head, space, _ = text[: max_chars + 1].rpartition(" ")
    return head if space else text[:max_chars]
