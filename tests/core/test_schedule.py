"""Learning rates against their closed forms."""

import math

import pytest

from pipeline.config import ScheduleConfig
from pipeline.training.schedule import learning_rate_factor


def factors(schedule: ScheduleConfig, num_steps: int) -> list[float]:
    return [learning_rate_factor(schedule, step=step, num_steps=num_steps) for step in range(num_steps)]


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "inverse_sqrt"])
def test_the_warm_up_rises_by_equal_amounts_and_wastes_no_step_at_zero(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"kind": kind, "num_warmup_steps": 4})
    assert factors(schedule, 10)[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(factors(schedule, 10)) == 1.0


def test_constant_stays_at_the_peak() -> None:
    assert factors(ScheduleConfig(kind="constant"), 5) == [1.0] * 5


def test_linear_falls_by_equal_amounts_to_its_final_fraction() -> None:
    found = factors(ScheduleConfig(kind="linear", num_warmup_steps=2, final_fraction=0.2), 6)
    assert found == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4])
    after = learning_rate_factor(ScheduleConfig(kind="linear", final_fraction=0.2), step=6, num_steps=6)
    assert after == pytest.approx(0.2)


def test_cosine_is_half_way_at_the_middle_and_symmetric() -> None:
    """Loshchilov and Hutter 2017, eq. 5 with one period."""
    found = factors(ScheduleConfig(kind="cosine", final_fraction=0.1), 9)[:9]
    assert found == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)])
    whole = [learning_rate_factor(ScheduleConfig(kind="cosine"), step=step, num_steps=8) for step in range(9)]
    assert whole[4] == pytest.approx(0.5) and whole[8] == pytest.approx(0.0)
    assert [1 - value for value in whole] == pytest.approx(whole[::-1])


def test_inverse_sqrt_is_the_schedule_of_attention_is_all_you_need() -> None:
    """Vaswani et al. 2017, eq. 3, divided by its peak: min(n^-0.5, n w^-1.5) w^0.5, steps n from 1, w = 5."""
    found = factors(ScheduleConfig(kind="inverse_sqrt", num_warmup_steps=5), 30)
    wanted = [min(step**-0.5, step * 5**-1.5) * 5**0.5 for step in range(1, 31)]
    assert found == pytest.approx(wanted)
