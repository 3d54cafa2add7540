"""Attention to the source as a picture of its own, PNG or SVG: one panel for each translation.

Legend: T target length, S source length.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font, weight_dict

_log = logging.getLogger(__name__)
FORMATS = (".png", ".svg")
_DPI = 120
_MOST_PIXELS, _MOST_PIXELS_A_SIDE = 50_000_000, 60_000
"""Of a picture: drawing takes some 9 bytes a pixel, and matplotlib refuses sides of 2^16."""
_INCHES_A_TOKEN, _INCHES_A_LABEL = 0.3, 0.19
"""Of a token where there is room, and between two labels in the font's size that can still be read."""
_MARGIN_X, _MARGIN_Y = 2.5, 2.0
"""Inches for the labels and the space around each panel."""
_SHOWN = 5
"""Signs of a warning."""
_NORMAL = 400
"""The weight of fonts that are neither thin nor bold."""


@dataclass(frozen=True)
class Panel:
    """What one panel shows."""

    src_tokens: Sequence[str]
    tgt_tokens: Sequence[str]
    weights: Float[np.ndarray, "T S"]


def save_attention_picture(path: Path, panels: Sequence[Panel], *, name: Path | None = None) -> None:
    """Writes the panels below each other: a row for each target token, darker where more attention went.

    Where the panels would be larger than the largest picture, their tokens are smaller; where these are smaller than
    their labels, every nth has one, of which is warned.

    Signs that the default font lacks are taken from others that matplotlib finds. Those that none has are warned of,
    but in an SVG, whose text is drawn by what shows it. Warnings call the picture `name`, where its path is another one
    at first.
    """
    name = name or path
    is_svg = path.suffix == ".svg"
    tokens = (token for panel in panels for token in (*panel.src_tokens, *panel.tgt_tokens))
    families, missing = font_families("".join(map(_piece, tokens)))
    if missing and not is_svg:
        _log.warning(
            "%s: no font of matplotlib has %d of the signs, as %s: install one that has them, or draw an .svg",
            name,
            len(missing),
            " ".join(missing[:_SHOWN]),
        )
    lengths = [len(panel.tgt_tokens) for panel in panels]
    inches = _inches_a_token(max(len(panel.src_tokens) for panel in panels), lengths)
    step = math.ceil(_INCHES_A_LABEL / inches)
    if step > 1:
        _log.warning("%s: names one of %d tokens, since the lines are long: fewer at once have more room", name, step)
    # Text stays text, and the same weights give the same bytes.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attention", "font.family": families}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        heights = [_MARGIN_Y + inches * length for length in lengths]
        width = _MARGIN_X + inches * max(len(panel.src_tokens) for panel in panels)
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            axis.imshow(panel.weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
            # A dollar sign is no mathematics here.
            src_tokens, tgt_tokens = panel.src_tokens[::step], panel.tgt_tokens[::step]
            axis.set_xticks(range(0, len(panel.src_tokens), step), map(_piece, src_tokens), rotation=60, ha="left")
            axis.set_yticks(range(0, len(panel.tgt_tokens), step), map(_piece, tgt_tokens))
            axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
            for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
                label.set_parse_math(False)
                label.set_rotation_mode("anchor")
        figure.savefig(path, format=path.suffix[1:], metadata={"Date": None} if is_svg else None, dpi=_DPI)


def _inches_a_token(num_columns: int, lengths: Sequence[int]) -> float:
    """The side of a token's square in panels of so many rows each: what a picture allows, where it is not the usual.

    The largest root of (margin + x columns) (margins + x rows) = area.
    """
    num_rows, margins = sum(lengths), _MARGIN_Y * len(lengths)
    both, one = num_columns * num_rows, _MARGIN_X * num_rows + margins * num_columns
    none = _MARGIN_X * margins - _MOST_PIXELS / _DPI**2
    side = _MOST_PIXELS_A_SIDE / _DPI
    return min(
        _INCHES_A_TOKEN,
        (math.sqrt(one**2 - 4.0 * both * none) - one) / (2.0 * both),
        (side - _MARGIN_X) / num_columns,
        (side - margins) / num_rows,
    )


def font_families(text: str) -> tuple[list[str], list[str]]:
    """The names of fonts that together have the signs of a text, the default first, and the signs that none has."""
    families = list(matplotlib.rcParams["font.family"])
    missing = {ord(sign) for sign in text} - _signs_of(findfont(FontProperties(family=families)))
    for font in sorted(fontManager.ttflist, key=lambda one: one.name):
        if not missing:
            break
        # A "last resort" draws boxes that stand for signs.
        is_plain = font.style == "normal" and _weight(font.weight) == _NORMAL
        found = missing & _signs_of(font.fname) if is_plain and not font.name.startswith("Last Resort") else set()
        if found:
            families.append(font.name)
            missing -= found
    return families, [chr(code) for code in sorted(missing)]


def _weight(weight: int | str) -> int:
    return weight_dict[weight] if isinstance(weight, str) else weight


def _signs_of(font: str) -> set[int]:
    return set(get_font(font).get_charmap())


def _piece(token: str) -> str:
    """A token for people: the mark of a new word is left out, and no control character breaks the picture."""
    return "".join(sign if sign.isprintable() else "�" for sign in token.replace("▁", "").replace("Ġ", "")) or "·"
