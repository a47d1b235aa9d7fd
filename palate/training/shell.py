"""The shell of every gradient system: build a network, optimise it, go on with it, save it, load it.

A system of this kind names its settings and its network and says what is learnt (``lesson``) and how questions are
answered; nothing else differs between them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import StoreError, TrainingError
from palate.core.protocols import Judge
from palate.core.run import Run
from palate.core.training import TrainingConfig
from palate.training.learnt import learnt
from palate.training.loop import Batches, Outcome, check_rates, optimise, seeded

C = TypeVar("C", bound=Config)
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a network learns.

    batches  the training data
    loss     of one batch: a mean over its positions
    settle   brings up to date what answers need beside the weights; called before each look at validation and once
             at the end
    training how it is optimised; None = as the settings say
    share    of a time budget, or of what earlier lessons left of it, that it may take
    """

    batches: Batches
    loss: Callable[[Any], Tensor]
    settle: Callable[[], None] = lambda: None
    training: TrainingConfig | None = None
    share: float = 1.0


FIRST_SHARE = 0.75
"""The ``share`` of a lesson that another one follows, so that a budget leaves both some steps."""


class GradientSystem(ABC, Generic[C, N]):
    """A recommender around a network, which is None until fitted or loaded.

    The class names ``config_type`` (its field ``training`` says how to optimise) and ``network_type``, called as
    ``network_type(config, **shape)``.
    """

    config_type: ClassVar[type[Config]]
    network_type: ClassVar[Callable[..., nn.Module]]

    def __init__(self, config: C | None = None, **parts: Any) -> None:
        """``parts`` are what the settings name, by field (``core.config.Part``); they are saved with the system."""
        self.config: C = config or self.config_type()  # type: ignore[assignment]
        self.parts = parts
        self.network: N | None = None
        self.facts: dict[str, Any] = {}

    def shape(self, train: Dataset) -> dict[str, Any]:
        """What of the data decides the sizes of the network; saved with it."""
        return {"n_items": train.n_items}

    def prepare(self, train: Dataset, run: Run) -> None:
        """What must stand before the network is built, such as names for the items; ``network`` is None unless the
        system goes on from an earlier fit."""

    @abstractmethod
    def lesson(self, train: Dataset, run: Run) -> Lesson:
        """What the present network learns from ``train``; drawn from ``run.seed`` where it draws."""

    def lessons(self, train: Dataset, run: Run) -> Iterator[Lesson]:
        """One after another, where there are several; what stands before a ``yield`` is done when its turn has come."""
        yield self.lesson(train, run)

    def learnt_elsewhere(self) -> tuple[str, ...]:
        """How the names of those weights begin that ``parts`` hold and save."""
        return ()

    def remarks(self) -> dict[str, Any]:
        """Facts of this fit beside the usual ones, such as a label or a note to the reader."""
        return {}

    @property
    def training(self) -> TrainingConfig:
        """How the network is optimised."""
        return self.config.training  # type: ignore[attr-defined]

    def fitted(self) -> N:
        """The network, else one clear sentence."""
        if self.network is None:
            raise TrainingError(f"{type(self).__name__} was not fitted yet: call fit or load first")
        return self.network

    def fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        self.network, self.facts = None, {}
        with seeded(run):
            run = self._prepared(train, run)
            return self._learn(self._build(self.shape(train)), train, run, judge)

    def continue_fit(self, train: Dataset, run: Run, judge: Judge | None = None) -> Self:
        """Go on from the present weights; rows that are new begin untrained."""
        old = self.fitted()
        with seeded(run):
            run = self._prepared(train, run)
            return self._learn(grow(self._build(self.shape(train)), old), train, run, judge)

    def _prepared(self, train: Dataset, run: Run) -> Run:
        """The run with what ``prepare`` left of its time."""
        began = time.monotonic()
        self.prepare(train, run)
        if run.budget_seconds is None:
            return run
        return replace(run, budget_seconds=max(run.budget_seconds - (time.monotonic() - began), 0.0))

    def _build(self, shape: Mapping[str, Any]) -> N:
        return type(self).network_type(self.config, **shape)  # type: ignore[return-value]

    def _learn(self, network: N, train: Dataset, run: Run, judge: Judge | None) -> Self:
        shape = self.shape(train)
        self.network = network.to(run.device)
        try:
            return self._optimised(network, shape, train, run, judge)
        except BaseException:  # what has not learnt to the end must not look fitted
            self.network, self.facts = None, {}
            raise

    def _optimised(self, network: N, shape: dict[str, Any], train: Dataset, run: Run, judge: Judge | None) -> Self:
        check_rates(network, getattr(self.config, "training", self.training).rates)
        outcomes: list[Outcome] = []
        for number, lesson in enumerate(self.lessons(train, run)):

            def look(judge: Judge, lesson: Lesson = lesson) -> float:
                lesson.settle()
                return judge(self)  # type: ignore[arg-type]

            here = run if number == 0 else run.inside(f"lesson-{number + 1}")
            if run.budget_seconds is not None:
                left = run.budget_seconds - sum(outcome.seconds for outcome in outcomes)
                if number and left <= 0:  # what was learnt so far is a fit, so it is no error
                    outcomes.append(Outcome(stopped="left out: the time budget was spent before it"))
                    continue
                here = replace(here, budget_seconds=lesson.share * max(left, 0.0))
            outcomes.append(
                optimise(
                    network, lesson.batches, lesson.loss, here, lesson.training or self.training,
                    None if judge is None else partial(look, judge), identity=self.identity(train),
                )
            )  # fmt: skip
            lesson.settle()
        first, *more = [outcome.facts() for outcome in outcomes]
        self.facts = {
            "shape": shape, "fitted_on": train.fingerprint, "training": first,
            **({"training after that": more} if more else {}), **learnt(network, self.parts), **self.remarks(),
        }  # fmt: skip
        return self

    def identity(self, train: Dataset) -> dict[str, object]:
        """What tells this fit from others; ``optimise`` refuses to resume another's checkpoint."""
        return {"data": train.fingerprint, "settings": self.config.model_dump(mode="json", exclude={"training"})}

    def save(self, folder: Path) -> None:
        """Settings, facts and weights, in the layout of ``core.store``."""
        elsewhere = self.learnt_elsewhere()
        arrays = {
            name: tensor.detach().cpu().numpy()
            for name, tensor in self.fitted().state_dict().items()
            if not name.startswith(elsewhere)
        }
        store.save(
            folder, self, config=self.config, arrays=arrays, facts=self.facts, parts=self.parts,
            fitted_on=self.facts["fitted_on"],
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = store.open_folder(folder)
        if "shape" not in stored.facts:
            raise StoreError(f"{folder} was written by an earlier Palate; fit the system again")
        system = stored.begun(cls)
        with seeded(Run()):  # its first weights are drawn, and the random state is the caller's
            system.network = system._build(stored.facts["shape"])
        system.facts = stored.facts
        weights = {name: torch.from_numpy(array) for name, array in stored.arrays().items()}
        fill(system.network, weights, folder, system.learnt_elsewhere())
        system.network.eval()
        return system


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: Path, elsewhere: tuple[str, ...] = ()) -> None:
    """Put saved ``weights`` into ``network``, but those whose names begin as in ``elsewhere``. Raises
    ``TrainingError`` when they are of another network."""
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(elsewhere)}
    wrong = sorted(set(own) ^ set(weights)) or [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise TrainingError(f"{source}: the weights '{wrong[0]}' do not fit these settings; fit the system again")
    network.load_state_dict(dict(weights), strict=not elsewhere)


def grow(new: N, old: nn.Module) -> N:
    """``new`` with the weights of ``old``; a table that has more rows in ``new`` keeps its fresh last rows."""
    learnt = old.state_dict()
    with torch.no_grad():
        for name, tensor in new.state_dict().items():
            known = learnt[name]
            if tensor.shape[1:] != known.shape[1:] or (tensor.dim() and len(tensor) < len(known)):
                raise TrainingError(f"cannot continue: '{name}' was {tuple(known.shape)}, is {tuple(tensor.shape)}")
            if tensor.dim():
                tensor[: len(known)] = known
            else:
                tensor.copy_(known)
    return new
