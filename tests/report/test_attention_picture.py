"""A picture of attention has a glyph for every sign that some font knows, and says which it has none for."""

import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

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
