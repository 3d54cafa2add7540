"""Runs a stage in a folder of its own, as a user would, and as often as the tests can afford.

`Workspace.run` forks every rank from a server process that has imported everything: a run takes a second or two.
`Workspace.start` starts the stage as a user does, and Lightning starts the other ranks: for signals and deaths.
"""

import csv
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
_SECONDS = 150.0
"""A run that takes longer hangs."""
_MARKER = "PIPELINE_TEST_MARKER"

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    ["pipeline.training.fit", "pipeline.training.launch", "deepspeed.runtime.zero.stage3", "deepspeed.runtime.engine"]
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    exit_codes: tuple[int, ...]
    """Of each rank that we started; a negative one is a signal."""
    log: str
    """Standard output and error of all ranks."""


class Job:
    """A stage that runs as its user started it."""

    def __init__(self, process: "subprocess.Popen[bytes]", marker: str, log: Path, events: Path) -> None:
        self.process = process
        self._marker = marker
        self._log = log
        self._events = events

    def wait_for_update(self, update: int) -> None:
        """Returns as soon as so many optimizer steps are done."""
        deadline = time.monotonic() + _SECONDS
        while self._newest_update() < update:
            assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def _newest_update(self) -> int:
        lines = [line for path in self._events.glob("*/events.jsonl") for line in path.read_text().splitlines()]
        events = [json.loads(line) for line in lines if line.endswith("}")]
        started = max((i for i, event in enumerate(events) if event["event"] == "start"), default=0)
        return max((event["step"] for event in events[started:] if event["event"] == "metrics"), default=0)

    def ranks(self) -> list[int]:
        """Process ids of the ranks, rank 0 first."""
        return sorted(self.left_over(), key=lambda pid: pid != self.process.pid)

    def left_over(self) -> list[int]:
        """Processes of this job that are alive."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARKER) == self._marker and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def wait(self) -> Outcome:
        """The end of the job; fails when a process is left behind."""
        code = self.process.wait(_SECONDS)
        deadline = time.monotonic() + 10
        while self.left_over() and time.monotonic() < deadline:
            time.sleep(0.1)
        left = self.left_over()
        self.kill()
        assert not left, f"left behind: {left}\n{self._log.read_text()}"
        return Outcome((code,), self._log.read_text())

    def kill(self) -> None:
        """Ends what is left of the job."""
        for pid in self.left_over():
            os.kill(pid, signal.SIGKILL)


class Workspace:
    """A folder that looks like the repository to a stage."""

    def __init__(self, root: Path, code: Path, *, module: str, config: str) -> None:
        self.root = root
        self.module = module
        self.config = config
        root.mkdir(parents=True)
        for name in ("pipeline", "tests"):
            (root / name).symlink_to(code / name)
        shutil.copytree(ROOT / "conf/runtime", root / "conf/runtime")
        for path in (root / "conf/runtime").glob("*.yaml"):
            # Threads that wait for each other are slow on a machine that does other things as well.
            change_yaml(path, {"num_threads": 1})

    @property
    def stage(self) -> str:
        """The profile and the stage, as they stand in the names of the output folders."""
        return self.config.removeprefix("conf/").removesuffix(".yaml")

    @property
    def local(self) -> Path:
        """The stage's checkpoints and tracking."""
        profile, _, stage = self.stage.partition("/")
        return self.root / ".pipeline/stages" / profile / stage

    @property
    def output(self) -> Path:
        """The folder that the stage hands over."""
        return self.root / "models" / self.stage

    def checkpoints(self) -> list[Path]:
        """Published checkpoints, oldest first."""
        return sorted(self.local.glob("checkpoints/*/step-*"))

    def curve_text(self) -> str:
        """The learning curve, byte by byte."""
        profile, _, stage = self.stage.partition("/")
        return (self.root / "metrics" / profile / "curves" / f"{stage}.csv").read_text()

    def curve(self) -> list[dict[str, float]]:
        """The learning curve; a missing value has no key."""
        rows = csv.DictReader(self.curve_text().splitlines())
        return [{key: float(value) for key, value in row.items() if value} for row in rows]

    def weights(self) -> dict[str, Tensor]:
        """The exported weights."""
        return load_file(self.output / "model.safetensors")

    def run(
        self,
        runtime: str,
        *,
        kill_at: int | None = None,
        signum: signal.Signals = signal.SIGKILL,
        largest_file: int | None = None,
        environment: Mapping[str, str] | None = None,
        expect: tuple[int, ...] | None = None,
        others: "Workspace | None" = None,
    ) -> Outcome:
        """Runs all ranks to their end; with `kill_at` each sends itself `signum` when so many updates are done.

        With `largest_file` the system refuses to write beyond so many bytes of a file, as it does on a full disk.
        With `others` the ranks but the first run there, as on a node that does not share the folder.
        Fails when the exit codes are not the expected ones: without a word, 0 for each rank, or -9 where killed.
        """
        settings = yaml.safe_load((self.root / f"conf/runtime/{runtime}.yaml").read_text())
        world_size = settings["num_devices"]
        log = self.root / f"{uuid.uuid4().hex}.log"
        shared = {"PIPELINE_RUNTIME": runtime, "PIPELINE_TRACKING": "local", **(environment or {})}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world_size)}
        ranks = [
            _forks.Process(
                target=_rank,
                args=(
                    (others if others and rank else self).root,
                    self.module,
                    self.config,
                    log,
                    kill_at,
                    signum,
                    largest_file,
                ),
                kwargs={"environment": shared | ({"LOCAL_RANK": str(rank)} if world_size > 1 else {})},
            )
            for rank in range(world_size)
        ]
        for rank in ranks:
            rank.start()
        deadline = time.monotonic() + _SECONDS
        for rank in ranks:
            rank.join(max(0.0, deadline - time.monotonic()))
            rank.kill()
            rank.join()
        codes = tuple(rank.exitcode or 0 for rank in ranks)
        outcome = Outcome(codes, log.read_text())
        wanted = expect or ((0,) if kill_at is None else (-9,)) * world_size
        assert codes == wanted, f"exit codes {codes}\n{outcome.log}"
        return outcome

    def start(self, runtime: str, *, environment: Mapping[str, str] | None = None, wrapper: str = "") -> Job:
        """Starts the stage in a process group of its own; `wrapper` is a shell command line with {} for the stage."""
        marker = uuid.uuid4().hex
        log = self.root / f"{marker}.log"
        variables = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK")}
        variables |= {"PIPELINE_RUNTIME": runtime, "PIPELINE_TRACKING": "local", _MARKER: marker}
        command = [sys.executable, "-m", self.module, self.config]
        if wrapper:
            command = ["bash", "-c", wrapper.format(" ".join(command))]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=variables | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
                stdout=output,
                stderr=output,
                start_new_session=True,
                # Tests that run under `nohup` test what is not.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )
        return Job(process, marker, log, self.local / "tracking")


def change_yaml(path: Path, changes: Mapping[str, Any]) -> None:
    """Changes values of a YAML file; dots lead into nested keys."""
    values = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        target = values
        for parent in parents:
            target = target[parent]
        target[last] = value
    path.write_text(yaml.safe_dump(values))


def snapshot(folder: Path) -> Path:
    """A copy of the code: what is edited while the tests run does not change the run keys."""
    for name in ("pipeline", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(
    root: Path,
    module: str,
    config: str,
    log: Path,
    kill_at: int | None,
    signum: signal.Signals,
    largest_file: int | None,
    *,
    environment: Mapping[str, str],
) -> None:
    """The life of a forked rank."""
    os.setsid()
    os.chdir(root)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if kill_at is not None:
        _kill_at(kill_at, signum)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = [module, config]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _kill_at(update: int, signum: signal.Signals) -> None:
    from pipeline.training.base import StageModule

    begin = StageModule.on_train_batch_start

    def begin_or_die(self: StageModule[Any], batch: Any, batch_idx: int) -> None:
        if batch.update == update:
            os.kill(os.getpid(), signum)
        begin(self, batch, batch_idx)

    StageModule.on_train_batch_start = begin_or_die  # type: ignore[method-assign]
