"""A published number that we reproduce: what conf/numbers/ID/number.yaml says of it, and the stages that make it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from pipeline.config import Config, load
from pipeline.layout import Layout
from pipeline.numbers.stages import ORDER, check_tasks, in_order_of_work, read_by, stage_of
from pipeline.numbers.tasks import KEY, Goals, TaskFigures, bystanders, task_of

CONFIGURATIONS = Path("conf/numbers")
REPORTS = Path("reports/numbers")


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
        if self.goals != Goals() and not self.tasks:
            raise ValueError("goals are those of tasks, and there are none")
        if self.goals.average is not None and not self.average_of:
            raise ValueError("goals.average is that of the tasks of average_of, which names none")
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


def open_number(name: str, *, needed_by: tuple[str, ...] = ()) -> Number:
    """Reads one number, its stages in the order of the chain, and those that it needs.

    ValueError for an unknown id, a file of no stage, numbers that need each other, and one that cannot be above the
    one that it names.
    """
    folder = CONFIGURATIONS / name
    if name not in all_numbers():
        raise ValueError(f"{name}: no such number; there are {', '.join(all_numbers()) or 'none'}")
    stages = [path for path in sorted(folder.rglob("*.yaml")) if path != folder / "number.yaml"]
    foreign = [str(path) for path in stages if stage_of(path) not in ORDER]
    if foreign or not stages:
        raise ValueError(f"{folder}: expected files of the stages {', '.join(ORDER)}; found {foreign or 'none'}")
    config = load(folder / "number.yaml", NumberConfig)
    tasks = list(config.tasks)
    stages.sort(
        key=lambda path: (
            ORDER.index(stage_of(path)),
            tasks.index(task_of(path)) if task_of(path) in tasks else 0,
            path,
        )
    )
    check_tasks(folder / "number.yaml", config.tasks, stages, key=config.key, average_of=config.average_of)
    _check_ladder(name, config)
    if unknown := sorted(set(config.goals.max_seconds) - {Layout.of(path).stage for path in stages}):
        raise ValueError(f"{folder / 'number.yaml'}: goals.max_seconds: {', '.join(unknown)}: no stage of this number")
    if name in needed_by:
        raise ValueError(f"{folder / 'number.yaml'}: needs: {' needs '.join([*needed_by, name])}, itself")
    needs = open_number(config.needs, needed_by=(*needed_by, name)) if config.needs else None
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
