"""What every stage has around it, whether it trains or not: a lock, a run in the tracker, a note of what it cost."""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.artifacts import write_json
from pipeline.config import Config
from pipeline.layout import Layout
from pipeline.locks import locked
from pipeline.processes import is_first_process
from pipeline.provenance import run_key
from pipeline.tracking.tracker import Tracker, track
from pipeline.training.interrupt import Interrupt

_log = logging.getLogger(__name__)


@contextmanager
def stage_frame(module: str, path: Path, config: Config, *, inputs: Sequence[Path]) -> Iterator[Tracker]:
    """Tracks the body of the stage in `module` (its import name), which does not train, and holds its lock."""
    layout = Layout.of(path)
    end_all_but_first(layout)
    interrupt = Interrupt()
    interrupt.install()
    interrupt.watch_parent()
    check_inputs(inputs)
    with locked(layout.local):
        key = run_key(module, path, inputs)
        with tracked(layout, config, inputs=inputs, key=key, is_main=True) as tracker:
            yield tracker


def end_all_but_first(layout: Layout) -> None:
    """Ends this process well where it is not the first that a launcher started: one does what is not trained."""
    if not is_first_process():
        _log.info("%s: nothing is trained, so that the first process does it alone; this one ends", layout.stage)
        raise SystemExit(0)


@contextmanager
def tracked(layout: Layout, config: Config, *, inputs: Sequence[Path], key: str, is_main: bool) -> Iterator[Tracker]:
    """One run in the tracker, and afterwards its costs on the disk; for every rank but the first, nothing."""
    with track(
        layout.stage,
        config=config,
        inputs=inputs,
        layout=layout,
        key=key,
        enabled=is_main,
        last=layout.stage == "report",
    ) as tracker:
        yield tracker
    if is_main:
        _write_cost(layout)


def check_inputs(inputs: Sequence[Path]) -> None:
    """Raises ValueError that names the first input that is missing."""
    for source in inputs:
        if not source.exists():
            raise ValueError(f"{source}: missing; run the stage that makes it first (dvc repro does)")


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested numbers under dotted names; what is no number is left out."""
    result: dict[str, float] = {}
    for key, value in values.items():
        match value:
            case Mapping():
                result |= flat(value, f"{prefix}{key}.")
            case bool() | int() | float():
                result[f"{prefix}{key}"] = float(value)
    return result


def _write_cost(layout: Layout) -> None:
    """Seconds since this process began, imports included, and the largest memory of it or a child of it, in bytes."""
    seconds = _age_of_this_process()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit
    write_json(layout.cost, {"seconds": round(seconds, 1), "peak_bytes": peak})


def _age_of_this_process() -> float:
    """Seconds since the kernel started this process, on the clock that runs from boot.

    Linux notes the start in ticks since boot (proc_pid_stat(5), starttime, field 22). The date of the boot, by which
    psutil makes a date of it, is kept in whole seconds and is wrong wherever the clock was set since.
    """
    if not sys.platform.startswith("linux"):
        return time.time() - psutil.Process().create_time()
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
