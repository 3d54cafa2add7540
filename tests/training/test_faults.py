"""What goes wrong inside a training ends it with one clear message, and nothing wrong is saved."""

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from pipeline.data.loaders import Cut, TrainingLoader
from pipeline.data.plan import TrainingPlan
from pipeline.training.fit import _lost_ranks
from tests.training.conftest import TOY, NewToy
from tests.training.toy_stage import Toy, ToyConfig, Walks


@pytest.mark.parametrize("runtime", ["cpu_accumulate", "zero2_cpu"])
@pytest.mark.parametrize("fault", ["nan loss", "nan gradient"])
def test_a_number_that_is_none_ends_the_run_and_names_step_rate_and_examples(
    new_toy: NewToy, runtime: str, fault: str
) -> None:
    workspace = new_toy()
    ranks = 2 if runtime == "zero2_cpu" else 1
    outcome = workspace.run(runtime, environment={"TOY_AT_10": fault}, expect=(2,) * ranks)
    lines = [line for line in outcome.log.splitlines() if line.startswith("error:")]
    assert len(lines) == ranks and "Traceback" not in outcome.log
    what = "loss" if fault == "nan loss" else "gradient norm"
    for line in lines:
        assert f"the {what} is " in line and "at optimizer step 10, learning rate 0.008" in line
        assert "the examples [" in line and "of this rank" in line
    # Step 10 would have been saved.
    assert [path.name for path in workspace.checkpoints()] == ["step-00000005"]
    assert not workspace.output.exists()


def fit_in_float16() -> Toy:
    """Trains in float16, whose scale is 65536 at first and halves at every step that overflows."""
    config = ToyConfig.model_validate(TOY)
    module, training = Toy(config), config.training
    plan = TrainingPlan(Walks(203, seed=1), training.batching, training.duration, seed=training.seed)
    module.num_steps = plan.num_steps
    trainer = Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu")],
        max_epochs=1,
        gradient_clip_val=2.5,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, TrainingLoader(plan, Cut(rank=0, world_size=1, accumulation=1), start=0, prefetch=0))
    return module


def test_gradients_that_overflow_in_float16_at_every_step_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 22):
        monkeypatch.setenv(f"TOY_AT_{step}", "nan gradient")
    message = "precision 16-mixed: the loss scale fell to 0.5 at optimizer step 17, where the gradient norm is nan"
    with pytest.raises(FloatingPointError, match=message):
        fit_in_float16()


def test_gradients_that_overflow_in_float16_now_and_then_cost_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 17):
        monkeypatch.setenv(f"TOY_AT_{step}", "nan gradient")
    module = fit_in_float16()
    assert module.update == module.num_steps > 17


def test_a_validation_loss_that_is_no_number_ends_the_run_and_names_the_step(new_toy: NewToy) -> None:
    workspace = new_toy()
    outcome = workspace.run("cpu", environment={"TOY_VALIDATION": "nan"}, expect=(2,))
    assert "error: valid/loss is nan after optimizer step 7" in outcome.log and "Traceback" not in outcome.log
    assert [path.name for path in workspace.checkpoints()] == ["step-00000005"]


@pytest.mark.parametrize(("runtime", "ranks"), [("cpu", 1), ("ddp_cpu", 2), ("zero2_cpu", 2)])
def test_a_disk_that_refuses_a_checkpoint_ends_the_run_in_one_line_and_keeps_nothing_half_written(
    new_toy: NewToy, runtime: str, ranks: int
) -> None:
    workspace = new_toy()
    outcome = workspace.run(runtime, largest_file=6000, expect=(2,) * ranks)
    lines = [line for line in outcome.log.splitlines() if line.startswith("error:")]
    assert len(lines) == ranks and "Traceback" not in outcome.log
    assert any(".step-00000005.partial" in line and ("File too large" in line or "full" in line) for line in lines)
    assert not list(workspace.local.glob("checkpoints/*/*"))
    assert not workspace.output.exists()


def test_nodes_without_a_shared_folder_are_told_so_before_the_first_step(new_toy: NewToy) -> None:
    workspace, elsewhere = new_toy(), new_toy()
    outcome = workspace.run("ddp_cpu", others=elsewhere, expect=(2, 2))
    lines = [line for line in outcome.log.splitlines() if line.startswith("error:")]
    assert len(lines) == 2 and "Traceback" not in outcome.log
    for line, root in zip(sorted(lines), sorted((workspace.root, elsewhere.root)), strict=True):
        assert line.startswith(f"error: {root}/.pipeline/") and "the ranks [1] do not find there" in line
        assert "one shared checkpoint folder" in line
    assert not list(workspace.local.glob("checkpoints/*/.*")) and "toy 1/" not in outcome.log


def test_too_small_steps_are_refused_before_the_training_starts(new_toy: NewToy) -> None:
    workspace = new_toy(
        training={
            "seed": 3,
            "batching": {"kind": "examples", "examples_per_step": 1},
            "duration": {"kind": "steps", "num_steps": 5},
            "optimizer": {"lr": 0.01},
            "schedule": {"kind": "constant"},
            "validate_every": 5,
            "checkpoint_every": 5,
        }
    )
    outcome = workspace.run("cpu_accumulate", expect=(2,))
    assert "cannot be cut into 1 rank(s) x 2 micro-batch(es)" in outcome.log


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:4711"),
            "rank 3 lost the connection to another rank: [gloo/transport/tcp/pair.cc:547] Connection closed by peer",
        ),
        (
            dist.DistBackendError(
                "NCCL error in: x.cpp:94, remote error\nLast error:\nConnection closed by remote peer"
            ),
            "rank 3 lost the connection to another rank: Connection closed by remote peer",
        ),
        (
            dist.DistNetworkError("The server socket cannot listen: EADDRINUSE\nfrom frame 0"),
            "rank 3 does not reach the other ranks: The server socket cannot listen: EADDRINUSE",
        ),
        (
            dist.DistStoreError("Timed out waiting for clients. 1/16 clients joined."),
            "rank 3 does not reach the other ranks: Timed out waiting for clients. 1/16 clients joined.",
        ),
    ],
    ids=["gloo", "nccl", "port", "clients"],
)
def test_a_rank_that_lost_another_or_never_met_it_says_in_one_line_what_was_reported(
    error: RuntimeError, line: str
) -> None:
    with pytest.raises(ConnectionAbortedError) as found, _lost_ranks(3):
        raise error
    assert str(found.value.strerror).startswith(line) and "\n" not in str(found.value.strerror)


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL error, invalid usage\nDuplicate GPU detected: rank 1 and rank 0 both on 1000"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[gloo] unsupported data type"),
    ],
    ids=["duplicate", "memory", "gloo"],
)
def test_what_is_wrong_with_this_rank_alone_is_not_taken_for_the_loss_of_another(error: RuntimeError) -> None:
    with pytest.raises(type(error)) as found, _lost_ranks(3):
        raise error
    assert found.value is error
