"""Our scores of additive attention beside the equation as it stands: forward and backward, both in one run.

python -m benchmarks.additive_scores [--threads N]
"""

from collections.abc import Callable, Sequence
from statistics import median
from time import process_time

import torch
from torch import Tensor

from benchmarks.shared.options import parser
from pipeline.models.additive_scores import additive_scores

SHAPES = [(85, 16, 16, 256), (56, 24, 24, 256), (150, 16, 16, 256), (80, 30, 30, 1000)]


def plain(queries: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    return torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1)) @ weights


def milliseconds(scores: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor], given: Tensor) -> float:
    """Median time of the processor for forward and backward."""
    times = []
    for _ in range(9):
        start = process_time()
        torch.autograd.grad(scores(*inputs), inputs, given)
        times.append(process_time() - start)
    return 1e3 * median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("additive_scores", __doc__, "threads").parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"{'B x T x S x H':>18} {'plain ms':>9} {'ours ms':>8} {'ratio':>6}")
    for rows, length, num_keys, width in SHAPES:
        sizes = ((rows, length, width), (rows, num_keys, width), (width,))
        inputs = [torch.randn(*size, requires_grad=True) for size in sizes]
        given = torch.randn(rows, length, num_keys)
        theirs, ours = (milliseconds(one, inputs, given) for one in (plain, additive_scores))
        shape = f"{rows} x {length} x {num_keys} x {width}"
        print(f"{shape:>18} {theirs:9.1f} {ours:8.1f} {theirs / ours:6.2f}")


if __name__ == "__main__":
    main()
