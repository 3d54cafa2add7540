"""The chain as a drawing: one box a stage, with its most telling number, in the colours of the page."""

import html
from collections.abc import Mapping
from dataclasses import dataclass

PLACES: dict[str, tuple[float, float]] = {
    "fetch": (0, 2),
    "prepare": (1, 2),
    "tokenize": (2, 2),
    "word_vectors": (3, 0),
    "pretrain_bert": (3, 1),
    "pretrain_gpt": (3, 3),
    "pretrain_bilm": (3, 4),
    "finetune": (4, 1),
    "translate": (3, 2),
    "sft": (4, 3.5),
    "reward": (5, 3),
    "reference": (5, 4),
    "ppo": (6, 3),
    "dpo": (6, 4),
    "report": (7, 2),
}
"""Column and row of each stage."""

EDGES: tuple[tuple[str, str], ...] = (
    ("fetch", "prepare"),
    ("prepare", "tokenize"),
    ("tokenize", "pretrain_bert"),
    ("tokenize", "translate"),
    ("tokenize", "pretrain_gpt"),
    ("tokenize", "pretrain_bilm"),
    ("prepare", "word_vectors"),
    ("pretrain_bert", "finetune"),
    ("pretrain_gpt", "finetune"),
    ("pretrain_bilm", "finetune"),
    ("pretrain_gpt", "sft"),
    ("sft", "reward"),
    ("sft", "reference"),
    ("reward", "ppo"),
    ("reference", "dpo"),
    ("word_vectors", "report"),
    ("finetune", "report"),
    ("translate", "report"),
    ("ppo", "report"),
    ("dpo", "report"),
)
"""What hands over to what; dvc.yaml has these and more, such as the rated texts that several stages read."""

_WIDTH, _HEIGHT, _COLUMN, _ROW = 118, 46, 140, 64
_MARGIN = 4


@dataclass(frozen=True)
class StageBox:
    """What a box says of its stage."""

    number: str
    """One telling number, in words as short as possible."""
    state: str
    """`ran`, `missed` (a floor) or `not-run`."""


def pipeline_graph(boxes: Mapping[str, StageBox]) -> str:
    """An SVG element; every box is a link to the part of the page about its stage."""
    width = 2 * _MARGIN + 7 * _COLUMN + _WIDTH
    height = 2 * _MARGIN + 4 * _ROW + _HEIGHT
    edges = "".join(_edge(first, second) for first, second in EDGES)
    stages = "".join(_box(stage, boxes[stage]) for stage in PLACES)
    return (
        f'<svg class="graph" role="img" aria-label="Graph of the pipeline" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg">{edges}{stages}</svg>'
    )


def _corner(stage: str) -> tuple[float, float]:
    column, row = PLACES[stage]
    return float(_MARGIN + column * _COLUMN), float(_MARGIN + row * _ROW)


def _edge(first: str, second: str) -> str:
    x0, y0 = _corner(first)
    x1, y1 = _corner(second)
    x0, y0, y1 = x0 + _WIDTH, y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
    gap = _COLUMN - _WIDTH
    # Bends in the gap before its target, or behind its source where another box stands in its row: never behind a box.
    bend = x0 if _is_blocked(first, second) else x1 - gap
    half = bend + gap / 2
    curve = f"C{half:g} {y0:g} {half:g} {y1:g} {bend + gap:g} {y1:g}"
    return f'<path class="edge" d="M{x0:g} {y0:g}H{bend:g}{curve}H{x1:g}"/>'


def _is_blocked(first: str, second: str) -> bool:
    """Whether another box stands between two stages in the row of the first."""
    begin, row = PLACES[first]
    return any(place_row == row and begin < column < PLACES[second][0] for column, place_row in PLACES.values())


def _box(stage: str, box: StageBox) -> str:
    x, y = _corner(stage)
    middle = x + _WIDTH / 2
    return (
        f'<a href="#{stage}" class="stage {box.state}"><title>{html.escape(f"{stage}: {box.number}")}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"/>'
        f'<text class="name" x="{middle:g}" y="{y + 19:g}">{stage}</text>'
        f'<text class="number" x="{middle:g}" y="{y + 35:g}">{html.escape(box.number)}</text></a>'
    )
