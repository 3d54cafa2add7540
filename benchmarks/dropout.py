"""Our dropout beside PyTorch's on a CPU: forward and backward, both in one run, ratio printed.

python -m benchmarks.dropout [--threads N]
"""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shared.options import parser
from pipeline.models.dropout import dropout

SHAPES = [(64, 128, 128), (32, 128, 512), (16, 256, 768)]


def milliseconds(apply: Callable[[Tensor], Tensor], values: Tensor) -> float:
    """Median time of forward and backward."""
    times = []
    for _ in range(15):
        start = perf_counter()
        torch.autograd.grad(apply(values), values, torch.ones_like(values))
        times.append(perf_counter() - start)
    return 1e3 * median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("dropout", __doc__, "threads").parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"{'shape':>16} {'PyTorch ms':>11} {'ours ms':>8} {'ratio':>6}")
    for shape in SHAPES:
        values = torch.randn(shape, requires_grad=True)
        theirs = milliseconds(lambda x: F.dropout(x, 0.1), values)
        ours = milliseconds(lambda x: dropout(x, 0.1), values)
        print(f"{'x'.join(map(str, shape)):>16} {theirs:11.2f} {ours:8.2f} {theirs / ours:6.2f}")


if __name__ == "__main__":
    main()
