"""BERT (Devlin et al. 2019): a post-norm Transformer encoder and its two pretraining heads.

Legend: B batch, T length, D model size, V vocabulary, C token types, N real or masked positions.
Masks are boolean; True counts. `attention_mask` is False at padding.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.dropout import Dropout
from pipeline.models.rows import ReadTokens, Rows
from pipeline.models.transformer import Activation, EncoderLayer, Layers, activate, initialise


class BertConfig(Config):
    """Shape of a BERT encoder."""

    vocab_size: PositiveInt
    """Tokens in the vocabulary, special tokens included."""
    d_model: PositiveInt
    """Width of the residual stream."""
    num_layers: PositiveInt
    """Transformer layers."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    d_ff: PositiveInt
    """Width of the feed-forward networks; four times d_model in the published models."""
    max_length: PositiveInt
    """Longest sequence in tokens: the number of learned positions."""
    num_token_types: PositiveInt = 2
    """Kinds of segments: first and second sentence."""
    activation: Activation = "gelu"
    """Non-linearity of the feed-forward networks and of the masked-word head."""
    dropout: Fraction = 0.1
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights (published: 0.1); other than 0 it gives up the fused attention kernel."""
    initial_std: PositiveFloat = 0.02
    """Standard deviation of the first weights; published: 0.02, at widths from 768 on."""
    layer_norm_eps: PositiveFloat = 1e-12
    """Added to the variance in each layer norm."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "BertConfig":
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model, found {self.num_heads} and {self.d_model}")
        return self


class Bert(nn.Module):
    """The encoder: hidden states in the context of both sides."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.max_length, config.d_model)
        self.token_type_embedding = nn.Embedding(config.num_token_types, config.d_model)
        self.embedding_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)
        self.layers: Layers[EncoderLayer] = Layers(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                norm="post",
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                eps=config.layer_norm_eps,
            )
            for _ in range(config.num_layers)
        )
        initialise(self, config.initial_std)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        read: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states, zero at padding, which is never computed. Raises ValueError beyond the longest length.

        `read` marks the positions whose states are asked for: the last layer computes those alone, the others are zero.
        """
        *below, last = self.layers
        hidden, rows = self._through(below, input_ids, token_type_ids, attention_mask)
        if read is None:
            return rows.pad(last.over_rows(hidden, rows))
        apart = Rows.of(read & attention_mask)
        return apart.pad(last.over_rows(hidden, rows, ReadTokens.of(rows, apart)))

    def first_states(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B D"]:
        """The state of the first token of each row, which is never padding; the last layer computes no other."""
        *below, last = self.layers
        hidden, rows = self._through(below, input_ids, token_type_ids, attention_mask)
        return last.over_rows(hidden, rows, ReadTokens.first(rows))

    def _through(
        self,
        layers: Sequence[EncoderLayer],
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "N D"], Rows]:
        """The states of the real tokens behind the embeddings and some layers."""
        length = input_ids.size(1)
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens exceed the longest sequence of this model, {self.config.max_length}")
        rows = Rows.of(attention_mask)
        embedded = self.token_embedding(rows.pack(input_ids)) + self.token_type_embedding(rows.pack(token_type_ids))
        hidden: Tensor = self.dropout(self.embedding_norm(embedded + self.position_embedding(rows.positions)))  # (N, D)
        for layer in layers:
            hidden = layer.over_rows(hidden, rows)
        return hidden, rows


class Pooler(nn.Module):
    """One vector for a sequence: the first token's, [CLS], through a tanh layer."""

    def __init__(self, d_model: int, *, initial_std: float = 0.02) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        initialise(self, initial_std)

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        """The pooled vectors."""
        return torch.tanh(self.dense(hidden[:, 0]))


class MaskedWordHead(nn.Module):
    """A dense layer, then scores from the token embeddings themselves and a bias of each token."""

    def __init__(self, config: BertConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.activation = config.activation
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.d_model, config.vocab_size)
        initialise(self, config.initial_std)
        self.decoder.weight = token_embedding.weight

    def forward(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the original token."""
        scores: Tensor = self.decoder(self.norm(activate(self.dense(hidden), self.activation)))
        return scores


class _MaskedWords(nn.Module):
    """What every BERT with a head of masked words does; the classes make their parts, in an order of their own."""

    encoder: Bert
    masked_word: MaskedWordHead

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
        read: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states, which the heads read; `read` as in the encoder."""
        hidden: Tensor = self.encoder(input_ids, token_type_ids, attention_mask, read)
        return hidden

    def mlm_logits(self, masked_hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the original tokens from hidden states gathered at the masked positions."""
        scores: Tensor = self.masked_word(masked_hidden)
        return scores


class BertForPretraining(_MaskedWords):
    """BERT with its two heads: masked words, and whether the second segment follows the first."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Bert(config)
        self.pooler = Pooler(config.d_model, initial_std=config.initial_std)
        self.masked_word = MaskedWordHead(config, self.encoder.token_embedding)
        self.next_sentence = nn.Linear(config.d_model, 2)
        initialise(self.next_sentence, config.initial_std)

    def nsp_logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B 2"]:
        """Scores of class 0, the second segment follows the first, and class 1, it does not."""
        scores: Tensor = self.next_sentence(self.pooler(hidden))
        return scores


class BertForMaskedWords(_MaskedWords):
    """BERT with its head of masked words alone."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Bert(config)
        self.masked_word = MaskedWordHead(config, self.encoder.token_embedding)
