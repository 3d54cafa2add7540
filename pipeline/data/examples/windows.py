"""Running text -> windows of one length for causal language modelling.

The documents stand behind each other; a window is `length` consecutive places of them (see packing.py), whatever
documents they belong to, and each document in it is a segment of its own. B windows, T their length,
N1 number of windows + 1.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from pipeline.data.batches import CausalBatch, Sizes
from pipeline.data.examples.packing import Places
from pipeline.data.token_arrays import TokenArrays


@dataclass(frozen=True)
class TrainingWindows:
    """Windows that begin somewhere else in every epoch: at a random offset, round the end to the beginning.

    The number of windows is the same in every epoch; the places that are too few for a last window are left out, others
    in each epoch.
    """

    tokens: TokenArrays
    length: int
    seed: int

    @cached_property
    def _places(self) -> Places:
        return Places(self.tokens)

    @property
    def _length(self) -> int:
        return min(self.length, self._places.count)

    def sizes(self, epoch: int) -> Sizes:
        """Every window is full, and every place is a target."""
        lengths = np.full(self._places.count // self._length, self._length, dtype=np.int64)
        return Sizes(lengths=lengths, num_targets={"loss": lengths})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> CausalBatch:
        """Some windows of an epoch."""
        offset = int(np.random.default_rng((self.seed, epoch)).integers(self._places.count))
        begin = offset + indices[:, None] * self._length
        places = (begin + np.arange(self._length)) % self._places.count
        everywhere = np.ones(places.shape, dtype=bool)
        return self._places.batch(places, everywhere, everywhere, pad_id=0)


@dataclass(frozen=True)
class EvaluationWindows:
    """Windows that count every place exactly once, each behind up to `num_context` places that do not count."""

    tokens: TokenArrays
    length: int
    num_context: int
    pad_id: int

    def __post_init__(self) -> None:
        if not 0 <= self.num_context < self.length:
            raise ValueError(f"num_context: found {self.num_context}, allowed are 0 to length - 1 = {self.length - 1}")

    @cached_property
    def _places(self) -> Places:
        return Places(self.tokens)

    @cached_property
    def _targets(self) -> Int[np.ndarray, "N1"]:
        """The first counted place of each window, and the number of places. The first window has no context."""
        stride = self.length - self.num_context
        return np.concatenate([[0], np.arange(self.length, self._places.count, stride), [self._places.count]])

    def _begins(self, indices: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
        return np.asarray(np.maximum(self._targets[indices] - self.num_context, 0))

    def sizes(self, epoch: int) -> Sizes:
        """Lengths with the context, counts without it."""
        begins = self._begins(np.arange(len(self._targets) - 1))
        return Sizes(lengths=self._targets[1:] - begins, num_targets={"loss": np.diff(self._targets)})

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> CausalBatch:
        """The right-padded batch of some windows; the epoch makes no difference."""
        begins, ends = self._begins(indices), self._targets[indices + 1]
        places = begins[:, None] + np.arange(int((ends - begins).max()))
        exists = places < ends[:, None]
        return self._places.batch(places, exists, places >= self._targets[indices][:, None], pad_id=self.pad_id)
