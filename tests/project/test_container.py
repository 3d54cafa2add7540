"""The first process of a trainer's container: what it runs may save before the container ends."""

import shlex
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
APART = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""Starts a command as the first process of a namespace of its own."""


def starts_apart() -> bool:
    """Whether this machine lets us."""
    return shutil.which("unshare") is not None and not subprocess.run([*APART, "true"], capture_output=True).returncode


SAVES = "trap 'sleep 2; echo saved; exit 143' TERM; echo begun; while true; do sleep 0.1; done"
"""A stage that takes a while to save."""


@pytest.mark.skipif(not starts_apart(), reason="unshare --pid is missing or not permitted here")
def test_a_container_that_is_asked_to_end_stays_until_a_stage_has_saved_whose_parents_are_gone() -> None:
    lost = ["sh", "-c", f"sh -c {shlex.quote(SAVES)} & wait"]
    command = [*APART, "sh", "docker/trainer.sh", *lost]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        (shell,) = psutil.Process(running.pid).children()
        shell.terminate()
        assert running.stdout.readline() == "saved\n"
        assert running.wait(timeout=30) == 143


def test_elsewhere_it_runs_the_command_and_no_more() -> None:
    command = ["sh", "docker/trainer.sh", "sh", "-c", "exit 3"]
    assert subprocess.run(command, cwd=ROOT).returncode == 3
