"""What a part of the page is made of, apart from how it looks: tables, figures, samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.report.charts import Line, line_chart
from pipeline.report.inputs import RunFiles


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of a row names it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Figures:
    """SVG elements side by side; a wide one takes the whole width."""

    drawings: Sequence[str]
    note: str = ""
    is_wide: bool = False
    kind: str = "figures"


@dataclass(frozen=True)
class Said:
    """A text, who wrote it, and its score where it has one."""

    who: str
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Samples:
    """Texts side by side, each group under what they answer or translate."""

    caption: str
    groups: Sequence[tuple[str, Sequence[Said]]]
    note: str = ""
    kind: str = "samples"


Block = Table | Figures | Samples


@dataclass(frozen=True)
class Section:
    """A part of the page about some stages."""

    title: str
    text: str
    stages: Sequence[str]
    """Stages whose boxes in the graph lead here."""
    blocks: Sequence[Block] = field(default_factory=tuple)


def number(value: float | None, decimals: int = 2) -> str:
    """A number with thousands apart; a dash for none."""
    return "-" if value is None else f"{value:,.{decimals}f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share in percent; a dash for none."""
    return "-" if value is None else f"{100 * value:.{decimals}f}%"


def loss_chart(
    run: RunFiles,
    stage: str,
    title: str,
    columns: Mapping[str, str],
    *,
    y_label: str,
    x_label: str = "optimizer step",
) -> list[str]:
    """Columns of a stage's learning curve under the names in `columns`; nothing if it has none of them."""
    curves = run.curves.get(stage, {})
    lines = [
        Line(name, curve.updates, curve.values, kind="dots" if column.startswith("valid/") else "noisy", colour=colour)
        for colour, (column, name) in enumerate(columns.items(), start=1)
        if (curve := curves.get(column)) is not None
    ]
    return [line_chart(title, lines, x_label=x_label, y_label=y_label)] if lines else []


def figures(*charts: Sequence[str], note: str = "") -> list[Block]:
    """A block of the charts that exist; no block for none."""
    drawings = [drawing for chart in charts for drawing in chart]
    return [Figures(drawings, note)] if drawings else []


def at(values: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted path of a stage's metrics or samples."""
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found
