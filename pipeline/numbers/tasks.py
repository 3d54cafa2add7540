"""A number that is made of several tasks: the figures of each beside its baselines, another task's, and a reference.

The runs of a task are the configurations in the folder of its name, one a seed: finetune/RTE/seed-1.yaml.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pydantic import Field, PositiveFloat, model_validator

from pipeline.artifacts import read_json
from pipeline.config import Config


class Goals(Config):
    """What the tasks of a number have to reach together, beside the figure of the first one."""

    mean_margin: float | None = None
    """Every task is above the one that it names, and by so much on average."""
    within_spread: bool = False
    """Every task equals the reference: within the spread of the seeds, or with one seed within what `rows` allows."""
    time_share: float | None = None
    """Every task takes at most this share of the reference's time."""
    average: float | None = None
    """The average of the tasks that `average_of` names reaches it."""
    max_seconds: Mapping[str, PositiveFloat] = {}
    """Stages by name, as `pretrain_bert`, that take at most so many seconds, all attempts together."""


KEY = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$"
"""Pattern of the keys at which figures stand in metrics."""


class Scaled(Config):
    """A figure that a report gives in another unit than the run that measured it."""

    key: str = Field(pattern=KEY)
    """Where the figure stands, as `score.accuracy`."""
    times: PositiveFloat
    """Its factor: 100 makes percent of a share."""


class TaskFigures(Config):
    """What is read from the metrics of a task's runs."""

    key: str = Field(pattern=KEY)
    """Where the figure stands, as `score.glue`."""
    reported: float | None = None
    """The published figure of this task, where there is one."""
    reach: float | None = None
    """The figure that our mean has to reach, where this task has one of its own."""
    rows: str = Field(default="", pattern=f"{KEY}|^$")
    """Where the number of scored rows stands, as `num_texts.valid`, for a figure that is an accuracy in percent: what
    one seed is compared by. Empty for other figures, of which one seed decides nothing."""
    beside: Mapping[str, str | Scaled] = {}
    """Other figures of the same runs by their names, each at its key: more scores, and what knows less."""
    beside_tasks: Mapping[str, str] = {}
    """Other tasks of this number by names for their figures, which stand in this one's row: other networks, that no
    verdict waits for."""
    above: str = ""
    """Another task of this number whose mean this one's has to exceed."""
    pretraining: str = ""
    """The stage whose model its runs start from, as `pretrain_gpt`, which no task reads that does not name it: it runs
    right before them. Empty where they read every stage before them."""

    @model_validator(mode="after")
    def _names_are_different(self) -> "TaskFigures":
        if both := set(self.beside) & set(self.beside_tasks):
            raise ValueError(f"beside and beside_tasks: both have {', '.join(sorted(both))}")
        return self


def task_of(path: Path) -> str:
    """The task of a configuration, by its folder."""
    return path.parent.name


def bystanders(tasks: Mapping[str, TaskFigures]) -> set[str]:
    """The tasks whose figures only stand beside another's."""
    return {other for task in tasks.values() for other in task.beside_tasks.values()}


def task_reports(
    tasks: Mapping[str, TaskFigures],
    runs: Mapping[Path, Mapping[str, Any]],
    seconds: Mapping[Path, float],
    machines: Mapping[Path, Mapping[str, Any]],
    *,
    reference: Path | None,
) -> dict[str, Any]:
    """The figures of every task with a finished run; `runs` are the metrics by configuration, `seconds` what each took.

    Times are compared with those of the reference where all runs of a task, and the reference, had the same machine.

    `reference` is a file of somebody else's figures: for each task `ours` and `seconds`, one a seed, with their source.
    """
    by_task = {
        name: {path: metrics for path, metrics in runs.items() if task_of(path) == name}
        for name in tasks
        if any(task_of(path) == name for path in runs)
    }
    found: dict[str, Any] = {}
    for name, mine in by_task.items():
        figures = tasks[name]
        ours = [value_at(metrics, figures.key, path) for path, metrics in mine.items()]
        found[name] = {
            **_spread(ours),
            "key": figures.key,
            "reported": figures.reported,
            "reach": figures.reach,
            "seconds": [round(seconds[path], 1) for path in mine],
            "beside": {
                other: _spread([_in_unit(metrics, figure, path) for path, metrics in mine.items()])
                for other, figure in figures.beside.items()
            },
        }
    for name, one in found.items():
        other = tasks[name].above
        if other in found:
            margin = one["mean"] - found[other]["mean"]
            one["above"] = {"task": other, "margin": margin, "holds": margin > 0}
        for label, beside in tasks[name].beside_tasks.items():
            if beside in found:
                one["beside"][label] = {part: found[beside][part] for part in ("ours", "mean", "spread")}
                found[beside]["in_row_of"] = name
    if reference is not None and reference.is_file():
        known = read_json(reference)
        for name, theirs in known["tasks"].items():
            if name in found:
                same = all(machines[path] == known.get("machine") for path in by_task[name])
                rows = {
                    int(value_at(one, tasks[name].rows, path))
                    for path, one in by_task[name].items()
                    if tasks[name].rows
                }
                found[name]["reference"] = compare(
                    found[name], theirs, same_machine=same, num_rows=min(rows, default=None)
                )
    return found


def average(reports: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """The mean over the tasks of their means; None as long as one of them has none."""
    return fmean(reports[name]["mean"] for name in names) if names and set(names) <= set(reports) else None


def mean_margin(reports: Mapping[str, Any]) -> float | None:
    """How far the tasks are above those that they are to exceed, on average; None without such tasks."""
    margins = [one["above"]["margin"] for one in reports.values() if "above" in one]
    return fmean(margins) if margins else None


def reference_mean(tasks: Mapping[str, TaskFigures], reports: Mapping[str, Any]) -> float | None:
    """The reference's mean of the first task; None as long as one of both has not been run."""
    first: Mapping[str, Any] = reports.get(next(iter(tasks), ""), {})
    found: float | None = first.get("reference", {}).get("mean")
    return found


def unmet(
    goals: Goals,
    reports: Mapping[str, Any],
    *,
    average: float | None = None,
    seconds: Mapping[str, float] | None = None,
) -> list[str]:
    """What the tasks have not reached, in words. `seconds` are those of the stages by name."""
    found = []
    if goals.mean_margin is not None:
        below = [name for name, one in reports.items() if "above" in one and not one["above"]["holds"]]
        found += [f"{name} is not above {reports[name]['above']['task']}" for name in below]
        margin = mean_margin(reports)
        if margin is None or margin < goals.mean_margin:
            found.append(f"the mean margin is {margin}, to reach {goals.mean_margin}")
    for name, one in reports.items():
        if one.get("reach") is not None and one["mean"] < one["reach"]:
            found.append(f"{name} missed {one['reach']:.2f} by {one['reach'] - one['mean']:.2f}")
        if "in_row_of" not in one:
            found += _unlike_reference(goals, name, one.get("reference"))
    if goals.average is not None and (average is None or average < goals.average):
        mean = "not known yet" if average is None else f"{average:.2f}"
        found.append(f"the average is {mean}, to reach {goals.average:.2f}")
    for stage, allowed in goals.max_seconds.items():
        took = (seconds or {}).get(stage)
        if took is None or took > allowed:
            found.append(
                f"{stage} took {'no known time' if took is None else f'{took:.0f} s'}, at most {allowed:.0f} s"
            )
    return found


def _unlike_reference(goals: Goals, name: str, reference: Mapping[str, Any] | None) -> list[str]:
    """In what a task has not been shown to be like its reference."""
    if not goals.within_spread and goals.time_share is None:
        return []
    if reference is None:
        return [f"{name} has no reference yet"]
    found = []
    if goals.within_spread and reference["is_within_spread"] is None:
        found.append(f"{name} is not decided, with too few seeds")
    if goals.within_spread and reference["is_within_spread"] is False:
        found.append(f"{name} differs from the reference by more than {reference['bound']:.2f}")
    share = reference["time_share"]
    if goals.time_share is not None and share is None:
        found.append(f"{name} has no time beside the reference's, on one machine and with as many seeds")
    if goals.time_share is not None and share is not None and share > goals.time_share:
        found.append(f"{name} takes more than {goals.time_share:.2f} of the reference's time")
    return found


def compare(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, same_machine: bool, num_rows: int | None = None
) -> dict[str, Any]:
    """Our seeds beside another program's: both means, whether they differ by more than chance, and the ratio of times.

    Times of different machines have no ratio.

    Nothing is decided, and no time compared, before the reference has as many seeds as ours.

    With several seeds on both sides the means may be apart by twice the standard error of their difference, the root of
    s^2 / n summed over both. With one seed on a side, and a figure that is an accuracy in percent on `num_rows` rows,
    by twice the binomial standard error of the reference's, the root of p (1 - p) / `num_rows`: both sides are scored
    on the same rows, so that the error of one alone is asked of the difference. Else nothing is decided.
    """
    other = _spread(theirs["ours"])
    difference = ours["mean"] - other["mean"]
    bound, is_whole = None, len(other["ours"]) >= len(ours["ours"])
    if not is_whole:
        num_rows = None
    elif ours["spread"] is not None and other["spread"] is not None:
        bound = 2 * sum(one["spread"] ** 2 / len(one["ours"]) for one in (ours, other)) ** 0.5
        num_rows = None
    elif num_rows is not None:
        bound = 2 * (other["mean"] * (100 - other["mean"]) / num_rows) ** 0.5
    return {
        **other,
        "seconds": theirs["seconds"],
        "difference": difference,
        "bound": bound,
        "rows": num_rows,
        "is_within_spread": None if bound is None else abs(difference) <= bound,
        "time_share": fmean(ours["seconds"]) / fmean(theirs["seconds"]) if same_machine and is_whole else None,
    }


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"ours": list(values), "mean": fmean(values), "spread": stdev(values) if len(values) > 1 else None}


def _in_unit(metrics: Mapping[str, Any], figure: str | Scaled, path: Path) -> float:
    if isinstance(figure, str):
        return value_at(metrics, figure, path)
    return figure.times * value_at(metrics, figure.key, path)


def value_at(values: Any, key: str, path: Path) -> float:
    """The figure at a dotted key of a run's metrics; ValueError names the run where there is none."""
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ValueError(f"{path}: no {key}, which number.yaml names")
        values = values[part]
    return float(values)
