"""A run on disk: what was asked, the fitted systems (one a seed), the catalogue, what it cost.

RUN/run.json          what was asked, what it was fitted on and what it cost; written last
RUN/plan.json         what was asked, written before the work begins
RUN/items.parquet     the catalogue: ids and what a person reads; users.parquet beside it
RUN/taught.parquet    the events it learned from, so that a later run can continue it without a leak
RUN/seed-0/           the fitted system of that seed (``core.store``)
RUN/seed-0-training/  its log, TensorBoard events and checkpoint
RUN/reports/          what ``palate evaluate`` measured, one folder a protocol
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import palate
from palate.core import store
from palate.core.config import Config
from palate.core.dataset import Dataset
from palate.core.errors import ConfigError, LeakError, StoreError
from palate.core.protocols import Recommender
from palate.core.provenance import check_fitted_on
from palate.core.split import Split
from palate.data.align import beginning_with, taught_events
from palate.systems import System, system

if TYPE_CHECKING:
    import polars as pl

SCHEMA = "palate.run/1"


class Plan(Config):
    """Everything that decides a fit, and nothing about how it goes. Equal plans give equal systems."""

    system: str
    config: dict[str, Any] = {}
    """Every setting of the system, defaults included."""
    data: str
    reading: dict[str, Any] = {}
    split: str = "leave-one-out"
    split_settings: dict[str, Any] = {}
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True, eq=False)
class FittedRun:
    """A finished run in ``folder``; data and systems are read when they are first asked for."""

    folder: Path
    plan: Plan
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> FittedRun:
        """Read ``run.json``. Raises ``StoreError`` in one sentence when this is no finished run."""
        folder = Path(folder)
        path = folder / "run.json"
        if not path.is_file():
            raise StoreError(
                f"{folder} is not a finished run: it has no run.json; make one with palate fit … --out RUN"
            )
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts.get("schema") != SCHEMA:
                raise StoreError(f"{path}: schema {facts.get('schema')!r} is not {SCHEMA!r}")
            return cls(folder, Plan.model_validate(facts["plan"]), facts)
        except (ValueError, KeyError, AttributeError) as failure:
            raise StoreError(f"{path} is damaged: {str(failure).splitlines()[0]}") from None

    def write(self) -> None:
        """Write ``run.json``; the run is finished once it is there."""
        store.write_json(self.folder / "run.json", {"schema": SCHEMA, "plan": self.plan.model_dump(), **self.facts})

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def row(self) -> System:
        return system(self.plan.system)

    @cached_property
    def dataset(self) -> Dataset:
        """The data the run was fitted on, read again. Raises ``LeakError`` when it has changed since."""
        from palate.data.sources import load

        dataset = load(self.plan.data, **self.plan.reading)
        if self.facts.get("continued_from"):
            dataset = beginning_with(dataset, self.items, self.users)
        if dataset.fingerprint != self.facts["data"]["fingerprint"]:
            raise LeakError(
                f"'{self.plan.data}' is not the data that {self.folder} was fitted on; "
                "fit again, or continue with palate fit … --from"
            )
        return dataset

    def share(self, other: FittedRun) -> None:
        """Take the data that another run has read, where they are those of this run, instead of reading them again."""
        read = other.__dict__.get("dataset")
        alike = (self.plan.data, self.plan.reading) == (other.plan.data, other.plan.reading)
        if alike and isinstance(read, Dataset) and read.fingerprint == self.facts["data"]["fingerprint"]:
            self.__dict__["dataset"] = read

    @cached_property
    def split(self) -> Split:
        """The split of the run, made and checked again."""
        from palate.data.split import split

        again = split(self.dataset, self.plan.split, **self.plan.split_settings)
        if again.hash != self.facts["split"]["hash"]:
            raise LeakError(f"{self.folder}: its split cannot be made again as it was; fit again")
        return again

    @cached_property
    def items(self) -> pl.DataFrame:
        """The catalogue as it was when the run was fitted."""
        import polars as pl

        return pl.read_parquet(self.folder / "items.parquet")

    @cached_property
    def users(self) -> pl.DataFrame:
        """The users as they were when the run was fitted."""
        import polars as pl

        return pl.read_parquet(self.folder / "users.parquet")

    @cached_property
    def taught(self) -> pl.DataFrame:
        """The events the run learned from, in outside ids."""
        import polars as pl

        return pl.read_parquet(self.folder / "taught.parquet")

    def write_tables(self, split: Split) -> None:
        """Keep the catalogue, the users and what was taught, so that the run can answer and be continued."""
        split.dataset.items.write_parquet(self.folder / "items.parquet")
        split.dataset.users.write_parquet(self.folder / "users.parquet")
        taught_events(split.train).write_parquet(self.folder / "taught.parquet")

    def system_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def training_folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}-training"

    def report_folder(self, protocol: Config) -> Path:
        """Where the report under ``protocol`` lies; another protocol has another folder."""
        said = protocol.model_dump_json().encode()
        kind = getattr(protocol, "kind", type(protocol).__name__)
        return self.folder / "reports" / f"{kind}-{hashlib.blake2b(said, digest_size=4).hexdigest()}"

    def verify(self, seed: int, train: Dataset | None = None, *, unverified: bool = False) -> str | None:
        """Prove that the system of ``seed`` saw the train part alone; returns the mark its figures carry, if any."""
        return check_fitted_on(self.system_folder(seed), train or self.split.train, allow_unverified=unverified)

    def system(self, seed: int, *, verify: bool = True) -> Recommender:
        """The fitted system of a seed; with ``verify`` only after its manifest proves what it was fitted on."""
        if verify:
            self.verify(seed)
        return store.load(self.system_folder(seed))

    def said(self, fact: str) -> str:
        """What the system of the first seed remembers under this name; "" where it does not."""
        return str(store.open_folder(self.system_folder(self.plan.seeds[0])).facts.get(fact) or "")

    def begin(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Write ``plan.json``, or raise ``ConfigError`` when the folder holds something that would be lost.

        ``asked`` is how the fit was asked to go, beside the plan. A folder where nothing was finished yet, such as one
        left by a refused fit, is begun anew.
        """
        path = self.folder / "plan.json"
        mine = self.plan.model_dump(mode="json") | dict(asked) | {
            "split_hash": self.facts["split"]["hash"], "continued_from": self.facts.get("continued_from")
        }  # fmt: skip
        if path.exists() and self._has_work():
            if not resume:
                raise ConfigError(f"{self.folder} holds a run already; choose another --out, or add --resume to go on")
            if json.loads(path.read_text(encoding="utf-8")) != mine:
                raise ConfigError(f"{self.folder} was begun with other settings or data; choose another --out")
        elif not path.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise ConfigError(f"{self.folder} holds something else; choose another --out")
        store.write_json(path, mine)

    def _has_work(self) -> bool:
        """Whether a seed, a checkpoint or a trial of a search is there that a new beginning would lose."""
        return any(
            any(self.folder.glob(pattern))
            for pattern in ("run.json", "tuning.jsonl", "seed-*/manifest.json", "seed-*/checkpoint.safetensors")
        )


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    from importlib.metadata import version

    packages = ("numpy", "polars", "scipy", "torch")
    return {"palate": palate.__version__, "python": platform.python_version()} | {p: version(p) for p in packages}
