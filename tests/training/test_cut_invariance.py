"""The gradient of a step does not depend on how it is cut into ranks and micro-batches, nor on the strategy."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pipeline.config import ByTokens
from pipeline.data.plan import cut, plan_epoch
from tests.training.conftest import TOY, NewToy
from tests.training.harness import Workspace, change_yaml
from tests.training.toy_stage import Toy, ToyConfig, Walks


def run_with(workspace: Workspace, runtime: str, *, accumulation: int, precision: str = "32-true") -> Workspace:
    """Runs a runtime with another accumulation than its file says."""
    changes = {"accumulation": accumulation, "precision": precision}
    change_yaml(workspace.root / f"conf/runtime/{runtime}.yaml", changes)
    workspace.run(runtime)
    return workspace


@pytest.fixture(scope="module")
def alone(new_toy: NewToy) -> Workspace:
    """One process, every step in one piece."""
    return run_with(new_toy(), "cpu", accumulation=1)


@pytest.mark.parametrize(
    ("runtime", "accumulation"),
    [
        ("cpu", 3),
        ("ddp_cpu", 1),
        ("ddp_cpu", 2),
        ("zero1_cpu", 1),
        ("zero2_cpu", 2),
        ("zero3_cpu", 1),
        ("zero3_cpu", 2),
    ],
)
def test_losses_gradient_norms_and_weights_are_the_same_for_every_cut(
    alone: Workspace, new_toy: NewToy, runtime: str, accumulation: int
) -> None:
    cut = run_with(new_toy(), runtime, accumulation=accumulation)
    assert_close(cut.curve(), alone.curve(), rtol=1e-5, atol=1e-6)
    assert_close(cut.weights(), alone.weights(), rtol=1e-5, atol=1e-5)


IN_GROUPS = TOY["training"] | {"batching": {"kind": "tokens", "tokens_per_step": 200, "groups_per_step": 3}}  # type: ignore[operator]


@pytest.fixture(scope="module")
def in_groups(new_toy: NewToy) -> Workspace:
    """One process, every step in three groups of similar length."""
    return run_with(new_toy(training=IN_GROUPS), "cpu", accumulation=1)


def test_a_step_in_groups_has_the_gradient_of_all_its_examples(in_groups: Workspace) -> None:
    """By hand: both losses, each summed over the whole step and divided by its targets there."""
    config = ToyConfig.model_validate({"training": IN_GROUPS, "dropout": 0.0})
    module, examples = Toy(config), Walks(203, seed=1)
    step = plan_epoch(examples.sizes(0), config.training.batching, seed=3, epoch=0)[0]
    assert len({int(examples.sizes(0).lengths[i]) for i in step.indices}) > 3
    terms = module.objective(examples.collate(step.indices, 0))
    sum((term.weight * term.loss_sum / step.targets[term.name] for term in terms), torch.tensor(0.0)).backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    assert in_groups.curve()[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize(("runtime", "accumulation"), [("cpu", 2), ("ddp_cpu", 1), ("zero2_cpu", 1)])
def test_groups_are_cut_without_a_change(
    in_groups: Workspace, new_toy: NewToy, runtime: str, accumulation: int
) -> None:
    cut = run_with(new_toy(training=IN_GROUPS), runtime, accumulation=accumulation)
    assert_close(cut.curve(), in_groups.curve(), rtol=1e-5, atol=1e-6)
    assert_close(cut.weights(), in_groups.weights(), rtol=1e-5, atol=1e-5)


def test_the_compared_runs_clip_some_steps_and_have_unequal_target_counts(alone: Workspace) -> None:
    training: dict[str, Any] = TOY["training"]  # type: ignore[assignment]
    norms = [row["grad_norm"] for row in alone.curve()]
    assert min(norms) < training["optimizer"]["clip_norm"] < max(norms)
    assert training["optimizer"]["weight_decay"] > 0

    sizes = Walks(203, seed=1).sizes(0)
    steps = plan_epoch(sizes, ByTokens(kind="tokens", tokens_per_step=200), seed=3, epoch=0)
    counts = [[int(sizes.num_targets["loss"][part].sum()) for part in cut(step, 2)] for step in steps]
    assert any(first != second for first, second in counts)


def test_bfloat16_is_the_same_with_and_without_deepspeed_and_hands_over_float32(
    alone: Workspace, new_toy: NewToy
) -> None:
    rounded = run_with(new_toy(), "zero2_cpu", accumulation=1, precision="bf16-mixed")
    replicated = run_with(new_toy(), "ddp_cpu", accumulation=1, precision="bf16-mixed")
    assert_close(rounded.curve(), replicated.curve(), rtol=1e-5, atol=1e-6)
    assert_close(rounded.weights(), replicated.weights(), rtol=1e-5, atol=1e-5)
    # A number that went through bfloat16 has 16 zero bits at its end.
    assert all(tensor.dtype == torch.float32 for tensor in rounded.weights().values())
    for name in ("embedding.weight", "hidden.weight", "head.bias"):
        assert rounded.weights()[name].view(torch.int32).bitwise_and(0xFFFF).any()
    last, wanted = rounded.curve()[-1]["valid/loss"], alone.curve()[-1]["valid/loss"]
    assert last != wanted and last == pytest.approx(wanted, rel=0.05)
