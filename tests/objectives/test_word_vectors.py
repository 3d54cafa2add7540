"""Word vector objectives against a loop over pairs and against the optimum that theory gives."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from pipeline.objectives.word_vectors import glove_loss, negative_sampling_loss


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_negative_sampling_equals_a_loop_over_pairs_with_the_mean_over_the_shared_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(2, 3, 4, generator=generator)
    negative = torch.randn(2, 3, 5, generator=generator)
    is_pair = torch.rand(2, 3, 4, generator=generator) < 0.7
    expected, correct = 0.0, 0
    for n in range(2):
        for s in range(3):
            for c in range(4):
                if is_pair[n, s, c]:
                    expected -= _log_sigmoid(float(positive[n, s, c]))
                    draws = [_log_sigmoid(-float(score)) for score in negative[n, s]]
                    expected -= 7 * sum(draws) / len(draws)
                    correct += float(positive[n, s, c]) > 0
    terms = negative_sampling_loss(positive, negative, is_pair=is_pair, num_negatives=7)
    assert_close(terms.loss_sum, tensor(expected))
    assert terms.num_targets == int(is_pair.sum())
    assert int(terms.report["accuracy"]) == correct


def test_untrained_vectors_cost_log_two_for_the_pair_and_for_every_negative() -> None:
    pairs = torch.ones(1, 2, 3, dtype=torch.bool)
    terms = negative_sampling_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, 8), is_pair=pairs, num_negatives=5)
    assert_close(terms.loss_sum / terms.num_targets, tensor(6 * math.log(2)))


def test_places_without_a_pair_have_no_gradient() -> None:
    positive = torch.zeros(1, 1, 2, requires_grad=True)
    negative = torch.zeros(1, 1, 3, requires_grad=True)
    terms = negative_sampling_loss(positive, negative, is_pair=tensor([[[True, False]]]), num_negatives=3)
    torch.autograd.backward(terms.loss_sum)
    assert_close(positive.grad, tensor([[[-0.5, 0.0]]]))
    assert_close(negative.grad, torch.full((1, 1, 3), 0.5))


def test_the_optimal_score_is_the_shifted_pointwise_mutual_information() -> None:
    # Levy and Goldberg 2014, eq. 7: with 3 negatives a pair, a context that is seen in half of the pairs of a centre
    # and drawn in a quarter of the negatives has the score log(0.5 / (3 * 0.25)).
    score = tensor(math.log(0.5 / 0.75), requires_grad=True)
    other = tensor(0.0)
    positive = torch.stack([score, other]).reshape(1, 1, 2)
    negative = torch.stack([score, other, other, other]).reshape(1, 1, 4)
    pairs = torch.ones(1, 1, 2, dtype=torch.bool)
    terms = negative_sampling_loss(positive, negative, is_pair=pairs, num_negatives=3)
    torch.autograd.backward(terms.loss_sum)
    assert score.grad is not None and float(score.grad) == pytest.approx(0.0, abs=1e-6)


def test_glove_loss_is_worked_by_hand() -> None:
    # Count 100 = x_max weighs 1, count 400 weighs 1, count 1 weighs 0.01 ** 0.75; the last place is no cell.
    counts = tensor([[100.0, 400.0, 1.0, 0.0]])
    scores = tensor([[math.log(100) + 1, math.log(400) - 2, 3.0, 9.0]])
    terms = glove_loss(scores, counts, is_cell=counts > 0, x_max=100.0, alpha=0.75)
    assert_close(terms.loss_sum, tensor(1.0 + 4.0 + 0.01**0.75 * 9.0))
    assert terms.num_targets == 3


def test_glove_loss_is_zero_where_every_score_is_the_logarithm_of_its_count() -> None:
    counts = tensor([[1.0, 2.5, 70.0]])
    terms = glove_loss(counts.log(), counts, is_cell=counts > 0, x_max=10.0, alpha=0.75)
    assert_close(terms.loss_sum, tensor(0.0))
