"""The frame of a stage that does not train, as a process: how it is stopped, and what it notes as its costs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STAGE = """
import sys, time
time.sleep(0.5)
from pathlib import Path
from pipeline.config import Config
from pipeline.stages.frame import stage_frame
from pipeline.stages.launch import launch

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
    command = ["/bin/sh", "-c", '"$0" -c "$1" 20 & wait', sys.executable, STAGE]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        parent.kill()
        started = time.monotonic()
        assert parent.stdout.read() == b""  # the end of the last process that could write
        assert time.monotonic() - started < 10


def test_the_costs_are_those_of_the_whole_process(environment: dict[str, str]) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", STAGE, "0"], env=environment, check=True)
    wall = time.monotonic() - started
    (cost,) = (path for path in Path().rglob("*.json") if "seconds" in path.read_text())
    seconds = json.loads(cost.read_text())["seconds"]
    assert 0.5 < seconds <= wall + 0.1
