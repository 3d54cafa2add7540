"""Objectives of word vectors.

Legend: N blocks of running text, S centre words of a block, C its context words, K negative samples that it shares, P
cells of one row of the co-occurrence matrix. A score is the dot product of an input and an output vector: skip-gram's
input is the vector of the centre word, fastText's is composed of those of its character n-grams (Bojanowski et al.
2017, section 3.2), CBOW's is the mean of the context words' vectors. The loss is the same. Masks are boolean; True
counts.
"""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from pipeline.objectives.terms import LossTerms


def negative_sampling_loss(
    positive_scores: Float[Tensor, "N S C"],
    negative_scores: Float[Tensor, "N S K"],
    *,
    is_pair: Bool[Tensor, "N S C"],
    num_negatives: int,
) -> LossTerms:
    """Negative sampling (Mikolov et al. 2013b, eq. 4), with negatives that the pairs of a block share.

    A pair costs `-log s(positive) - num_negatives * E[log s(-negative)]`. The paper estimates the expectation from
    `num_negatives` draws for each pair; here it is the mean over the K draws of the block, so that all scores are
    matrix products. Draws do not look at the pair, as in the paper's equation: one may be the context itself.

    The count is that of the pairs. Reports `accuracy`, the share of pairs with a positive score.
    """
    pairs_of_centre = is_pair.sum(-1, keepdim=True)
    positive = F.binary_cross_entropy_with_logits(
        positive_scores, positive_scores.new_ones(()).expand_as(positive_scores), weight=is_pair, reduction="sum"
    )
    weights = pairs_of_centre * (num_negatives / negative_scores.shape[-1])
    negative = F.binary_cross_entropy_with_logits(
        negative_scores, negative_scores.new_zeros(()).expand_as(negative_scores), weight=weights, reduction="sum"
    )
    return LossTerms(
        loss_sum=positive + negative,
        num_targets=int(pairs_of_centre.sum()),
        report={"accuracy": ((positive_scores.detach() > 0) & is_pair).sum()},
    )


def glove_loss(
    scores: Float[Tensor, "N P"],
    counts: Float[Tensor, "N P"],
    *,
    is_cell: Bool[Tensor, "N P"],
    x_max: float,
    alpha: float,
) -> LossTerms:
    """Weighted least squares of log co-occurrence counts (Pennington et al. 2014, eq. 8 and 9).

    `scores` are dot products plus both biases, `counts` the co-occurrences, above 0 wherever `is_cell`. A cell costs
    `min(1, count / x_max) ** alpha * (score - log(count)) ** 2`. The count is that of the cells.
    """
    counts = counts.masked_fill(~is_cell, 1.0)
    weights = (counts / x_max).clamp(max=1.0) ** alpha * is_cell
    errors = scores - counts.log()
    return LossTerms(loss_sum=(weights * errors.square()).sum(), num_targets=int(is_cell.sum()))
