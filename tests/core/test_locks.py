"""The lock of a stage: one run at a time, free once its holder has ended, and a warning where there are no locks."""

import errno
import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from pipeline.locks import locked
from pipeline.tracking import helper as tracking_helper


def test_a_second_run_is_refused_and_names_the_first_until_that_has_ended(tmp_path: Path) -> None:
    holder = f"another run holds this stage, process {os.getpid()} on {socket.gethostname()};"
    for _ in range(2):
        with locked(tmp_path / "sft"), pytest.raises(ValueError, match=holder), locked(tmp_path / "sft"):
            raise AssertionError("locked twice")


def test_stages_do_not_lock_each_other(tmp_path: Path) -> None:
    with locked(tmp_path / "translate"), locked(tmp_path / "translate/gru"), locked(tmp_path / "sft"):
        pass


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    with pytest.raises(ValueError, match=f"process {child} on "), locked(tmp_path):
        raise AssertionError("locked twice")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refuse(monkeypatch, number)
    with locked(tmp_path / "sft"):
        pass
    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    said = warning.getMessage()
    assert said.startswith(f"{tmp_path / 'sft'}: ") and os.strerror(number) in said and "-o flock" in said


def test_another_fault_of_the_lock_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as found, locked(tmp_path):
        raise AssertionError("locked")
    assert found.value.filename == str(tmp_path / "lock")


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_locks_the_run_of_a_stage_is_tracked_and_one_that_was_left_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.ENOSYS)
    with tracking_helper._locked(tmp_path / "a") as own, tracking_helper._locked(tmp_path / "b", wait=False) as left:
        assert own and not left
