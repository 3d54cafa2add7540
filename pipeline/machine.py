"""What the processor can, and measurements while a process trains: its processors, its memory and the GPUs."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls the instructions for products in bfloat16, of x86 and of ARM."""


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 in hardware, as far as Linux says; elsewhere False."""
    if not cpuinfo.is_file():
        return False
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return any(_BFLOAT16 & set(value.split()) for name, _, value in lines if name.strip() in ("flags", "Features"))


class MachineMonitor:
    """Measures a process with all its children, apart from the one that measures."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last: tuple[float, float] | None = None

    def sample(self) -> dict[str, float]:
        """Numbers by name: percent of one core since the last sample, bytes, and for each GPU percent and MiB.

        Empty when the process is gone.
        """
        try:
            root = psutil.Process(self._pid)
            processes = [root, *(child for child in root.children(recursive=True) if child.pid != os.getpid())]
        except psutil.NoSuchProcess:
            return {}
        seconds, resident = 0.0, 0
        for process in processes:
            try:
                times = process.cpu_times()
                seconds += times.user + times.system
                resident += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        now = time.monotonic()
        values = {"system/memory_bytes": float(resident)}
        if self._last is not None and now > self._last[0]:
            # A child that ended took its seconds along: the sum may fall.
            values["system/cpu_percent"] = max(0.0, 100 * (seconds - self._last[1]) / (now - self._last[0]))
        self._last = (now, seconds)
        return values | _gpus()


def _gpus() -> dict[str, float]:
    """Use and memory of each NVIDIA GPU, as its driver's own tool prints them; empty where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    values: dict[str, float] = {}
    for line in lines:
        index, used, memory = (part.strip() for part in line.split(","))
        if used.isdigit() and memory.isdigit():
            values |= {f"system/gpu_{index}_percent": float(used), f"system/gpu_{index}_mebibytes": float(memory)}
    return values
