"""Word vector objectives against a loop over pairs and against the optimum that theory gives."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from pipeline.objectives.word_vectors import glove_loss, negative_sampling_loss


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_negative_sampling_equals_a_loop_over_pairs_and_leaves_out_draws_of_the_positive_word() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(6, generator=generator), torch.randn(6, 4, generator=generator)
    is_negative = torch.rand(6, 4, generator=generator) < 0.7
    expected = 0.0
    for i in range(6):
        expected -= _log_sigmoid(float(positive[i]))
        for k in range(4):
            if is_negative[i, k]:
                expected -= _log_sigmoid(-float(negative[i, k]))
    terms = negative_sampling_loss(positive, negative, is_negative=is_negative)
    assert_close(terms.loss_sum, tensor(expected))
    assert terms.num_targets == 6
    assert int(terms.report["accuracy"]) == int((positive > 0).sum())


def test_untrained_vectors_cost_log_two_for_every_draw() -> None:
    terms = negative_sampling_loss(torch.zeros(3), torch.zeros(3, 5), is_negative=torch.ones(3, 5, dtype=torch.bool))
    assert_close(terms.loss_sum / terms.num_targets, tensor(6 * math.log(2)))


def test_a_draw_of_the_positive_word_has_no_gradient() -> None:
    negative = tensor([[0.5, -1.0]], requires_grad=True)
    terms = negative_sampling_loss(tensor([0.0]), negative, is_negative=tensor([[True, False]]))
    torch.autograd.backward(terms.loss_sum)
    assert_close(negative.grad, torch.sigmoid(tensor([[0.5, 0.0]])) * tensor([[1.0, 0.0]]))


def test_the_optimal_score_is_the_shifted_pointwise_mutual_information() -> None:
    # Levy and Goldberg 2014, eq. 7: of a pair seen 6 times and drawn as negative 2 times, the score is log(6 / 2).
    score = tensor(math.log(6 / 2), requires_grad=True)
    terms = negative_sampling_loss(
        score.expand(6), torch.stack([score.expand(6)], 1), is_negative=tensor([[True]] * 2 + [[False]] * 4)
    )
    torch.autograd.backward(terms.loss_sum)
    assert score.grad is not None and float(score.grad) == pytest.approx(0.0, abs=1e-6)


def test_glove_loss_is_worked_by_hand() -> None:
    # Count 100 = x_max weighs 1, count 400 weighs 1, count 1 weighs 0.01 ** 0.75.
    counts = tensor([100, 400, 1])
    scores = tensor([math.log(100) + 1, math.log(400) - 2, 3.0])
    terms = glove_loss(scores, counts, x_max=100.0, alpha=0.75)
    assert_close(terms.loss_sum, tensor(1.0 + 4.0 + 0.01**0.75 * 9.0))
    assert terms.num_targets == 3


def test_glove_loss_is_zero_where_every_score_is_the_logarithm_of_its_count() -> None:
    counts = tensor([1.0, 2.5, 70.0])
    assert_close(glove_loss(counts.log(), counts, x_max=10.0, alpha=0.75).loss_sum, tensor(0.0))
