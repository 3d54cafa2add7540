"""Matrix products of a model that only answers, on a CPU: weights laid out once as oneDNN multiplies fastest.

`F.linear` in float32 on a CPU is MKL's product, which takes a weight as it lies. A weight that never changes again may
be laid out once in the blocks that oneDNN reads, as PyTorch's compiler does it for a frozen model: a tenth less time
for many rows, up to two thirds less for a few (benchmarks/products.py). Both add up the same products, each in its own
order.

Legend: N rows, I input size, O output size.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.translation import TokenProjection

_LEAST_ELEMENTS = 2**17
"""Of a weight, as 384 x 384 has: the product of a row with a smaller one takes no longer than calling oneDNN."""
_ROWS_EXPECTED = 1024
"""What the blocks are laid out for; any number may come."""


class PackedLinear(nn.Module):
    """A linear layer without a gradient, which stays on the CPU."""

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"]) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape  # as nn.Linear names them
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS_EXPECTED)
        self.bias = bias.detach()

    def forward(self, values: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """values W^T + b."""
        operands = values.detach(), self.weight, self.bias
        product: Tensor = torch.ops.mkldnn._linear_pointwise(*operands, "none", [], "")
        return product

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "PackedLinear":
        raise RuntimeError(
            "the weights of this model are laid out for the CPU: open its folder anew for another device"
        )


def pack(model: nn.Module) -> None:
    """Replaces the large float32 layers of a model on the CPU, which can be neither trained nor moved from then on.

    Nothing happens where this PyTorch lacks the product, whose name is none of its public ones, or where the CPU has no
    AVX-512, without which nobody measured whether it gains.
    """
    if can_pack():
        _pack(model)


def can_pack() -> bool:
    """Whether `pack` does anything here."""
    has_product = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    return has_product and torch._C._has_mkldnn and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _pack(model: nn.Module) -> None:
    for name, part in model.named_children():
        if not isinstance(part, nn.Linear | TokenProjection):
            _pack(part)
        elif part.weight.numel() >= _LEAST_ELEMENTS and part.weight.dtype == torch.float32:
            # What a layer makes of zeros is its bias, in which a projection also has what it never generates.
            zeros = part.weight.new_zeros(1, part.weight.shape[1])
            setattr(model, name, PackedLinear(part.weight, part(zeros)[0]))
