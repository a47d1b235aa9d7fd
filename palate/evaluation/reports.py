"""From cases to a report, and from reports to files and JSON that scripts can rely on.

A report is a folder's ``report.json`` beside its ``cases.parquet``: the figures, and the rows they came from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.core.errors import ConfigError, DataError, StoreError
from palate.core.report import Interval, Report
from palate.core.split import Split
from palate.core.store import write_bytes, write_json
from palate.evaluation import reranking, slices
from palate.evaluation.beyond import beyond
from palate.evaluation.comparison import Comparisons
from palate.evaluation.heading import all_seeds, heading
from palate.evaluation.metrics import OF_RATINGS, metric, metrics
from palate.evaluation.protocols import Protocol
from palate.evaluation.uncertainty import RESAMPLES, intervals, per_user, run_number

FILE_SCHEMA = "palate.run-report/1"
SCHEMA = "palate.report/1"


def make_report(
    cases: pl.DataFrame | Iterable[pl.DataFrame],
    split: Split,
    protocol: Protocol,
    *,
    name: str,
    system: str,
    pretrained: str = "no",
    cost: Mapping[str, float] | None = None,
    marks: Sequence[str] = (),
    notes: Sequence[str] = (),
    vectors: npt.NDArray[np.floating] | None = None,
    resamples: int = RESAMPLES,
) -> Report:
    """The figures of one run from ``judge_cases``: one table, or one a seed.

    name        what the run is called in tables; ``system`` is its row in the table of systems
    marks       words every figure must carry; ``simulated`` is added where the data are
    notes       lines that stand under every table
    vectors     ``[N, D]`` for the diversity of lists; else the items' categories
    """
    together = reranking.with_slices(all_seeds(cases, name, "answered no case: the split has nothing to ask"))
    run, names = run_number(name), metrics(protocol.metrics)
    figures = _figures(together, protocol, split, resamples, run)
    retrieval = reranking.figures(together, names, resamples=resamples, run=run)
    return Report(
        **heading(together, split, protocol, marks),
        name=name,
        system=system,
        pretrained=pretrained,
        metrics=figures.pop(""),
        slices=figures,
        slice_rules={
            key: rule for key, rule in (slices.rules(split.train) | dict(reranking.RULES)).items() if key in figures
        },
        beyond=beyond(together, split.train, vectors=vectors, resamples=resamples, run=run) | retrieval,
        cost=dict(cost or {}),
        notes=(*notes, *reranking.note(together, names, name)),
    )


def _figures(
    cases: pl.DataFrame, protocol: Protocol, split: Split, resamples: int, run: int
) -> dict[str, dict[str, Interval]]:
    """Slice → metric → interval; the slice ``""`` is everything. All columns share one pass over the resamples."""
    names = [name.name for name in metrics(protocol.metrics)]
    flags = [name for name in (*slices.NAMES, *reranking.RULES) if name in cases.columns and cases[name].any()]
    parts = {"": pl.lit(True)} | {name: pl.col(name) for name in flags}
    asked = [
        pl.when(chosen).then(pl.col(name)).alias(f"{part}/{name}") for part, chosen in parts.items() for name in names
    ]
    wide = cases.select("seed", "user_row", *asked)
    keys = [(part, name) for part in parts for name in names]
    if "rank_among_cold" in cases.columns and cases["rank_among_cold"].is_not_null().any():
        ranks = cases["rank_among_cold"].to_numpy()
        tied = cases["tied_among_cold"].to_numpy()
        wide = wide.with_columns(
            pl.Series(f"{slices.COLD_AMONG_COLD}/{name}", metric(name).of_ranks(ranks, tied)) for name in names
        )
        keys += [(slices.COLD_AMONG_COLD, name) for name in names]
    tables = []
    for _, seed in sorted(wide.group_by("seed"), key=lambda group: group[0]):
        values = seed.drop("seed", "user_row").cast(pl.Float64).fill_null(float("nan")).to_numpy()
        tables.append(per_user(seed["user_row"].to_numpy(), values)[1])
    if len({table.shape for table in tables}) > 1:
        raise DataError("the seeds of a run must answer the same cases")
    found: dict[str, dict[str, Interval]] = {}
    n_cold = int(split.cold_items.sum())
    for (part, name), span in zip(keys, intervals(tables, resamples=resamples, run=run), strict=True):
        if part == slices.COLD_AMONG_COLD:
            span = replace(span, chance=metric(name).chance(n_cold))
        found.setdefault(part, {})[name] = span
    return found


def write_report(report: Report, folder: str | Path) -> None:
    """``report.json`` and ``cases.parquet`` into ``folder``, the rows first, each whole or not at all."""
    folder = Path(folder)
    rows = BytesIO()
    report.cases.write_parquet(rows)
    write_bytes(folder / "cases.parquet", rows.getvalue())
    plain = {item.name: getattr(report, item.name) for item in fields(report) if item.name != "cases"}
    plain["metrics"] = _plain(report.metrics)
    plain["beyond"] = _plain(report.beyond)
    plain["slices"] = {part: _plain(figures) for part, figures in report.slices.items()}
    plain["cost"] = {key: _number(value) for key, value in report.cost.items()}
    write_json(folder / "report.json", {"schema": FILE_SCHEMA, **plain})


def read_report(folder: str | Path) -> Report:
    """The report in ``folder``. Raises ``StoreError`` in one sentence when it is missing, damaged or not ours."""
    folder = Path(folder)
    path = folder / "report.json"
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("schema", None) != FILE_SCHEMA:
            raise StoreError(f"{path} is not a report of this Palate: its schema is not {FILE_SCHEMA!r}")
        cases = pl.read_parquet(folder / "cases.parquet")
        return Report(
            **plain
            | {
                "cases": cases,
                "seeds": tuple(plain["seeds"]),
                "marks": tuple(plain["marks"]),
                "notes": tuple(plain.get("notes", ())),
                "metrics": _spans(plain["metrics"]),
                "beyond": _spans(plain["beyond"]),
                "slices": {part: _spans(figures) for part, figures in plain["slices"].items()},
            }
        )
    except FileNotFoundError as failure:
        raise StoreError(
            f"{folder} holds no report ({Path(failure.filename).name} is missing): evaluate the run"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError, pl.exceptions.PolarsError) as failure:
        raise StoreError(f"{path} or its cases.parquet is damaged ({failure}): evaluate the run again") from None


def to_json(reports: Sequence[Report], comparisons: Comparisons | None = None) -> dict[str, Any]:
    """The documented schema ``palate.report/1``, which scripts rely on. Numbers that do not exist are null.

    ``data`` carries the marks that all runs share; figures beyond accuracy stand among the metrics. ``slice`` is there
    where reports ``of_slice`` are written: all figures and comparisons are then those of its cases.
    """
    if not reports:
        raise ConfigError("there is no report to write")
    first = reports[0]
    shared = [mark for mark in first.marks if all(mark in report.marks for report in reports)]
    return {
        "schema": SCHEMA,
        "data": first.data + (f" ({', '.join(shared)})" if shared else ""),
        "split": f"{first.split} {first.split_hash}",
        "protocol": first.protocol,
        **({"slice": first.part} if first.part else {}),
        "runs": [
            {
                "name": report.name,
                "system": report.system,
                "pretrained": report.pretrained,
                "seeds": list(report.seeds),
                "marks": list(report.marks),
                "metrics": _figures_json({**report.metrics, **report.beyond}),
                "slices": {part: _figures_json(figures) for part, figures in report.slices.items()},
                "cost": {key: _number(value) for key, value in report.cost.items()},
            }
            for report in reports
        ],
        "comparisons": [
            {key: _number(value) if isinstance(value, float) else value for key, value in asdict(pair).items()}
            for pair in (comparisons.pairs if comparisons else ())
        ],
    }


def _figures_json(figures: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, span in figures.items():
        found[name] = {"value": _number(span.value), "low": _number(span.low), "high": _number(span.high)}
        if span.chance is not None:
            found[name]["chance"] = _number(span.chance)
    return found


def _plain(figures: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: {key: _number(value) for key, value in asdict(span).items()} for name, span in figures.items()}


def _spans(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Interval]:
    nan: Any = float("nan")
    order = [*(name for name in OF_RATINGS if name in figures), *(name for name in figures if name not in OF_RATINGS)]
    known = {"value", "low", "high"}
    return {
        name: Interval(**{key: nan if value is None and key in known else value for key, value in span.items()})
        for name, span in ((name, figures[name]) for name in order)
    }


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
