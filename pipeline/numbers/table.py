"""The figures of all published numbers as tables for the README."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import load
from pipeline.numbers.number import CONFIGURATIONS, NumberConfig
from pipeline.numbers.report import above, conventions, read_reports
from pipeline.numbers.tasks import bystanders
from pipeline.report.table import write_between

BEGIN, END = "<!-- numbers: written by `make reproduce` -->", "<!-- end of numbers -->"

_HEAD = ("Number", "Published", "Ours: mean (seeds)", "To reach", "To be above", "Runs x hours; all stages", "Source")
_TASK_HEAD = (
    "Number",
    "Task",
    "Published; to reach",
    "Ours: mean (seeds)",
    "Beside it",
    "Margin",
    "Reference: mean (seeds), difference, time",
)


def order(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> str:
    """In words what `above` says: nothing where there is no number to exceed."""
    step = above(report, reports)
    if step is None:
        return ""
    if step["mean"] is None:
        return f"`{step['number']}`, not run yet"
    verdict = {True: "holds", False: "does not hold", None: "not all seeds yet"}[step["holds"]]
    return f"`{step['number']}` {step['mean']:.2f}, {verdict}"


def markdown_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """A table for the README."""
    lines = [f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    lines += [f"| {' | '.join(_cells(report, reports))} |" for report in reports]
    notes, tasks = footnotes(reports), tasks_table(reports)
    return "\n\n".join(["\n".join(lines), *([notes] if notes else []), *([tasks] if tasks else [])])


def _cells(report: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    spread = "" if report["spread"] is None else f" ± {report['spread']:.2f}"
    count = _seeds(report)
    if (versions := _code_versions(report)) > 1:
        count += f", {versions} versions of the code"
    verdict = "not all seeds yet"
    if report["reached"] is not None:
        is_below = report["reach"] is not None and report["mean"] < report["reach"]
        shortfalls = [f"missed by {report['reach'] - report['mean']:.2f}"] if is_below else []
        verdict = "reached" if report["reached"] else "; ".join([*shortfalls, *report.get("unmet", [])])
    return (
        f"`{report['id']}`: {report['metric']}",
        shown(report["reported"]),
        f"{shown(report['mean'])}{spread} ({count}){_beside(report)}",
        ", ".join([*([shown(report["reach"])] if report["reach"] is not None else []), verdict]),
        order(report, reports),
        _hours(report),
        report["source"],
    )


def _beside(report: Mapping[str, Any]) -> str:
    """The other ways to count the words of BLEU, of the same translations; empty where there is none."""
    others = [f"{one.name} {shown(one.mean)}" for one in conventions(report)[1:]]
    return f"; beside it {', '.join(others)}" if others else ""


def _hours(report: Mapping[str, Any]) -> str:
    """How many runs, what one of them took on average, and the total with the stages before them."""
    by_stage = report["seconds_by_stage"]
    # A number that is needed has its name before its stages, and its runs may be called the same.
    labels = [
        min((label for label in by_stage if f"/{label}".endswith(f"/{name}")), key=len) for name in report["runs"]
    ]
    runs = [by_stage[label] for label in labels]
    return f"{len(runs)} x {sum(runs) / len(runs) / 3600:.2f}; {report['seconds'] / 3600:.1f}"


def _seeds(report: Mapping[str, Any]) -> str:
    """How many runs the figure is the mean of, and of a number with tasks how many of all have finished."""
    runs, seeds = report["num_runs"], len(report["ours"])
    if runs["finished"] == runs["planned"]:
        return f"{seeds}"
    of_all = f"{runs['finished']} of {runs['planned']}"
    return f"{seeds}; {of_all} runs" if report.get("tasks") else of_all


def footnotes(reports: Sequence[Mapping[str, Any]]) -> str:
    """What has to be known beside the figures, each remark once behind the numbers that it is about; empty for none."""
    found: dict[str, list[str]] = {}
    for report in reports:
        note = load(CONFIGURATIONS / report["id"] / "number.yaml", NumberConfig).note
        remarks = [note] if note else []
        if not report.get("made") or not report.get("machine"):
            remarks.append("Made before the machine and the code of a run were recorded.")
        for remark in remarks:
            found.setdefault(remark, []).append(f"`{report['id']}`")
    return "\n".join(f"- {', '.join(ids)}: {remark}" for remark, ids in found.items())


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


def tasks_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """The tasks of all numbers that have some, for the README; empty where none has."""
    rows = [
        (
            f"`{report['id']}`",
            name,
            "; ".join(shown(figure) for figure in (one["reported"], one.get("reach")) if figure is not None),
            _shown(one),
            ", ".join(f"{other} {_shown(values)}" for other, values in one["beside"].items()),
            f"{one['above']['margin']:+.2f} over {one['above']['task']}" if "above" in one else "",
            _beside_reference(one.get("reference")),
        )
        for report in reports
        for name, one in report.get("tasks", {}).items()
        if one.get("in_row_of") not in report["tasks"]
    ]
    rows += [
        (
            f"`{report['id']}`",
            f"average of {', '.join(_config(report).average_of)}",
            _average_to_reach(report),
            f"{report['average']:.2f}",
            "",
            "",
            "",
        )
        for report in reports
        if report.get("average") is not None
    ]
    if not rows:
        return ""
    lines = [_TASK_HEAD, ("---",) * len(_TASK_HEAD), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _average_to_reach(report: Mapping[str, Any]) -> str:
    goal = _config(report).goals.average
    return "" if goal is None else shown(goal)


def _config(report: Mapping[str, Any]) -> NumberConfig:
    return load(CONFIGURATIONS / report["id"] / "number.yaml", NumberConfig)


def _shown(one: Mapping[str, Any]) -> str:
    spread = "" if one["spread"] is None else f" ± {one['spread']:.2f}"
    return f"{one['mean']:.2f}{spread} ({len(one['ours'])})"


def _beside_reference(reference: Mapping[str, Any] | None) -> str:
    if reference is None:
        return ""
    side = {True: "within", False: "beyond", None: "one seed, not decided"}[reference["is_within_spread"]]
    rows = reference["rows"]
    chance = "the spread" if rows is None else f"{reference['bound']:.2f}, two standard errors of {rows} rows"
    verdict = side if reference["is_within_spread"] is None else f"{side} {chance}"
    share = reference["time_share"]
    time = "on another machine or other threads" if share is None else f"{share:.2f} of its time"
    return f"{_shown(reference)}: {reference['difference']:+.2f}, {verdict}; {time}"
