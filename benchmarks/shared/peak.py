"""The clock of a comparison, and what the machine's matrix products reach at most."""

from collections.abc import Callable
from time import perf_counter, process_time

import torch


def clock_of(threads: int) -> Callable[[], float]:
    """Seconds: the processor's own of a single thread, which other programs hardly disturb; else those that pass."""
    return process_time if threads == 1 else perf_counter


def matrix_peak(clock: Callable[[], float] = perf_counter) -> float:
    """Operations a second of a large float32 product, the best of ten."""
    one, other = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(10):
        started = clock()
        one @ other
        times.append(clock() - started)
    return 2 * 2048**3 / min(times)
