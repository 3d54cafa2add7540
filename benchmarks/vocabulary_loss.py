"""The loss over a vocabulary, forward and backward: logits as a whole beside some rows at a time; ratio printed.

python -m benchmarks.vocabulary_loss [--threads N]
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.shared.options import parser
from pipeline.objectives.likelihood import projected_cross_entropy, token_cross_entropy

SHAPES = [(1300, 128, 6000), (2600, 128, 8000), (1300, 512, 37000)]
"""Target tokens of a step, model size, vocabulary."""


def milliseconds(loss: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Median time of the processor for forward and backward."""
    times = []
    for _ in range(7):
        start = process_time()
        torch.autograd.grad(loss(), inputs)
        times.append(process_time() - start)
    return 1e3 * median(times)


def pytorch_s(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """PyTorch's loss of the logits."""
    return F.cross_entropy(F.linear(*inputs), labels, label_smoothing=0.1, reduction="sum")


def at_once(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Our loss of the logits."""
    return token_cross_entropy(F.linear(*inputs), labels, label_smoothing=0.1).loss_sum


def in_rows(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Our loss that never holds all logits."""
    return projected_cross_entropy(*inputs, labels=labels, label_smoothing=0.1)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser("vocabulary_loss", __doc__, "threads").parse_args(arguments)
    torch.set_num_threads(options.threads)
    print(f"{'shape':>15} {'PyTorch ms':>11} {'whole ms':>9} {'rows ms':>8} {'ratio to PyTorch':>17} {'to whole':>9}")
    for num_tokens, d_model, vocab_size in SHAPES:
        shapes = ((num_tokens, d_model), (vocab_size, d_model), (vocab_size,))
        inputs = tuple((0.05 * torch.randn(shape)).requires_grad_() for shape in shapes)
        labels = torch.randint(vocab_size, (num_tokens,))
        pytorch, whole, rows = (
            milliseconds(partial(loss, inputs, labels), inputs) for loss in (pytorch_s, at_once, in_rows)
        )
        shape = f"{num_tokens}x{d_model}x{vocab_size}"
        print(f"{shape:>15} {pytorch:11.1f} {whole:9.1f} {rows:8.1f} {pytorch / rows:17.2f} {whole / rows:9.2f}")


if __name__ == "__main__":
    main()
