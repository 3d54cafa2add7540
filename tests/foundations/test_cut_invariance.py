"""For every training stage, one optimizer step is the same however it is cut into ranks and micro-batches.

First steps of AdamW and AdaGrad are nearly the sign of the gradient, and where a gradient is nothing but rounding its
sign is too. With an eps of 1 an update is proportional to the gradient, as in plain SGD, and weights can be compared.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.foundations.chain import EPOCHS, TRAINED, Chain, settings, short, training_of, with_dropout
from tests.foundations.cuts import Training, train_all
from tests.training.harness import Workspace

CUTS = ("cpu_accumulate", "ddp_cpu", "zero1_cpu", "zero2_cpu", "zero3_cpu")
REFUSED = {("ppo", "zero3_cpu")}
"""Sampling needs the whole model on each rank."""


def clip_norm(name: str) -> float:
    """Below the norms of the first gradients; those of word vectors, of which half start as zeros, are small."""
    return 0.001 if name.startswith("word_vectors/") else 0.1


def cut_settings(name: str) -> dict[str, Any]:
    """Three steps without dropout, on an odd number of examples, so that parts of a step differ in their targets."""
    config = with_dropout(short(settings(name)), 0.0)
    training = training_of(config)
    assert training is not None
    own = {"kind": "adagrad"} if training["optimizer"].get("kind") == "adagrad" else {"weight_decay": 0.1}
    training |= {"optimizer": own | {"lr": 0.06 / clip_norm(name), "eps": 1.0, "clip_norm": clip_norm(name)}}
    training |= {"schedule": {"kind": "constant"}, "validate_every": 3, "checkpoint_every": 100}
    # Three steps have one validation, and its weights are those to compare.
    config.pop("selection", None)
    if "rollout" in config:
        training |= {"batching": {"kind": "examples", "examples_per_step": 5}, "duration": EPOCHS | {"num_epochs": 1}}
        config["rollout"] |= {"num_iterations": 2, "prompts_per_iteration": 10}
    else:
        training["duration"] = {"kind": "steps", "num_steps": 3}
    if name.startswith("finetune/"):
        # A text is one target: a step of so many tokens is cut into equal counts whenever its texts are even.
        training["batching"] = {"kind": "examples", "examples_per_step": 32}
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
        assert mine == pytest.approx(whole, rel=1e-5, abs=1e-6), f"update {int(whole['update'])}"
        assert mine["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-5), "however small it is"
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
    assert max(row["grad_norm"] for row in alone.curve) > clip_norm(name)
    first, second = halves.parts[:2]
    assert first.keys() == second.keys()
    assert any(first[key] != second[key] for key in first)


def test_zero3_is_refused_by_ppo_with_a_clear_error(chain: Chain) -> None:
    run: Workspace = chain.variant("ppo", "refused", short(settings("ppo")))
    outcome = run.run("zero3_cpu", expect=(2, 2))
    assert "ppo generates with the whole model, which ZeRO-3 splits; use ZeRO-1 or 2" in outcome.log
    assert "Traceback" not in outcome.log
