"""Results beside their baselines and floors. A floor is data of the configuration; a missed one is never hidden."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config import Config
from pipeline.report.inputs import RunFiles

Better = Literal["higher", "lower"]


class AbsoluteFloor(Config):
    """A number that the result must reach."""

    kind: Literal["absolute"]
    bound: float
    """The number; a result for which lower is better must not be above it."""
    strict: bool = False
    """Whether the bound itself is not enough."""


class RelativeFloor(Config):
    """A bound that follows from a baseline measured in the same run: factor * baseline + offset."""

    kind: Literal["relative"]
    baseline: str
    """Name of a baseline of the same result."""
    factor: float = 1.0
    """Multiplies the baseline."""
    offset: float = 0.0
    """Added to the product."""
    strict: bool = False
    """Whether the bound itself is not enough."""


Floor = Annotated[AbsoluteFloor | RelativeFloor, Field(discriminator="kind")]


@dataclass(frozen=True)
class Source:
    """Where a number stands: a stage and a dotted path in its metrics."""

    stage: str
    path: str


@dataclass(frozen=True)
class ResultSpec:
    """What one row of the results shows."""

    id: str
    stage: str
    """The stage, with its item, that makes the result."""
    title: str
    measure: str
    """What the number is, with its unit."""
    path: str
    """Where it stands in the metrics of the stage."""
    better: Better
    baselines: Mapping[str, Source] = field(default_factory=dict)
    """What knows less, or came before, by name."""
    low: str = ""
    """Path of the lower end of an interval around the number; where there is one, the floor binds this end."""
    high: str = ""
    """Path of its upper end."""
    style: Literal["number", "percent"] = "number"
    decimals: int = 2
    command: str = ""
    """What makes it, where that is no stage of dvc.yaml by its name."""


@dataclass(frozen=True)
class Result:
    """A row of the results; every number is None when its stage has not run."""

    spec: ResultSpec
    value: float | None
    low: float | None
    high: float | None
    baselines: Mapping[str, float | None]
    bound: float | None
    """What the number, or the lower end of its interval, must reach; None without a floor."""
    has_floor: bool
    strict: bool
    """Whether it must go beyond the bound."""
    margin: float | None
    """By how much it is on the right side of the bound; negative when the floor is missed."""
    reached: bool | None
    """None without a floor, and while it cannot be told."""

    @property
    def command(self) -> str:
        """What makes this result."""
        if self.spec.command:
            return self.spec.command
        stage, _, item = self.spec.stage.partition("/")
        return f"dvc repro {stage}@{item}" if item else f"dvc repro {stage}"

    def show(self, value: float | None) -> str:
        """A number in the style of this row."""
        return _show(value, self.spec, signed=False)

    @property
    def shown_value(self) -> str:
        """The number, with its interval where it has one."""
        if self.low is None or self.high is None:
            return self.show(self.value)
        value, low, high = (_show(number, self.spec, signed=True) for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    @property
    def shown_interval(self) -> str:
        """The interval alone; empty where there is none."""
        _, bracket, rest = self.shown_value.partition(" [")
        return f"[{rest}" if bracket else ""

    @property
    def shown_number(self) -> str:
        """The number alone."""
        return self.shown_value.partition(" [")[0]

    @property
    def shown_floor(self) -> str:
        """The bound with its direction; empty without a floor."""
        if self.bound is None:
            return ""
        sign = {"higher": "≥>", "lower": "≤<"}[self.spec.better][self.strict]
        return f"{sign} {self.show(self.bound)}"

    @property
    def verdict(self) -> str:
        """Whether the floor is reached, and by how much it is missed."""
        match self.reached:
            case True:
                return "reached"
            case False:
                assert self.margin is not None
                # A difference of shares is in points, not in percent.
                missing = self.show(-self.margin)
                return f"missed by {missing.removesuffix('%')}{' points' if missing.endswith('%') else ''}"
            case None:
                return "not run" if self.value is None else ""

    def as_json(self) -> dict[str, Any]:
        """Every number at full precision, and as it is shown to people."""
        numbers = {key: value for key, value in asdict(self).items() if key not in ("spec", "has_floor", "strict")}
        texts = {"stage": self.spec.stage, "title": self.spec.title, "measure": self.spec.measure}
        shown = {
            "value": self.shown_value,
            "baselines": ", ".join(f"{name} {self.show(value)}" for name, value in self.baselines.items()),
            "floor": self.shown_floor,
            "verdict": self.verdict,
        }
        return {**texts, "better": self.spec.better, "command": self.command, **numbers, "shown": shown}


def evaluate(specs: Sequence[ResultSpec], floors: Mapping[str, Floor], run: RunFiles) -> list[Result]:
    """The results in the order of `specs`; ValueError for a floor of an unknown result or with an unknown baseline."""
    known = {spec.id for spec in specs}
    unknown = sorted(set(floors) - known)
    if unknown:
        raise ValueError(f"floors: unknown result {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return [_result(spec, floors.get(spec.id), run) for spec in specs]


def _result(spec: ResultSpec, floor: Floor | None, run: RunFiles) -> Result:
    baselines = {name: run.number(source.stage, source.path) for name, source in spec.baselines.items()}
    value = run.number(spec.stage, spec.path)
    low, high = (run.number(spec.stage, path) if path else None for path in (spec.low, spec.high))
    bound = _bound(spec, floor, baselines)
    checked = low if spec.low else value
    margin = reached = None
    if floor is not None and bound is not None and checked is not None:
        margin = checked - bound if spec.better == "higher" else bound - checked
        reached = margin > 0 if floor.strict else margin >= 0
    strict = floor is not None and floor.strict
    return Result(spec, value, low, high, baselines, bound, floor is not None, strict, margin, reached)


def _bound(spec: ResultSpec, floor: Floor | None, baselines: Mapping[str, float | None]) -> float | None:
    match floor:
        case None:
            return None
        case AbsoluteFloor():
            return floor.bound
        case RelativeFloor():
            if floor.baseline not in baselines:
                raise ValueError(
                    f"floors.{spec.id}.baseline: unknown baseline {floor.baseline!r}; known are {sorted(baselines)}"
                )
            baseline = baselines[floor.baseline]
            return None if baseline is None else floor.factor * baseline + floor.offset


def _show(value: float | None, spec: ResultSpec, *, signed: bool) -> str:
    if value is None:
        return "-"
    sign = "+" if signed else ""
    if spec.style == "percent":
        return f"{100 * value:{sign}.{spec.decimals}f}%"
    return f"{value:{sign}.{spec.decimals}f}"
