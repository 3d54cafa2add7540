"""The process beside a stage that sends its events to MLflow and measures the machine meanwhile.

`python -m pipeline.tracking.helper FOLDER PID`, started by `tracker.py`. It ends soon after the process PID:
when everything is sent, or when the server does not answer; what is left is then sent by the helper of a later stage.
"""

import fcntl
import logging
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.layout import LOCAL
from pipeline.locks import NO_LOCKS
from pipeline.machine import MachineMonitor
from pipeline.tracking.files import EVENTS, FAULT, LOCK, START
from pipeline.tracking.mlflow_runs import FAULTS, Sender

_log = logging.getLogger(__name__)

_STORE_LOCK = LOCAL / "mlflow.lock"
"""Two processes must not create the same database, experiment or parent."""
_POLL_SECONDS = 0.5
_MACHINE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_END = 200
"""Bytes at the end of a file that hold its last event, if that event ends the run."""
_GRACE_SECONDS = 5.0
"""How long a server that is away is still tried after the stage has ended."""


def run(folder: Path, pid: int) -> None:
    """Sends the events of `folder` until the process `pid`, our parent, has finished or died and nothing is left."""
    sender = Sender(folder)
    monitor = MachineMonitor(pid)
    is_connected = False
    next_machine = 0.0
    pause = _POLL_SECONDS
    give_up = math.inf
    while True:
        # Looked up before sending: what the stage wrote last is then read after it was written.
        is_running = _is_running(folder, pid)
        if not is_running:
            give_up = min(give_up, time.monotonic() + _GRACE_SECONDS)
        try:
            if not is_connected:
                with _locked(_STORE_LOCK):
                    sender.connect()
                is_connected = True
            sender.send()
            if time.monotonic() >= next_machine:
                next_machine = time.monotonic() + _MACHINE_SECONDS
                sender.machine(monitor.sample())
            if not is_running:
                with _locked(_STORE_LOCK):
                    sender.close()
                _tell(folder, "MLflow stores no artifacts", sender.fault)
                break
            _tell(folder, "MLflow stores no artifacts", sender.fault)
            pause = _POLL_SECONDS
        except FAULTS as error:
            _log.warning("%s", error)
            _tell(folder, "MLflow is out of reach", str(error) or type(error).__name__)
            if time.monotonic() > give_up:
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        end = time.monotonic() + (pause if is_running else _POLL_SECONDS)
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            if is_running and not _is_running(folder, pid):
                break
    _send_leftovers(folder)


def _tell(folder: Path, what: str, error: str) -> None:
    """Leaves word for the stage of what fails, on one line; without an error takes it back."""
    fault, line = folder / FAULT, f"{what}: {error}".partition("\n")[0][:160]
    if not error:
        fault.unlink(missing_ok=True)
    elif not fault.exists() or fault.read_text(encoding="utf-8") != line:
        fault.write_text(line, encoding="utf-8")


def _is_running(folder: Path, pid: int) -> bool:
    """False when our parent, the process `pid`, has died or the last event ends the run."""
    with (folder / EVENTS).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_END))
        return os.getppid() == pid and b'"event": "finish"' not in file.read().splitlines()[-1]


def _send_leftovers(own: Path) -> None:
    """Sends what helpers of other runs had to leave, and removes old runs of which nothing is left to send."""
    for start in sorted(LOCAL.rglob(f"tracking/*/{START}")):
        folder = start.parent
        if folder == own:
            continue
        with _locked(folder / LOCK, wait=False) as is_ours:
            if not is_ours:
                continue
            sender = Sender(folder)
            try:
                if not sender.closed:
                    with _locked(_STORE_LOCK):
                        sender.connect()
                    sender.send()
                    sender.close()
                elif sender.unstored:
                    sender.store_later()
            except FAULTS as error:
                _log.warning("%s: left for later: %s", folder, error)
                continue
            if not sender.unstored and folder != max(folder.parent.glob(f"*/{START}")).parent:
                shutil.rmtree(folder)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds an exclusive lock on a file; yields False when it is taken and we do not wait.

    On a file system without locks, of which the stage warns, what would wait goes on and the other does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            # Our own run is tracked all the same, and the one that another stage has left stays with it.
            yield wait
            return
        yield True


def main(folder: Path, pid: int) -> None:
    """Runs apart from the stage's signals: Ctrl-C and TERM are for the stage, and its end is ours."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(5)  # training goes first
    with _locked(folder / LOCK):
        run(folder, pid)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
