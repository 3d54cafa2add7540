"""A bidirectional language model (Peters et al. 2018, section 3.1): one LSTM stack for each direction.

Token vectors and softmax are shared by the directions, the LSTMs are not. The model of the paper builds its token
vectors from characters; this one has a table of them.

Legend: B batch, T length, E width of token vectors and of one direction, D = 2 E, V vocabulary, N positions.
Masks are boolean; True counts. Texts are padded on the right.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.bilstm import at_places, open_forget_gates, turned_places
from pipeline.models.dropout import Dropout
from pipeline.models.transformer import Layers


class BiLMConfig(Config):
    """Shape of a bidirectional language model."""

    vocab_size: PositiveInt
    """Tokens in the vocabulary, special tokens included."""
    d_model: PositiveInt
    """Width of the token vectors and of what each direction hands on."""
    d_hidden: PositiveInt
    """Cells of an LSTM; where there are more than d_model, a projection brings them down to it (Sak et al. 2014)."""
    num_layers: PositiveInt
    """LSTM layers of each direction; from the second on, a layer adds to what it reads."""
    dropout: Fraction = 0.0
    """Dropout of the token vectors and behind each layer."""

    @model_validator(mode="after")
    def _projections_narrow(self) -> "BiLMConfig":
        if self.d_hidden < self.d_model:
            raise ValueError(f"d_hidden must be at least d_model, found {self.d_hidden} and {self.d_model}")
        return self


class OneWay(nn.Module):
    """The LSTMs of one direction: state t of each layer has seen the tokens up to t, so padding behind them is not."""

    def __init__(self, config: BiLMConfig) -> None:
        super().__init__()
        width = config.d_model
        self.dropout = Dropout(config.dropout)
        self.layers: Layers[nn.LSTM] = Layers(
            nn.LSTM(width, config.d_hidden, batch_first=True, proj_size=width if config.d_hidden > width else 0)
            for _ in range(config.num_layers)
        )
        for layer in self.layers:
            open_forget_gates(layer)

    def forward(self, vectors: Float[Tensor, "B T E"]) -> list[Float[Tensor, "B T E"]]:
        """The states of every layer, from the bottom to the top."""
        found: list[Tensor] = []
        for layer in self.layers:
            states = self.dropout(layer(found[-1] if found else vectors)[0])
            found.append(states + found[-1] if found else states)
        return found


class BidirectionalLM(nn.Module):
    """Two language models: one predicts the next token, one the token before."""

    def __init__(self, config: BiLMConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.ahead = OneWay(config)
        self.back = OneWay(config)
        self.head = nn.Linear(config.d_model, config.vocab_size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], ...]:
        """The token vectors, twice beside each other, and the states of each layer: ahead, then back.

        Ahead, the state of token t has seen the tokens up to t and predicts t + 1; back, it has seen those from t on
        and predicts t - 1. What stands at padding is of no use.
        """
        vectors = self.dropout(self.token_embedding(input_ids))
        turned = turned_places(attention_mask)
        ahead = self.ahead(vectors)
        back = [at_places(states, turned) for states in self.back(at_places(vectors, turned))]
        both = (torch.cat(pair, dim=2) for pair in zip(ahead, back, strict=True))
        return torch.cat([vectors, vectors], dim=2), *both

    def logits(self, hidden: Float[Tensor, "N E"]) -> Float[Tensor, "N V"]:
        """Scores of the predicted token, from states of one direction of the top layer."""
        scores: Tensor = self.head(hidden)
        return scores
