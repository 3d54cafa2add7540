"""What is known of a finished stage of a published number, here or in a report that another machine wrote.

Among it what it was made with and on, as `versions` and `machine` find it.
"""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.processes import allowed_threads

_PACKAGES = ("torch", "lightning", "deepspeed", "tokenizers", "sacrebleu", "sacremoses")
NO_RUNTIME = "not set"
"""In the place of a runtime's name where the stage chose it."""


@dataclass(frozen=True)
class Made:
    """A stage that is up to date: what it took, and what it was made with."""

    seconds: float
    versions: Mapping[str, str]
    machine: Mapping[str, int | str]
    code: str
    """Stands for the code of the stage and of those before it."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Its figures where another machine made it; empty for those that lie here."""

    def record(self, configuration: str) -> dict[str, Any]:
        """What the report keeps of a run beside its figures."""
        return {
            "configuration": configuration,
            "code": self.code,
            "seconds": round(self.seconds, 1),
            "versions": dict(self.versions),
            "machine": dict(self.machine),
        }

    @staticmethod
    def of(record: Mapping[str, Any], metrics: Mapping[str, Any]) -> "Made":
        """A run as a report has it."""
        return Made(record["seconds"], record["versions"], record["machine"], record["code"], metrics)


def versions() -> dict[str, str]:
    """What the figures were measured with; deepspeed is not installed everywhere."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> dict[str, int | str]:
    """What the seconds were measured on: the processor, how many, the threads that a process may use of them, and the
    runtime that was asked for.
    """
    cpus = os.cpu_count() or 1
    threads = min(cpus, allowed_threads() or cpus)
    runtime = os.environ.get("PIPELINE_RUNTIME") or NO_RUNTIME
    return {"processor": _processor(), "cpus": cpus, "threads": threads, "runtime": runtime}


def _processor() -> str:
    """The name of the processor as Linux has it, or the kind of machine."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    fields = {"vendor_id", "cpu family", "model", "model name"}
    found = [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() in fields]
    return " ".join(found[: len(fields)]) or platform.machine()
