"""What reads a text for a classifier: the encoders, and how one vector is made of their states.

Legend: B batch, T length, D width of the states, E width of one direction of a language model.
Masks are boolean; True counts. Texts are padded on the right.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.bert import Bert, Pooler
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.bilstm import BiLSTM, LSTMLayers, Pooling, at_last_token, refuse_longer
from pipeline.models.dropout import Dropout
from pipeline.models.gpt import GPT, GPTConfig


class GPTEncoder(nn.Module):
    """A GPT that reads: a state has seen what stands before it, so the last one has seen the text."""

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    @property
    def config(self) -> GPTConfig:
        """The shape of the GPT."""
        return self.gpt.config

    def forward(
        self,
        input_ids: Int[Tensor, "B T"],
        token_type_ids: Int[Tensor, "B T"],
        attention_mask: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """States after the last layer norm; padding stands behind the text, where no token of it looks."""
        hidden: Tensor = self.gpt(input_ids)
        return hidden


class LastTokenPooling(nn.Module):
    """The state of the last real token (Radford et al. 2018, section 3.2)."""

    def forward(self, hidden: Float[Tensor, "B T D"], attention_mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The pooled vectors."""
        return at_last_token(hidden, attention_mask)


class BiLMEncoderConfig(Config):
    """Shape of an LSTM over the states of a bidirectional language model."""

    language_model: BiLMConfig
    """The model whose states are read."""
    d_hidden: PositiveInt
    """Width of the state of one direction."""
    num_layers: PositiveInt
    """Stacked layers; each reads both directions of the one below."""
    max_length: PositiveInt
    """Longest text in tokens."""
    dropout: Fraction = 0.0
    """Dropout of what is read and between layers."""

    @property
    def d_model(self) -> int:
        """Width of the states of both directions."""
        return 2 * self.d_hidden

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary of the language model."""
        return self.language_model.vocab_size


class LayerMix(nn.Module):
    """gamma * sum_j softmax(s)_j h_j over the layers j of a language model (Peters et al. 2018, eq. 1)."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(num_layers))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, layers: tuple[Float[Tensor, "B T D"], ...]) -> Float[Tensor, "B T D"]:
        """One vector a token; at first the mean of the layers."""
        return self.gamma * torch.einsum("l,lbtd->btd", self.scores.softmax(0), torch.stack(layers))


class BiLMEncoder(nn.Module):
    """LSTM layers over a mix of the layers of a language model that stays as it is (Peters et al. 2018, section 3)."""

    def __init__(self, config: BiLMEncoderConfig) -> None:
        super().__init__()
        self.config = config
        # Its states are data: without dropout, whatever mode a trainer puts it into.
        without_dropout = config.language_model.model_copy(update={"dropout": 0.0})
        self.language_model = BidirectionalLM(without_dropout).requires_grad_(False)
        self.mix = LayerMix(config.language_model.num_layers + 1)
        self.dropout = Dropout(config.dropout)
        d_input = 2 * config.language_model.d_model
        self.layers = LSTMLayers(d_input, config.d_hidden, config.num_layers, dropout=config.dropout)

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
        with torch.no_grad():
            layers = self.language_model(input_ids, attention_mask)
        states: Tensor = self.layers(self.dropout(self.mix(layers)), attention_mask)
        return states


TextEncoder = Bert | GPTEncoder | BiLSTM | BiLMEncoder
"""What reads texts: (input_ids, token_type_ids, attention_mask), each (B, T), to states (B, T, D).

The state of a real token does not depend on how far its row is padded; what stands at padding is of no use. The
`config` of each says `vocab_size`, D as `d_model`, and `max_length`, the longest text in tokens; a longer one is a
ValueError.
"""

TextPooler = Pooler | LastTokenPooling | Pooling
"""What makes one vector (B, D) of the states of a text: BERT's pooler of the first token alone, others of the states
(B, T, D) and the attention mask (B, T). It does not depend on padding either.
"""
