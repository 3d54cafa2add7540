"""Attention to the source as a picture of its own, PNG or SVG: one panel for each translation.

Legend: T target length, S source length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
_INCHES_A_TOKEN = 0.3


@dataclass(frozen=True)
class Panel:
    """What one panel shows."""

    src_tokens: Sequence[str]
    tgt_tokens: Sequence[str]
    weights: Float[np.ndarray, "T S"]


def save_attention_picture(path: Path, panels: Sequence[Panel]) -> None:
    """Writes the panels below each other: a row for each target token, darker where more attention went."""
    # Text stays text, and the same weights give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attention"}):
        heights = [2.0 + _INCHES_A_TOKEN * len(panel.tgt_tokens) for panel in panels]
        width = 2.5 + _INCHES_A_TOKEN * max(len(panel.src_tokens) for panel in panels)
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.imshow(panel.weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
            # A dollar sign is no mathematics here.
            axis.set_xticks(range(len(panel.src_tokens)), map(_piece, panel.src_tokens), rotation=60, ha="left")
            axis.set_yticks(range(len(panel.tgt_tokens)), map(_piece, panel.tgt_tokens))
            axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
            for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
                label.set_parse_math(False)
                label.set_rotation_mode("anchor")
        is_svg = path.suffix == ".svg"
        figure.savefig(path, format=path.suffix[1:], metadata={"Date": None} if is_svg else None, dpi=120)


def _piece(token: str) -> str:
    """A token for people: the mark of a new word is left out, and no control character breaks the picture."""
    return "".join(sign if sign.isprintable() else "�" for sign in token.replace("▁", "").replace("Ġ", "")) or "·"
