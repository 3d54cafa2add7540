"""AdaGrad, which word vectors train with, as the configuration offers it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pipeline.config import Config, OptimizerConfig, load
from pipeline.training.base import build_optimizer


class Wrapper(Config):
    optimizer: OptimizerConfig


def test_adagrad_divides_by_the_root_of_the_sum_of_squares() -> None:
    # Duchi et al. 2011: gradients 3 and 4 move by lr * 3 / 3 and lr * 4 / 5.
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adagrad", lr=0.5, eps=1e-10), fused=True)
    for gradient in (3.0, 4.0):
        model.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    assert_close(model.weight.detach(), torch.tensor([[-0.5 * (1 + 4 / 5)]]))


def test_settings_of_adamw_are_refused_for_adagrad(tmp_path: Path) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text("optimizer: {kind: adagrad, lr: 0.1, betas: [0.9, 0.98], weight_decay: 0.1}\n")
    with pytest.raises(ValueError, match=r"optimizer: .*adagrad has no betas and no weight_decay"):
        load(path, Wrapper)
