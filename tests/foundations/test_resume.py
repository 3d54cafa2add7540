"""Every training stage that is killed and started again ends as if nothing had happened, bit by bit."""

import os
import random
import sys

import pytest

from tests.foundations.chain import ALL, TRAINED, UNTRAINED, Chain, settings, short

SEED = int(os.environ.get("FOUNDATIONS_SEED", random.SystemRandom().randrange(10**6)))
"""Of the steps at which runs are killed: other ones each time, and shown where a test fails."""


def test_no_stage_that_trains_is_left_out() -> None:
    assert set(TRAINED) | UNTRAINED == set(ALL)
    assert not set(TRAINED) & UNTRAINED


CASES = [(name, "cpu") for name in TRAINED]
# Further state than weights and AdamW's moments goes through DeepSpeed's checkpoints: a rollout, and AdaGrad's sums.
CASES += [("ppo", "zero2_accumulate"), ("word_vectors/glove", "zero2_accumulate")]


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
    assert [path.name for path in killed.checkpoints()][-1] == f"step-{kill_at // 3 * 3:08d}"
    assert "continuing from" in killed.run(runtime).log
    assert killed.curve_text() == whole.curve_text()
    assert killed.handed_over() == whole.handed_over()
    reported = whole.reported()
    assert reported["metrics"]
    assert killed.reported() == reported
    assert not killed.checkpoints()
    if name == "ppo":
        # Every third step is saved and every fourth rolls out: the checkpoints were inside iterations.
        assert [row["update"] for row in killed.curve() if "rollout/kl" in row] == [1, 5, 9]
