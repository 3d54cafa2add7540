"""The scores of additive attention, v tanh(q + k) for each pair of a query and a key, without keeping the pairs.

Legend: B batch, T queries, S keys, H width.
The (B, T, S, H) values are made a few rows at a time, small enough for the cache of a core, and made again in the
backward pass: on a CPU that takes a third of the time of keeping them. tanh(x) = 2 sigmoid(2 x) - 1, and PyTorch's
sigmoid takes a sixth of the time of its tanh (benchmarks/additive_scores.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_PAIRS_AT_ONCE = 2**18


def additive_scores(
    queries: Float[Tensor, "B T H"], keys: Float[Tensor, "B S H"], weights: Float[Tensor, "H"]
) -> Float[Tensor, "B T S"]:
    """weights . tanh(query + key) (Bahdanau et al. 2015, appendix A.1.2); differentiable once."""
    scores: Tensor = _AdditiveScores.apply(queries, keys, weights.to(queries.dtype))  # type: ignore[no-untyped-call]
    return scores


class _AdditiveScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, weights)
        scores = torch.cat([sigmoids @ weights for _, sigmoids in _pieces(queries, keys)])
        return 2.0 * scores - weights.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, weights = ctx.saved_tensors
        (of_scores,) = gradients
        of_queries, of_keys, of_weights = (torch.zeros_like(one) for one in (queries, keys, weights))
        for rows, sigmoids in _pieces(queries, keys):
            given = of_scores[rows]
            of_weights += given.flatten() @ sigmoids.flatten(0, 2)
            # The derivative of tanh(x) is 4 s (1 - s) with s = sigmoid(2 x).
            slopes = torch.addcmul(sigmoids, sigmoids, sigmoids, value=-1.0).mul_(given.unsqueeze(-1))
            of_queries[rows], of_keys[rows] = slopes.sum(2), slopes.sum(1)
        scale = 4.0 * weights
        return of_queries * scale, of_keys * scale, 2.0 * of_weights - of_scores.sum()


def _pieces(queries: Tensor, keys: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows, and sigmoid(2 (query + key)) of all their pairs."""
    size = queries.size(0)
    if queries.device.type == "cpu":
        size = max(1, _PAIRS_AT_ONCE // max(1, queries.size(1) * keys.size(1) * keys.size(2)))
    doubled, others = 2.0 * queries, 2.0 * keys
    for start in range(0, queries.size(0), max(1, size)):
        rows = slice(start, start + size)
        yield rows, (doubled[rows].unsqueeze(2) + others[rows].unsqueeze(1)).sigmoid_()
