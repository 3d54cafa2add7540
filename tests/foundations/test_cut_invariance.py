"""For every training stage, one optimizer step is the same however it is cut into ranks and micro-batches.

AdamW's first steps are nearly the sign of the gradient, and where a gradient is nothing but rounding its sign is too.
With an eps of 1 an update is proportional to the gradient, as in plain SGD, and weights can be compared.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.foundations.chain import EPOCHS, TRAINED, Chain, settings, short, with_dropout
from tests.foundations.cuts import Training, train_all
from tests.training.harness import Workspace

CUTS = ("cpu_accumulate", "ddp_cpu", "zero1_cpu", "zero2_cpu", "zero3_cpu")
REFUSED = {("ppo", "zero3_cpu")}
"""Sampling needs the whole model on each rank."""
CLIP_NORM = 0.3


def cut_settings(name: str) -> dict[str, Any]:
    """Three steps without dropout, on an odd number of examples, so that parts of a step differ in their targets."""
    config = with_dropout(short(settings(name)), 0.0)
    training = config["training"]
    training |= {"optimizer": {"lr": 0.2, "eps": 1.0, "clip_norm": CLIP_NORM, "weight_decay": 0.1}}
    training |= {"schedule": {"kind": "constant"}, "validate_every": 3, "checkpoint_every": 100}
    if "rollout" in config:
        training |= {"batching": {"kind": "examples", "examples_per_step": 5}, "duration": EPOCHS | {"num_epochs": 1}}
        config["rollout"] |= {"num_iterations": 2, "prompts_per_iteration": 10}
    else:
        training["duration"] = {"kind": "steps", "num_steps": 3}
    if training["batching"]["kind"] == "examples":
        training["batching"]["examples_per_step"] |= 1
    return config


Trainings = Callable[[str], dict[str, Training]]


@pytest.fixture(scope="module")
def trainings(chain: Chain) -> Trainings:
    """All stages under a runtime; each runtime runs once."""

    @cache
    def train(runtime: str) -> dict[str, Training]:
        names = [name for name in TRAINED if (name, runtime) not in REFUSED]
        runs = {name: chain.variant(name, runtime, cut_settings(name)) for name in names}
        return train_all(chain.root, runtime, {name: run.config for name, run in runs.items()})

    return train


CASES = [(name, runtime) for name in TRAINED for runtime in CUTS if (name, runtime) not in REFUSED]


@pytest.mark.parametrize(("name", "runtime"), CASES)
def test_losses_gradient_norms_and_weights_do_not_depend_on_the_cut(
    trainings: Trainings, name: str, runtime: str
) -> None:
    alone, cut = trainings("cpu")[name], trainings(runtime)[name]
    assert [row.keys() for row in cut.curve] == [row.keys() for row in alone.curve]
    for mine, whole in zip(cut.curve, alone.curve, strict=True):
        assert mine == pytest.approx(whole, rel=1e-5, abs=1e-5), f"update {int(whole['update'])}"
    for key, tensor in alone.before.items():
        assert torch.equal(cut.before[key], tensor), f"{key} starts from other weights"
    wanted = {key: tensor - alone.before[key] for key, tensor in alone.after.items()}
    differences = {key: tensor - alone.after[key] for key, tensor in cut.after.items()}
    assert norm(wanted) > 0.05, "the weights have to move for a comparison"
    assert norm(differences) < 1e-5 * norm(wanted)


def norm(tensors: dict[str, Tensor]) -> float:
    """Euclidean norm of all numbers together."""
    return float(torch.cat([tensor.double().flatten() for tensor in tensors.values()]).norm())


@pytest.mark.parametrize("name", TRAINED)
def test_the_compared_runs_clip_and_have_parts_with_unequal_target_counts(trainings: Trainings, name: str) -> None:
    alone, halves = trainings("cpu")[name], trainings("cpu_accumulate")[name]
    assert max(row["grad_norm"] for row in alone.curve) > CLIP_NORM
    first, second = halves.parts[:2]
    assert first.keys() == second.keys()
    assert any(first[key] != second[key] for key in first)


def test_zero3_is_refused_by_ppo_with_a_clear_error(chain: Chain) -> None:
    run: Workspace = chain.variant("ppo", "refused", short(settings("ppo")))
    outcome = run.run("zero3_cpu", expect=(2, 2))
    assert "ppo generates with the whole model, which ZeRO-3 splits; use ZeRO-1 or 2" in outcome.log
    assert "Traceback" not in outcome.log
