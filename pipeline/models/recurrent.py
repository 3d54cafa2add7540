"""Recurrent translation (Sutskever et al. 2014; Cho et al. 2014; Bahdanau et al. 2015; Luong et al. 2015).

Legend: B batch, N rows of a search, M selected rows, T target length, S source length, E embedding size, H hidden
size, Q layers, A memory size (2 H if the encoder reads both ways, else H), I input size of the decoder's cell,
V vocabulary (see translation.py).
Masks are boolean; True counts. Sources and targets are padded on the right.

The decoder's cell reads the previous token, attention follows (Luong et al., section 3): without input feeding all
target steps, or those between two cuts of the gradient, run as one call of the cell and one batched attention.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Discriminator, NonNegativeInt, PositiveInt, Tag, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.config import Config, Fraction
from pipeline.models.bilstm import open_forget_gates
from pipeline.models.dropout import Dropout
from pipeline.models.source_attention import AttentionKind, Hidden, Memory, SourceAttention
from pipeline.models.transformer import Layers
from pipeline.models.translation import TiedEmbeddings, TranslationEmbeddings

_WINDOW = 5


class DropoutRates(Config):
    """A rate of dropout for each place of a recurrent model."""

    embedding: Fraction
    """Token vectors of source and target."""
    layers: Fraction = 0.0
    """Between stacked layers."""
    memory: Fraction
    """Encoder states, from which keys and contexts come."""
    readout: Fraction
    """The state before the projection."""


def _has_rates(dropout: object) -> str:
    """Which of the two ways to write dropout is meant, so that only its own mistakes are reported."""
    return "rates" if isinstance(dropout, dict | DropoutRates) else "rate"


Dropouts = Annotated[
    Annotated[Fraction, Tag("rate")] | Annotated[DropoutRates, Tag("rates")], Discriminator(_has_rates)
]


class RecurrentConfig(Config):
    """Shape of a recurrent translation model."""

    kind: Literal["recurrent"]
    """Which translation model this is."""
    cell: Literal["rnn", "lstm", "gru"]
    """Recurrent unit of encoder and decoder."""
    vocab_size: PositiveInt
    """Tokens of the joint vocabulary, <pad> included."""
    d_embedding: PositiveInt
    """Width of the token vectors."""
    d_hidden: PositiveInt
    """Width of the recurrent states, for each direction."""
    num_layers: PositiveInt = 1
    """Stacked recurrent layers of encoder and decoder."""
    max_length: PositiveInt
    """Longest source and longest target in tokens."""
    bidirectional: bool = True
    """Let the encoder read both ways."""
    attention: AttentionKind = "additive"
    """additive: Bahdanau et al.; dot, general, local_p: Luong et al.; none: see `context`."""
    window: PositiveInt = _WINDOW
    """Source tokens on either side of the predicted one that local_p looks at (Luong et al., section 3.2: D)."""
    context: Literal["first", "every"] = "first"
    """Without attention: the summary of the source is the decoder's first state alone (Sutskever et al.), or goes to
    the cell and to the readout at every step, to the latter with the token before it (Cho et al. 2014, section 2.2)."""
    input_feeding: bool = False
    """Feed the previous attentional state to the cell (Luong et al., section 3.3); trains step by step, slower."""
    truncate_steps: NonNegativeInt = 0
    """Training lets no gradient through the decoder's state from one stretch of so many target tokens to the one
    before (Williams and Peng 1990); 0 is through the whole target."""
    dropout: Dropouts = 0.2
    """Dropout of embeddings, between layers, of the encoder's states and of the state before the projection: one rate
    for all of them, or one for each."""
    scale_embedding: bool = True
    """Multiply token vectors by sqrt(d_embedding), as Vaswani et al. 2017 do (section 3.4): tied to a projection they
    are short, and without it the gates of a cell hardly see them at first."""
    tied_embeddings: TiedEmbeddings = "all"
    """Which of source embedding, target embedding and output projection are one matrix."""

    @model_validator(mode="after")
    def _choices_fit(self) -> "RecurrentConfig":
        if self.attention == "none" and self.input_feeding:
            raise ValueError("input_feeding needs an attention other than none")
        if self.attention != "none" and self.context == "every":
            raise ValueError(f"context every is for attention none, found {self.attention}")
        if self.attention != "local_p" and self.window != _WINDOW:
            raise ValueError(f"window is for attention local_p, found {self.window} for {self.attention}")
        if self.attention == "dot" and self.d_memory != self.d_hidden:
            raise ValueError(
                "attention dot needs decoder states as wide as the memory: bidirectional false, or attention general"
            )
        return self

    @property
    def d_memory(self) -> int:
        """Width of one encoded source position."""
        return self.d_hidden * (2 if self.bidirectional else 1)

    @property
    def rates(self) -> DropoutRates:
        """The dropout of each place."""
        if isinstance(self.dropout, DropoutRates):
            return self.dropout
        return DropoutRates(embedding=self.dropout, layers=self.dropout, memory=self.dropout, readout=self.dropout)


@dataclass(frozen=True)
class RecurrentState:
    """What a search remembers between two steps."""

    memory: Memory
    src_mask: Bool[Tensor, "N S"]
    hidden: Hidden
    feed: Float[Tensor, "N E"]
    """The previous attentional state."""

    def select(self, rows: Int[Tensor, "M"]) -> "RecurrentState":
        """The state of the given rows, which may repeat, drop and re-order."""
        return RecurrentState(
            memory=self.memory.select(rows),
            src_mask=self.src_mask[rows],
            hidden=tuple(part[:, rows] for part in self.hidden),
            feed=self.feed[rows],
        )


class Recurrent(nn.Module):
    """Encoder and decoder with the interface of `Seq2Seq`: `forward` trains; `start` and `step` generate."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TranslationEmbeddings(config.vocab_size, config.d_embedding, config.tied_embeddings)
        self.embedding_dropout = Dropout(config.rates.embedding)
        self.memory_dropout = Dropout(config.rates.memory)
        self.readout_dropout = Dropout(config.rates.readout)
        self.encoder = _cell(config, config.d_embedding, bidirectional=config.bidirectional)
        d_fed = d_read = 0
        if config.input_feeding:
            d_fed = config.d_embedding
        if config.attention != "none":
            d_read = config.d_memory
        elif config.context == "every":
            d_fed, d_read = config.d_hidden, config.d_hidden + config.d_embedding
        self.decoder = _cell(config, config.d_embedding + d_fed, bidirectional=False)
        num_parts = 2 if config.cell == "lstm" else 1
        self.bridges: Layers[nn.Linear] = Layers(nn.Linear(config.d_memory, config.d_hidden) for _ in range(num_parts))
        self.attention = SourceAttention(config.attention, config.d_hidden, config.d_memory, window=config.window)
        self.readout = nn.Linear(config.d_hidden + d_read, config.d_embedding)

    def forward(
        self, src: Int[Tensor, "B S"], src_mask: Bool[Tensor, "B S"], tgt: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T E"]:
        """Attentional states of the decoder, teacher-forced; `logits` projects those that count."""
        return self.decode(tgt, self.encode(src, src_mask), src_mask)

    def encode(self, src: Int[Tensor, "B S"], src_mask: Bool[Tensor, "B S"]) -> Memory:
        """Runs the encoder over the real tokens of each source: neither direction sees padding."""
        self._check_length(src)
        vectors, lengths = self._embed(src, self.embeddings.source), src_mask.sum(1)
        # PyTorch takes another kernel where all sequences have one length, and an LSTM's gradients are then ready in
        # another order; ZeRO-2 fills its buckets in that order, and would add up gradients of different parameters
        # where two ranks differ in it. A further row is shorter than the others, or longer than sources of one token.
        num_rows, length = src.shape
        width = max(length, 2)
        vectors = F.pad(vectors, (0, 0, 0, width - length, 0, 1))  # (B + 1, W, E)
        lengths = F.pad(lengths, (0, 1), value=1 if length > 1 else 2)
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed_outputs, last = self.encoder(packed)
        outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=width)
        outputs = self.memory_dropout(outputs[:num_rows, :length])
        parts = last if self.config.cell == "lstm" else (last,)  # each (Q x directions, B + 1, H)
        parts = tuple(part[:, :num_rows] for part in parts)
        joined = [part.unflatten(0, (self.config.num_layers, -1)).transpose(1, 2).flatten(2) for part in parts]
        initial = tuple(torch.tanh(bridge(part)) for bridge, part in zip(self.bridges, joined, strict=True))
        return Memory(outputs, self.attention.project(outputs), initial)

    def decode(self, tgt: Int[Tensor, "B T"], memory: Memory, src_mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B T E"]:
        """State t has seen tgt[: t + 1] and the source."""
        self._check_length(tgt)
        embedded = self._embed(tgt, self.embeddings.target)
        stretch = self.config.truncate_steps if self.training else 0
        stretch = min(stretch, tgt.size(1)) or tgt.size(1)
        hidden, feed, outputs = memory.initial, embedded.new_zeros(embedded[:, :1].shape), []
        for t, tokens in enumerate(torch.split(embedded, 1 if self.config.input_feeding else stretch, dim=1)):
            if t > 0 and (t % stretch == 0 or not self.config.input_feeding):
                hidden, feed = tuple(part.detach() for part in hidden), feed.detach()
            states, hidden = self._run(tokens, hidden, feed, memory)
            feed = self._read_out(states, tokens, memory, src_mask)
            outputs.append(feed)
        return torch.cat(outputs, dim=1)

    def logits(self, hidden: Float[Tensor, "*N E"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token."""
        scores: Tensor = self.embeddings.output(hidden)
        return scores

    def start(self, src: Int[Tensor, "N S"], src_mask: Bool[Tensor, "N S"]) -> RecurrentState:
        """Reads the sources; the search then feeds <pad>, which starts the decoder, through `step`."""
        memory = self.encode(src, src_mask)
        feed = memory.outputs.new_zeros(src.size(0), self.config.d_embedding)
        return RecurrentState(memory, src_mask, memory.initial, feed)

    def step(self, tokens: Int[Tensor, "N"], state: RecurrentState) -> tuple[Float[Tensor, "N V"], RecurrentState]:
        """Appends one token to each row and returns the scores of the one after it."""
        entering = self._embed(tokens.unsqueeze(1), self.embeddings.target)
        _, hidden = self._run(entering, state.hidden, state.feed.unsqueeze(1), state.memory)
        # The same as the output, and the loss depends on the state that is kept: see evaluation/gradient_flow.py.
        states = hidden[0][-1].unsqueeze(1)
        feed = self._read_out(states, entering, state.memory, state.src_mask)[:, 0]
        return self.logits(feed), replace(state, hidden=hidden, feed=feed)

    def _embed(self, tokens: Int[Tensor, "B T"], embedding: nn.Embedding) -> Float[Tensor, "B T E"]:
        """Token vectors, scaled, behind their dropout."""
        scale = self.config.d_embedding**0.5 if self.config.scale_embedding else 1.0
        vectors: Tensor = self.embedding_dropout(embedding(tokens) * scale)
        return vectors

    def _run(
        self, tokens: Float[Tensor, "B T E"], hidden: Hidden, feed: Float[Tensor, "B _ E"], memory: Memory
    ) -> tuple[Float[Tensor, "B T H"], Hidden]:
        """All given steps of the decoder's cells; with input feeding, one step."""
        if self.config.input_feeding:
            tokens = torch.cat([tokens, feed], dim=2)
        elif self.config.context == "every":
            tokens = torch.cat([tokens, _repeated(memory.summary, tokens.size(1))], dim=2)
        if self.config.cell == "lstm":
            states, last = self.decoder(tokens, hidden)
            return states, last
        states, last = self.decoder(tokens, hidden[0])
        return states, (last,)

    def _read_out(
        self,
        states: Float[Tensor, "B T H"],
        tokens: Float[Tensor, "B T E"],
        memory: Memory,
        src_mask: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B T E"]:
        """The attentional state, tanh(W [context; state]) (Luong et al., eq. 5), as wide as an embedding."""
        if self.config.attention != "none":
            states = torch.cat([self.attention(states, memory, src_mask), states], dim=2)
        elif self.config.context == "every":
            states = torch.cat([_repeated(memory.summary, states.size(1)), states, tokens], dim=2)
        attentional: Tensor = self.readout_dropout(torch.tanh(self.readout(states)))
        return attentional

    def _check_length(self, tokens: Int[Tensor, "B T"]) -> None:
        if tokens.size(1) > self.config.max_length:
            longest = self.config.max_length
            raise ValueError(f"{tokens.size(1)} tokens exceed the longest sequence of this model, {longest}")


def _repeated(summary: Float[Tensor, "B H"], length: int) -> Float[Tensor, "B T H"]:
    """The same vector at each of T steps."""
    return summary.unsqueeze(1).expand(-1, length, -1)


def _cell(config: RecurrentConfig, d_input: int, *, bidirectional: bool) -> nn.RNNBase:
    """A stack of recurrent layers; dropout acts between them. The forget gates of an LSTM begin open."""
    cells: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    found = cells[config.cell](
        d_input,
        config.d_hidden,
        config.num_layers,
        batch_first=True,
        bidirectional=bidirectional,
        dropout=config.rates.layers if config.num_layers > 1 else 0.0,
    )
    if isinstance(found, nn.LSTM):
        open_forget_gates(found)
    return found
