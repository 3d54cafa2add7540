"""Dropout (Srivastava et al. 2014) that is cheap on a CPU.

`F.dropout` on a CPU draws one random number an element on one thread, which costs a small Transformer as much as its
matrix products. One 64-bit draw decides four elements here: forward and backward together take a half to a third of
the time on tensors of one to two million elements (benchmarks/dropout.py). It draws from PyTorch's global generator,
so saving and restoring that state repeats the masks.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_LEVELS = 2**16


def dropout(values: Float[Tensor, "*shape"], p: float) -> Float[Tensor, "*shape"]:
    """Zeroes each element with probability p (in steps of 2^-16) and scales the others so that the mean stays."""
    if _num_dropped(p) == 0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, p)
    return values * kept(values.shape, p, dtype=values.dtype)


def kept(shape: tuple[int, ...], p: float, *, dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """The factors of dropout on a CPU: 0 with probability p, else 1 / (1 - p)."""
    num_dropped, count = _num_dropped(p), math.prod(shape)
    if num_dropped == 0:
        return torch.ones(shape, dtype=dtype)
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    # The largest draw that is dropped becomes 0, the next one 1: comparing, and multiplying with booleans, is slower.
    last = num_dropped - _LEVELS // 2 - 1
    keep = draws[:count].clamp_(last, last + 1).sub_(last).view(shape).to(dtype)
    return keep.mul_(_LEVELS / (_LEVELS - num_dropped))


def _num_dropped(p: float) -> int:
    """Of how many draws in 2^16; never all, which would leave nothing to scale."""
    return min(round(p * _LEVELS), _LEVELS - 1)


class Dropout(nn.Module):
    """`dropout` while training, the identity otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The values with a fraction p of them dropped."""
        return dropout(values, self.p) if self.training else values
