"""R-Drop (Liang et al. 2021): two passes with different dropout shall predict the same distribution.

Legend: N counted positions of a micro-batch, V vocabulary, D model size.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives.likelihood import add_product, filled_up, product_dtype

_ROWS = 256
"""Positions that are projected at once, twice each."""
_IMPOSSIBLE = -1e4
"""Bias of the classes that fill rows up: their probability is zero, and the difference of two logarithms of it too."""


def consistent_cross_entropy(
    first: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"],
    *,
    second: Float[Tensor, "N D"],
    labels: Int[Tensor, "N"],
    label_smoothing: float,
    consistency: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""], Float[Tensor, ""]]:
    """The mean of the two passes' cross entropies, and `consistency` times the mean of the two KL divergences.

    Both passes project their hidden states by the same weight and bias. Sums over the N positions; the loss is half of
    theirs (eq. 4), so that it is that of one pass without the divergence, and their alpha is twice `consistency`.
    As in `projected_cross_entropy` some positions at a time become logits, loss and gradient.

    Returns the loss (differentiable), the cross entropy without smoothing, how often a label has the largest logit
    (whole numbers: of both passes together, halved and rounded down), and the divergence.
    """
    loss, nll, num_correct, divergence = _ConsistentLoss.apply(  # type: ignore[no-untyped-call]
        first, second, weight, bias, labels, label_smoothing, consistency
    )
    return loss, nll, num_correct, divergence


class _ConsistentLoss(torch.autograd.Function):
    """Chunks of positions: logits of both passes -> loss -> gradients of both hidden states, weight and bias.

    With p and q the two distributions, d = log p - log q and J = (KL(p|q) + KL(q|p)) / 2:
    d J / d logits of p = (p (d - KL(p|q)) + p - q) / 2, and the same with p and q exchanged.
    """

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        second: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        label_smoothing: float,
        consistency: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        vocab_size = len(weight)
        dtype = torch.promote_types(first.dtype, torch.float32)
        loss, nll, divergence = (first.new_zeros((), dtype=dtype) for _ in range(3))
        num_correct = labels.new_zeros(())
        padded_weight, padded_bias = filled_up(weight, bias, impossible=_IMPOSSIBLE)
        projection = padded_weight.to(product_dtype(first))
        hidden_grads = (torch.empty_like(first), torch.empty_like(second))
        weight_grad, bias_grad = torch.zeros_like(padded_weight), torch.zeros_like(padded_bias)
        for start in range(0, len(labels), _ROWS):
            rows = slice(start, start + _ROWS)
            both = torch.cat([first[rows], second[rows]])
            wanted = labels[rows, None].repeat(2, 1)
            log_probs = torch.log_softmax(F.linear(both, projection, padded_bias), dim=-1, dtype=dtype)
            picked = log_probs.gather(1, wanted)
            nll -= picked.sum() / 2
            smooth = log_probs[:, :vocab_size].sum() / vocab_size
            loss -= ((1.0 - label_smoothing) * picked.sum() + label_smoothing * smooth) / 2
            num_correct += (picked >= log_probs.amax(1, keepdim=True)).sum()

            difference = log_probs[: len(both) // 2] - log_probs[len(both) // 2 :]
            probs = log_probs.exp_()
            p, q = probs.chunk(2)
            gap = p - q
            total = (gap * difference).sum() / 2
            divergence += total
            loss += consistency * total
            p_over_q, q_over_p = ((one * difference).sum(1, keepdim=True) for one in (p, q))  # KL(p|q), -KL(q|p)
            half = consistency / 2
            grad = probs / 2
            grad[: len(p)] += half * (p * (difference - p_over_q) + gap)
            grad[len(p) :] -= half * (q * (difference - q_over_p) + gap)
            grad[:, :vocab_size] -= label_smoothing / vocab_size / 2
            grad.scatter_add_(1, wanted, torch.full_like(picked, (label_smoothing - 1.0) / 2))

            grad = grad.to(projection.dtype)
            hidden_grads[0][rows], hidden_grads[1][rows] = (grad @ projection).chunk(2)
            add_product(weight_grad, grad, both)
            bias_grad.add_(grad.sum(0).to(bias.dtype))
        ctx.save_for_backward(*hidden_grads, weight_grad[:vocab_size], bias_grad[:vocab_size])
        num_correct //= 2
        ctx.mark_non_differentiable(nll, num_correct, divergence)
        return loss, nll, num_correct, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first, second, weight, bias = ctx.saved_tensors
        scale = grads[0]
        return first * scale.to(first.dtype), second * scale.to(second.dtype), weight * scale, bias * scale, *[None] * 3
