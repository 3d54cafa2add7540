"""Objectives of word vectors.

Legend: N pairs of a word and a context, K negative samples of each. A score is the dot product of an input and an
output vector: skip-gram's input is the vector of the centre word, CBOW's the mean of the context words' vectors, and
fastText's is composed of those of a word's character n-grams (Bojanowski et al. 2017, section 3.2). The loss is
the same.
"""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives.terms import LossTerms


def negative_sampling_loss(
    positive_scores: Float[Tensor, "N"], negative_scores: Float[Tensor, "N K"], *, is_negative: Bool[Tensor, "N K"]
) -> LossTerms:
    """Skip-gram with negative sampling (Mikolov et al. 2013b, eq. 4): -log s(positive) - sum of log s(-negative).

    `is_negative` is False where a drawn word is the positive one itself: such a draw takes no part. The count is that
    of the pairs.
    """
    positive = F.logsigmoid(positive_scores)
    negative = F.logsigmoid(-negative_scores) * is_negative
    return LossTerms(
        loss_sum=-positive.sum() - negative.sum(),
        num_targets=positive_scores.numel(),
        report={"accuracy": (positive_scores > 0).sum()},
    )


def glove_loss(scores: Float[Tensor, "N"], counts: Num[Tensor, "N"], *, x_max: float, alpha: float) -> LossTerms:
    """Weighted least squares of log co-occurrence counts (Pennington et al. 2014, eq. 8 and 9).

    `scores` are dot products plus both biases, `counts` the co-occurrences, all above 0. A pair costs
    `min(1, count / x_max) ** alpha * (score - log(count)) ** 2`.
    """
    weights = (counts.float() / x_max).clamp(max=1.0) ** alpha
    errors = scores - torch.log(counts.float())
    return LossTerms(loss_sum=(weights * errors.square()).sum(), num_targets=scores.numel())
