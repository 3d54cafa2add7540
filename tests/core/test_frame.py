"""The frame of a stage that does not train, as a process: how it is stopped, who may run it, and its costs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.core.launchers import BATCH, SLURM, TORCHRUN, launched_by

STAGE = """
import sys, time
time.sleep(0.5)
from pathlib import Path
from pipeline.config import Config
from pipeline.training.frame import stage_frame
from pipeline.training.launch import launch

def main(path):
    with stage_frame("pipeline.stages.prepare", path, Config(), inputs=()):
        print("ready", flush=True)
        time.sleep(float(path.name))

sys.argv = ["stage", "conf/own/" + sys.argv[1]]
launch(main)
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of a stage that works in a folder of its own, with a configuration for each time to sleep."""
    monkeypatch.chdir(tmp_path)
    Path("conf/own").mkdir(parents=True)
    for seconds in ("0", "20"):
        Path("conf/own", seconds).write_text("")
    return os.environ | {"PYTHONPATH": str(ROOT), "PIPELINE_TRACKING": "local"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_stage_in_one_line(environment: dict[str, str], number: signal.Signals) -> None:
    command = [sys.executable, "-c", STAGE, "20"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stderr.read() == f"{number.name}: stopping\n"
    assert process.returncode == 128 + number


def test_a_stage_does_not_outlive_its_parent(environment: dict[str, str]) -> None:
    """Also where these tests were started by nohup, which lets what it starts outlive its parent."""
    command = ["/bin/sh", "-c", '"$0" -c "$1" 20 & wait', sys.executable, STAGE]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        parent.kill()
        started = time.monotonic()
        assert parent.stdout.read() == b""  # the end of the last process that could write
        assert time.monotonic() - started < 10


def test_a_second_process_of_a_stage_is_refused_until_the_first_has_died(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", STAGE, "20"]
    for _ in range(2):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as first:
            assert first.stdout is not None and first.stdout.readline() == b"ready\n"
            second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            holder = f"another run holds this stage, process {first.pid} on {socket.gethostname()};"
            assert second.returncode == 2 and second.stdout == "" and holder in second.stderr
            first.kill()


@pytest.mark.parametrize(
    ("launcher", "is_run"),
    [(SLURM, False), (TORCHRUN, False), (BATCH | {"SLURM_NTASKS": "8"}, True), (SLURM | {"SLURM_PROCID": "0"}, True)],
)
def test_of_the_processes_of_a_launcher_the_first_alone_does_the_work(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, launcher: dict[str, str], is_run: bool
) -> None:
    launched_by(monkeypatch, launcher)
    command = [sys.executable, "-c", STAGE, "0"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PIPELINE_TRACKING": "local"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == ("ready\n" if is_run else "")
    assert ("the first process does it alone" in done.stderr) is not is_run
    assert Path(".pipeline").exists() is is_run


def test_the_costs_are_those_of_the_whole_process(environment: dict[str, str]) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", STAGE, "0"], env=environment, check=True)
    wall = time.monotonic() - started
    (cost,) = (path for path in Path().rglob("*.json") if "seconds" in path.read_text())
    seconds = json.loads(cost.read_text())["seconds"]
    assert 0.5 < seconds <= wall + 0.1
