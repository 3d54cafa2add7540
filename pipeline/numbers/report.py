"""The file with our figures of a published number, reports/numbers/ID.json.

It holds the figures of every seed that has finished, what they cost, and how to get them again.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeVar

from pipeline.artifacts import read_json, write_json
from pipeline.config import load
from pipeline.layout import Layout
from pipeline.numbers.made import NO_RUNTIME, Made
from pipeline.numbers.number import CONFIGURATIONS, REPORTS, Number, NumberConfig
from pipeline.numbers.tasks import average, mean_margin, reference_mean, task_reports, unmet, value_at
from pipeline.provenance import content_hash
from pipeline.report.rows import CONVENTIONS

_log = logging.getLogger(__name__)
Known = TypeVar("Known")


def write_report(number: Number, stages: Mapping[Path, Made], *, keeps: bool = False) -> dict[str, Any]:
    """Writes the figures of the runs that have finished.

    `stages` are those that are up to date here, needed ones included. With `keeps` the report keeps the figures that it
    has of other runs, made with the same configuration by another call or on another machine, and the seconds of the
    stages before them; without it they are dropped.
    """
    config = number.config
    known = read_json(number.report) if keeps and number.report.is_file() else {}
    kept = _kept(number, known)
    made = {**kept, **stages}
    seconds = _known_before(number, kept, known.get("seconds_by_stage", {}))
    seconds |= {path: one.seconds for path, one in made.items()}
    runs = {path: made[path] for path in number.runs if path in made}
    found = {path: one.metrics or read_json(Layout.of(path).metrics) for path, one in runs.items()}
    metrics = {number.name_of(path): values for path, values in found.items()}
    ours = [value_at(found[path], config.key, Layout.of(path).metrics) for path in runs if path in number.own_runs]
    mean = fmean(ours) if ours else None
    reference = Path(config.reference) if config.reference else None
    machines = {path: one.machine for path, one in runs.items()}
    before = _known_before(number, kept, known.get("machine_before", {}))
    before |= {path: one.machine for path, one in stages.items() if path not in number.runs and one.machine}
    tasks = task_reports(config.tasks, found, seconds, machines, reference=reference)
    finished = [path for path in number.deciding_runs if path in runs]
    is_whole = len(finished) == len(number.deciding_runs)
    # What the number was made with: its last run that decides, of those made here if there is one.
    last = made[max(reversed(runs), key=lambda path: (path in finished, path in stages))]
    by_stage = {_label(path, number): round(value, 1) for path, value in seconds.items()}
    mean_of_tasks = average(tasks, config.average_of)
    flops = _flops(number, finished, made, known)
    missed = unmet(config.goals, tasks, average=mean_of_tasks, seconds=by_stage)
    report: dict[str, Any] = {
        "id": number.id,
        "source": config.source,
        "metric": config.metric,
        "key": config.key,
        "reported": config.reported if config.reported is not None else reference_mean(config.tasks, tasks),
        "reach": config.reach,
        "ours": ours,
        "mean": mean,
        "spread": stdev(ours) if len(ours) > 1 else None,
        "reached": _reaches(mean, config.reach) and not missed if is_whole else None,
        "num_runs": {"finished": len(finished), "planned": len(number.deciding_runs)},
        "signatures": _signatures(metrics),
        "runs": metrics,
        "command": f"{_chosen(last.machine, before.values())}make reproduce NUMBER={number.id} DATA=FOLDER",
        "flops": sum(flops.values()),
        "flops_by_stage": flops,
        "seconds": sum(seconds.values()),
        "seconds_by_stage": by_stage,
        "versions": dict(last.versions),
        "machine": dict(last.machine),
        "machine_before": {_label(path, number): machine for path, machine in before.items()},
        "made": {number.name_of(path): one.record(configuration_of(number, path)) for path, one in runs.items()},
        "note": config.note,
    }
    if tasks:
        report |= {"tasks": tasks, "mean_margin": mean_margin(tasks), "unmet": missed, "average": mean_of_tasks}
    write_json(number.report, report)
    return report


def _chosen(last: Mapping[str, Any], before: Iterable[Mapping[str, Any]]) -> str:
    """How the runtime was asked for, if it was: that of the last run, else that of a stage before the runs."""
    asked = [one.get("runtime", NO_RUNTIME) for one in (last, *before)]
    name = next((one for one in asked if one != NO_RUNTIME), None)
    return f"PIPELINE_RUNTIME={name} " if name else ""


def _reaches(mean: float | None, reach: float | None) -> bool:
    return reach is None or (mean is not None and mean >= reach)


def _kept(number: Number, report: Mapping[str, Any]) -> dict[Path, Made]:
    """The runs of a report whose configuration, and that of the stages before them, is still the same."""
    kept = {}
    for path in number.runs:
        name = number.name_of(path)
        if name not in report.get("runs", {}):
            continue
        record = report.get("made", {}).get(name, {})
        if record.get("configuration") == configuration_of(number, path):
            kept[path] = Made.of(record, report["runs"][name])
        else:
            _log.warning("%s: %s was made with another configuration, and is left out", number.report, name)
    return kept


def _known_before(number: Number, runs: Iterable[Path], known: Mapping[str, Known]) -> dict[Path, Known]:
    """What a report says, by name, of the stages before some of its runs, for which another call may have no use."""
    before = dict.fromkeys(path for run in runs for path in number.before(run))
    return {path: known[_label(path, number)] for path in before if _label(path, number) in known}


def _flops(
    number: Number, decide: Iterable[Path], stages: Mapping[Path, Made], report: Mapping[str, Any]
) -> dict[str, float]:
    """Operations of the runs that decide and of what they start from, as far as the stages count theirs.

    `stages` are those that are known; of others the report of another machine says it.
    """
    found = {}
    for path in dict.fromkeys(path for run in decide for path in (*number.before(run), run) if path in number.stages):
        label = _label(path, number)
        metrics = _metrics(path, stages[path]) if path in stages else {}
        flops = metrics.get("training", {}).get("flops", report.get("flops_by_stage", {}).get(label))
        if flops is not None:
            found[label] = float(flops)
    return found


def _metrics(path: Path, made: Made) -> Mapping[str, Any]:
    file = Layout.of(path).metrics
    return made.metrics or (read_json(file) if file.is_file() else {})


def configuration_of(number: Number, run: Path) -> str:
    """Stands for the files that a run depends on: its own, those of the stages before it and of the number it needs."""
    return content_hash([*number.before(run), run])


def above(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Whether a number exceeds the one that its number.yaml names, if it names one, among the reports.

    `holds` is empty as long as that one has no report, or seeds of either are still to come.
    """
    name = load(CONFIGURATIONS / report["id"] / "number.yaml", NumberConfig).above
    if not name:
        return None
    lower = next((one for one in reports if one["id"] == name), None)
    if lower is None:
        return {"number": name, "mean": None, "holds": None}
    is_whole = all(one["num_runs"]["finished"] == one["num_runs"]["planned"] for one in (report, lower))
    if lower["mean"] is None:
        return {"number": name, "mean": None, "holds": None}
    return {"number": name, "mean": lower["mean"], "holds": report["mean"] > lower["mean"] if is_whole else None}


@dataclass(frozen=True)
class Convention:
    """A BLEU of the same translations by one of the ways to count words."""

    name: str
    mean: float
    """Over the runs."""
    signature: str


def conventions(report: Mapping[str, Any]) -> list[Convention]:
    """Every BLEU that the runs of a number have, that of the number first; none of a number that is no BLEU."""
    own, _, system = report["key"].rpartition(".")
    runs = list(report["runs"].values())
    if own not in CONVENTIONS or not runs:
        return []
    keys = [own, *(key for key in CONVENTIONS if key != own and all(key in metrics for metrics in runs))]
    return [
        Convention(CONVENTIONS[key], fmean(metrics[key][system] for metrics in runs), report["signatures"][key])
        for key in keys
    ]


def _label(path: Path, number: Number) -> str:
    """A stage's name, that of its number before it when this is another one."""
    layout = Layout.of(path)
    return layout.stage if layout.profile == number.id else f"{layout.profile}/{layout.stage}"


def _signatures(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The signature of each score; those of all runs are the same."""
    found = {
        name: score["signature"]
        for values in metrics.values()
        for name, score in values.items()
        if isinstance(score, dict) and "signature" in score
    }
    return dict(sorted(found.items()))


def read_reports() -> list[dict[str, Any]]:
    """The committed figures, by id."""
    return [read_json(path) for path in sorted(REPORTS.glob("*.json"))]
