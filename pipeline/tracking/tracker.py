"""What a stage tells about itself: one JSON line a fact, in a local file that a helper process sends to MLflow.

Training never talks to MLflow. It appends to `tracking/RUN/events.jsonl` in the stage's local folder, which is the
local record, the spool while a server is away and what a resumed stage continues, all in one. The helper process
(`pipeline.tracking.helper`) imports mlflow, retries, measures the machine and sends on after the stage has ended or
was killed. So a tracking fault costs training nothing but one warning.

PIPELINE_TRACKING=local writes the file and starts no helper. MLFLOW_TRACKING_URI names a server.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.provenance import git_commit
from pipeline.tracking.files import DONE, EVENTS, EXPORT, FAULT, LOG, START, write

_log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
_CHECK_SECONDS = 2.0
_LAST_WAIT_SECONDS = 60.0

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker:
    """Takes facts about a run and does nothing with them: what every rank but the first is given."""

    def metrics(self, values: Mapping[str, float | int], step: int) -> None:
        """Numbers measured after `step` optimizer steps."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings beside the configuration, nested or flat; a name keeps its first value."""

    def text(self, name: str, content: str) -> None:
        """A text artifact, for example samples."""

    def artifact(self, path: Path) -> None:
        """A file or folder as an artifact; it must stay where it is, for it is sent later."""

    def register(self, folder: Path, name: str) -> None:
        """A finished model folder as the next version of a model in the registry; it may change or go afterwards."""

    def finish(self, status: Status) -> None:
        """The last fact of a run."""


class FileTracker(Tracker):
    """Appends the facts to a run's file, and warns once when they do not reach MLflow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: TextIO | None = None
        self._helper: subprocess.Popen[bytes] | None = None
        self._warned = False
        self._next_check = time.monotonic() + _CHECK_SECONDS

    def start(self, facts: Mapping[str, Any], *, helper: bool) -> None:
        """Opens the file, behind what an earlier process of the same run wrote, and starts the helper."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / START, facts)
            # What an earlier process was told is not known to be so any more.
            (self.folder / FAULT).unlink(missing_ok=True)
            # Line buffered: a line that was written survives kill -9.
            self._file = (self.folder / EVENTS).open("a", buffering=1, encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # ends a line that a kill cut off
            self._write({"event": "start"})
            if helper:
                self._helper = _start_helper(self.folder)
        except OSError as error:
            self._warn(f"not tracked: {error}")

    def metrics(self, values: Mapping[str, float | int], step: int) -> None:
        self._write({"event": "metrics", "values": dict(values), "step": step})
        if time.monotonic() > self._next_check:
            self._next_check = time.monotonic() + _CHECK_SECONDS
            self._check()

    def params(self, values: Mapping[str, Any]) -> None:
        self._write({"event": "params", "values": dict(values)})

    def text(self, name: str, content: str) -> None:
        self._write({"event": "text", "name": name, "content": content})

    def artifact(self, path: Path) -> None:
        self._write({"event": "artifact", "path": str(path)})

    def register(self, folder: Path, name: str) -> None:
        if self._helper is None:
            return  # files of their own are the local record of a model
        kept = self.folder / EXPORT
        try:
            _link(folder, kept)
        except OSError as error:
            self._warn(f"{folder} is not registered: {error}")
            return
        self._write({"event": "register", "folder": str(kept), "name": name})

    def finish(self, status: Status) -> None:
        self._write({"event": "finish", "status": status})
        self._check()
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
                if status == "FINISHED":
                    (self.folder / DONE).touch()
            except OSError as error:
                self._warn(f"the end of {self.folder} is not noted: {error}")
        if self._helper is not None:
            # Nobody waits for the helper, but it must not stay a zombie of a long-lived process.
            threading.Thread(target=self._helper.wait, daemon=True).start()

    def wait(self, seconds: float) -> None:
        """Gives the helper time to send everything, unless it has already said that it cannot."""
        deadline = time.monotonic() + seconds
        while self._helper is not None and self._helper.poll() is None and time.monotonic() < deadline:
            if self._fault() is not None:
                break
            time.sleep(0.05)
        self._check()

    def _write(self, fact: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"time": int(time.time() * 1000), **fact}, default=float) + "\n")
        except OSError as error:
            self._warn(f"not tracked from here on: {error}")
            with suppress(OSError):  # what is buffered cannot be written either
                self._file.close()
            self._file = None

    def _check(self) -> None:
        reason = self._fault()
        if reason is not None:
            self._warn(f"{reason}; what it did not take stays in {self.folder} and is sent by a later run")
        elif self._helper is not None and self._helper.poll():
            self._warn(f"the tracking helper ended with {self._helper.returncode}, see {self.folder / LOG}")

    def _fault(self) -> str | None:
        """What the helper says of a server that does not take what it is sent; it takes that back as soon as it can."""
        try:
            return (self.folder / FAULT).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"{self.folder / FAULT} cannot be read: {error}")
            return None

    def _warn(self, message: str) -> None:
        if not self._warned:
            _log.warning("tracking: %s", message)
        self._warned = True


@contextmanager
def track(
    stage: str,
    *,
    config: Config,
    inputs: Sequence[Path],
    layout: Layout,
    key: str,
    enabled: bool = True,
    last: bool = False,
) -> Iterator[Tracker]:
    """The tracker of one stage; how the block ends is how the run ends.

    A run that did not end well is continued by the next process with the same `key`, the hash of configuration, code
    and inputs. `last` says that no other stage follows: the parent run is closed, and the helper waited for.
    """
    if not enabled:
        yield Tracker()
        return
    facts = {
        "stage": stage,
        "profile": layout.profile,
        "family": _family(layout).name,
        "config": config.model_dump(mode="json"),
        "inputs": sorted(path.as_posix() for path in inputs),
        "commit": git_commit(),
        "key": key,
        "uri": os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI,
        "last": last,
    }
    tracker = FileTracker(_run_folder(layout.local / "tracking", key))
    tracker.start(facts, helper=os.environ.get("PIPELINE_TRACKING") != "local")
    status: Status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
        if last:
            tracker.wait(_LAST_WAIT_SECONDS)


def _family(layout: Layout) -> Path:
    """The folder that holds the local folders of all stages which belong together."""
    return layout.local.parents[layout.stage.count("/")]


def _run_folder(base: Path, key: str) -> Path:
    """The folder of the run to continue, or of a new one; names sort by time."""
    newest = max(base.glob("*"), default=None)
    if newest is not None and newest.name.endswith(f"-{key}") and not (newest / DONE).exists():
        return newest
    return base / f"{time.time_ns()}-{key}"


def _link(folder: Path, target: Path) -> None:
    """Gives the files of a folder second names below `target`, or copies them where the file system has no links.

    DVC moves a folder into its cache as soon as its stage has ended, and replaces it in a later run.
    """
    for copy in (os.link, shutil.copy2):
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(folder, target, copy_function=copy)
            return
        except OSError:
            if copy is shutil.copy2:
                raise


def _start_helper(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pipeline.tracking.helper", str(folder), str(os.getpid())]
    # Its own log: a helper that outlives the stage must not hold the stage's output open. Its own session: what a
    # terminal or a launcher signals to the whole group is for the stage, also while the helper still starts.
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
