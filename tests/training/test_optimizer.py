"""AdamW as the stages build it: decoupled decay, of the weights that multiply and of nothing else."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pipeline.config import OptimizerConfig, TrainingConfig
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.training.base import build_optimizer
from tests.parity.hf import spread
from tests.training.conftest import TOY
from tests.training.toy_stage import Toy, ToyConfig

CONFIG = OptimizerConfig(lr=0.1, weight_decay=0.2)


def bert() -> nn.Module:
    return BertForPretraining(
        BertConfig(vocab_size=11, d_model=8, num_layers=1, num_heads=2, d_ff=12, max_length=6, dropout=0.0)
    )


def gpt() -> nn.Module:
    return GPT(GPTConfig(vocab_size=11, d_model=8, num_layers=1, num_heads=2, max_length=6))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("build", [bert, gpt])
def test_a_first_step_decays_all_weights_but_no_bias_and_no_layer_norm(
    build: Callable[[], nn.Module], fused: bool
) -> None:
    """Loshchilov and Hutter 2019, algorithm 2: w - lr (m / sqrt(v) + decay w). m / sqrt(v) is the sign of the gradient
    in a first step. Devlin et al. 2019, the code, leave LayerNorm and biases out of the decay.
    """
    torch.manual_seed(0)
    model = build()
    spread(model)
    optimizer = build_optimizer(model, CONFIG, fused=fused)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter).sign()
    optimizer.step()
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    decayed = {name for name in before if not name.endswith("bias") and name not in norms}
    assert norms and norms < before.keys() and len(decayed) > 4
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        kept = 1.0 - CONFIG.lr * CONFIG.weight_decay if name in decayed else 1.0
        assert_close(parameter.detach(), kept * before[name] - CONFIG.lr * parameter.grad, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("kind", ["adamw", "adagrad"])
@pytest.mark.parametrize(("precision", "fused"), [("32-true", True), ("bf16-mixed", True), ("16-mixed", False)])
def test_a_training_steps_by_the_fused_kernel_unless_a_loss_scale_has_to_be_undone_before_clipping(
    kind: str, precision: str, fused: bool
) -> None:
    training = TrainingConfig.model_validate(TOY["training"] | {"optimizer": {"lr": 0.1, "kind": kind}})  # type: ignore[operator]
    module = Toy(ToyConfig(training=training, dropout=0.0))
    module.trainer = SimpleNamespace(precision=precision)  # type: ignore[assignment]
    optimizer = module.configure_optimizers()
    assert [group["fused"] for group in optimizer.param_groups] == [fused] * len(optimizer.param_groups)
    assert optimizer.param_groups and [one["fused"] for one in module.optimizer_settings] == [fused] * len(
        optimizer.param_groups
    )
