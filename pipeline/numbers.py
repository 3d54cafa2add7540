"""A published number that we reproduce: what conf/numbers/ID/number.yaml says of it, and the file with our figures.

reports/numbers/ID.json holds the figures of every seed that has finished, what they cost, and how to get them again.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import Field, model_validator

from pipeline.artifacts import read_json, write_json
from pipeline.config import Config, load
from pipeline.layout import Layout
from pipeline.number_made import NO_RUNTIME, Made
from pipeline.number_stages import check_tasks, in_order_of_work, read_by, stage_of
from pipeline.number_tasks import (
    KEY,
    Goals,
    TaskFigures,
    average,
    bystanders,
    mean_margin,
    reference_mean,
    task_of,
    task_reports,
    tasks_table,
    unmet,
    value_at,
)
from pipeline.provenance import content_hash
from pipeline.report.table import write_between

_log = logging.getLogger(__name__)
CONFIGURATIONS = Path("conf/numbers")
REPORTS = Path("reports/numbers")
BEGIN, END = "<!-- numbers: written by `make reproduce` -->", "<!-- end of numbers -->"

_HEAD = ("Number", "Published", "Ours: mean (seeds)", "To reach", "To be above", "Hours a seed", "Source")


class NumberConfig(Config):
    """What is reproduced."""

    source: str
    """Who reported it, and where."""
    metric: str
    """What is measured, and how, in words."""
    key: str = Field(pattern=KEY)
    """Where the figure stands in the metrics of the last stage, as `tokenised_bleu.beam`."""
    reported: float | None = None
    """The published figure; without one, a `reference` that is run here takes its place."""
    reach: float | None = None
    """The figure that our mean has to reach; none where the `goals` say all."""
    needs: str = ""
    """Another number, whose models this one goes on with; its stages run first."""
    above: str = ""
    """Another number of the same metric that our mean has to exceed, as the published one does: a step of a ladder."""
    tasks: Mapping[str, TaskFigures] = {}
    """The tasks that the number is made of, whose runs are in folders of these names; `key`, `reported` and `reach` are
    those of the first. None for a number of one task."""
    average_of: tuple[str, ...] = ()
    """The tasks whose means are averaged, as the average of GLUE; none for no average."""
    goals: Goals = Goals()
    """What the tasks have to reach together."""
    reference: str = ""
    """A file with another program's figures for the same tasks, measured on this machine."""

    @model_validator(mode="after")
    def _has_something_to_reach(self) -> "NumberConfig":
        if self.reported is None and not self.reference:
            raise ValueError("a number needs reported, what was published, or a reference that is run here")
        if self.reach is None and self.goals == Goals():
            raise ValueError("a number needs reach, or goals for its tasks")
        return self

    needs_gpu: bool = False
    """Whether a processor alone would take weeks."""
    note: str = ""
    """What differs from the published setting."""


@dataclass(frozen=True)
class Number:
    """A published number with the files of the stages that make it."""

    id: str
    config: NumberConfig
    stages: tuple[Path, ...]
    """Configuration of each stage in the order of their work; the last one is a training."""
    needs: "Number | None" = None
    """The number that is made first."""

    @property
    def report(self) -> Path:
        """The file with our figures."""
        return REPORTS / f"{self.id}.json"

    @property
    def all_stages(self) -> tuple[Path, ...]:
        """Configuration of each stage behind those of the numbers that it needs."""
        return (*(self.needs.all_stages if self.needs else ()), *self.stages)

    @property
    def runs(self) -> tuple[Path, ...]:
        """The trainings of the last stage: one for each seed, of every task."""
        last = stage_of(self.stages[-1])
        return tuple(path for path in self.stages if stage_of(path) == last)

    @property
    def deciding_runs(self) -> tuple[Path, ...]:
        """The trainings that the number is made of: without those that only stand beside it."""
        others = bystanders(self.config.tasks)
        return tuple(path for path in self.runs if task_of(path) not in others)

    @property
    def own_runs(self) -> tuple[Path, ...]:
        """The trainings whose metrics hold the number's own figure: those of the first task."""
        first = next(iter(self.config.tasks), "")
        return tuple(path for path in self.runs if not first or task_of(path) == first)

    def before(self, path: Path) -> tuple[Path, ...]:
        """The stages that one reads, behind all of the numbers that this one needs."""
        own = read_by(path, self.stages, self.config.tasks)
        return (*(self.needs.all_stages if self.needs else ()), *own)

    def name_of(self, run: Path) -> str:
        """A run's name among those of its number: its seed, behind its task where there are several."""
        return f"{task_of(run)}/{run.stem}" if self.config.tasks else run.stem


def all_numbers() -> list[str]:
    """The ids, sorted."""
    return sorted(path.parent.name for path in CONFIGURATIONS.glob("*/number.yaml"))


def open_number(name: str, order: Sequence[str], *, needed_by: tuple[str, ...] = ()) -> Number:
    """Reads one number, its stages sorted by `order`, and those that it needs.

    ValueError for an unknown id, a file of no stage, numbers that need each other, and one that cannot be above the
    one that it names.
    """
    folder = CONFIGURATIONS / name
    if name not in all_numbers():
        raise ValueError(f"{name}: no such number; there are {', '.join(all_numbers()) or 'none'}")
    stages = [path for path in sorted(folder.rglob("*.yaml")) if path != folder / "number.yaml"]
    foreign = [str(path) for path in stages if stage_of(path) not in order]
    if foreign or not stages:
        raise ValueError(f"{folder}: expected files of the stages {', '.join(order)}; found {foreign or 'none'}")
    config = load(folder / "number.yaml", NumberConfig)
    tasks = list(config.tasks)
    stages.sort(
        key=lambda path: (
            order.index(stage_of(path)),
            tasks.index(task_of(path)) if task_of(path) in tasks else 0,
            path,
        )
    )
    check_tasks(folder / "number.yaml", config.tasks, stages, key=config.key, average_of=config.average_of)
    _check_ladder(name, config)
    if name in needed_by:
        raise ValueError(f"{folder / 'number.yaml'}: needs: {' needs '.join([*needed_by, name])}, itself")
    needs = open_number(config.needs, order, needed_by=(*needed_by, name)) if config.needs else None
    return Number(name, config, in_order_of_work(stages, config.tasks), needs)


def _check_ladder(name: str, config: NumberConfig) -> None:
    """ValueError where a number is to be above an unknown one, one of another metric, or one published no lower."""
    if not config.above:
        return
    file = CONFIGURATIONS / name / "number.yaml"
    if config.above not in all_numbers():
        raise ValueError(f"{file}: above: {config.above}: no such number; there are {', '.join(all_numbers())}")
    lower = load(CONFIGURATIONS / config.above / "number.yaml", NumberConfig)
    if (lower.metric, lower.key) != (config.metric, config.key):
        raise ValueError(
            f"{file}: above: {config.above} measures {lower.metric} ({lower.key}), "
            f"this one {config.metric} ({config.key}): expected the same"
        )
    if lower.reported is None or config.reported is None:
        raise ValueError(f"{file}: above: {config.above}: a step of a ladder is between two published figures")
    if lower.reported >= config.reported:
        raise ValueError(
            f"{file}: above: {config.above} is published with {lower.reported}, this one with {config.reported}: "
            "expected a lower one"
        )


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
    seconds = _seconds_before(number, kept, known) | {path: one.seconds for path, one in made.items()}
    runs = {path: made[path] for path in number.runs if path in made}
    found = {path: one.metrics or read_json(Layout.of(path).metrics) for path, one in runs.items()}
    metrics = {number.name_of(path): values for path, values in found.items()}
    ours = [value_at(found[path], config.key, Layout.of(path).metrics) for path in runs if path in number.own_runs]
    mean = fmean(ours) if ours else None
    reference = Path(config.reference) if config.reference else None
    machines = {path: one.machine for path, one in runs.items()}
    tasks = task_reports(config.tasks, found, seconds, machines, reference=reference)
    finished = [path for path in number.deciding_runs if path in runs]
    is_whole = len(finished) == len(number.deciding_runs)
    # What the number was made with: its last run that decides, of those made here if there is one.
    last = made[max(reversed(runs), key=lambda path: (path in finished, path in stages))]
    missed = unmet(config.goals, tasks)
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
        "command": f"{_chosen(last.machine)}make reproduce NUMBER={number.id} DATA=FOLDER",
        "flops": sum(float(values["training"]["flops"]) for values in metrics.values()),
        "seconds": sum(seconds.values()),
        "seconds_by_stage": {_label(path, number): round(value, 1) for path, value in seconds.items()},
        "versions": dict(last.versions),
        "machine": dict(last.machine),
        "made": {number.name_of(path): one.record(_configuration(number, path)) for path, one in runs.items()},
        "note": config.note,
    }
    if tasks:
        report |= {"tasks": tasks, "mean_margin": mean_margin(tasks), "unmet": missed}
        report["average"] = average(tasks, config.average_of)
    others = [other for other in read_reports() if other["id"] != number.id]
    report["above"] = above(report, others)
    write_json(number.report, report)
    for other in others:
        step = above(other, [report])
        if step is not None and step["number"] == number.id:
            write_json(REPORTS / f"{other['id']}.json", other | {"above": step})
    return report


def _chosen(machine: Mapping[str, int | str]) -> str:
    """How the runtime was asked for, if it was."""
    name = machine.get("runtime", NO_RUNTIME)
    return "" if name == NO_RUNTIME else f"PIPELINE_RUNTIME={name} "


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
        if record.get("configuration") == _configuration(number, path):
            kept[path] = Made.of(record, report["runs"][name])
        else:
            _log.warning("%s: %s was made with another configuration, and is left out", number.report, name)
    return kept


def _seconds_before(number: Number, runs: Iterable[Path], report: Mapping[str, Any]) -> dict[Path, float]:
    """What the stages before runs of a report took, which a call for other runs may have no use for."""
    before = dict.fromkeys(path for run in runs for path in number.before(run))
    found = {path: report["seconds_by_stage"].get(_label(path, number)) for path in before}
    return {path: seconds for path, seconds in found.items() if seconds is not None}


def _configuration(number: Number, run: Path) -> str:
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


def order(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    """The same in words: nothing where there is no number to exceed."""
    step = above(report, reports)
    if step is None:
        return ""
    if step["mean"] is None:
        return f"`{step['number']}`, not run yet"
    verdict = {True: "holds", False: "does not hold", None: "not all seeds yet"}[step["holds"]]
    return f"`{step['number']}` {step['mean']:.2f}, {verdict}"


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


def markdown_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table for the README."""
    lines = [f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    lines += [f"| {' | '.join(_cells(report, reports))} |" for report in reports]
    tasks = tasks_table(reports)
    return "\n".join([*lines, *(["", tasks] if tasks else [])])


def _cells(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    spread = "" if report["spread"] is None else f" ± {report['spread']:.2f}"
    runs = report["num_runs"]
    count = f"{runs['finished']}" if runs["finished"] == runs["planned"] else f"{runs['finished']} of {runs['planned']}"
    if (versions := _code_versions(report)) > 1:
        count += f", {versions} versions of the code"
    verdict = "not all seeds yet"
    if report["reached"] is not None:
        is_below = report["reach"] is not None and report["mean"] < report["reach"]
        shortfalls = [f"missed by {report['reach'] - report['mean']:.2f}"] if is_below else []
        verdict = "reached" if report["reached"] else "; ".join([*shortfalls, *report.get("unmet", [])])
    longest = max(report["seconds_by_stage"].values()) / 3600
    return (
        f"`{report['id']}`: {report['metric']}",
        shown(report["reported"]),
        f"{shown(report['mean'])}{spread} ({count})",
        ", ".join([*([shown(report["reach"])] if report["reach"] is not None else []), verdict]),
        order(report, reports),
        f"{longest:.1f}",
        report["source"],
    )


def _code_versions(report: Mapping[str, Any]) -> int:
    """How many versions of the code the runs that decide were made with.

    They are counted among those that start from the same stage: those of two stages have different code anyway.
    """
    tasks = load(CONFIGURATIONS / report["id"] / "number.yaml", NumberConfig).tasks
    codes: dict[str, set[str]] = {}
    for name, made in report.get("made", {}).items():
        task = name.partition("/")[0]
        if task not in bystanders(tasks):
            codes.setdefault(tasks[task].pretraining if task in tasks else "", set()).add(made["code"])
    return max(map(len, codes.values()), default=0)


def shown(figure: float | None) -> str:
    """A figure with two digits; a dash where there is none."""
    return "—" if figure is None else f"{figure:.2f}"


def write_readme(readme: Path) -> None:
    """Puts the table of all reports between the markers of a file; ValueError when they are missing."""
    write_between(readme, BEGIN, markdown_table(read_reports()), END)
