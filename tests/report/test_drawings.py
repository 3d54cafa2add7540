"""Drawings: the same bytes for the same numbers, coloured by the page, and no point that was not measured."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.report.attention import attention_chart
from pipeline.report.charts import Line, Point, calibration_chart, line_chart, thinned, word_map
from pipeline.report.inputs import read_curves


def charts() -> list[str]:
    lines = [Line("a", range(9), range(9), kind="noisy"), Line("b", [1, 5], [2.0, 3.0], kind="dots", colour=2)]
    return [
        line_chart("Loss", lines, x_label="step", y_label="nats", points=[Point("DPO", 3.0, 4.0, x_error=1.0)]),
        calibration_chart("Calibration", [0.55, 0.9], [0.5, 0.8], [10, 90]),
        word_map("Words", ["one", "two"], [0.0, 1.0], [1.0, 0.0], [0, 9]),
    ]


def test_drawings_repeat_to_the_byte() -> None:
    assert charts() == charts()


def test_drawings_take_their_colours_and_their_font_from_the_page() -> None:
    for drawing in charts():
        assert re.findall(r"#[0-9a-f]{6}", drawing) == []
        assert "font-family" not in drawing and "<style" not in drawing
        assert 'width="' not in drawing[: drawing.index(">")]


def test_on_a_logarithmic_scale_what_halves_each_step_is_a_straight_line() -> None:
    heights = {}
    for scale in ("linear", "log"):
        drawing = line_chart(
            "a", [Line("b", range(5), [2.0**-k for k in range(5)])], x_label="", y_label="", y_scale=scale
        )
        (path,) = re.findall(
            r'<path d="(M [^"]*?)" clip-path="[^"]*" style="fill: none; stroke: var\(--series', drawing
        )
        heights[scale] = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)]
    steps = {scale: [b - a for a, b in pairwise(y)] for scale, y in heights.items()}
    assert steps["log"] == pytest.approx([steps["log"][0]] * 4, rel=1e-3)
    assert steps["linear"][0] == pytest.approx(8 * steps["linear"][3], rel=1e-3)


def test_a_long_curve_becomes_the_means_of_equal_stretches() -> None:
    assert thinned([1, 2, 3], [5.0, float("nan"), 7.0]) == ([1.0, 3.0], [5.0, 7.0])
    x, y = thinned(range(480), [float(number % 2) for number in range(480)])
    assert x == [2 * number + 0.5 for number in range(240)]
    assert y == [0.5] * 240
    assert thinned([], []) == ([], [])


def test_attention_has_a_cell_for_each_weight_that_is_visible() -> None:
    drawing = attention_chart(["▁a", "b"], ["<c>"], [[0.9, 0.001]])
    assert drawing.count("<rect") == 1
    assert 'fill-opacity="0.90"' in drawing and "a → &lt;c&gt;: 0.90" in drawing


def test_weights_that_do_not_fit_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 1 rows of 2 weights, found rows of \[1\]"):
        attention_chart(["a", "b"], ["c"], [[1.0]])


def test_a_curve_holds_what_was_measured_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("update,train/loss,valid/loss\n1,3.5,\n2,2.5,2.75\n")
    curves = read_curves(path)
    assert curves["train/loss"].values == (3.5, 2.5)
    assert (curves["valid/loss"].updates, curves["valid/loss"].values) == ((2,), (2.75,))


def test_a_damaged_curve_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("update,train/loss\n1,3.5\n2,abc\n")
    with pytest.raises(ValueError, match=r"curve.csv:3: expected an update and numbers"):
        read_curves(path)
