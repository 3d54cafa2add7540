"""Preference objectives against values worked by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from pipeline.objectives.preference import PairLogProbs, bradley_terry_loss, dpo_loss, ipo_loss

POLICY = PairLogProbs(chosen=tensor([-3.0, -8.0]), rejected=tensor([-5.0, -1.0]))
REFERENCE = PairLogProbs(chosen=tensor([-4.0, -8.0]), rejected=tensor([-5.0, -2.0]))
# Margins: policy (2, -7), reference (1, -6), difference h = (1, -1).


def test_dpo_loss_is_log_two_when_policy_equals_reference() -> None:
    for smoothing in (0.0, 0.3):
        terms = dpo_loss(POLICY, POLICY, beta=0.7, label_smoothing=smoothing)
        assert_close(terms.loss_sum / terms.num_targets, tensor(math.log(2)))


def test_dpo_loss_of_two_opposite_margins_is_worked_by_hand() -> None:
    terms = dpo_loss(POLICY, REFERENCE, beta=0.5)
    expected = math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(0.5))
    assert_close(terms.loss_sum, tensor(expected))
    assert terms.num_targets == 2


def test_dpo_gradient_pushes_by_beta_times_the_probability_of_the_wrong_order() -> None:
    # Rafailov et al. 2023, below eq. 7: d loss / d log p(chosen) = -beta * sigmoid(-beta * h).
    chosen = POLICY.chosen.clone().requires_grad_()
    torch.autograd.backward(dpo_loss(replace(POLICY, chosen=chosen), REFERENCE, beta=0.5).loss_sum)
    assert_close(chosen.grad, -0.5 * torch.sigmoid(tensor([-0.5, 0.5])))


def test_conservative_dpo_is_the_mixture_of_both_labellings() -> None:
    swapped_policy = PairLogProbs(chosen=POLICY.rejected, rejected=POLICY.chosen)
    swapped_reference = PairLogProbs(chosen=REFERENCE.rejected, rejected=REFERENCE.chosen)
    right = dpo_loss(POLICY, REFERENCE, beta=2.0).loss_sum
    wrong = dpo_loss(swapped_policy, swapped_reference, beta=2.0).loss_sum
    mixed = dpo_loss(POLICY, REFERENCE, beta=2.0, label_smoothing=0.1).loss_sum
    assert_close(mixed, 0.9 * right + 0.1 * wrong)


def test_conservative_dpo_has_its_minimum_where_the_pair_is_as_sure_as_the_labels() -> None:
    # sigmoid(beta * h) = 0.9, h = log(9) / beta.
    best = PairLogProbs(chosen=tensor([math.log(9) / 0.5], requires_grad=True), rejected=tensor([0.0]))
    reference = PairLogProbs(chosen=tensor([0.0]), rejected=tensor([0.0]))
    torch.autograd.backward(dpo_loss(best, reference, beta=0.5, label_smoothing=0.1).loss_sum)
    assert_close(best.chosen.grad, tensor([0.0]), atol=1e-6, rtol=0.0)


def test_ipo_loss_is_the_squared_distance_of_the_margin_from_its_goal() -> None:
    terms = ipo_loss(POLICY, REFERENCE, beta=0.25)  # goal 1 / (2 * 0.25) = 2, h = (1, -1)
    assert_close(terms.loss_sum, tensor(1.0 + 9.0))


def test_implicit_rewards_are_beta_times_the_log_ratios() -> None:
    for report in (dpo_loss(POLICY, REFERENCE, beta=0.5).report, ipo_loss(POLICY, REFERENCE, beta=0.5).report):
        assert_close(report["chosen_reward"], tensor(0.5))
        assert_close(report["rejected_reward"], tensor(0.5))
        assert_close(report["reward_margin"], tensor(0.0))
        assert int(report["reward_accuracy"]) == 1


def test_bradley_terry_loss_is_worked_by_hand_and_ignores_a_common_shift() -> None:
    terms = bradley_terry_loss(tensor([1.0, 0.0]), tensor([0.0, 3.0]))
    assert_close(terms.loss_sum, tensor(math.log(1 + math.exp(-1.0)) + math.log(1 + math.exp(3.0))))
    shifted = bradley_terry_loss(tensor([6.0, 5.0]), tensor([5.0, 8.0]))
    assert_close(terms.loss_sum, shifted.loss_sum)
    assert (int(terms.report["accuracy"]), terms.num_targets) == (1, 2)
    assert_close(terms.report["margin"], tensor(-2.0))


@pytest.mark.parametrize("gap", [-200.0, 200.0])
def test_losses_stay_finite_for_margins_beyond_the_range_of_exp(gap: float) -> None:
    pairs = PairLogProbs(chosen=tensor([gap]), rejected=tensor([0.0]))
    zero = PairLogProbs(chosen=tensor([0.0]), rejected=tensor([0.0]))
    assert_close(dpo_loss(pairs, zero, beta=1.0).loss_sum, tensor(max(0.0, -gap)))
    assert_close(bradley_terry_loss(tensor([gap]), tensor([0.0])).loss_sum, tensor(max(0.0, -gap)))
