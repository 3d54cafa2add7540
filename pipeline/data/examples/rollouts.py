"""Sampled responses of one PPO iteration -> RolloutBatch. N rollouts, B batch, W width of the buffer, T of a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.data.batches import RolloutBatch, Sizes

TERMS = ("policy", "value", "entropy")
"""Names of the loss terms of PPO; each counts the tokens of the responses."""


@dataclass(frozen=True)
class RolloutBuffer:
    """All rollouts of an iteration, right-padded: prompt, response, padding. Fields as in RolloutBatch."""

    input_ids: Int[Tensor, "N W"]
    labels: Int[Tensor, "N W"]
    is_response: Bool[Tensor, "N W"]
    old_log_probs: Float[Tensor, "N W"]
    old_values: Float[Tensor, "N W"]
    advantages: Float[Tensor, "N W"]
    returns: Float[Tensor, "N W"]

    def __post_init__(self) -> None:
        without = torch.nonzero(~self.is_response.any(1)).flatten().tolist()
        if without:
            raise ValueError(f"rollouts {without[:10]} have no response token; a response has at least its <eos>")

    def state(self) -> dict[str, Tensor]:
        """The tensors by their names, for the resume checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> "RolloutBuffer":
        """The buffer of a resume checkpoint; ValueError when tensors are missing or unknown."""
        names = {field.name for field in fields(RolloutBuffer)}
        if set(state) != names:
            missing, unknown = sorted(names - set(state)), sorted(set(state) - names)
            raise ValueError(f"rollout buffer of the checkpoint: missing {missing}, unknown {unknown}")
        return RolloutBuffer(**state)


@dataclass(frozen=True)
class RolloutExamples:
    """The rollouts of a buffer, one an example; the same in every epoch."""

    buffer: RolloutBuffer

    @cached_property
    def _lengths(self) -> Int[Tensor, "N"]:
        """Inputs up to the last action; what stands behind is padding."""
        columns = torch.arange(1, self.buffer.is_response.shape[1] + 1)
        return (columns * self.buffer.is_response).amax(1)

    def sizes(self, epoch: int) -> Sizes:
        """Inputs without padding, and response tokens for every loss term."""
        targets = self.buffer.is_response.sum(1).numpy()
        return Sizes(lengths=self._lengths.numpy(), num_targets=dict.fromkeys(TERMS, targets))

    def collate(self, indices: Int[np.ndarray, "B"], epoch: int) -> RolloutBatch:
        """Some rollouts, as wide as the longest of them."""
        rows = torch.from_numpy(indices)
        width = int(self._lengths[rows].max())
        columns = torch.arange(width).expand(len(rows), width)
        exists = columns < self._lengths[rows][:, None]
        kept = {name: values[rows, :width] for name, values in self.buffer.state().items()}
        return RolloutBatch(
            segment_ids=torch.where(exists, 0, -1), position_ids=torch.where(exists, columns, 0), **kept
        )
