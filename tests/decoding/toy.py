"""A toy language model whose scores depend on the whole prefix, and nothing else: the ground truth is a loop.

Legend: N rows, T prompt length, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MODULUS = 2**31 - 1


@dataclass(frozen=True)
class ToyState:
    """A hash of each row's tokens."""

    prefix: Tensor

    def select(self, rows: Tensor) -> "ToyState":
        return ToyState(self.prefix[rows])


class ToyModel:
    """Scores of the next token are pseudo-random numbers of the prefix; padding on the left is not part of it.

    Records how many rows each step was asked for.
    """

    def __init__(self, vocab_size: int, *, scale: float = 2.0) -> None:
        self.table = torch.randn(997, vocab_size, generator=torch.Generator().manual_seed(0)) * scale
        self.rows_of_steps: list[int] = []

    def start(self, input_ids: Tensor, segment_ids: Tensor, position_ids: Tensor) -> tuple[Tensor, ToyState]:
        prefix = torch.zeros(len(input_ids), dtype=torch.long)
        for t in range(input_ids.shape[1]):
            is_real = segment_ids[:, t] == 0
            prefix = torch.where(is_real, self._append(prefix, input_ids[:, t] + 10 * position_ids[:, t]), prefix)
        return self.table[prefix % 997].clone(), ToyState(prefix)

    def step(self, tokens: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        self.rows_of_steps.append(len(tokens))
        prefix = self._append(state.prefix, tokens)
        return self.table[prefix % 997].clone(), ToyState(prefix)

    @staticmethod
    def _append(prefix: Tensor, tokens: Tensor) -> Tensor:
        return (prefix * 48271 + tokens + 1) % MODULUS
