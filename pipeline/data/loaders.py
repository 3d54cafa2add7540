"""Plan + collate -> what one rank iterates over, from any optimizer step on.

The loader has no state to save: the number of the next optimizer step is enough to continue.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from pipeline.config import ByExamples, ByTokens
from pipeline.data.batches import Batch, Examples, MicroBatch
from pipeline.data.plan import Step, TrainingPlan, cut, plan_epoch

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Cut:
    """This rank's place in the cut of every optimizer step."""

    rank: int
    world_size: int
    accumulation: int
    """Micro-batches that a rank runs in one optimizer step."""

    @property
    def parts(self) -> int:
        """Micro-batches of one optimizer step over all ranks."""
        return self.world_size * self.accumulation


def check_cut(step: Step, place: Cut) -> None:
    """Raises ValueError for a step with too few examples to give each micro-batch of each rank one."""
    fewest = min(len(group) for group in step.groups)
    if fewest * len(step.groups) < place.parts:
        raise ValueError(
            f"an optimizer step of {len(step.indices)} example(s) cannot be cut into {place.world_size} rank(s) x "
            f"{place.accumulation} micro-batch(es); make training.batching larger, or use a runtime with fewer"
        )


class TrainingLoader(Generic[B]):
    """The micro-batches of one rank, from optimizer step `start` to the last."""

    def __init__(self, plan: TrainingPlan[B], place: Cut, *, start: int, prefetch: int) -> None:
        self.plan = plan
        self.place = place
        self.start = start
        self.prefetch = prefetch

    def __len__(self) -> int:
        return (self.plan.num_steps - self.start) * self.place.accumulation

    def __iter__(self) -> Iterator[MicroBatch[B]]:
        jobs = self._jobs()
        if self.prefetch == 0:
            yield from (self._collate(*job) for job in jobs)
            return
        with ThreadPoolExecutor(max_workers=1) as pool:
            waiting = deque(pool.submit(self._collate, *job) for job in islice(jobs, self.prefetch))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(self._collate, *job) for job in islice(jobs, 1))

    def _jobs(self) -> Iterator[tuple[int, int, Step, int]]:
        for update, (epoch, step) in enumerate(self.plan.steps(self.start), start=self.start):
            for micro in range(self.place.accumulation):
                yield update, epoch, step, micro

    def _collate(self, update: int, epoch: int, step: Step, micro: int) -> MicroBatch[B]:
        place = self.place
        check_cut(step, place)
        # Neighbouring parts have similar lengths: the ranks of one micro-batch then finish together.
        indices = cut(step, place.parts)[micro * place.world_size + place.rank]
        return MicroBatch(
            batch=self.plan.examples_at(update).collate(indices, epoch),
            step_targets=step.targets,
            update=update,
            epoch=epoch,
            is_last=micro == place.accumulation - 1,
            indices=indices,
        )


@dataclass(frozen=True)
class ValidationBatch(Generic[B]):
    """A part of the validation data; every rank sees the same number of them, in the same order."""

    batch: B
    counts: bool
    """False where a rank had no examples left and repeats one, only to take part in collective operations."""


def validation_batches(
    examples: Examples[B], batching: ByExamples | ByTokens, place: Cut
) -> Iterator[ValidationBatch[B]]:
    """All examples once over all ranks, in a fixed order, with the draws of epoch 0.

    They come in the sizes of the training's micro-batches: what fits into memory there fits here.
    """
    for step in plan_epoch(examples.sizes(0), batching, seed=0, epoch=0):
        for part in cut(step, place.parts)[place.rank :: place.world_size]:
            shown = part if len(part) else step.indices[:1]
            yield ValidationBatch(batch=examples.collate(shown, 0), counts=len(part) > 0)
