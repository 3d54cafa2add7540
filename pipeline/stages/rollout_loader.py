"""The outer loop of PPO as a loader: at the border of an iteration it rolls out, then it hands out optimizer steps.

An optimizer step is a function of the rollout and of (seed, iteration), so the number of the next one is enough to
continue; the rollout itself comes from the checkpoint and is never made twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from pipeline.config import ByExamples, Epochs
from pipeline.data.batches import MicroBatch, RolloutBatch, Sizes
from pipeline.data.examples.rollouts import RolloutBuffer, RolloutExamples
from pipeline.data.loaders import Cut, TrainingLoader
from pipeline.data.plan import TrainingPlan
from pipeline.stages.rollout import RolloutConfig


@runtime_checkable
class Learner(Protocol):
    """What is trained on rollouts."""

    def roll_out(self, iteration: int) -> None:
        """Makes the rollout of an iteration."""

    def rollout(self) -> RolloutBuffer:
        """The rollout that was made last, perhaps before a resume."""


@dataclass(frozen=True)
class Mixed:
    """Answers in random groups.

    The plan puts like lengths together, so a pass over a rollout would be a step on its short answers and then one on
    its long ones, the same in every pass; answers of one length have no order.
    """

    examples: RolloutExamples

    def sizes(self, epoch: int) -> Sizes:
        """One length for all: that of the longest."""
        sizes = self.examples.sizes(epoch)
        return Sizes(lengths=np.full_like(sizes.lengths, sizes.lengths.max()), num_targets=sizes.num_targets)

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> RolloutBatch:
        """Some answers, as wide as the longest of them."""
        return self.examples.collate(indices, epoch)


class RolloutLoader:
    """The micro-batches of one rank over all iterations, from optimizer step `start` on.

    It has a length, so Lightning does not fetch a batch ahead: a rollout would miss the last update before it.
    """

    def __init__(
        self,
        learner: Learner,
        config: RolloutConfig,
        place: Cut,
        *,
        batching: ByExamples,
        duration: Epochs,
        seed: int,
        start: int,
    ) -> None:
        self.learner = learner
        self.config = config
        self.place = place
        self.batching = batching
        self.duration = duration
        self.seed = seed
        self.start = start
        self.steps_per_iteration = steps_per_iteration(config, batching, duration)
        self.num_steps = config.num_iterations * self.steps_per_iteration

    def __len__(self) -> int:
        return (self.num_steps - self.start) * self.place.accumulation

    def __iter__(self) -> Iterator[MicroBatch[RolloutBatch]]:
        first, position = divmod(self.start, self.steps_per_iteration)
        for iteration in range(first, self.config.num_iterations):
            if position == 0:
                self.learner.roll_out(iteration)
            plan = TrainingPlan(
                Mixed(RolloutExamples(self.learner.rollout())),
                self.batching,
                self.duration,
                seed=self.seed * 1_000_003 + iteration,
            )
            for micro in TrainingLoader(plan, self.place, start=position, prefetch=0):
                micro.update += iteration * self.steps_per_iteration
                yield micro
            position = 0


def steps_per_iteration(config: RolloutConfig, batching: ByExamples, duration: Epochs) -> int:
    """Optimizer steps on one rollout; ValueError where it cannot be cut into equal steps."""
    if config.prompts_per_iteration % batching.examples_per_step:
        raise ValueError(
            f"rollout.prompts_per_iteration: {config.prompts_per_iteration} is no multiple of "
            f"training.batching.examples_per_step, {batching.examples_per_step}"
        )
    return config.prompts_per_iteration // batching.examples_per_step * duration.num_epochs
