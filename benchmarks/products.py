"""Matrix products of a model that only answers: a weight laid out for oneDNN beside `F.linear`, ratio printed.

python -m benchmarks.products [--threads N]

Both sides multiply by turns, in float32 on a CPU. The shapes are those of a decoder's steps (few rows), of texts (many)
and of vocabularies.
"""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shared.options import parser
from pipeline.inference.packed import PackedLinear, can_pack

NUM_ROWS = (1, 5, 64, 320, 2048)
SHAPES = ((384, 384), (384, 1536), (768, 3072), (128, 10000))
"""Inputs and outputs of a layer."""
TURNS, OPERATIONS_A_TURN = 9, 2e8


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("products", __doc__, "threads").parse_args(arguments)
    if not can_pack():
        raise SystemExit("error: this PyTorch lacks the product, or this CPU has no AVX-512")
    torch.set_num_threads(options.threads)
    print(f"{'rows':>6} {'layer':>12} {'F.linear us':>12} {'ours us':>9} {'ratio':>6}   {options.threads} thread(s)")
    with torch.inference_mode():
        for num_rows in NUM_ROWS:
            for inputs, outputs in SHAPES:
                theirs, ours = microseconds(num_rows, inputs, outputs)
                layer = f"{inputs} x {outputs}"
                print(f"{num_rows:6} {layer:>12} {theirs:12.1f} {ours:9.1f} {theirs / ours:6.2f}")


def microseconds(num_rows: int, inputs: int, outputs: int) -> tuple[float, float]:
    """Median time of a product by `F.linear` and by ours."""
    values, weight, bias = torch.randn(num_rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    packed = PackedLinear(weight, bias)
    sides: tuple[Callable[[], Tensor], ...] = (lambda: F.linear(values, weight, bias), lambda: packed(values))
    times = max(1, int(OPERATIONS_A_TURN / (2 * num_rows * inputs * outputs)))
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for multiply, seconds in zip(sides, taken, strict=True):
            multiply()
            started = perf_counter()
            for _ in range(times):
                multiply()
            seconds.append((perf_counter() - started) / times)
    return 1e6 * median(taken[0]), 1e6 * median(taken[1])


if __name__ == "__main__":
    main()
