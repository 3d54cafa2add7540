"""Maximum likelihood: of tokens, classes, spans and real values.

Legend: N counted positions of a micro-batch, gathered into one flat axis; B rows, T length in tokens, V vocabulary,
K classes. Masks are boolean; True counts.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives.terms import LossTerms


def token_cross_entropy(
    logits: Float[Tensor, "N V"], labels: Int[Tensor, "N"], *, label_smoothing: float = 0.0, name: str = "loss"
) -> LossTerms:
    """Cross entropy of the labels, with label smoothing (Szegedy et al. 2016, section 7).

    The target distribution gives `1 - label_smoothing` to the label and spreads the rest evenly over all V classes, the
    label among them. Logits hold counted positions and predictable classes only: padding is in neither sum nor count,
    and a class outside the softmax is left out of the projection, not set to minus infinity.

    Reports `nll`, the cross entropy without smoothing, and `accuracy`; a tie for the largest logit counts as correct.
    """
    log_probs, mean_log_probs, largest = _pick(logits, labels, with_mean=label_smoothing > 0.0)
    loss_sum = -log_probs.sum()
    if label_smoothing > 0.0:
        loss_sum = (1.0 - label_smoothing) * loss_sum - label_smoothing * mean_log_probs.sum()
    picked = log_probs.detach()
    return LossTerms(
        loss_sum=loss_sum,
        num_targets=labels.numel(),
        name=name,
        report={"nll": -picked.sum(), "accuracy": (picked >= largest).sum()},
    )


def token_log_probs(logits: Float[Tensor, "N V"], labels: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """log p(label) at every position; differentiable."""
    return _pick(logits, labels, with_mean=False)[0]


def response_log_probs(
    logits: Float[Tensor, "N V"], labels: Int[Tensor, "N"], counted: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """log p(response | prompt) of each row: the sum over its counted positions, not their mean.

    `logits` and `labels` are those at the N positions that `counted` selects, in its row-major order.
    """
    rows = counted.nonzero()[:, 0]
    if len(rows) != len(labels):
        raise ValueError(f"counted selects {len(rows)} positions, but there are {len(labels)} labels")
    log_probs = token_log_probs(logits, labels)
    return log_probs.new_zeros(len(counted)).index_add(0, rows, log_probs)


def class_cross_entropy(logits: Float[Tensor, "B K"], labels: Int[Tensor, "B"], *, name: str = "loss") -> LossTerms:
    """Cross entropy of one class for each example; reports `accuracy`."""
    correct = (logits.detach().argmax(-1) == labels).sum()
    return LossTerms(
        loss_sum=F.cross_entropy(logits.float(), labels, reduction="sum"),
        num_targets=labels.numel(),
        name=name,
        report={"accuracy": correct},
    )


def squared_error(predictions: Float[Tensor, "B"], labels: Float[Tensor, "B"], *, name: str = "loss") -> LossTerms:
    """Squared error of one real value for each example; reports `absolute_error`."""
    errors = predictions.float() - labels
    return LossTerms(
        loss_sum=errors.square().sum(),
        num_targets=labels.numel(),
        name=name,
        report={"absolute_error": errors.detach().abs().sum()},
    )


def span_cross_entropy(
    start_logits: Float[Tensor, "B T"],
    end_logits: Float[Tensor, "B T"],
    starts: Int[Tensor, "B"],
    ends: Int[Tensor, "B"],
    *,
    allowed: Bool[Tensor, "B T"],
    name: str = "loss",
) -> LossTerms:
    """Extractive question answering: the mean of the cross entropies of first and last token (Devlin et al. 2019, 4.2).

    Only `allowed` positions are in the softmax; the true ones must be among them. Reports `accuracy`: both are right.
    """
    start_logits = start_logits.float().masked_fill(~allowed, -torch.inf)
    end_logits = end_logits.float().masked_fill(~allowed, -torch.inf)
    start_loss = F.cross_entropy(start_logits, starts, reduction="sum")
    end_loss = F.cross_entropy(end_logits, ends, reduction="sum")
    correct = (start_logits.detach().argmax(-1) == starts) & (end_logits.detach().argmax(-1) == ends)
    return LossTerms(
        loss_sum=(start_loss + end_loss) / 2,
        num_targets=starts.numel(),
        name=name,
        report={"accuracy": correct.sum()},
    )


def _pick(
    logits: Float[Tensor, "N V"], labels: Int[Tensor, "N"], *, with_mean: bool
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Log-probability of each label, mean log-probability of the classes (or 0), largest log-probability (detached)."""
    picked, means, largest = _PickedLogProbs.apply(logits, labels, with_mean)  # type: ignore[no-untyped-call]
    return picked, means, largest


class _PickedLogProbs(torch.autograd.Function):
    """Log-softmax of which only the labels' entries, and if asked the mean over the classes, leave.

    Autograd on log_softmax holds three N x V tensors at the peak of the backward pass and passes over them several
    times. Here the log-probabilities turn into the gradient in place, which halves the time on a CPU. A second backward
    pass through the same graph is therefore refused, by autograd's own check of saved tensors.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, with_mean: bool) -> tuple[Tensor, Tensor, Tensor]:
        log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        picked = log_probs.gather(1, labels[:, None]).squeeze(1)
        means = log_probs.mean(-1) if with_mean else torch.zeros_like(picked)
        largest = log_probs.amax(-1)
        ctx.save_for_backward(log_probs, labels)
        ctx.with_mean = with_mean
        ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(largest)
        return picked, means, largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """d picked / d logits = onehot - p and d mean / d logits = 1 / V - p."""
        log_probs, labels = ctx.saved_tensors
        picked_grad, mean_grad = grads[0], grads[1]
        total = picked_grad + mean_grad if ctx.with_mean else picked_grad
        result = log_probs.exp_().mul_(-total[:, None])
        if ctx.with_mean:
            result.add_(mean_grad[:, None] / result.shape[1])
        result.scatter_add_(1, labels[:, None], picked_grad[:, None])
        return result.to(ctx.dtype), None, None
