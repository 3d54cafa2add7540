"""Sums of a loss over held-out examples, on one process after training, and a thinner data set to validate on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

from pipeline.data.batches import Batch, Examples, Sizes
from pipeline.data.plan import Step, one_pass
from pipeline.objectives.terms import LossTerms
from pipeline.progress import progress

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class HeldOutLoss:
    """A loss over a whole data set."""

    loss_sum: float
    num_targets: int

    def __add__(self, other: "HeldOutLoss") -> "HeldOutLoss":
        return HeldOutLoss(self.loss_sum + other.loss_sum, self.num_targets + other.num_targets)

    @property
    def mean(self) -> float:
        """The loss of a target."""
        return self.loss_sum / max(1, self.num_targets)


@torch.no_grad()
def held_out_loss(
    model: nn.Module, examples: Examples[B], objective: Callable[[B], LossTerms], *, tokens_per_batch: int
) -> HeldOutLoss:
    """The sum of `objective`, which runs `model`, over all examples, similar lengths together, in evaluation mode."""
    device = next(model.parameters()).device
    sizes = examples.sizes(0)
    was_training = model.training
    model.eval()
    total = HeldOutLoss(0.0, 0)
    for step in in_view(one_pass(sizes, tokens_per_batch=tokens_per_batch), name="held-out loss"):
        term = objective(examples.collate(step.indices, 0).to(device))
        total += HeldOutLoss(float(term.loss_sum.double()), term.num_targets)
    model.train(was_training)
    return total


def in_view(steps: Sequence[Step], *, name: str) -> Iterator[Step]:
    """The steps of a pass without training, with its progress in examples."""
    total = sum(len(step.indices) for step in steps)
    return progress(steps, name=name, unit="examples", total=total, size=lambda step: len(step.indices))


@dataclass(frozen=True)
class EvenlySpaced(Generic[B]):
    """At most `count` examples of a data set, spread over it: enough to watch a training."""

    examples: Examples[B]
    count: int

    @cached_property
    def _indices(self) -> Int[np.ndarray, "N"]:
        num_examples = len(self.examples.sizes(0).lengths)
        return np.unique(np.linspace(0, num_examples - 1, min(self.count, num_examples)).round().astype(np.int64))

    def sizes(self, epoch: int) -> Sizes:
        """Sizes of the chosen ones."""
        sizes = self.examples.sizes(epoch)
        targets = {name: counts[self._indices] for name, counts in sizes.num_targets.items()}
        return Sizes(lengths=sizes.lengths[self._indices], num_targets=targets)

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> B:
        """A batch of them."""
        return self.examples.collate(self._indices[indices], epoch)
