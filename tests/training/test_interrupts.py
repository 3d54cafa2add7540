"""Signals and deaths, on jobs started as a user starts them: exit code, checkpoint, output, nobody left behind.

Each test interrupts one training again and again; at its end the result is that of an uninterrupted run.
"""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from tests.training.conftest import NewToy
from tests.training.harness import Job, Workspace

SLOW = {"TOY_STEP_SECONDS": "0.2"}


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    """Jobs that are ended with the test, whatever happens."""
    started: list[Job] = []
    yield started
    for job in started:
        job.kill()


def newest_update(workspace: Workspace) -> int:
    """The optimizer step of the newest checkpoint; 0 without one."""
    return max((int(path.name.removeprefix("step-")) for path in workspace.checkpoints()), default=0)


def assert_stopped(workspace: Workspace, *, before: int) -> None:
    """A stop keeps what was done since the last checkpoint, and hands nothing over."""
    assert newest_update(workspace) > before
    assert not workspace.output.exists()


def assert_ends_as_uninterrupted(workspace: Workspace, uninterrupted: Workspace, runtime: str) -> None:
    """Completes both and compares every bit."""
    assert "continuing from" in workspace.run(runtime).log
    uninterrupted.run(runtime)
    assert workspace.curve_text() == uninterrupted.curve_text()
    assert all(torch.equal(tensor, uninterrupted.weights()[name]) for name, tensor in workspace.weights().items())


def test_one_process_stops_by_ctrl_c_and_by_its_parents_death(new_toy: NewToy, jobs: list[Job]) -> None:
    workspace = new_toy(dropout=0.2)
    job = workspace.start("cpu", environment=SLOW)
    jobs.append(job)
    job.wait_for_update(2)
    os.kill(job.process.pid, signal.SIGINT)
    outcome = job.wait()
    assert outcome.exit_codes == (130,), outcome.log
    assert "SIGINT: saving at the end of this step" in outcome.log
    assert_stopped(workspace, before=0)

    before = newest_update(workspace)
    job = workspace.start("cpu", environment=SLOW, wrapper="{} & wait")
    jobs.append(job)
    job.wait_for_update(before + 1)
    os.kill(job.process.pid, signal.SIGKILL)
    outcome = job.wait()
    assert "is gone" in outcome.log and "SIGTERM: saving" in outcome.log
    assert_stopped(workspace, before=before)
    assert_ends_as_uninterrupted(workspace, new_toy(dropout=0.2), "cpu")


def test_a_validation_that_takes_longer_than_a_stop_may_is_waited_for(new_toy: NewToy, jobs: list[Job]) -> None:
    """The request comes during the validation of step 7; the last checkpoint was that of step 5."""
    workspace = new_toy()
    slow = {"PIPELINE_STOP_SECONDS": "1", "TOY_VALIDATION_SECONDS": "3"}
    job = workspace.start("cpu", environment=slow)
    jobs.append(job)
    job.wait_for_update(6)
    os.kill(job.process.pid, signal.SIGTERM)
    outcome = job.wait()
    assert outcome.exit_codes == (143,), outcome.log
    assert "ending without saving" not in outcome.log
    assert_stopped(workspace, before=5)


def test_a_request_before_the_first_step_is_no_good_end(new_toy: NewToy) -> None:
    workspace = new_toy()
    workspace.run("cpu", environment={"TOY_BEFORE_FIRST_STEP": "terminate"}, expect=(143,))
    assert not workspace.output.exists()


def test_two_ranks_stop_together_whichever_is_told(new_toy: NewToy, jobs: list[Job]) -> None:
    workspace = new_toy(dropout=0.2)
    for who in ("rank 0", "rank 1", "group"):
        before = newest_update(workspace)
        job = workspace.start("ddp_cpu", environment=SLOW)
        jobs.append(job)
        job.wait_for_update(before + 1)
        ranks = job.ranks()
        assert len(ranks) == 2
        if who == "group":
            os.killpg(job.process.pid, signal.SIGTERM)
        else:
            os.kill(ranks[int(who[-1])], signal.SIGTERM)
        outcome = job.wait()
        assert outcome.exit_codes == (143,), f"{who}\n{outcome.log}"
        assert_stopped(workspace, before=before)
    assert_ends_as_uninterrupted(workspace, new_toy(dropout=0.2), "ddp_cpu")


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_rank_ends_the_other_and_costs_only_what_was_not_saved(
    new_toy: NewToy, jobs: list[Job], rank: int
) -> None:
    workspace = new_toy(dropout=0.2)
    job = workspace.start("ddp_cpu", environment={"TOY_STEP_SECONDS": "0.4"})
    jobs.append(job)
    job.wait_for_update(6)
    os.kill(job.ranks()[rank], signal.SIGKILL)
    assert job.wait().exit_codes[0] != 0
    assert not workspace.output.exists()
    assert_ends_as_uninterrupted(workspace, new_toy(dropout=0.2), "ddp_cpu")
