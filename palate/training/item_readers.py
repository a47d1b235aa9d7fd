"""The shell of systems whose items are texts: read into vectors while they learn, held ready when they answer.

Such a system has a side of its items (``parts.item_side``) and a ``version`` of what their vectors follow from. The
vectors are saved with the weights that made them, grow with the catalogue, and may rest in a second lesson.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.item_vectors import ItemVectors
from palate.core.run import Run
from palate.training.shell import FIRST_SHARE, GradientSystem, Lesson


class Items(Protocol):
    """Texts of a catalogue, and the vectors ``held`` of them."""

    held: ItemVectors | None

    def read(self, texts: Sequence[str]) -> None: ...

    def settle(self, network: Any, version: str) -> None: ...

    def freeze(self, network: Any) -> None: ...

    def thaw(self) -> None: ...


C = TypeVar("C", bound=Config)
N = TypeVar("N", bound=nn.Module)

ROLES = {"item": "Item LLM", "user": "User LLM", "rec": "Recommendation LLM"}
"""The two models of such a system, by the first word of their setting."""


class ReadsItems(GradientSystem[C, N]):
    """Adds the items to the shell. Settings have ``text``, how an item reads, and ``cached_epochs``: how long a second
    lesson goes on over vectors as the first one left them."""

    items: Items

    @property
    @abstractmethod
    def version(self) -> str:
        """What item vectors follow from beside the texts. Vectors of another version are never read."""

    @abstractmethod
    def texts(self, catalogue: Dataset) -> list[str]:
        """``[N]`` what is read of each item."""

    def item_texts(self, catalogue: Dataset) -> list[str]:
        """``[N]`` how each item reads, by the template."""
        found: list[str] = self.config.text.render(catalogue)  # type: ignore[attr-defined]
        return found

    # -- learning ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def resting(self) -> Iterator[nn.Parameter]:
        """What a lesson over resting vectors leaves as it is."""

    @abstractmethod
    def cached_lesson(self, train: Dataset, run: Run) -> Lesson:
        """What is learnt over resting vectors."""

    def lessons(self, train: Dataset, run: Run) -> Iterator[Lesson]:
        first = self.lesson(train, run)
        if not self.config.cached_epochs:  # type: ignore[attr-defined]
            yield first
            return
        yield replace(first, share=FIRST_SHARE)
        resting = [parameter for parameter in self.resting() if parameter.requires_grad]
        for parameter in resting:
            parameter.requires_grad_(False)
        try:
            self.items.freeze(self.fitted())
            yield self.cached_lesson(train, run)
        finally:
            self.items.thaw()
            for parameter in resting:
                parameter.requires_grad_(True)

    def settle(self) -> None:
        """Item vectors of the present weights."""
        self.items.settle(self.fitted(), self.version)

    # -- what is said of it ------------------------------------------------------------------------------------------

    def known_before(self) -> dict[str, Any]:
        """Facts of a fit: what each of the two models knew before, and which it was."""
        models = {field.partition("_")[0]: part for field, part in self.parts.items() if field.endswith("_model")}
        return {
            "pretrained models": {role: model.pretrained for role, model in models.items()},
            "models": {role: model.version for role, model in models.items()},
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What every report of it must say: a model called a language model that was none before this fit, and how
        training ended where it ended badly."""
        said = []
        for role, kind in self.facts.get("pretrained models", {}).items():
            if kind == "no":
                name = getattr(self.config, f"{role}_model").name
                how = "was taught on the data's own texts alone" if name == "nano" else "was drawn from nothing"
                said.append(f"the {ROLES[role]} ({name}) {how}")
        return (*said, *([str(self.facts["note"])] if "note" in self.facts else []))

    # -- a catalogue that grows --------------------------------------------------------------------------------------

    def add_items(self, catalogue: Dataset) -> None:
        """Read what is new in ``catalogue``, or whose text has changed, so that the next answer may hold it or stand on
        it."""
        network, held = self.fitted(), self.items.held
        self.items.read(self.texts(catalogue))
        # The weights have rested since these vectors were made, so their version need not be digested again.
        self.items.settle(network, self.version if held is None else held.version)

    def retire_items(self, item_rows: npt.NDArray[np.integer], *, back: bool = False) -> None:
        """Never answer these items, or answer them again. They may stand in histories as before."""
        self.fitted()
        assert self.items.held is not None
        self.items.held = self.items.held.retired(item_rows, back=back)

    # -- on disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Settings, facts and own weights; those of the two models go with them, item vectors with their version."""
        self.fitted()
        assert self.items.held is not None
        self.parts = self.parts | {"vectors": self.items.held}
        super().save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        system = super().load(folder)
        assert system.items.held is not None
        system.items.held.require(system.version)
        return system
