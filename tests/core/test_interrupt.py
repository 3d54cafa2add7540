"""Requests to stop, seen from a process that gets them."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from pipeline.training import interrupt
from pipeline.training.interrupt import Interrupt


def exit_code_of(body: Callable[[Interrupt], None], *, stop_seconds: float = 60.0) -> int:
    """Runs `body` in a process of its own, with the handlers installed; 0 when it returns."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            request = Interrupt(stop_seconds=stop_seconds)
            request.install()
            body(request)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def raise_and_wait(number: int, seconds: float = 0.3) -> None:
    """Sends this process a signal and gives its handler time."""
    os.kill(os.getpid(), number)
    time.sleep(seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_training_a_signal_ends_the_process_at_once(number: int) -> None:
    assert exit_code_of(lambda request: raise_and_wait(number)) == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_training_a_signal_is_a_request_and_its_echo_changes_nothing(number: int) -> None:
    def body(request: Interrupt) -> None:
        request.is_training = True
        for _ in range(3):
            raise_and_wait(number, 0.05)
        assert request.signum == number and request.exit_code == 128 + number

    assert exit_code_of(body) == 0


def test_a_second_ctrl_c_means_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_SECOND_REQUEST_SECONDS", 0.1)

    def body(request: Interrupt) -> None:
        request.is_training = True
        raise_and_wait(signal.SIGINT)
        raise_and_wait(signal.SIGINT)

    assert exit_code_of(body) == 130


@pytest.mark.parametrize(("agreed", "code"), [(False, 143), (True, 0)])
def test_a_step_that_does_not_end_is_ended_and_saving_is_waited_for(agreed: bool, code: int) -> None:
    def body(request: Interrupt) -> None:
        request.is_training = True
        request.begin_micro_batch()
        raise_and_wait(signal.SIGTERM, 0.01)
        if agreed:
            request.agree(signal.SIGTERM)
        time.sleep(1)

    assert exit_code_of(body, stop_seconds=0.2) == code


def test_what_is_between_two_steps_is_waited_for_and_so_is_a_step_that_moves() -> None:
    def body(request: Interrupt) -> None:
        request.is_training = True
        request.begin_micro_batch()
        request.end_step()
        raise_and_wait(signal.SIGTERM, 1.5)
        for _ in range(10):
            request.begin_micro_batch()
            time.sleep(0.1)
        request.agree(signal.SIGTERM)

    assert exit_code_of(body, stop_seconds=0.5) == 0


def test_a_step_that_stands_still_behind_what_was_waited_for_is_ended() -> None:
    def body(request: Interrupt) -> None:
        request.is_training = True
        raise_and_wait(signal.SIGTERM, 0.5)
        request.begin_micro_batch()
        time.sleep(5)

    assert exit_code_of(body, stop_seconds=0.2) == 143


def test_a_rank_that_was_told_by_another_one_reports_its_signal() -> None:
    request = Interrupt()
    request.agree(signal.SIGTERM)
    assert request.signum == signal.SIGTERM and request.exit_code == 143


@pytest.mark.parametrize("is_training", [True, False])
def test_the_death_of_the_parent_is_a_request_in_training_and_the_end_elsewhere(is_training: bool) -> None:
    reading, writing = os.pipe()

    def body(request: Interrupt) -> None:
        grandchild = os.fork()
        if grandchild:
            os._exit(0)
        own = Interrupt()
        own.install()
        own._parent = -1
        own.is_training = is_training
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        own.watch_parent()
        for _ in range(100):
            time.sleep(0.02)
            if own.signum:
                os.write(writing, b"asked")
                os._exit(0)
        os.write(writing, b"nothing")
        os._exit(0)

    assert exit_code_of(body) == 0
    os.close(writing)
    assert os.read(reading, 100) == (b"asked" if is_training else b"")
    os.close(reading)


@pytest.mark.parametrize(
    ("handler", "variable", "code"),
    [
        (signal.SIG_DFL, None, 143),
        (signal.SIG_IGN, None, 0),
        (signal.SIG_IGN, "LOCAL_RANK", 143),
        (signal.SIG_IGN, "DVC_STAGE", 143),
    ],
)
def test_under_nohup_a_stage_outlives_its_shell_and_neither_its_launcher_nor_dvc(
    monkeypatch: pytest.MonkeyPatch, handler: signal.Handlers, variable: str | None, code: int
) -> None:
    for name in ("LOCAL_RANK", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")

    def body(request: Interrupt) -> None:
        signal.signal(signal.SIGHUP, handler)
        request._parent = -1
        request.watch_parent()
        time.sleep(1)

    assert exit_code_of(body) == code
