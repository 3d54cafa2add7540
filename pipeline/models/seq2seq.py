"""The encoder-decoder Transformer (Vaswani et al. 2017) for translation.

Legend: B batch, N rows of a search, M selected rows, R sources of a search, G = N / R rows of one source, T target
length, S source length, D model size, V vocabulary (see translation.py: <pad> is outside the softmax and starts the
decoder).
Masks are boolean; True counts. Sources and targets are padded on the right.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn

from pipeline.config import Config, Fraction
from pipeline.models.attention import KeyValueCache, key_mask
from pipeline.models.dropout import Dropout
from pipeline.models.transformer import (
    Activation,
    DecoderLayer,
    EncoderLayer,
    Layers,
    NormPlacement,
    sinusoidal_positions,
)
from pipeline.models.translation import TiedEmbeddings, TranslationEmbeddings


class TransformerConfig(Config):
    """Shape of a translation Transformer."""

    kind: Literal["transformer"]
    """Which translation model this is."""
    vocab_size: PositiveInt
    """Tokens of the joint vocabulary, <pad> included."""
    d_model: PositiveInt
    """Width of the residual stream."""
    num_encoder_layers: PositiveInt
    """Layers that read the source."""
    num_decoder_layers: PositiveInt
    """Layers that write the target."""
    num_heads: PositiveInt
    """Attention heads; must divide d_model."""
    d_ff: PositiveInt
    """Width of the feed-forward networks."""
    max_length: PositiveInt
    """Longest source and longest target in tokens."""
    dropout: Fraction = 0.1
    """Dropout of the embeddings and of each residual update."""
    attention_dropout: Fraction = 0.0
    """Dropout of the attention weights; other than 0 it gives up the fused attention kernel."""
    activation_dropout: Fraction = 0.0
    """Dropout inside the feed-forward networks."""
    word_dropout: Fraction = 0.0
    """Share of source and target tokens whose vectors are dropped whole (Gal & Ghahramani 2016), for little data."""
    norm: NormPlacement = "post"
    """Layer norm after each sub-layer, as published, or before it."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """Fixed or trained position vectors."""
    activation: Activation = "relu"
    """Non-linearity of the feed-forward networks."""
    tied_embeddings: TiedEmbeddings = "all"
    """Which of source embedding, target embedding and output projection are one matrix."""
    scale_embedding: bool = True
    """Multiply token vectors by sqrt(d_model) (section 3.4)."""

    @model_validator(mode="after")
    def _widths_fit(self) -> "TransformerConfig":
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads must divide d_model, found {self.num_heads} and {self.d_model}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"sinusoidal positions need an even d_model, found {self.d_model}")
        return self


@dataclass(frozen=True)
class Seq2SeqState:
    """What a search remembers between two steps."""

    caches: tuple[KeyValueCache, ...]
    """Self-attention of each decoder layer; empty before the first step."""
    memories: tuple[KeyValueCache, ...]
    """Keys and values of the source for each decoder layer, projected once; G rows that follow each other share one."""
    src_mask: Bool[Tensor, "R S"]
    sources: Int[Tensor, "N"]
    """Which of the R sources each row translates: 0 G times, 1 G times, and so on."""

    def select(self, rows: Int[Tensor, "M"]) -> "Seq2SeqState":
        """The state of the given rows, which may repeat, drop and re-order.

        The hypotheses of a beam are neighbours and read one memory: nothing of it is copied while no source is done.
        """
        kept, counts = torch.unique_consecutive(self.sources[rows], return_counts=True)
        if len(kept) and bool((counts != counts[0]).any()):
            kept = self.sources[rows]
        caches = tuple(cache.select(rows) for cache in self.caches)
        sources = torch.arange(len(kept), device=rows.device).repeat_interleave(len(rows) // max(1, len(kept)))
        if torch.equal(kept, torch.arange(len(self.src_mask), device=rows.device)):
            return Seq2SeqState(caches, self.memories, self.src_mask, sources)
        memories = tuple(memory.select(kept) for memory in self.memories)
        return Seq2SeqState(caches, memories, self.src_mask[kept], sources)


class Seq2Seq(nn.Module):
    """Encoder and decoder. `forward` trains; `start` and `step` generate."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TranslationEmbeddings(config.vocab_size, config.d_model, config.tied_embeddings)
        self.source_positions = Positions(config)
        self.target_positions = Positions(config)
        self.word_dropout = Dropout(config.word_dropout)
        self.dropout = Dropout(config.dropout)
        self.encoder: Layers[EncoderLayer] = Layers(
            EncoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                norm=config.norm,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation_dropout=config.activation_dropout,
            )
            for _ in range(config.num_encoder_layers)
        )
        self.decoder: Layers[DecoderLayer] = Layers(
            DecoderLayer(
                config.d_model,
                config.num_heads,
                config.d_ff,
                norm=config.norm,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation_dropout=config.activation_dropout,
            )
            for _ in range(config.num_decoder_layers)
        )
        is_pre = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(config.d_model) if is_pre else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.d_model) if is_pre else nn.Identity()
        for name, parameter in self.named_parameters():
            if name.startswith(("encoder.", "decoder.")) and parameter.ndim == 2:
                # One query-key-value matrix is several square ones side by side: Xavier's bound is that of one.
                parts = parameter.size(0) // config.d_model if "qkv" in name or "key_value" in name else 1
                for part in parameter.detach().chunk(parts):
                    nn.init.xavier_uniform_(part)
            elif name.startswith(("encoder.", "decoder.")) and name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self, src: Int[Tensor, "B S"], src_mask: Bool[Tensor, "B S"], tgt: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of the decoder, teacher-forced; `logits` projects those that count."""
        return self.decode(tgt, self.encode(src, src_mask), src_mask)

    def encode(self, src: Int[Tensor, "B S"], src_mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
        """The source in context; positions outside the mask hold nothing of use."""
        hidden = self._embed(src, self.embeddings.source, self.source_positions)
        mask = key_mask(src_mask)
        for layer in self.encoder:
            hidden = layer(hidden, mask)
        memory: Tensor = self.encoder_norm(hidden)
        return memory

    def decode(
        self, tgt: Int[Tensor, "B T"], memory: Float[Tensor, "B S D"], src_mask: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B T D"]:
        """Hidden state t has seen tgt[: t + 1] and the source."""
        hidden = self._embed(tgt, self.embeddings.target, self.target_positions)
        mask = key_mask(src_mask)
        for layer in self.decoder:
            hidden = layer(hidden, layer.cross_attention.project_memory(memory), mask)
        final: Tensor = self.decoder_norm(hidden)
        return final

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token."""
        scores: Tensor = self.embeddings.output(hidden)
        return scores

    def start(self, src: Int[Tensor, "N S"], src_mask: Bool[Tensor, "N S"]) -> Seq2SeqState:
        """Reads the sources; the search then feeds <pad>, which starts the decoder, through `step`."""
        memory = self.encode(src, src_mask)
        memories = tuple(layer.cross_attention.project_memory(memory) for layer in self.decoder)
        return Seq2SeqState((), memories, src_mask, torch.arange(len(src), device=src.device))

    def step(self, tokens: Int[Tensor, "N"], state: Seq2SeqState) -> tuple[Float[Tensor, "N V"], Seq2SeqState]:
        """Appends one token to each row and returns the scores of the one after it."""
        offset = state.caches[0].length if state.caches else 0
        hidden = self._embed(tokens.unsqueeze(1), self.embeddings.target, self.target_positions, offset)
        mask = key_mask(state.src_mask)
        before = state.caches or (None,) * len(self.decoder)
        caches: list[KeyValueCache] = []
        for layer, cache, memory in zip(self.decoder, before, state.memories, strict=True):
            hidden, extended = layer.extend(hidden, cache, memory, mask)
            caches.append(extended)
        logits = self.logits(self.decoder_norm(hidden[:, 0]))
        return logits, replace(state, caches=tuple(caches))

    def _embed(
        self, tokens: Int[Tensor, "B T"], embedding: nn.Embedding, positions: "Positions", offset: int = 0
    ) -> Float[Tensor, "B T D"]:
        """Token plus position vectors. Raises ValueError beyond the longest length."""
        length = offset + tokens.size(1)
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens exceed the longest sequence of this model, {self.config.max_length}")
        scale = self.config.d_model**0.5 if self.config.scale_embedding else 1.0
        scales = self.word_dropout(embedding.weight.new_full((*tokens.shape, 1), scale))
        embedded: Tensor = self.dropout(embedding(tokens) * scales + positions(offset, length))
        return embedded


class Positions(nn.Module):
    """Position vectors, fixed or trained."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.table: nn.Embedding | None = None
        if config.positions == "learned":
            self.table = nn.Embedding(config.max_length, config.d_model)
            nn.init.normal_(self.table.weight, std=config.d_model**-0.5)
        else:
            fixed = sinusoidal_positions(config.max_length, config.d_model)
            self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, start: int, stop: int) -> Float[Tensor, "T D"]:
        """The vectors of positions start to stop."""
        if self.table is None:
            return self.get_buffer("fixed")[start:stop]
        vectors: Tensor = self.table(torch.arange(start, stop, device=self.table.weight.device))
        return vectors
