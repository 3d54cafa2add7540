"""From the scores of first and last tokens to the best spans of a window.

Legend: B windows, T length in tokens, M longest span, N spans asked for. Masks are boolean; True counts.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Spans:
    """The best spans of each window, best first; a span that there is not has the score minus infinity."""

    starts: Int[Tensor, "B N"]
    ends: Int[Tensor, "B N"]
    """Position of the last token, not behind it."""
    scores: Float[Tensor, "B N"]
    """Score of the first token plus score of the last."""
    log_total: Float[Tensor, "B"]
    """log of the sum of exp(score) over all spans that are allowed, not only the best."""


def top_spans(
    start_logits: Float[Tensor, "B T"],
    end_logits: Float[Tensor, "B T"],
    may_begin: Bool[Tensor, "B T"],
    may_end: Bool[Tensor, "B T"],
    *,
    max_tokens: int,
    num_best: int,
) -> Spans:
    """The spans with the largest `start + end` (Devlin et al. 2019, section 4.2), of at most `max_tokens` tokens.

    All allowed spans are compared, B x T x M of them, where the authors' code compares the best starts with the best
    ends: what it finds is never better.
    """
    starts = start_logits.float().masked_fill(~may_begin, -torch.inf)
    ends = end_logits.float().masked_fill(~may_end, -torch.inf)
    following = F.pad(ends, (0, max_tokens - 1), value=-torch.inf).unfold(1, max_tokens, 1)  # (B, T, M)
    scores = (starts[:, :, None] + following).flatten(1)
    best = scores.topk(min(num_best, scores.shape[1]), dim=1)
    first = best.indices // max_tokens
    return Spans(
        starts=first,
        ends=first + best.indices % max_tokens,
        scores=best.values,
        log_total=scores.logsumexp(1),
    )
