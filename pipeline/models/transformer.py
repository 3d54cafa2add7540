"""The parts that every Transformer here is built from: positions, feed-forward network, encoder and decoder layer.

Legend: B batch, N rows of a search, R sources of a search, T target length, S source length, P positions or tokens,
D model size.
A layer is pre-norm, x + f(norm(x)), as in GPT-2, or post-norm, norm(x + f(x)), as in Vaswani et al. (2017).
"""

import math
from collections.abc import Iterator
from typing import Generic, Literal, TypeVar, assert_never, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.models.attention import CrossAttention, KeyValueCache, SelfAttention
from pipeline.models.dropout import Dropout
from pipeline.models.rows import ReadTokens, Rows

Activation = Literal["relu", "gelu", "gelu_new", "silu"]
"""gelu is exact, gelu_new the tanh approximation of GPT-2."""

NormPlacement = Literal["pre", "post"]


def sinusoidal_positions(num_positions: int, d_model: int) -> Float[Tensor, "P D"]:
    """Fixed position vectors (Vaswani et al. 2017, section 3.5), sines in the first half, cosines in the second.

    The paper interleaves them; this order is Marian's, equal up to a permutation of the dimensions.
    """
    wavelengths = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(10_000.0) / d_model))
    angles = torch.arange(num_positions, dtype=torch.float64).unsqueeze(1) * wavelengths  # (P, D/2)
    return torch.cat([angles.sin(), angles.cos()[:, : d_model // 2]], dim=1).float()


def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Normal weights, zero biases, as in BERT and GPT-2; layer norms keep weight 1 and bias 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
            if isinstance(part, nn.Embedding) and part.padding_idx is not None:
                with torch.no_grad():
                    part.weight[part.padding_idx].zero_()


Layer = TypeVar("Layer", bound=nn.Module)


class Layers(nn.ModuleList, Generic[Layer]):
    """A module list that knows the type of its members."""

    def __iter__(self) -> Iterator[Layer]:
        """The layers from the bottom to the top."""
        return cast(Iterator[Layer], super().__iter__())


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between, at each position (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, d_model: int, d_ff: int, activation: Activation, *, dropout: float) -> None:
        super().__init__()
        self.activation = activation
        self.inner = nn.Linear(d_model, d_ff)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(d_ff, d_model)

    def forward(self, hidden: Float[Tensor, "*P D"]) -> Float[Tensor, "*P D"]:
        """The update of each position."""
        update: Tensor = self.output(self.dropout(activate(self.inner(hidden), self.activation)))
        return update


def activate(values: Float[Tensor, "*shape"], activation: Activation) -> Float[Tensor, "*shape"]:
    """Applies a non-linearity by its name in the configuration."""
    match activation:
        case "relu":
            return F.relu(values)
        case "gelu":
            return F.gelu(values)
        case "gelu_new":
            return F.gelu(values, approximate="tanh")
        case "silu":
            return F.silu(values)
        case _:
            assert_never(activation)


class Residual(nn.Module):
    """The layer norm, dropout and addition around one sub-layer."""

    def __init__(self, d_model: int, norm: NormPlacement, *, dropout: float, eps: float) -> None:
        super().__init__()
        self.is_pre = norm == "pre"
        self.norm = nn.LayerNorm(d_model, eps=eps)
        self.dropout = Dropout(dropout)

    def enter(self, hidden: Float[Tensor, "*P D"]) -> Float[Tensor, "*P D"]:
        """What the sub-layer reads."""
        entering: Tensor = self.norm(hidden) if self.is_pre else hidden
        return entering

    def leave(self, hidden: Float[Tensor, "*P D"], update: Float[Tensor, "*P D"]) -> Float[Tensor, "*P D"]:
        """Adds what the sub-layer computed."""
        total = hidden + self.dropout(update)
        leaving: Tensor = total if self.is_pre else self.norm(total)
        return leaving


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network: a layer of BERT, of GPT (causal) and of a translation encoder."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        norm: NormPlacement,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, num_heads, dropout=attention_dropout)
        self.attention_residual = Residual(d_model, norm, dropout=dropout, eps=eps)
        self.feed_forward = FeedForward(d_model, d_ff, activation, dropout=activation_dropout)
        self.feed_forward_residual = Residual(d_model, norm, dropout=dropout, eps=eps)

    def forward(
        self, hidden: Float[Tensor, "B T D"], mask: Bool[Tensor, "#B 1 #T T"] | None, *, is_causal: bool = False
    ) -> Float[Tensor, "B T D"]:
        """The whole sequence at once."""
        update = self.attention(self.attention_residual.enter(hidden), mask, is_causal=is_causal)
        return self._feed(self.attention_residual.leave(hidden, update))

    def over_rows(
        self, hidden: Float[Tensor, "P D"], rows: Rows, read: ReadTokens | None = None
    ) -> Float[Tensor, "P_or_R D"]:
        """The P real tokens of whole rows at once, without their padding, or the R of them that are read."""
        update = self.attention.over_rows(self.attention_residual.enter(hidden), rows, read)
        if read is not None:
            hidden = hidden.index_select(0, read.places)
        return self._feed(self.attention_residual.leave(hidden, update))

    def extend(
        self,
        hidden: Float[Tensor, "N T D"],
        cache: KeyValueCache | None,
        mask: Bool[Tensor, "#N 1 #T S"] | None,
        *,
        is_causal: bool = False,
    ) -> tuple[Float[Tensor, "N T D"], KeyValueCache]:
        """T new positions after those of `cache`."""
        update, cache = self.attention.extend(self.attention_residual.enter(hidden), cache, mask, is_causal=is_causal)
        return self._feed(self.attention_residual.leave(hidden, update)), cache

    def _feed(self, hidden: Float[Tensor, "*P D"]) -> Float[Tensor, "*P D"]:
        update = self.feed_forward(self.feed_forward_residual.enter(hidden))
        return self.feed_forward_residual.leave(hidden, update)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and a feed-forward network."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        norm: NormPlacement,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(d_model, num_heads, dropout=attention_dropout)
        self.attention_residual = Residual(d_model, norm, dropout=dropout, eps=eps)
        self.cross_attention = CrossAttention(d_model, num_heads, dropout=attention_dropout)
        self.cross_attention_residual = Residual(d_model, norm, dropout=dropout, eps=eps)
        self.feed_forward = FeedForward(d_model, d_ff, activation, dropout=activation_dropout)
        self.feed_forward_residual = Residual(d_model, norm, dropout=dropout, eps=eps)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        memory: KeyValueCache,
        memory_mask: Bool[Tensor, "B 1 1 S"] | None,
    ) -> Float[Tensor, "B T D"]:
        """The whole target at once; right padding needs no mask, since no real position looks to its right."""
        update = self.attention(self.attention_residual.enter(hidden), None, is_causal=True)
        return self._finish(self.attention_residual.leave(hidden, update), memory, memory_mask)

    def extend(
        self,
        hidden: Float[Tensor, "N 1 D"],
        cache: KeyValueCache | None,
        memory: KeyValueCache,
        memory_mask: Bool[Tensor, "R 1 1 S"] | None,
    ) -> tuple[Float[Tensor, "N 1 D"], KeyValueCache]:
        """One new position after those of `cache`; N / R rows that follow each other share a memory."""
        update, cache = self.attention.extend(self.attention_residual.enter(hidden), cache, None)
        hidden = self.attention_residual.leave(hidden, update)
        # Rows of one memory are to it what positions are: together they read it once.
        by_source = hidden.view(memory.keys.size(0), -1, hidden.size(2))
        return self._finish(by_source, memory, memory_mask).view_as(hidden), cache

    def _finish(
        self, hidden: Float[Tensor, "B T D"], memory: KeyValueCache, memory_mask: Bool[Tensor, "B 1 1 S"] | None
    ) -> Float[Tensor, "B T D"]:
        update = self.cross_attention(self.cross_attention_residual.enter(hidden), memory, memory_mask)
        hidden = self.cross_attention_residual.leave(hidden, update)
        update = self.feed_forward(self.feed_forward_residual.enter(hidden))
        return self.feed_forward_residual.leave(hidden, update)
