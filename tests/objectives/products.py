"""In what precision an objective multiplies where it makes the gradient of a projection."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from pipeline.objectives.likelihood import add_product


def noted_products(monkeypatch: pytest.MonkeyPatch, objective: ModuleType) -> list[torch.dtype]:
    """The precision of the logits' gradient in each product to come of a module with objectives."""
    found: list[torch.dtype] = []

    def noted(total: Tensor, grad: Tensor, hidden: Tensor) -> None:
        found.append(grad.dtype)
        add_product(total, grad, hidden)

    monkeypatch.setattr(objective, "add_product", noted)
    return found
