"""Attention of a recurrent decoder to the encoded source (Bahdanau et al. 2015; Luong et al. 2015).

Legend: B batch, M selected rows, T target length, S source length, H hidden size of the decoder, A memory size, K key
size (A for dot and none, else H), Q layers, D half the width of a local window.
Masks are boolean; True counts. Source positions count from 0.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.models.additive_scores import additive_scores

AttentionKind = Literal["none", "additive", "dot", "general", "local_p"]
"""additive: Bahdanau et al.; dot, general: Luong et al., eq. 8; local_p: general near a predicted position (Luong et
al., section 3.2)."""

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

    @property
    def summary(self) -> Float[Tensor, "B H"]:
        """The whole source in one vector: the first state of the decoder's last layer (c of Cho et al. 2014)."""
        return self.initial[0][-1]

    def select(self, rows: Int[Tensor, "M"]) -> "Memory":
        """The sources of the given rows."""
        return Memory(self.outputs[rows], self.keys[rows], tuple(part[:, rows] for part in self.initial))


class SourceAttention(nn.Module):
    """A weighted mean of the encoder's states for each decoder state."""

    def __init__(self, kind: AttentionKind, d_hidden: int, d_memory: int, *, window: int) -> None:
        super().__init__()
        self.kind = kind
        self.window = window
        if kind in ("general", "local_p"):
            self.key = nn.Linear(d_memory, d_hidden, bias=False)
        if kind == "additive":
            self.key = nn.Linear(d_memory, d_hidden, bias=False)
            self.query = nn.Linear(d_hidden, d_hidden)
            self.score = nn.Linear(d_hidden, 1, bias=False)
        if kind == "local_p":
            self.position = nn.Linear(d_hidden, d_hidden, bias=False)
            self.centre = nn.Linear(d_hidden, 1, bias=False)

    def project(self, outputs: Float[Tensor, "B S A"]) -> Float[Tensor, "B S K"]:
        """The part of the scores that depends on the source alone."""
        projected: Tensor = self.key(outputs) if self.kind not in ("dot", "none") else outputs
        return projected

    def forward(
        self, states: Float[Tensor, "B T H"], memory: Memory, src_mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B T A"]:
        """The context of each state; padding has weight zero, and so has what is outside a local window."""
        match self.kind:
            case "dot" | "general" | "local_p":
                scores = states @ memory.keys.transpose(1, 2)  # (B, T, S); Luong et al., eq. 8
            case "additive":
                scores = additive_scores(self.query(states), memory.keys, self.score.weight[0])
            case "none":
                raise ValueError("attention none computes no context")
            case _:
                assert_never(self.kind)
        if self.kind != "local_p":
            return _softmax(scores, src_mask.unsqueeze(1)) @ memory.outputs
        distances = self._distances(states, src_mask)
        weights = _softmax(scores, src_mask.unsqueeze(1) & (distances.abs() <= self.window))
        weights = weights * torch.exp(-2.0 * (distances / self.window) ** 2)
        return weights.to(memory.outputs.dtype) @ memory.outputs

    def _distances(self, states: Float[Tensor, "B T H"], src_mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B T S"]:
        """From the position p = length * sigmoid(v tanh(W h)) that each state predicts (Luong et al., eq. 9).

        The Gaussian of eq. 10 is exp(-distance^2 / (2 sigma^2)) with sigma = D / 2, that is exp(-2 (distance / D)^2).
        Some source position is always inside the window: p is between 0 and the length, and D is at least 1.
        The position is at least in float32 under every runtime: bfloat16 has no number between 256 and 258. So are the
        layers that predict it, as long as their weights are: DeepSpeed has them in bfloat16.
        """
        lengths = src_mask.sum(1).view(-1, 1, 1)
        with torch.autocast(states.device.type, enabled=False):
            share = self.centre(torch.tanh(self.position(states.to(self.position.weight.dtype))))
            centres = lengths * torch.sigmoid(share.to(torch.promote_types(share.dtype, torch.float32)))  # (B, T, 1)
        return torch.arange(src_mask.size(1), device=states.device) - centres


def _softmax(scores: Float[Tensor, "B T S"], mask: Bool[Tensor, "B #T S"]) -> Float[Tensor, "B T S"]:
    """Weights that sum to one over the positions of the mask."""
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
