"""What the stages of a profile have left for the report: metrics, learning curves, samples, data cards and costs.

A stage that has not run leaves nothing, and has no entry anywhere.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json
from pipeline.layout import Layout

_BESIDE_METRICS = ("samples/", "predictions/")
"""Folders of JSON files beside the metrics: examples, and what a model says of every held-out example."""


@dataclass(frozen=True)
class Curve:
    """One column of a learning curve, at the optimizer steps where it was measured."""

    updates: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """What the last run of a stage on this machine took."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class RunFiles:
    """Everything by the name of its stage, with the item of a matrix: `translate/gru`."""

    profile: str
    metrics: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Curve]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    costs: Mapping[str, Cost]
    """Not part of any result: they differ from run to run."""
    sources: Mapping[str, Mapping[str, Any]]
    """Data cards by source."""

    def items(self, stage: str) -> tuple[str, ...]:
        """The items of a matrix stage that have run, sorted."""
        return tuple(sorted(name.partition("/")[2] for name in self.metrics if name.startswith(f"{stage}/")))

    def number(self, stage: str, path: str) -> float | None:
        """The number at a dotted path of a stage's metrics; None when the stage has not run.

        ValueError names the stage and the key that is missing in metrics that exist.
        """
        if stage not in self.metrics:
            return None
        found: Any = self.metrics[stage]
        for key in path.split("."):
            if not isinstance(found, Mapping) or key not in found:
                raise ValueError(f"metrics of {stage}: no {path!r}; its keys are {sorted(self.metrics[stage])}")
            found = found[key]
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ValueError(f"metrics of {stage}: expected a number at {path!r}, found {found!r}")
        return float(found)


def read_run(layout: Layout) -> RunFiles:
    """Reads what there is; ValueError names a file that is damaged."""
    folder = layout.metrics.parent
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.json"))}
    metrics = {name: read_json(path) for name, path in files.items() if not name.startswith(_BESIDE_METRICS)}
    curves_folder, card = layout.curve.parent, layout.data("raw") / "card.json"
    return RunFiles(
        profile=layout.profile,
        metrics=metrics,
        curves={
            path.relative_to(curves_folder).with_suffix("").as_posix(): read_curves(path)
            for path in sorted(curves_folder.rglob("*.csv"))
        },
        samples={
            name.removeprefix("samples/"): read_json(path)
            for name, path in files.items()
            if name.startswith("samples/")
        },
        costs=read_costs(layout, metrics),
        sources=read_json(card) if card.is_file() else {},
    )


def read_curves(path: Path) -> dict[str, Curve]:
    """The columns of a learning curve; ValueError names the line that holds something else than numbers."""
    columns: dict[str, list[tuple[int, float]]] = {}
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    for row in reader:
        try:
            update = int(row["update"])
            for name, value in row.items():
                if name != "update" and value:
                    columns.setdefault(name, []).append((update, float(value)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{reader.line_num}: expected an update and numbers, found {row}") from error
    return {
        name: Curve(tuple(update for update, _ in points), tuple(value for _, value in points))
        for name, points in columns.items()
    }


def read_costs(layout: Layout, stages: Mapping[str, Any]) -> dict[str, Cost]:
    """The costs of the stages that ran on this machine; of others, and of cached ones, nothing is known."""
    costs = {}
    for stage in stages:
        path = replace(layout, stage=stage).cost
        if path.is_file():
            found = read_json(path)
            costs[stage] = Cost(seconds=float(found["seconds"]), peak_bytes=int(found["peak_bytes"]))
    return costs
