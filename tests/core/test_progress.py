"""Progress: items pass as they are, a short loop says nothing, a long one a line now and then, never on output."""

import logging
import sys
import time
from collections.abc import Iterator

import pytest

import pipeline.progress
from pipeline.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[list[float]]:
    """The seconds that have passed, in a list of one; a test moves them."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    yield now


def run(clock: list[float], *, seconds: float, is_shown: bool = True, total: int | None = 60) -> list[list[int]]:
    """A loop over 30 items of two units each."""
    passed = []
    for item in progress(
        [[number, 0] for number in range(30)], name="scoring", unit="answers", total=total, size=len, is_shown=is_shown
    ):
        passed.append(item)
        clock[0] += seconds
    return passed


def test_a_long_loop_writes_a_line_each_ten_seconds_with_speed_and_remaining_time(
    clock: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(clock, seconds=1.0) == [[number, 0] for number in range(30)]
    assert caplog.messages == [
        "scoring 6/60 answers  2.0 answers/s  27 s left",
        "scoring 26/60 answers  2.0 answers/s  17 s left",
        "scoring 46/60 answers  2.0 answers/s  7 s left",
        "scoring 60 answers in 30 s",
    ]
    assert capsys.readouterr().out == ""


def test_without_a_total_there_is_no_remaining_time(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    run(clock, seconds=1.0, total=None)
    assert caplog.messages[0] == "scoring 6 answers  2.0 answers/s"


def test_a_short_loop_and_a_rank_that_is_not_shown_are_silent(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    run(clock, seconds=0.05)
    run(clock, seconds=5.0, is_shown=False)
    assert caplog.messages == []


def test_on_a_terminal_a_bar_stands_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(pipeline.progress, "_PATIENCE", 0.0)
    assert list(progress([1, 2], name="scoring", unit="answers", total=2)) == [1, 2]
    shown = capsys.readouterr()
    assert "scoring: 100%" in shown.err and shown.out == ""
