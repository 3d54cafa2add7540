"""Examples whose batches say what they hold, for tests of plan and loaders."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pipeline.data.batches import Batch, Sizes


@dataclass(frozen=True)
class Rows(Batch):
    """The numbers of the examples, and their values."""

    index: Int[Tensor, "B"]
    value: Int[Tensor, "B"]


class Numbers:
    """Examples of given lengths; example i in epoch e has the value 1000 e + i and half its length as targets."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)

    def sizes(self, epoch: int) -> Sizes:
        """Targets differ between epochs, as those of random masks may."""
        return Sizes(lengths=self.lengths, num_targets={"loss": self.lengths // 2 + epoch})

    def collate(self, indices: np.ndarray, epoch: int) -> Rows:
        """One row an example."""
        index = torch.from_numpy(np.asarray(indices))
        return Rows(index, index + 1000 * epoch)
