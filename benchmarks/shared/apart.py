"""A measurement in a process of its own: neither side finds what the other has set, warmed or left in memory."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def apart(threads: int, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """What a function of a module returns in a new process with so many threads, of tokenizers too.

    Its error is raised here.
    """
    os.environ |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_prepare, initargs=(threads,)) as pool:
        return pool.submit(function, *arguments, **keywords).result()


def _prepare(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
