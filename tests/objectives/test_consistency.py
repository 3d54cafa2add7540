"""R-Drop: the cross entropies and the divergence of two passes, against what autograd makes of the definitions."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from pipeline.objectives import consistency
from pipeline.objectives.consistency import consistent_cross_entropy
from pipeline.objectives.likelihood import projected_cross_entropy
from tests.objectives.products import noted_products


def inputs(num_positions: int, vocab_size: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """Hidden states of both passes, weight and bias in double precision; labels."""
    generator = torch.Generator().manual_seed(num_positions)
    shapes = ((num_positions, 8), (num_positions, 8), (vocab_size, 8), (vocab_size,))
    tensors = tuple(torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes)
    return tensors, torch.randint(vocab_size, (num_positions,), generator=generator)


@pytest.mark.parametrize(("num_positions", "vocab_size"), [(5, 16), (300, 37), (1, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_the_definition(num_positions: int, vocab_size: int, smoothing: float) -> None:
    (first, second, weight, bias), labels = inputs(num_positions, vocab_size)
    ps, qs = (F.linear(hidden, weight, bias).log_softmax(1) for hidden in (first, second))
    entropies = [
        F.cross_entropy(F.linear(hidden, weight, bias), labels, label_smoothing=smoothing, reduction="sum")
        for hidden in (first, second)
    ]
    divergence = (
        F.kl_div(ps, qs, log_target=True, reduction="sum") + F.kl_div(qs, ps, log_target=True, reduction="sum")
    ) / 2
    expected = sum(entropies) / 2 + 1.5 * divergence
    assert isinstance(expected, Tensor)

    loss, nll, num_correct, found = consistent_cross_entropy(
        first, weight, bias, second=second, labels=labels, label_smoothing=smoothing, consistency=1.5
    )
    assert_close(loss, expected)
    assert_close(found, divergence.detach())
    assert_close(nll, -(ps + qs).gather(1, labels[:, None]).sum().detach() / 2)
    right = sum(int((scores.argmax(1) == labels).sum()) for scores in (ps, qs))
    assert int(num_correct) == right // 2
    parameters = (first, second, weight, bias)
    for ours, theirs in zip(
        torch.autograd.grad(3.0 * loss, parameters), torch.autograd.grad(3.0 * expected, parameters), strict=True
    ):
        assert_close(ours, theirs)


def test_in_bfloat16_loss_and_gradients_are_those_of_float32_up_to_its_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tensors, labels = inputs(300, 37)
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    rounded = [tensor.detach().clone().requires_grad_() for tensor in exact]

    def found(of: Sequence[Tensor]) -> Tensor:
        first, second, weight, bias = of
        return consistent_cross_entropy(
            first, weight, bias, second=second, labels=labels, label_smoothing=0.1, consistency=1.5
        )[0]

    products = noted_products(monkeypatch, consistency)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = found(rounded)
    assert products == [torch.bfloat16] * 2
    assert_close(loss, found(exact), rtol=3e-3, atol=0)
    for ours, theirs in zip(torch.autograd.grad(loss, rounded), torch.autograd.grad(found(exact), exact), strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours, theirs, rtol=0, atol=0.02 * float(theirs.abs().max()))


def test_equal_passes_have_no_divergence_and_the_loss_of_one() -> None:
    (hidden, _, weight, bias), labels = inputs(20, 31)
    loss, _, _, divergence = consistent_cross_entropy(
        hidden, weight, bias, second=hidden, labels=labels, label_smoothing=0.1, consistency=2.0
    )
    one, _, _ = projected_cross_entropy(hidden, weight, bias, labels=labels, label_smoothing=0.1)
    assert divergence == 0.0
    assert_close(loss, one)


def loss_of(tensors: Sequence[Tensor], labels: Tensor) -> Tensor:
    first, second, weight, bias = tensors
    return consistent_cross_entropy(
        first, weight, bias, second=second, labels=labels, label_smoothing=0.1, consistency=1.0
    )[0]


def test_single_precision_is_close_and_no_position_at_all_is_nothing() -> None:
    tensors, labels = inputs(300, 37)
    single = [tensor.detach().float().requires_grad_() for tensor in tensors]
    exact = loss_of(tensors, labels)
    loss = loss_of(single, labels)
    assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    nothing = loss_of((single[0][:0], single[1][:0], *single[2:]), labels[:0])
    assert nothing == 0.0
