"""GPT-2 (Radford et al. 2019): a pre-norm causal Transformer with learned positions and a tied output matrix.

Legend: B batch, N rows of a generation, T length, D model size, V vocabulary.
Masks are boolean; True counts. `segment_ids` number the documents of a row, -1 is padding: a token attends to itself
and to earlier tokens of its segment. Training pads right; generation pads left, with positions from 0 at the first
real token.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.attention import KeyValueCache, segment_mask
from pipeline.models.dropout import Dropout
from pipeline.models.transformer import EncoderLayer, Layers, initialise


class GPTConfig(Config):
    """Shape of a GPT."""

    vocab_size: PositiveInt
    """Tokens in the vocabulary, special tokens included."""
    d_model: PositiveInt
    """Width of the residual stream; the feed-forward network is four times as wide."""
    num_layers: PositiveInt
    """Transformer layers."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    max_length: PositiveInt
    """Longest context in tokens: the number of learned positions."""
    dropout: Fraction = 0.0
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights; other than 0 it gives up the fused attention kernel."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "GPTConfig":
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model, found {self.num_heads} and {self.d_model}")
        return self


@dataclass(frozen=True)
class GPTState:
    """What a generation remembers between two steps."""

    caches: tuple[KeyValueCache, ...]
    """Keys and values of each layer."""
    is_visible: Bool[Tensor, "N T"] | None
    """True at the cached positions of the segment that is being continued; None if all are."""
    next_position: Int[Tensor, "N"]
    """Position of the next token in each row."""

    def select(self, rows: Int[Tensor, "M"]) -> "GPTState":
        """The state of the given rows, which may repeat, drop and re-order."""
        return GPTState(
            caches=tuple(cache.select(rows) for cache in self.caches),
            is_visible=None if self.is_visible is None else self.is_visible[rows],
            next_position=self.next_position[rows],
        )


class GPT(nn.Module):
    """Token and position embeddings, a stack of pre-norm layers, a final layer norm, a tied projection."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.max_length, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.layers: Layers[EncoderLayer] = Layers(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                4 * config.d_model,
                norm="pre",
                activation="gelu_new",
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
            for _ in range(config.num_layers)
        )
        self.final_norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        initialise(self)
        self.head.weight = self.token_embedding.weight
        # Each layer adds twice to the residual stream; its variance at the top should not grow with depth.
        for name, parameter in self.layers.named_parameters():
            if name.endswith("output.weight"):
                nn.init.normal_(parameter, std=0.02 * (2 * config.num_layers) ** -0.5)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        segment_ids: Int[Tensor, "B T"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states after the last layer norm; `logits` projects those that count.

        Without `segment_ids` a row is one document, possibly padded right; without `position_ids` positions count
        from the first column.
        """
        hidden = self._embed(input_ids, position_ids)
        mask = None if segment_ids is None else segment_mask(segment_ids)
        for layer in self.layers:
            hidden = layer(hidden, mask, is_causal=mask is None)
        final: Tensor = self.final_norm(hidden)
        return final

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token."""
        scores: Tensor = self.head(hidden)
        return scores

    def start(
        self,
        input_ids: Int[Tensor, "N T"],
        segment_ids: Int[Tensor, "N T"] | None = None,
        position_ids: Int[Tensor, "N T"] | None = None,
    ) -> tuple[Float[Tensor, "N V"], GPTState]:
        """Reads left-padded prompts; the last column continues. Returns the scores of the next token."""
        hidden = self._embed(input_ids, position_ids)
        mask = None if segment_ids is None else segment_mask(segment_ids)
        caches: list[KeyValueCache] = []
        for layer in self.layers:
            hidden, cache = layer.extend(hidden, None, mask, is_causal=mask is None)
            caches.append(cache)
        is_visible = None if segment_ids is None else segment_ids == segment_ids[:, -1:]
        if is_visible is not None and bool(is_visible.all()):
            is_visible = None
        if position_ids is None:
            next_position = torch.full_like(input_ids[:, 0], input_ids.size(1))
        else:
            next_position = position_ids[:, -1] + 1
        return self.logits(self.final_norm(hidden[:, -1])), GPTState(tuple(caches), is_visible, next_position)

    def step(self, tokens: Int[Tensor, "N"], state: GPTState) -> tuple[Float[Tensor, "N V"], GPTState]:
        """Appends one token to each row and returns the scores of the one after it."""
        longest = int(state.next_position.max()) + 1
        if longest > self.config.max_length:
            raise ValueError(f"generation reached {longest} tokens, the context holds {self.config.max_length}")
        hidden = self._embed(tokens.unsqueeze(1), state.next_position.unsqueeze(1))
        is_visible, mask = state.is_visible, None
        if is_visible is not None:
            is_visible = torch.cat([is_visible, is_visible.new_ones(len(tokens), 1)], dim=1)
            mask = is_visible[:, None, None, :]
        caches: list[KeyValueCache] = []
        for layer, cache in zip(self.layers, state.caches, strict=True):
            hidden, cache = layer.extend(hidden, cache, mask)
            caches.append(cache)
        logits = self.logits(self.final_norm(hidden[:, -1]))
        return logits, GPTState(tuple(caches), is_visible, state.next_position + 1)

    def _embed(self, input_ids: Int[Tensor, "B T"], position_ids: Int[Tensor, "B T"] | None) -> Float[Tensor, "B T D"]:
        """Token plus position vectors. Raises ValueError if the row is longer than the context."""
        length = input_ids.size(1)
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens do not fit the context of {self.config.max_length}")
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device).unsqueeze(0)  # (1, T)
        embedded: Tensor = self.dropout(self.token_embedding(input_ids) + self.position_embedding(position_ids))
        return embedded
