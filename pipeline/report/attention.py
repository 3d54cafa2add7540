"""Attention to the source as a drawing: a row for each target token, darker where more attention went."""

import html
from collections.abc import Sequence

_CELL = 22
_LABELS = 84
_HIDDEN = 0.02
"""Weights below this are left white, and out of the page."""


def attention_chart(src_tokens: Sequence[str], tgt_tokens: Sequence[str], weights: Sequence[Sequence[float]]) -> str:
    """An SVG element; ValueError when the weights do not have a row for each target and a column for each source."""
    if [len(row) for row in weights] != [len(src_tokens)] * len(tgt_tokens):
        raise ValueError(
            f"attention: expected {len(tgt_tokens)} rows of {len(src_tokens)} weights, "
            f"found rows of {[len(row) for row in weights]}"
        )
    width, height = _LABELS + _CELL * len(src_tokens) + 30, _LABELS + _CELL * len(tgt_tokens)
    parts = [
        f'<svg class="attention" role="img" aria-label="Attention to the source" viewBox="0 0 {width} {height}" '
        f'style="width:{width}px" xmlns="http://www.w3.org/2000/svg">'
    ]
    for column, token in enumerate(src_tokens):
        x, y = _LABELS + _CELL * column + 14, _LABELS - 6
        parts.append(f'<text x="{x}" y="{y}" transform="rotate(-55 {x} {y})">{_piece(token)}</text>')
    for row, (token, line) in enumerate(zip(tgt_tokens, weights, strict=True)):
        y = _LABELS + _CELL * row
        parts.append(f'<text class="end" x="{_LABELS - 6}" y="{y + 15}">{_piece(token)}</text>')
        for column, weight in enumerate(line):
            if weight >= _HIDDEN:
                parts.append(
                    f'<rect x="{_LABELS + _CELL * column}" y="{y}" width="{_CELL - 1}" height="{_CELL - 1}" '
                    f'fill-opacity="{weight:.2f}"><title>{_piece(src_tokens[column])} → {_piece(token)}: '
                    f"{weight:.2f}</title></rect>"
                )
    return "".join([*parts, "</svg>"])


def _piece(token: str) -> str:
    """A token for people: the mark of a new word is left out."""
    return html.escape(token.replace("▁", "").replace("Ġ", "") or "·")
