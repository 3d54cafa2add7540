"""Plots as SVG for a page that is light or dark: drawn by matplotlib, coloured by the page's own variables.

The same numbers give the same bytes: no dates, and names inside the file from a fixed salt. Text stays text.
"""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Drawn in these colours, which the page's variables then replace.
COLOURS = {f"#0a0b{number:02x}": f"var(--series-{number})" for number in range(1, 9)}
_SERIES = tuple(COLOURS)
_INK, _MUTED, _GRID, _PAGE = "#0c0d01", "#0c0d02", "#0c0d03", "#0c0d04"
_VARIABLES = {**COLOURS, _INK: "var(--ink)", _MUTED: "var(--muted)", _GRID: "var(--rule)", _PAGE: "var(--card)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.8,
}
_MOST_POINTS = 240

Number = float | int


@dataclass(frozen=True)
class Line:
    """A series of a line chart."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    kind: Literal["line", "noisy", "dots", "dashed"] = "line"
    """A noisy line is shown as the means of its neighbourhoods; dots stand where something was measured."""
    colour: int = 1


@dataclass(frozen=True)
class Point:
    """A labelled point, with its standard errors where it has any."""

    name: str
    x: Number
    y: Number
    x_error: Number = 0.0
    colour: int = 1


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    points: Sequence[Point] = (),
    y_scale: Literal["linear", "log"] = "linear",
) -> str:
    """Lines, and labelled points upon them."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _figure(title, x_label=x_label, y_label=y_label)
        axes.set_yscale(y_scale)
        for line in lines:
            _draw(axes, line)
        for place, point in enumerate(points):
            axes.errorbar(
                point.x, point.y, xerr=point.x_error or None, fmt="o", markersize=7, color=_SERIES[point.colour - 1],
                markeredgecolor=_PAGE, capsize=3, zorder=5,
            )  # fmt: skip
            axes.annotate(
                point.name, (point.x, point.y), xytext=(7, 7 if place % 2 else -14), textcoords="offset points",
                color=_SERIES[point.colour - 1], fontweight="bold", zorder=6,
            )  # fmt: skip
        if len(lines) > 1:
            axes.legend(loc="best")
        return _svg(figure, title)


def calibration_chart(
    title: str, confidence: Sequence[Number], accuracy: Sequence[Number], count: Sequence[int]
) -> str:
    """Accuracy over confidence beside the diagonal of a calibrated model; a dot's area is the number of its pairs."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _figure(title, x_label="predicted probability of the winner", y_label="share that was right")
        axes.plot([0.5, 1.0], [0.5, 1.0], color=_MUTED, linestyle="--", linewidth=1.0)
        sizes = 18.0 + 120.0 * np.asarray(count) / max(1, max(count, default=1))
        axes.plot(confidence, accuracy, color=_SERIES[0], linewidth=1.2)
        axes.scatter(confidence, accuracy, s=sizes, color=_SERIES[0], edgecolors=_PAGE, zorder=3)
        axes.annotate("calibrated", (0.97, 0.99), color=_MUTED, ha="right")
        return _svg(figure, title)


def word_map(title: str, words: Sequence[str], x: Sequence[Number], y: Sequence[Number], cluster: Sequence[int]) -> str:
    """Words at their places in the plane, coloured by cluster."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title, "axes.grid": False}):
        figure, axes = _figure(title, x_label="", y_label="", size=(9.0, 6.0))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        colours = [_SERIES[number % len(_SERIES)] for number in cluster]
        axes.scatter(x, y, s=9, c=colours, linewidths=0)
        for word, left, bottom, colour in zip(words, x, y, colours, strict=True):
            axes.annotate(
                word, (left, bottom), xytext=(3, 1), textcoords="offset points", fontsize=8, color=colour
            )  # fmt: skip
        return _svg(figure, title)


def thinned(x: Sequence[Number], y: Sequence[Number]) -> tuple[list[float], list[float]]:
    """At most 240 points: the means of as many equal stretches; what is no number is left out."""
    known = [(left, value) for left, value in zip(x, y, strict=True) if np.isfinite(value)]
    if not known:
        return [], []
    parts = np.array_split(np.array(known), min(_MOST_POINTS, len(known)))
    means = np.array([part.mean(axis=0) for part in parts])
    return means[:, 0].tolist(), means[:, 1].tolist()


def _draw(axes: Axes, line: Line) -> None:
    x, y = thinned(line.x, line.y)
    colour = _SERIES[line.colour - 1]
    match line.kind:
        case "line":
            axes.plot(x, y, label=line.name, color=colour)
        case "dashed":
            axes.plot(x, y, label=line.name, color=colour, linestyle="--", linewidth=1.2)
        case "noisy":
            axes.plot(x, y, label=line.name, color=colour, linewidth=1.2, alpha=0.75)
        case "dots":
            axes.plot(x, y, label=line.name, color=colour, marker="o", markersize=3.5)


def _figure(title: str, *, x_label: str, y_label: str, size: tuple[float, float] = (4.2, 2.7)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.03, y=0.08)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The drawing as an element for a page, which sets its width, its font and its colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
