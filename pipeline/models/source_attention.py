"""Attention of a recurrent decoder to the encoded source (Bahdanau et al. 2015; Luong et al. 2015).

Legend: B batch, M selected rows, T target length, S source length, H hidden size of the decoder, A memory size, K key
size (A for dot and none, else H), Q layers.
Masks are boolean; True counts.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

AttentionKind = Literal["none", "additive", "dot", "general"]


Hidden = tuple[Tensor, ...]
"""States of the stacked cells, each (Q, N, H): one tensor, or the two of an LSTM (output, cell)."""


@dataclass(frozen=True)
class Memory:
    """The encoded source."""

    outputs: Float[Tensor, "B S A"]
    """Encoder states, zero at padding."""
    keys: Float[Tensor, "B S K"]
    """What the attention compares with: the outputs, projected once where the attention has a projection."""
    initial: Hidden
    """First state of the decoder."""

    def select(self, rows: Int[Tensor, "M"]) -> "Memory":
        """The sources of the given rows."""
        return Memory(self.outputs[rows], self.keys[rows], tuple(part[:, rows] for part in self.initial))


class SourceAttention(nn.Module):
    """A weighted mean of the encoder's states for each decoder state."""

    def __init__(self, kind: AttentionKind, d_hidden: int, d_memory: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "general":
            self.key = nn.Linear(d_memory, d_hidden, bias=False)
        if kind == "additive":
            self.key = nn.Linear(d_memory, d_hidden, bias=False)
            self.query = nn.Linear(d_hidden, d_hidden)
            self.score = nn.Linear(d_hidden, 1, bias=False)

    def project(self, outputs: Float[Tensor, "B S A"]) -> Float[Tensor, "B S K"]:
        """The part of the scores that depends on the source alone."""
        projected: Tensor = self.key(outputs) if self.kind in ("general", "additive") else outputs
        return projected

    def forward(
        self, states: Float[Tensor, "B T H"], memory: Memory, src_mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B T A"]:
        """The context of each state; padding has weight zero."""
        match self.kind:
            case "dot" | "general":
                scores = states @ memory.keys.transpose(1, 2)  # (B, T, S); Luong et al., eq. 8
            case "additive":
                sums = self.query(states).unsqueeze(2) + memory.keys.unsqueeze(1)  # (B, T, S, H)
                scores = self.score(torch.tanh(sums)).squeeze(-1)  # Bahdanau et al., appendix A.1.2
            case "none":
                raise ValueError("attention none computes no context")
            case _:
                assert_never(self.kind)
        weights = scores.masked_fill(~src_mask.unsqueeze(1), float("-inf")).softmax(dim=-1)
        return weights @ memory.outputs
