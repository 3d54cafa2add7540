"""Independent pieces of work on the threads of a CPU, one thread each."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Generator[Result, None, None]:
    """work(piece) of each piece, in their order, on as many threads as PyTorch may use.

    Small operations gain little from several threads each: as many pieces with a thread each are done sooner, since
    PyTorch lets go of the interpreter while it computes. Pieces are taken a few ahead of the results; what the work
    raises is raised here. Until the last result is taken, other work of the process has one thread too.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        yield from map(work, pieces)
        return
    waiting: deque[Future[Result]] = deque()
    # The number of threads is a setting of each thread, in part also of the process.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for piece in pieces:
                    waiting.append(pool.submit(work, piece))
                    if len(waiting) > num_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
    finally:
        torch.set_num_threads(num_threads)
