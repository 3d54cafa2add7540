"""Likelihood objectives against closed forms and against PyTorch's own losses.

Legend: N counted positions, V vocabulary, B rows, T length.
"""

import math

import pytest
import torch
from torch import Tensor, tensor
from torch.nn import functional as F
from torch.testing import assert_close

from pipeline.objectives import likelihood
from pipeline.objectives.likelihood import (
    add_product,
    class_cross_entropy,
    projected_cross_entropy,
    response_log_probs,
    span_cross_entropy,
    squared_error,
    token_cross_entropy,
    token_log_probs,
)
from tests.objectives.products import noted_products


def _logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def test_uniform_logits_cost_the_log_of_the_vocabulary_whatever_the_smoothing() -> None:
    for smoothing in (0.0, 0.1, 0.7):
        terms = token_cross_entropy(torch.zeros(3, 7), tensor([0, 5, 6]), label_smoothing=smoothing)
        assert_close(terms.loss_sum, tensor(3 * math.log(7)))


def test_smoothed_cross_entropy_of_two_classes_is_the_mixture_worked_by_hand() -> None:
    # p = (0.8, 0.2), label 0, smoothing 0.2: target (0.9, 0.1).
    terms = token_cross_entropy(tensor([[0.8, 0.2]]).log(), tensor([0]), label_smoothing=0.2)
    assert_close(terms.loss_sum, tensor(-0.9 * math.log(0.8) - 0.1 * math.log(0.2)))
    assert_close(terms.report["nll"], tensor(-math.log(0.8)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_equal_those_of_pytorch(smoothing: float) -> None:
    labels = torch.arange(6) % 5
    ours, theirs = _logits(6, 11), _logits(6, 11)
    terms = token_cross_entropy(ours, labels, label_smoothing=smoothing)
    reference = F.cross_entropy(theirs, labels, label_smoothing=smoothing, reduction="sum")
    torch.autograd.backward(2.5 * terms.loss_sum)
    torch.autograd.backward(2.5 * reference)
    assert_close(terms.loss_sum, reference)
    assert_close(ours.grad, theirs.grad)


def test_gradient_matches_finite_differences_in_double_precision() -> None:
    labels = tensor([2, 0, 3])
    logits = _logits(3, 4, dtype=torch.float64)

    def loss(values: Tensor) -> Tensor:
        smoothed = token_cross_entropy(values, labels, label_smoothing=0.3).loss_sum
        return smoothed + token_log_probs(values, labels).pow(3).sum()

    torch.autograd.backward(loss(logits))
    assert logits.grad is not None
    for row, column in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        nudge = torch.zeros(3, 4, dtype=torch.float64)
        nudge[row, column] = 1e-6
        slope = (loss(logits.detach() + nudge) - loss(logits.detach() - nudge)) / 2e-6
        assert_close(logits.grad[row, column], slope, atol=1e-7, rtol=1e-6)


def test_half_precision_logits_are_normalised_in_single_precision() -> None:
    logits = _logits(4, 300).detach().bfloat16().requires_grad_()
    terms = token_cross_entropy(logits, tensor([0, 1, 2, 3]))
    torch.autograd.backward(terms.loss_sum)
    reference = F.cross_entropy(logits.detach().float(), tensor([0, 1, 2, 3]), reduction="sum")
    assert_close(terms.loss_sum, reference)
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_accuracy_counts_the_positions_whose_label_has_the_largest_logit() -> None:
    logits = tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    terms = token_cross_entropy(logits, tensor([1, 2, 2]), name="mlm")
    assert int(terms.report["accuracy"]) == 2
    assert (terms.num_targets, terms.name) == (3, "mlm")


def test_no_targets_give_a_zero_loss_that_is_still_connected_to_the_parameters() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    terms = token_cross_entropy(logits, torch.zeros(0, dtype=torch.long), label_smoothing=0.1)
    torch.autograd.backward(terms.loss_sum)
    assert (terms.loss_sum.item(), terms.num_targets) == (0.0, 0)
    assert logits.grad is not None


def test_a_second_backward_pass_is_refused_rather_than_wrong() -> None:
    loss = token_cross_entropy(_logits(2, 3), tensor([0, 1])).loss_sum
    torch.autograd.backward(loss, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


def test_response_log_probs_are_sums_over_the_counted_tokens_of_each_row() -> None:
    logits = _logits(3, 4, 6).detach()
    labels = torch.arange(12).reshape(3, 4) % 6
    counted = tensor([[False, True, True, False], [False, False, False, False], [True, True, True, True]])
    sums = response_log_probs(logits[counted], labels[counted], counted)
    table = logits.log_softmax(-1)
    slow = [sum((table[b, t, labels[b, t]] for t in range(4) if counted[b, t]), start=tensor(0.0)) for b in range(3)]
    assert_close(sums, torch.stack(slow))


def test_response_log_probs_do_not_depend_on_padding() -> None:
    logits, labels = _logits(5, 6).detach(), tensor([1, 2, 3, 4, 5])
    short = tensor([[True, True, True], [True, True, False]])
    long = F.pad(short, (2, 4))
    assert torch.equal(response_log_probs(logits, labels, short), response_log_probs(logits, labels, long))


def test_response_log_probs_refuse_a_mask_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="selects 2 positions, but there are 3 labels"):
        response_log_probs(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), tensor([[True, True, False]]))


def test_class_cross_entropy_is_a_sum_over_examples() -> None:
    terms = class_cross_entropy(tensor([[0.8, 0.2], [0.3, 0.7]]).log(), tensor([0, 0]), name="nsp")
    assert_close(terms.loss_sum, tensor(-math.log(0.8) - math.log(0.3)))
    assert (int(terms.report["accuracy"]), terms.num_targets, terms.name) == (1, 2, "nsp")


def test_squared_error_is_a_sum_over_examples() -> None:
    terms = squared_error(tensor([1.0, -2.0]), tensor([3.0, -1.0]))
    assert_close(terms.loss_sum, tensor(5.0))
    assert_close(terms.report["absolute_error"], tensor(3.0))


def test_span_loss_is_half_of_start_and_end_over_the_allowed_positions() -> None:
    # Uniform over the 4 allowed of 6 positions: log 4 for the start, log 4 for the end.
    allowed = tensor([[False, True, True, True, True, False]])
    terms = span_cross_entropy(torch.zeros(1, 6), torch.zeros(1, 6), tensor([1]), tensor([2]), allowed=allowed)
    assert_close(terms.loss_sum, tensor(math.log(4)))


def test_a_span_is_correct_only_if_both_ends_are() -> None:
    start_logits = tensor([[0.0, 5.0, 0.0], [0.0, 5.0, 0.0]])
    end_logits = tensor([[0.0, 0.0, 5.0], [0.0, 5.0, 0.0]])
    terms = span_cross_entropy(
        start_logits, end_logits, tensor([1, 1]), tensor([2, 2]), allowed=torch.ones(2, 3, dtype=torch.bool)
    )
    assert int(terms.report["accuracy"]) == 1


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_from_hidden_states_is_that_of_their_logits_in_value_gradient_and_reports(
    label_smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_CHUNK", 1)
    monkeypatch.setattr(likelihood, "_MIN_ROWS", 4)  # two whole chunks and one row
    inputs = [torch.randn(9, 5), torch.randn(11, 5), torch.randn(11)]
    labels = torch.randint(0, 11, (9,))
    ours, theirs = ([one.clone().requires_grad_() for one in inputs] for _ in range(2))
    loss, nll, num_correct = projected_cross_entropy(*ours, labels=labels, label_smoothing=label_smoothing)
    torch.autograd.backward(3.0 * loss)
    expected = token_cross_entropy(F.linear(*theirs), labels, label_smoothing=label_smoothing)
    torch.autograd.backward(3.0 * expected.loss_sum)
    assert_close(loss, expected.loss_sum)
    assert_close(nll, expected.report["nll"])
    assert int(num_correct) == int(expected.report["accuracy"])
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one.grad, other.grad)


def test_the_gradient_of_a_projection_is_added_and_of_the_precision_of_its_factors() -> None:
    generator = torch.Generator().manual_seed(0)
    grad, hidden = torch.randn(40, 6, generator=generator), torch.randn(40, 5, generator=generator)
    exact, rounded = torch.ones(6, 5), torch.zeros(6, 5)
    add_product(exact, grad, hidden)
    assert_close(exact, 1 + grad.t() @ hidden)
    add_product(rounded, grad.bfloat16(), hidden)
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert_close(rounded, exact - 1, rtol=0.02, atol=0.1)
    assert not torch.equal(exact, exact.bfloat16().float())


@pytest.mark.parametrize("hidden_dtype", [torch.float32, torch.bfloat16])
def test_the_loss_from_hidden_states_in_bfloat16_is_that_of_autocast_and_has_gradients_of_the_parameters_precision(
    hidden_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_CHUNK", 1)
    monkeypatch.setattr(likelihood, "_MIN_ROWS", 128)  # two whole chunks and 44 rows
    products = noted_products(monkeypatch, likelihood)
    inputs = [torch.randn(300, 32), torch.randn(50, 32) / 4, torch.randn(50)]
    labels = torch.randint(0, 50, (300,))
    ours, theirs, exact = ([one.clone().requires_grad_() for one in inputs] for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = projected_cross_entropy(ours[0].to(hidden_dtype), *ours[1:], labels=labels, label_smoothing=0.1)
        wanted = token_cross_entropy(F.linear(*theirs), labels, label_smoothing=0.1).loss_sum
    reference = token_cross_entropy(F.linear(*exact), labels, label_smoothing=0.1).loss_sum
    for value in (loss, wanted, reference):
        torch.autograd.backward(value)
    assert loss.dtype == torch.float32 and products == [torch.bfloat16] * 3
    assert_close(loss, wanted, rtol=1e-4, atol=0)
    for one, other, true in zip(ours, theirs, exact, strict=True):
        assert one.grad is not None and other.grad is not None and true.grad is not None
        assert one.grad.dtype == torch.float32
        scale = float(true.grad.abs().max())
        assert_close(one.grad, true.grad, rtol=0, atol=0.02 * scale)
        # Not further from the truth than autograd's own.
        assert (one.grad - true.grad).norm() < 1.5 * (other.grad - true.grad).norm() + 1e-3 * scale


def test_the_loss_from_no_hidden_states_is_zero_and_its_gradients_are_too() -> None:
    inputs = [torch.randn(0, 5), torch.randn(11, 5), torch.randn(11)]
    inputs = [one.requires_grad_() for one in inputs]
    loss, _, _ = projected_cross_entropy(*inputs, labels=torch.zeros(0, dtype=torch.long))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert all(one.grad is not None and float(one.grad.abs().sum()) == 0.0 for one in inputs)
