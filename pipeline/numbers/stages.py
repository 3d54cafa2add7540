"""The stages of a number: in which order they run, which of them each one reads, and whether they fit its tasks.

The order is that of the chain, but for a stage whose model some tasks alone start from: it runs right before the first
of them. So the other tasks do not wait for it, and nothing of them is run again when it changes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.layout import Layout
from pipeline.numbers.tasks import TaskFigures, task_of

ORDER = (
    "fetch",
    "prepare",
    "tokenize",
    "word_vectors",
    "pretrain_bert",
    "pretrain_gpt",
    "pretrain_bilm",
    "finetune",
    "translate",
    "ensemble",
    "sft",
    "reward",
    "reference",
    "dpo",
    "ppo",
)
"""The stages of the chain that a number may have, in the order in which they run."""


def stage_of(configuration: Path) -> str:
    """The stage that a configuration belongs to, without its item."""
    return Layout.of(configuration).stage.split("/")[0]


def in_order_of_work(stages: Sequence[Path], tasks: Mapping[str, TaskFigures]) -> tuple[Path, ...]:
    """Stages in the order of the chain, the last ones the trainings of the tasks, as they are to run."""
    last, own = stage_of(stages[-1]), _own_stages(tasks)
    found = [path for path in stages if stage_of(path) not in {last, *own}]
    for run in (path for path in stages if stage_of(path) == last):
        start = tasks[task_of(run)].pretraining if tasks else ""
        found += [path for path in stages if stage_of(path) == start and path not in found]
        found.append(run)
    return tuple(found)


def read_by(path: Path, stages: Sequence[Path], tasks: Mapping[str, TaskFigures]) -> tuple[Path, ...]:
    """Of stages in the order of their work those that one reads: all before it, but what other tasks start from."""
    last, foreign = stage_of(stages[-1]), _own_stages(tasks)
    if tasks and stage_of(path) == last:
        foreign -= {tasks[task_of(path)].pretraining}
    ahead = stages[: stages.index(path)]
    return tuple(one for one in ahead if stage_of(one) not in {last, stage_of(path), *foreign})


def check_tasks(
    file: Path, tasks: Mapping[str, TaskFigures], stages: Sequence[Path], *, key: str, average_of: Sequence[str]
) -> None:
    """ValueError where the trainings of the last stage are not those of the tasks, or a task names what does not fit.

    `stages` are in the order of the chain, `file` is the number.yaml that has the rest.
    """
    if not tasks:
        return
    own = next(iter(tasks.values()))
    if own.key != key:
        raise ValueError(f"{file}: key: {key} is to be that of the first task, {own.key}")
    trained = {task_of(path) for path in stages if stage_of(path) == stage_of(stages[-1])}
    if trained != set(tasks):
        raise ValueError(f"{file}: tasks: {', '.join(tasks)}; the folders are {', '.join(sorted(trained))}")
    for name in average_of:
        if name not in tasks:
            raise ValueError(f"{file}: average_of: {name}: no such task")
    rows = {next(iter(tasks)), *average_of, *(task.above for task in tasks.values())}
    rows |= {name for name, task in tasks.items() if task.above or task.beside_tasks}
    for name, task in tasks.items():
        if task.above and task.above not in tasks:
            raise ValueError(f"{file}: tasks.{name}.above: {task.above}: no such task")
        for other in task.beside_tasks.values():
            if other not in tasks:
                raise ValueError(f"{file}: tasks.{name}.beside_tasks: {other}: no such task")
            if other in rows:
                raise ValueError(f"{file}: tasks.{name}.beside_tasks: {other}: it counts itself, and has its own row")
            if tasks[other].key != task.key:
                raise ValueError(
                    f"{file}: tasks.{name}.beside_tasks: {other} is measured by {tasks[other].key}, expected {task.key}"
                )
    _check_pretraining(file, tasks, [stage_of(path) for path in stages])


def _check_pretraining(file: Path, tasks: Mapping[str, TaskFigures], stages: Sequence[str]) -> None:
    """ValueError where a task starts from no stage of the number, or a stage behind it could read it too."""
    before = [stage for stage in dict.fromkeys(stages) if stage != stages[-1]]
    named = {name: task.pretraining for name, task in tasks.items() if task.pretraining}
    for name, stage in named.items():
        if stage not in before:
            raise ValueError(f"{file}: tasks.{name}.pretraining: {stage}: there are {', '.join(before)}")
    for name, stage in named.items():
        behind = [other for other in before[before.index(stage) + 1 :] if other not in named.values()]
        if behind:
            raise ValueError(
                f"{file}: tasks.{name}.pretraining: {stage} is before {', '.join(behind)}, which may read it"
            )


def _own_stages(tasks: Mapping[str, TaskFigures]) -> set[str]:
    """The stages whose models some tasks alone start from."""
    return {task.pretraining for task in tasks.values()} - {""}
