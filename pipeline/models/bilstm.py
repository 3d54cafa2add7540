"""A bidirectional LSTM over texts (Graves and Schmidhuber 2005), and the ways to make one vector of its states.

Legend: B batch, T length, E input size, H hidden size of one direction, D = 2 H.
Masks are boolean; True counts. Texts are padded on the right.
"""

from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.dropout import Dropout
from pipeline.models.transformer import Layers, initialise

PoolingKind = Literal["max", "last", "attention"]
"""max: the largest value of each dimension (Conneau et al. 2017, section 3.2.2); last: where each direction ends;
attention: a weighted mean whose weights are learned (Yang et al. 2016, eq. 5 to 7)."""


class BiLSTMConfig(Config):
    """Shape of an LSTM over token vectors of its own."""

    vocab_size: PositiveInt
    """Tokens in the vocabulary, special tokens included."""
    d_embedding: PositiveInt
    """Width of the token vectors."""
    d_hidden: PositiveInt
    """Width of the state of one direction."""
    num_layers: PositiveInt
    """Stacked layers; each reads both directions of the one below."""
    max_length: PositiveInt
    """Longest text in tokens."""
    dropout: Fraction = 0.0
    """Dropout of the token vectors and between layers."""

    @property
    def d_model(self) -> int:
        """Width of the states of both directions."""
        return 2 * self.d_hidden


class LSTMLayers(nn.Module):
    """A stack of LSTM layers that read both ways; neither direction sees padding.

    Each direction runs forward over padded rows, one of them over texts turned round. Packed sequences would do as well
    on one device, but those of one length take another kernel, whose gradients are ready in another order: ZeRO-2,
    which fills its buckets in that order, adds up gradients of different parameters where two ranks differ in it.
    """

    def __init__(self, d_input: int, d_hidden: int, num_layers: int, *, dropout: float) -> None:
        super().__init__()
        widths = [d_input, *[2 * d_hidden] * (num_layers - 1)]
        self.dropout = Dropout(dropout)
        self.ahead: Layers[nn.LSTM] = Layers(nn.LSTM(width, d_hidden, batch_first=True) for width in widths)
        self.back: Layers[nn.LSTM] = Layers(nn.LSTM(width, d_hidden, batch_first=True) for width in widths)
        for layer in (*self.ahead, *self.back):
            open_forget_gates(layer)

    def forward(self, vectors: Float[Tensor, "B T E"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Forward states in the first half, backward states in the second; nothing of use at padding."""
        turned = turned_places(attention_mask)
        for number, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            entering = self.dropout(vectors) if number else vectors
            vectors = torch.cat([ahead(entering)[0], at_places(back(at_places(entering, turned))[0], turned)], dim=2)
        return vectors


class BiLSTM(nn.Module):
    """Token vectors and LSTM layers over them."""

    def __init__(self, config: BiLSTMConfig) -> None:
        super().__init__()
        self.config = config
        # PyTorch's start from N(0, 1) gives the gates inputs of about unit variance.
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_embedding)
        self.dropout = Dropout(config.dropout)
        self.layers = LSTMLayers(config.d_embedding, config.d_hidden, config.num_layers, dropout=config.dropout)

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """States of both directions; of two texts the separator between them tells, not their token types.

        Raises ValueError beyond the longest length.
        """
        refuse_longer(input_ids, self.config.max_length)
        states: Tensor = self.layers(self.dropout(self.token_embedding(input_ids)), attention_mask)
        return states


class MaxPooling(nn.Module):
    """The largest value of each dimension over the real tokens."""

    def forward(self, hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The pooled vectors."""
        return hidden.masked_fill(~attention_mask.unsqueeze(2), float("-inf")).amax(1)


class EndsPooling(nn.Module):
    """The state of each direction that has read the whole text: the forward one at its end, the other at its start."""

    def forward(self, hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The pooled vectors."""
        forward, backward = hidden.chunk(2, dim=2)
        return torch.cat([at_last_token(forward, attention_mask), backward[:, 0]], dim=1)


class AttentionPooling(nn.Module):
    """The mean of the states, weighted by how much each resembles a learned vector (Yang et al. 2016, eq. 5 to 7)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.key = nn.Linear(d_model, d_model)
        self.query = nn.Linear(d_model, 1, bias=False)
        initialise(self, d_model**-0.5)

    def forward(self, hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The pooled vectors."""
        return (self.weights(hidden, attention_mask).unsqueeze(2) * hidden).sum(1)

    def weights(self, hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The weight of each token in its text; 0 at padding, 1 in all."""
        scores: Tensor = self.query(torch.tanh(self.key(hidden))).squeeze(2)
        return scores.masked_fill(~attention_mask, float("-inf")).softmax(1)


Pooling = MaxPooling | EndsPooling | AttentionPooling


def build_pooling(kind: PoolingKind, d_model: int) -> Pooling:
    """The pooling of a configuration."""
    match kind:
        case "max":
            return MaxPooling()
        case "last":
            return EndsPooling()
        case "attention":
            return AttentionPooling(d_model)
        case _:
            assert_never(kind)


def pooling_kind(pooling: Pooling) -> PoolingKind:
    """The name of a pooling in configurations."""
    match pooling:
        case MaxPooling():
            return "max"
        case EndsPooling():
            return "last"
        case AttentionPooling():
            return "attention"
        case _:
            assert_never(pooling)


def refuse_longer(input_ids: Int[Tensor, "B T"], max_length: int) -> None:
    """ValueError for texts longer than a classifier was trained for, though an LSTM could go on."""
    if input_ids.size(1) > max_length:
        raise ValueError(f"{input_ids.size(1)} tokens exceed the longest text of this model, {max_length}")


def at_last_token(hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """The state of the last real token of each row."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, attention_mask.sum(1) - 1]


def turned_places(attention_mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where each place of a row is read from when its real tokens are turned round and its padding stays behind them.

    Turning twice gives the row as it was.
    """
    places = torch.arange(attention_mask.size(1), device=attention_mask.device)
    return torch.where(attention_mask, attention_mask.sum(1, keepdim=True) - 1 - places, places)


def at_places(vectors: Float[Tensor, "B T E"], places: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    """The vectors of each row in the order of its `places`."""
    return vectors.gather(1, places.unsqueeze(2).expand_as(vectors))


@torch.no_grad()
def open_forget_gates(lstm: nn.LSTM) -> None:
    """Sets the bias of the forget gates to 1, so that early gradients reach far (Jozefowicz et al. 2015, section 2.2).

    Each gate has two biases, which are added; PyTorch's order of gates is input, forget, cell, output.
    """
    for name, bias in lstm.named_parameters():
        if "bias" in name:
            bias[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0 if "_ih_" in name else 0.0
