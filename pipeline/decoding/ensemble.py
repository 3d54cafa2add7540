"""Several models that decide on every token together: the mean of their probabilities.

Legend: N rows, M selected rows, V scores. The models share one vocabulary; their kinds and sizes may differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.decoding.protocol import S, StepModel


@dataclass(frozen=True)
class Member(Generic[S]):
    """One model and what it remembers."""

    model: StepModel[S]
    state: S

    def select(self, rows: Int[Tensor, "M"]) -> "Member[S]":
        """The member at the given rows."""
        return Member(self.model, self.state.select(rows))

    def step(self, tokens: Int[Tensor, "N"]) -> tuple[Float[Tensor, "N V"], "Member[S]"]:
        """Log-probabilities of the token after `tokens`, and the member that has read them."""
        logits, state = self.model.step(tokens, self.state)
        return logits.float().log_softmax(1), Member(self.model, state)


@dataclass(frozen=True)
class EnsembleState:
    """The members, each at its own state."""

    members: tuple[Member[Any], ...]

    def select(self, rows: Int[Tensor, "M"]) -> "EnsembleState":
        """The state of the given rows, which may repeat, drop and re-order."""
        return EnsembleState(tuple(member.select(rows) for member in self.members))


class Ensemble:
    """The model whose next-token probability is the mean of those of its members; the state has the members."""

    def step(self, tokens: Int[Tensor, "N"], state: EnsembleState) -> tuple[Float[Tensor, "N V"], EnsembleState]:
        """log(1/n (p_1 + ... + p_n)) of the token after `tokens`, and the state that includes them."""
        steps = [member.step(tokens) for member in state.members]
        return mean_probability([log_probs for log_probs, _ in steps]), EnsembleState(tuple(one for _, one in steps))


def mean_probability(log_probs: Sequence[Float[Tensor, "N V"]]) -> Float[Tensor, "N V"]:
    """Logarithm of the mean of the probabilities."""
    return torch.stack(tuple(log_probs)).logsumexp(0) - math.log(len(log_probs))
