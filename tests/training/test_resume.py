"""A run that was killed and run again ends as the run that was never killed, bit by bit."""

import os
import signal
import socket
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from pipeline.artifacts import read_json
from pipeline.locks import locked
from pipeline.training.history import OTHER_KEY
from tests.training.conftest import TOY, NewToy
from tests.training.harness import Workspace, change_yaml


@pytest.fixture(scope="module")
def uninterrupted(new_toy: NewToy) -> Callable[[str], Workspace]:
    """The run of a runtime that nothing happens to, with dropout."""

    @cache
    def run(runtime: str) -> Workspace:
        workspace = new_toy(dropout=0.2)
        workspace.run(runtime)
        return workspace

    return run


def assert_identical(found: Workspace, wanted: Workspace) -> None:
    """Equal curves byte by byte, equal weights bit by bit, and nothing kept that is no longer needed."""
    assert found.curve_text() == wanted.curve_text()
    assert found.weights().keys() == wanted.weights().keys()
    assert all(torch.equal(tensor, wanted.weights()[name]) for name, tensor in found.weights().items())
    assert not found.checkpoints()


@pytest.mark.parametrize("runtime", ["cpu", "cpu_accumulate", "ddp_cpu", "zero2_cpu", "zero3_cpu"])
def test_a_killed_run_continues_bit_by_bit(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace], runtime: str
) -> None:
    workspace = new_toy(dropout=0.2)
    workspace.run(runtime, kill_at=8)
    assert not workspace.output.exists()
    assert [path.name for path in workspace.checkpoints()] == ["step-00000005"]
    outcome = workspace.run(runtime)
    assert "continuing from" in outcome.log and "step-00000005" in outcome.log
    assert_identical(workspace, uninterrupted(runtime))


@pytest.mark.parametrize("runtime", ["zero2_cpu", "zero3_cpu"])
def test_a_run_that_is_stopped_under_deepspeed_saves_its_step_and_continues_bit_by_bit(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace], runtime: str
) -> None:
    workspace = new_toy(dropout=0.2)
    outcome = workspace.run(runtime, kill_at=7, signum=signal.SIGTERM, expect=(143, 0))
    assert "SIGTERM: saving at the end of this step" in outcome.log
    assert not workspace.output.exists()
    assert [path.name for path in workspace.checkpoints()][-1] == "step-00000008"
    assert "step-00000008" in workspace.run(runtime).log
    assert_identical(workspace, uninterrupted(runtime))


@pytest.mark.parametrize(("runtime", "offload"), [("zero2_cpu", "optimizer"), ("zero3_cpu", "all")])
def test_what_is_offloaded_to_the_host_changes_nothing_that_is_learned(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace], runtime: str, offload: str
) -> None:
    workspace = new_toy(dropout=0.2)
    change_yaml(workspace.root / f"conf/runtime/{runtime}.yaml", {"offload": offload})
    workspace.run(runtime)
    assert_close(workspace.curve(), uninterrupted(runtime).curve(), rtol=1e-5, atol=1e-6)
    assert_close(workspace.weights(), uninterrupted(runtime).weights(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("runtime", ["cpu", "zero3_cpu"])
def test_a_run_killed_between_training_and_hand_over_hands_over_without_a_further_step(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace], runtime: str
) -> None:
    workspace = new_toy(dropout=0.2)
    ranks = 1 if runtime == "cpu" else 2
    workspace.run(runtime, environment={"TOY_AFTER_TRAINING": "kill"}, expect=(-9, 0)[:ranks])
    assert not workspace.output.exists()
    workspace.run(runtime, environment={f"TOY_AT_{step}": "nan loss" for step in range(22)})
    assert_identical(workspace, uninterrupted(runtime))


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace]
) -> None:
    workspace = new_toy(dropout=0.2)
    workspace.run("cpu", kill_at=13)
    older, newer = workspace.checkpoints()
    damage(newer / "state.ckpt")
    outcome = workspace.run("cpu")
    assert f"{newer.name} is damaged (state.ckpt does not match its checksum)" in outcome.log
    assert f"continuing from {older.relative_to(workspace.root)}" in outcome.log
    assert_identical(workspace, uninterrupted("cpu"))


def damage(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("written_by", "read_by"), [("zero3_cpu", "cpu"), ("cpu", "zero2_cpu")])
def test_another_runtime_is_refused_and_may_go_on_from_the_weights_alone(
    new_toy: NewToy, written_by: str, read_by: str
) -> None:
    whole, workspace = new_toy(), new_toy()
    whole.run("cpu")
    workspace.run(written_by, kill_at=8)
    refused = workspace.run(read_by, expect=(2,) * (1 if read_by == "cpu" else 2))
    assert "PIPELINE_RESUME=weights" in refused.log and "Traceback" not in refused.log
    assert len(workspace.checkpoints()) == 1

    outcome = workspace.run(read_by, environment={"PIPELINE_RESUME": "weights"})
    assert "only its weights are taken" in outcome.log
    curve, wanted = workspace.curve(), whole.curve()
    assert [row["update"] for row in curve] == [row["update"] for row in wanted]
    # The loss of step 6 depends on the weights after step 5 alone; the step after it on the fresh optimizer.
    assert curve[5]["train/total"] == pytest.approx(wanted[5]["train/total"], rel=1e-5)
    assert curve[5]["lr"] == wanted[5]["lr"]
    assert curve[6]["train/total"] != pytest.approx(wanted[6]["train/total"], rel=1e-5)


def test_another_precision_is_refused_and_never_mixed_into_a_training(new_toy: NewToy) -> None:
    workspace = new_toy()
    workspace.run("cpu", kill_at=8)
    refused = workspace.run("cpu_bf16", expect=(2,))
    assert "on cpu in 32-true, 1 micro-batch(es) a step, this run has 1 rank(s)" in refused.log
    assert "in bf16-mixed" in refused.log and "PIPELINE_RESUME=weights" in refused.log
    assert [path.name for path in workspace.checkpoints()] == ["step-00000005"]


def test_a_step_cut_into_more_pieces_continues_with_its_optimizer_and_says_so(new_toy: NewToy) -> None:
    whole, workspace = new_toy(), new_toy()
    whole.run("cpu")
    workspace.run("cpu", kill_at=8)
    outcome = workspace.run("cpu_accumulate")
    assert "written with 1 micro-batches a step, this run has 2: the gradients are the same" in outcome.log
    assert_close(workspace.curve(), whole.curve(), rtol=1e-5, atol=1e-6)
    assert_close(workspace.weights(), whole.weights(), rtol=1e-5, atol=1e-5)


def test_a_finished_training_is_handed_over_by_another_runtime(new_toy: NewToy) -> None:
    whole, workspace = new_toy(), new_toy()
    whole.run("zero3_cpu")
    workspace.run("zero3_cpu", environment={"TOY_AFTER_TRAINING": "kill"}, expect=(-9, 0))
    workspace.run("cpu", environment={"PIPELINE_RESUME": "weights"})
    assert workspace.curve_text() == whole.curve_text()
    assert all(torch.equal(tensor, whole.weights()[name]) for name, tensor in workspace.weights().items())


def test_weights_that_another_way_from_the_checkpoint_on_chooses_are_still_there(new_toy: NewToy) -> None:
    """After the checkpoint of step 5, step 6 was better than step 3 and is not any more."""
    settings = TOY["training"] | {"validate_every": 3}  # type: ignore[operator]
    workspace = new_toy(training=settings, selection={"choose": "best"})
    workspace.run("cpu", kill_at=8)
    outcome = workspace.run("cpu", environment={"TOY_VALIDATION": "bad"})
    assert "continuing from" in outcome.log and "the mean of the weights after the steps [3]" in outcome.log
    losses = {row["update"]: row["valid/loss"] for row in workspace.curve() if "valid/loss" in row}
    assert losses[3] < 10 < losses[6]


def test_checkpoints_stay_until_the_last_act_of_a_stage_has_succeeded(new_toy: NewToy) -> None:
    workspace = new_toy()
    costs = workspace.root / ".pipeline/costs"
    costs.parent.mkdir()
    costs.touch()  # no folder, so that the costs cannot be written
    workspace.run("cpu", expect=(2,))
    assert workspace.output.exists() and workspace.checkpoints()
    costs.unlink()
    workspace.run("cpu", environment={f"TOY_AT_{step}": "nan loss" for step in range(22)})
    assert not workspace.checkpoints()


def test_a_changed_configuration_starts_anew_and_says_so(new_toy: NewToy) -> None:
    workspace = new_toy()
    workspace.run("cpu", kill_at=8)
    path = workspace.root / workspace.config
    path.write_text(path.read_text().replace("lr: 0.01", "lr: 0.02"))
    outcome = workspace.run("cpu", kill_at=3)
    assert "this run starts anew" in outcome.log and "continuing" not in outcome.log
    assert "PIPELINE_RESUME=any to continue from there" in outcome.log
    workspace.run("cpu", kill_at=8)
    assert len(workspace.checkpoints()) == 2, "until the stage has finished, the old one is kept"
    path.write_text(path.read_text().replace("lr: 0.02", "lr: 0.01"))
    assert "continuing from" in workspace.run("cpu").log
    assert not workspace.checkpoints()


def test_a_checkpoint_of_another_key_is_continued_bit_by_bit_where_it_is_asked_for_and_named_in_the_metrics(
    new_toy: NewToy, uninterrupted: Callable[[str], Workspace]
) -> None:
    workspace = new_toy(dropout=0.2)
    workspace.run("cpu", kill_at=8)
    change_yaml(workspace.root / workspace.config, {"training.checkpoint_every": 4})
    workspace.run("cpu", environment={"PIPELINE_RESUME": "any"}, kill_at=10)
    outcome = workspace.run("cpu")
    assert "continuing from" in outcome.log and "step-00000008" in outcome.log
    wanted = uninterrupted("cpu")
    assert all(torch.equal(tensor, wanted.weights()[name]) for name, tensor in workspace.weights().items())
    taken_over = [row["update"] for row in workspace.curve() if OTHER_KEY in row]
    metrics = read_json(workspace.root / "metrics/tiny/toy.json")
    assert taken_over == metrics[OTHER_KEY] == [5]
    assert OTHER_KEY not in read_json(wanted.root / "metrics/tiny/toy.json")


@pytest.mark.parametrize("choose", ["last", "best"])
@pytest.mark.parametrize("resume", ["any", "weights"])
def test_a_checkpoint_at_the_last_step_of_the_new_configuration_is_validated(
    new_toy: NewToy, resume: str, choose: str
) -> None:
    """Step 5 has a checkpoint and no validation, and it is as far as the new configuration goes."""
    workspace = new_toy()
    workspace.run("cpu", kill_at=8)
    shorter = {"training.duration": {"kind": "steps", "num_steps": 5}, "selection": {"choose": choose}}
    change_yaml(workspace.root / workspace.config, shorter)
    outcome = workspace.run("cpu", environment={"PIPELINE_RESUME": resume})
    assert "across ranks is zero" not in outcome.log
    last = workspace.curve()[-1]
    assert last["update"] == 5 and last["valid/loss"] > 0 and last["valid/total"] > last["valid/loss"]
    assert read_json(workspace.root / "metrics/tiny/toy.json")["loss"] == last["valid/loss"]


def test_the_chosen_weights_of_another_key_are_taken_over(new_toy: NewToy) -> None:
    settings = TOY["training"] | {"validate_every": 3}  # type: ignore[operator]
    workspace = new_toy(training=settings, selection={"choose": "best"})
    workspace.run("cpu", kill_at=8)
    change_yaml(workspace.root / workspace.config, {"training.optimizer.lr": 0.02})
    environment = {"PIPELINE_RESUME": "weights", "TOY_VALIDATION": "bad"}
    outcome = workspace.run("cpu", environment=environment)
    assert "WRITTEN WITH ANOTHER CONFIGURATION" in outcome.log and "only its weights are taken" in outcome.log
    assert "the mean of the weights after the steps [3]" in outcome.log


def test_a_second_trainer_is_refused_and_names_the_first(new_toy: NewToy) -> None:
    workspace = new_toy()
    with locked(workspace.local):
        outcome = workspace.run("cpu", expect=(2,))
    assert f"another run holds this stage, process {os.getpid()} on {socket.gethostname()};" in outcome.log
    assert not workspace.output.exists()
