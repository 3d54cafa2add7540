"""How the gradient of a loss fades on its way back through a recurrent network (Bengio et al. 1994).

Legend: B sequences, T steps, Q layers, H hidden size. Masks are boolean; True counts.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.batches import TranslationBatch
from pipeline.models.recurrent import Recurrent
from pipeline.models.source_attention import Hidden


def gradient_by_distance(
    states: Sequence[Hidden], losses: Sequence[Float[Tensor, "B"]], is_counted: Bool[Tensor, "B T"], *, longest: int
) -> list[float]:
    """The mean norm of d loss_t / d state_(t - k) for k = 0, 1, ... up to `longest`.

    `states` and `losses` are those of the T steps, in one graph; a state is all that passes to the next step, of an
    LSTM its output and its cell, each (Q, B, H). The mean of k is over the counted losses that have a state k steps
    before them; the list ends where there is none.
    """
    num_distances = min(longest + 1, len(losses))
    totals, counts = [0.0] * num_distances, [0] * num_distances
    for t, loss in enumerate(losses):
        counted = is_counted[:, t]
        reach = states[max(0, t - num_distances + 1) : t + 1][::-1]  # from distance 0 on
        parts = [part for state in reach for part in state]
        found = torch.autograd.grad(loss[counted].sum(), parts, retain_graph=True, allow_unused=True)
        squares = [0.0 if one is None else one.double().square().sum((0, 2)) for one in found]  # each (B,)
        width = len(reach[0])
        for k in range(len(reach)):
            # Rows that are not counted have no gradient.
            totals[k] += float(torch.as_tensor(sum(squares[k * width : (k + 1) * width])).sqrt().sum())
            counts[k] += int(counted.sum())
    return [total / count for total, count in zip(totals, counts, strict=True) if count]


def decoder_gradients(model: Recurrent, batch: TranslationBatch, *, longest: int) -> list[float]:
    """`gradient_by_distance` of the cross entropy of each target token, back through the states of the decoder.

    The model is in evaluation mode: neither dropout nor a cut of the gradient acts.
    """
    assert not model.training
    states, losses = [], []
    # cuDNN has no backward pass in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        state = model.start(batch.src, batch.src_mask)
        labels = batch.labels.masked_fill(~batch.is_target, 0)
        for t in range(labels.size(1)):
            logits, state = model.step(batch.tgt[:, t], state)
            states.append(state.hidden)
            losses.append(F.cross_entropy(logits, labels[:, t], reduction="none"))
        return gradient_by_distance(states, losses, batch.is_target, longest=longest)
