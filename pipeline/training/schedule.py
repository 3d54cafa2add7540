"""Learning rate as a pure function of the optimizer step: nothing to save, nothing to restore."""

import math

from pipeline.config import ScheduleConfig


def learning_rate_factor(schedule: ScheduleConfig, *, step: int, num_steps: int) -> float:
    """Fraction of the peak learning rate at optimizer step `step` (from 0) of `num_steps`.

    The first step of a warm-up of w steps uses 1 / w, so no step is spent at a rate of zero.
    """
    warmup = schedule.num_warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    final = schedule.final_fraction
    match schedule.kind:
        case "constant":
            return 1.0
        case "linear":
            return final + (1.0 - final) * (1.0 - progress)
        case "cosine":
            return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "inverse_sqrt":
            return math.sqrt(max(1, warmup) / (step + 1))
