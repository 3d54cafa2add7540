"""A picture of attention has a glyph for every sign that some font knows; of long lines some tokens are named."""

import logging
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.report.attention_picture import Panel, font_families, save_attention_picture

_IN_STIX = "\u1d84"
"""A letter that is in a font of matplotlib's own and not in its default."""
_IN_NONE = "\U000e0fff"
"""A place of Unicode without a sign."""


def test_the_default_font_stays_alone_where_it_has_all_signs() -> None:
    assert font_families("the cat größer кот") == (["sans-serif"], [])


def test_a_sign_that_the_default_lacks_is_taken_from_a_font_that_has_it() -> None:
    (default, *others), missing = font_families(f"cat {_IN_STIX}")
    assert default == "sans-serif" and len(others) == 1 and missing == []
    assert font_families(f"{_IN_NONE}{_IN_STIX}cat") == (["sans-serif", *others], [_IN_NONE])


def test_a_png_says_what_it_cannot_draw_and_an_svg_leaves_it_to_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("pipeline.report.attention_picture.font_families", lambda text: (["sans-serif"], ["漢", "字"]))
    panels = [Panel(["the", "cat"], ["漢字", _IN_STIX], np.eye(2))]
    with caplog.at_level(logging.WARNING):
        save_attention_picture(tmp_path / "x.svg", panels)
        assert caplog.messages == []
        save_attention_picture(tmp_path / "x.png", panels)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}/x.png: no font of matplotlib has 2 of the signs, as 漢 字")
    assert not list(recwarn)
    drawn = ElementTree.fromstring((tmp_path / "x.svg").read_text())
    shown = ["".join(one.itertext()).strip() for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "漢字" in shown


def test_a_picture_is_drawn_in_the_fonts_that_have_its_signs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    with caplog.at_level(logging.WARNING):
        for suffix in ("png", "svg"):
            save_attention_picture(tmp_path / f"x.{suffix}", [Panel(["cat"], [_IN_STIX], np.eye(1))])
    assert not caplog.messages and not list(recwarn)
    (other,) = font_families(_IN_STIX)[0][1:]
    assert other in (tmp_path / "x.svg").read_text()


@dataclass(frozen=True)
class Drawn:
    """What a figure would become."""

    width: float
    height: float
    """In inches, with `dpi` pixels each."""
    dpi: float
    labels: list[list[str]]
    """By panel, those of the source first."""
    steps: set[int]
    """How far apart, in tokens, the labels of a side are."""

    @property
    def num_pixels(self) -> float:
        return self.width * self.height * self.dpi**2


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """The figures that would be saved, which takes long for large ones."""
    found: list[Drawn] = []

    def saved(figure: Figure, path: Path, *, dpi: float, **named: object) -> None:
        labels, steps = [], set[int]()
        for axes in figure.axes:
            sides = (axes.xaxis, axes.yaxis)
            labels.append([label.get_text() for side in sides for label in side.get_ticklabels()])
            steps.update(int(step) for side in sides for step in np.diff(side.get_ticklocs()))
        width, height = figure.get_size_inches()
        found.append(Drawn(width, height, dpi, labels, steps))

    monkeypatch.setattr(Figure, "savefig", saved)
    return found


def panel(num_rows: int, num_columns: int) -> Panel:
    """Tokens of the source are numbers from 0, those of the target from 1000."""
    src, tgt = (list(map(str, range(first, first + num))) for first, num in ((0, num_columns), (1000, num_rows)))
    return Panel(src, tgt, np.full((num_rows, num_columns), 1 / num_columns))


def test_sentences_of_usual_length_have_all_their_tokens_named_at_one_size(
    drawn: list[Drawn], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    panels = [panel(35, 40)] * 15 + [panel(3, 2)]
    save_attention_picture(tmp_path / "x.png", panels)
    (one,) = drawn
    assert (one.width, one.height) == pytest.approx((2.5 + 0.3 * 40, 16 * 2.0 + 0.3 * (15 * 35 + 3)))
    assert one.labels == [[*each.src_tokens, *each.tgt_tokens] for each in panels]
    assert not caplog.messages


@pytest.mark.parametrize(("rows", "columns"), [([109] * 16, 109), ([210] * 8, 110), ([300] * 16, 2), ([2], 9000)])
def test_long_lines_are_drawn_smaller_and_a_part_of_their_tokens_is_named_so_that_it_can_be_read(
    rows: list[int], columns: int, drawn: list[Drawn], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_attention_picture(tmp_path / "x.png", [panel(one, columns) for one in rows])
    (one,) = drawn
    assert one.num_pixels < 51e6
    assert max(one.width, one.height) * one.dpi < 2**16
    # All that is free, no more, is for the margins.
    token = min((one.width - 2.5) / columns, (one.height - 2.0 * len(rows)) / sum(rows))
    (step,) = one.steps
    assert 0.15 <= token * step < 0.4
    (message,) = caplog.messages
    assert f"x.png: names one of {step} tokens" in message
    assert one.labels == [list(map(str, [*range(0, columns, step), *range(1000, 1000 + each, step)])) for each in rows]
