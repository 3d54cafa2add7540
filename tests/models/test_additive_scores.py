"""The scores of additive attention: their equation and its gradients by plain automatic differentiation."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.models import additive_scores as module
from pipeline.models.additive_scores import additive_scores


def plain(queries: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    return torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1)) @ weights


@pytest.mark.parametrize("pairs_at_once", [1, 100, 2**18])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_scores_and_gradients_are_those_of_the_equation(
    pairs_at_once: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", pairs_at_once)
    torch.manual_seed(0)
    inputs = [spread * torch.randn(5, 3, 7), spread * torch.randn(5, 4, 7), torch.randn(7)]
    inputs = [one.requires_grad_() for one in inputs]
    weights = torch.randn(5, 3, 4)
    results = [scores(*inputs) for scores in (additive_scores, plain)]
    assert_close(results[0], results[1], atol=1e-5, rtol=0)
    found, expected = (torch.autograd.grad((one * weights).sum(), inputs) for one in results)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_in_double_precision_the_gradient_is_that_of_differences() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (2, 5, 4), (4,))]
    assert torch.autograd.gradcheck(additive_scores, inputs)


def test_lower_precision_by_autocast_gives_scores_and_gradients_of_every_input() -> None:
    torch.manual_seed(0)
    query, weights = torch.nn.Linear(6, 6), torch.randn(6, requires_grad=True)
    states, keys = torch.randn(2, 3, 6), torch.randn(2, 4, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = additive_scores(query(states), query(keys), weights)
    assert_close(scores.float(), plain(query(states), query(keys), weights), atol=0.1, rtol=0)
    torch.autograd.backward(scores.float().square().sum())
    assert all(one.grad is not None and one.grad.isfinite().all() for one in (weights, keys, *query.parameters()))
