"""Every training stage that is killed and started again ends as if nothing had happened, bit by bit."""

import os
import random
import sys

import pytest

from tests.foundations.chain import ALL, TRAINED, UNTRAINED, Chain, Run, settings, short

SEED = int(os.environ.get("FOUNDATIONS_SEED", random.SystemRandom().randrange(10**6)))
"""Of the steps at which runs are killed: other ones each time, and shown where a test fails."""


def test_no_stage_that_trains_is_left_out() -> None:
    assert set(TRAINED) | UNTRAINED == set(ALL)
    assert not set(TRAINED) & UNTRAINED


CASES = [(name, "cpu") for name in TRAINED] + [("ppo", "zero2_cpu")]


@pytest.mark.parametrize(("name", "runtime"), CASES)
def test_a_stage_killed_at_a_random_step_continues_bit_by_bit(chain: Chain, name: str, runtime: str) -> None:
    if runtime == "cpu":
        whole = chain.whole(name)
    else:
        whole = chain.variant(name, f"whole-{runtime}", short(settings(name)))
        whole.run(runtime)
    steps = len(whole.curve())
    kill_at = random.Random(f"{SEED} {name} {runtime}").randrange(3, steps)
    sys.stdout.write(f"FOUNDATIONS_SEED={SEED}: killed before update {kill_at + 1} of {steps}\n")

    killed = chain.variant(name, f"killed-{runtime}", short(settings(name)))
    killed.run(runtime, kill_at=kill_at)
    assert not killed.output.exists()
    assert_is_inside_an_iteration(killed, name)
    log = killed.run(runtime).log
    assert "continuing from" in log and f"step-{kill_at // 3 * 3:08d}" in log
    assert killed.curve_text() == whole.curve_text()
    assert killed.handed_over() == whole.handed_over()
    assert not killed.checkpoints()


def assert_is_inside_an_iteration(killed: Run, name: str) -> None:
    """The checkpoint of a PPO run comes neither before nor after a rollout, but between two updates on it."""
    if name == "ppo":
        newest = killed.checkpoints()[-1].name
        assert int(newest.removeprefix("step-")) % 4
