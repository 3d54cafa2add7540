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


def projected_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"],
    *,
    labels: Int[Tensor, "N"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""]]:
    """`token_cross_entropy` of the logits `hidden @ weight.T + bias`, which are never held as a whole.

    A large vocabulary makes the N x V logits the largest tensor of a training step, and passing over them costs more
    than computing them. Here some rows at a time are projected, become a loss and at once the gradient, while they are
    in the cache; so gradients exist when the forward pass ends, and the backward pass only scales them.
    benchmarks/vocabulary_loss.py compares.

    Returns the smoothed loss summed over the N positions (differentiable), the sum without smoothing, and the number of
    positions whose label has the largest logit.
    """
    loss, nll, num_correct = _ProjectedLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, labels, label_smoothing
    )
    return loss, nll, num_correct


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


_CHUNK = 3 * 2**19
"""Logits that are held at once by `projected_cross_entropy`: 6 MB of float32."""
_ALIGNMENT = 16
_MIN_ROWS = 256
"""Fewest rows of them: with fewer, adding up the gradient of a large weight costs more than the cache saves."""


def filled_up(
    weight: Float[Tensor, "V D"], bias: Float[Tensor, "V"], *, impossible: float
) -> tuple[Float[Tensor, "W D"], Float[Tensor, "W"]]:
    """A projection with further classes behind its own, of which `impossible` is the bias.

    Rows of an odd length make the products up to twice as slow; W, the number of classes then, is a multiple of 16.
    """
    extra = -len(weight) % _ALIGNMENT
    return F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra), value=impossible)


def product_dtype(values: Tensor) -> torch.dtype:
    """The precision of a matrix product of `values` here: that of autocast, or their own."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype


def add_product(total: Float[Tensor, "W D"], grad: Float[Tensor, "N W"], hidden: Float[Tensor, "N D"]) -> None:
    """Adds the gradient of a projection, as precise as autograd would make it: in bfloat16 one of its products."""
    if grad.dtype == torch.bfloat16:
        total.add_(grad.t() @ hidden.to(grad.dtype))
    else:
        total.addmm_(grad.t().to(total.dtype), hidden.to(total.dtype))


class _ProjectedLoss(torch.autograd.Function):
    """Chunks of rows: logits -> loss -> gradients of hidden states, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        vocab_size = len(weight)
        needs_grad = any(ctx.needs_input_grad)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        loss, nll = hidden.new_zeros((), dtype=dtype), hidden.new_zeros((), dtype=dtype)
        num_correct = labels.new_zeros(())
        rows = max(_MIN_ROWS, _CHUNK // vocab_size)
        padded_weight, padded_bias = filled_up(weight, bias, impossible=-torch.inf)
        projection = padded_weight.to(product_dtype(hidden))
        grads: tuple[Tensor, ...] = ()
        if needs_grad:
            grads = (torch.empty_like(hidden), torch.zeros_like(padded_weight), torch.zeros_like(padded_bias))
        for start in range(0, len(labels), rows):
            some, wanted = hidden[start : start + rows], labels[start : start + rows, None]
            log_probs = torch.log_softmax(F.linear(some, projection, padded_bias), dim=-1, dtype=dtype)
            picked = log_probs.gather(1, wanted)
            nll -= picked.sum()
            loss -= (1.0 - label_smoothing) * picked.sum()
            if label_smoothing > 0.0:
                loss -= label_smoothing / vocab_size * log_probs[:, :vocab_size].sum()
            num_correct += (picked >= log_probs.amax(1, keepdim=True)).sum()
            if grads:
                # d loss / d logits = p - ((1 - smoothing) * onehot + smoothing / V)
                grad = log_probs.exp_()
                grad[:, :vocab_size] -= label_smoothing / vocab_size
                grad.scatter_add_(1, wanted, torch.full_like(picked, label_smoothing - 1.0))
                grad = grad.to(projection.dtype)
                grads[0][start : start + rows] = grad @ projection
                add_product(grads[1], grad, some)
                grads[2].add_(grad.sum(0).to(bias.dtype))
        ctx.save_for_backward(*(grads and (grads[0], grads[1][:vocab_size], grads[2][:vocab_size])))
        ctx.mark_non_differentiable(nll, num_correct)
        return loss, nll, num_correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        hidden, weight, bias = ctx.saved_tensors
        return hidden * grads[0].to(hidden.dtype), weight * grads[0], bias * grads[0], None, None
