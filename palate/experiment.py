"""Data → split → fit → evaluate → report: what the command line runs and the docs show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.core.config import Config, override
from palate.core.errors import ConfigError, MisuseError
from palate.core.fence import Fence, fenced
from palate.core.protocols import Continues, Discerner, Judge, ReadsWords, Recommender, ScoresAll, TakesNotes
from palate.core.provenance import asked_of, mark_of, told_of
from palate.core.run import Run, Watched
from palate.core.split import Split
from palate.core.store import write_json
from palate.cost import Cost, warm_up, watched
from palate.data.align import beginning_with, refuse_taught
from palate.runs import FittedRun, Plan, versions
from palate.systems import build, check_parts, pretrained, system

if TYPE_CHECKING:
    import polars as pl

    from palate.core.dataset import Dataset
    from palate.core.report import Report
    from palate.evaluation.protocols import AnyProtocol, PreferenceAxes, Rating

METRIC = "ndcg@10"
"""What early stopping and tuning look at, on validation."""
SEARCHED_USERS = 2000
"""Users that a system is asked about on validation when it searches instead of scoring the catalogue: each look of
such a system costs a beam search for each user. Always the same ones; the test part is asked about everybody."""


def make_plan(
    name: str,
    data: str,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = 1,
    split: str = "leave-one-out",
    split_settings: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
    start: FittedRun | None = None,
) -> Plan:
    """A checked plan: unknown systems, presets and settings are refused here, before any work.

    With ``start``, an earlier run to continue, the settings are its own; only those of training may be changed.
    """
    if seeds < 1:
        raise MisuseError(f"--seeds {seeds}: fit at least once")
    base = system(name).config(preset, settings, data)
    if start is not None:
        base = _continued_config(name, preset, start)
    config = override(base, settings or {}, where=name)
    check_parts(config)
    if start is not None and _fixed(config) != _fixed(base):
        raise MisuseError("a continued run keeps its network: only settings of training.… can change beside --from")
    return Plan(
        system=name, config=config.model_dump(mode="json"), data=data, reading=dict(reading or {}),
        split=split, split_settings=dict(split_settings or {}), seeds=tuple(range(seeds)),
    )  # fmt: skip


def make_split(plan: Plan, dataset: Dataset | None = None, *, start: FittedRun | None = None) -> Split:
    """The plan's data, read unless ``dataset`` is it already, split by the plan's rule and checked for leaks.

    With ``start`` the rows begin with those of that earlier run, so that what it learnt keeps its place.
    """
    from palate.data.sources import load
    from palate.data.split import split

    dataset = dataset or load(plan.data, **plan.reading)
    if start is not None:
        dataset = beginning_with(dataset, start.items, start.users)
    return split(dataset, plan.split, **plan.split_settings)


def _continued_config(name: str, preset: str | None, start: FittedRun) -> Config:
    if start.plan.system != name:
        raise MisuseError(f"{start.name} is a {start.plan.system}; a {name} cannot continue it")
    if preset is not None:
        raise MisuseError("--preset and --from: the earlier run decides the settings; drop --preset")
    if not system(name).continues:
        raise ConfigError(f"{name} learns in closed form and cannot continue; fit it anew without --from")
    return override(system(name).config(), start.plan.config, where=str(start.folder))


def _fixed(config: Config) -> dict[str, Any]:
    """The settings that decide what the network is."""
    return config.model_dump(exclude={"training"})


def fit(
    plan: Plan, out: Path, run: Run, *, tune: int = 0, start: FittedRun | None = None, split: Split | None = None
) -> FittedRun:
    """Fit the plan's system once a seed and write the run folder ``out``; ``run`` says how, seed and folder aside.

    tune    search so many settings on validation first, seed 0, the same budget for each
    start   continue the systems of an earlier run on the present data, where the system can
    split   saves reading the data again when the caller has it
    With ``run.resume`` finished seeds are kept and a half-finished one goes on where it stood.
    """
    if tune and start is not None:
        raise MisuseError("--tune and --from: a continued run keeps its settings; drop one")
    split = split or make_split(plan, start=start)
    if start is not None:
        refuse_taught(split, start.taught, str(start.folder))
    on_validation = judge_of(plan, split)
    facts: dict[str, Any] = {
        "name": out.name,
        "data": {"name": split.dataset.name, "fingerprint": split.dataset.fingerprint,
                 "simulated": split.dataset.about.simulated, "notes": list(split.dataset.about.notes)},
        "split": {"rule": split.rule, "hash": split.hash, "proof": dict(split.proof)},
        "continued_from": None if start is None else str(start.folder),
        "pretrained": pretrained(build(plan.system, plan.config)),
        "versions": versions(),
    }  # fmt: skip
    asked = {"tune": tune, "budget_seconds": run.budget_seconds, "precision": run.precision}
    FittedRun(out, plan, facts).begin(asked, resume=run.resume)
    fence = Fence(split)
    if tune:
        from palate.tuning import search

        plan, facts["tuned"] = search(plan, split.train, on_validation, run, tune, folder=out, fence=fence)
    fitted = FittedRun(out, plan, facts)
    costs = [_fit_seed(fitted, seed, split.train, run, on_validation, start, fence) for seed in plan.seeds]
    fitted.write_tables(split)
    facts["cost"] = Cost.over_seeds(costs)
    facts["asked"] = asked_of(fitted.system_folder(plan.seeds[0]))
    facts["marks"] = sorted({mark for seed in plan.seeds if (mark := mark_of(fitted.system_folder(seed)))})
    fitted.write()
    return fitted


def judge_of(plan: Plan, split: Split) -> Judge | None:
    """Who looks at a system of this plan on validation; None where there is nothing to look at."""
    from palate.evaluation.judging import judge
    from palate.evaluation.protocols import FullRanking
    from palate.evaluation.ratings import rating_judge

    if system(plan.system).ability == "RatingPredictor":
        from palate.data.ratings import rating_cases

        cases = rating_cases(split, "valid")
        return rating_judge(cases) if len(cases) else None  # type: ignore[return-value]
    users = None if issubclass(system(plan.system).kind, ScoresAll) else SEARCHED_USERS
    return judge(split.valid, FullRanking(), METRIC, users=users) if len(split.valid) else None


def _fit_seed(
    fitted: FittedRun, seed: int, train: Dataset, run: Run, judge: Judge | None, start: FittedRun | None, fence: Fence
) -> Cost:
    """Fit and save one seed; when the run resumes and the seed is there already, only its cost is read. What a chat
    model is shown within it must lie inside the ``fence``."""
    folder, work = fitted.system_folder(seed), fitted.training_folder(seed)
    if run.resume and (folder / "manifest.json").exists() and (work / "cost.json").exists():
        return Cost(**json.loads((work / "cost.json").read_text(encoding="utf-8")))
    run = replace(run, seed=seed, folder=work)
    recommender = _unfitted(fitted.plan, seed, start)
    for part in getattr(recommender, "parts", {}).values():
        if isinstance(part, Watched):
            part.progress = run.progress
    warm_up(recommender)
    with watched() as watch, fenced(recommender, fence):
        if isinstance(recommender, Continues) and start is not None:
            recommender.continue_fit(train, run, judge)
        else:
            recommender.fit(train, run, judge)
    recommender.save(folder)
    cost = watch.cost(recommender, folder)
    write_json(work / "cost.json", cost.model_dump())
    return cost


def _unfitted(plan: Plan, seed: int, start: FittedRun | None) -> Recommender:
    """A new system of the plan, or the earlier run's with the plan's training settings."""
    fresh = build(plan.system, plan.config)
    if start is None:
        return fresh
    earlier = start.system(seed if seed in start.plan.seeds else start.plan.seeds[0], verify=False)
    earlier.config = fresh.config  # type: ignore[misc]
    return earlier


def evaluate(
    fitted: FittedRun, protocol: AnyProtocol | None = None, *, unverified: bool = False, split: Split | None = None
) -> Report:
    """Ask every seed of a run the test cases once; the report also lies in the run's ``reports`` folder.

    ``split`` saves reading the data again when the caller has it. A system whose manifest does not prove that it saw
    the train part alone is refused with ``LeakError``; with ``unverified`` a missing manifest is let through and
    every figure carries that mark.
    """
    from palate.evaluation.judging import judge_cases
    from palate.evaluation.protocols import PreferenceAxes, Rating
    from palate.evaluation.reports import make_report, write_report

    protocol = asked_by(fitted, protocol)
    split, seeds = split or fitted.split, fitted.plan.seeds
    marks = {mark for seed in seeds if (mark := fitted.verify(seed, split.train, unverified=unverified))}
    if isinstance(protocol, Rating | PreferenceAxes):
        report = (
            _rating_report(fitted, protocol, split, sorted(marks))
            if isinstance(protocol, Rating)
            else _axes_report(fitted, protocol, split, sorted(marks))
        )
        write_report(report, fitted.report_folder(protocol))
        return report
    notes: list[str] = []

    def tables() -> Iterator[pl.DataFrame]:
        for seed in seeds:
            asked = fitted.system(seed, verify=False)
            yield judge_cases(asked, split.test, protocol, train=split.train, seed=seed)
            notes.extend(f"{fitted.name}: {note}" for note in (asked.notes if isinstance(asked, TakesNotes) else ()))

    report = make_report(
        tables(), split, protocol, name=fitted.name, system=fitted.plan.system,
        pretrained=fitted.facts.get("pretrained", fitted.row.pretrained),
        cost=fitted.facts["cost"], marks=sorted(marks), notes=_remarks(fitted),
    )  # fmt: skip
    report = replace(report, notes=tuple(dict.fromkeys((*report.notes, *notes))))  # seeds often say the same
    write_report(report, fitted.report_folder(protocol))
    return report


def asked_by(fitted: FittedRun, protocol: AnyProtocol | None) -> AnyProtocol:
    """The protocol, by default the first that fits what the run's system can. Raises ``MisuseError`` for another."""
    from palate.evaluation.protocols import FullRanking, Rating

    rates = fitted.row.ability == "RatingPredictor"
    if protocol is None:
        return Rating() if rates else FullRanking()
    if isinstance(protocol, Rating) != rates:
        can, how = ("predicts ratings", "--protocol rating") if rates else ("recommends", "--protocol full-ranking")
        raise MisuseError(f"{fitted.name} is a {fitted.plan.system}, which {can}: ask it with {how}")
    return protocol


def _rating_report(fitted: FittedRun, protocol: Rating, split: Split, marks: Sequence[str]) -> Report:
    from palate.data.ratings import hash_of, rating_cases, statistics
    from palate.evaluation.ratings import judge_ratings, make_rating_report

    cases = rating_cases(split)
    asked = protocol.ask(cases)
    tables, said = [], []
    for seed in fitted.plan.seeds:
        rater = fitted.system(seed, verify=False)
        tables.append(judge_ratings(rater, cases, protocol, train=split.train, seed=seed))  # type: ignore[arg-type]
        said += [f"{fitted.name}: {note}" for note in (rater.notes if isinstance(rater, TakesNotes) else ())]
    prompt = fitted.said("prompt")
    notes = [f"asked ratings {hash_of(asked)}: {statistics(split, asked)}"]
    notes += [f"{fitted.name}: prompt {prompt}, {fitted.said('backbone') or fitted.said('model')}"] if prompt else []
    notes += said
    return make_rating_report(
        tables, split, protocol, name=fitted.name, system=fitted.plan.system,
        pretrained=fitted.facts.get("pretrained", fitted.row.pretrained), cost=fitted.facts["cost"], marks=marks,
        notes=notes,
    )  # fmt: skip


def _axes_report(fitted: FittedRun, protocol: PreferenceAxes, split: Split, marks: Sequence[str]) -> Report:
    from palate.backbones.item_text import ItemText
    from palate.backbones.vectors import item_vectors, text_vectors
    from palate.evaluation.axes import benchmark, judge_axes, make_axes_report
    from palate.systems import parts_of

    systems = [fitted.system(seed, verify=False) for seed in fitted.plan.seeds]
    if not all(isinstance(one, ReadsWords) and one.reads_words for one in systems):
        raise MisuseError(
            f"{fitted.name} is a {fitted.plan.system}, which reads no words: ask it with another --protocol"
        )
    parts = parts_of(protocol)
    if not isinstance(parts["annotator"], Discerner):
        raise MisuseError(f"annotator={protocol.annotator.name} writes no step preferences, which the axes are made of")
    encoder = parts["encoder"]
    items = item_vectors(split.dataset, encoder)
    titles = items
    if protocol.match == "title":
        titles = text_vectors(ItemText(fields=("title",)).render(split.dataset), encoder)
    asked = benchmark(
        split, protocol, parts["annotator"], parts["sentiment"], lambda texts: text_vectors(texts, encoder),
        items=items, wanted=titles,
    )  # fmt: skip
    tables = [judge_axes(one, asked, protocol, seed=seed) for one, seed in zip(systems, fitted.plan.seeds, strict=True)]
    return make_axes_report(
        tables, split, protocol, name=fitted.name, system=fitted.plan.system,
        pretrained=fitted.facts.get("pretrained", fitted.row.pretrained), cost=fitted.facts["cost"], marks=marks,
        notes=[*asked.notes, *_remarks(fitted)],
    )  # fmt: skip


def _remarks(fitted: FittedRun) -> list[str]:
    """What figures depend on beside settings: how wide a system searches that does not score every item, and the
    prompts that a chat model answered for it."""
    beam = fitted.plan.config.get("beam")
    searched = [f"{fitted.name}: beam search, {beam} beams"] if beam else []
    return searched + [f"{fitted.name}: {told}" for told in told_of(fitted.facts.get("asked", {}))]


def report_of(fitted: FittedRun, protocol: AnyProtocol | None = None) -> Report:
    """The report that ``evaluate`` wrote earlier under this protocol, else a fresh one."""
    from palate.evaluation.reports import read_report

    protocol = asked_by(fitted, protocol)
    folder = fitted.report_folder(protocol)
    if not (folder / "report.json").exists():
        return evaluate(fitted, protocol)
    return replace(read_report(folder), name=fitted.name)
