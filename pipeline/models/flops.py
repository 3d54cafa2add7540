"""Floating-point operations of the models, counted from their shapes.

Legend: N sequences; S source length, T target length, both with EOS or BOS; D model size, F width of the feed-forward
networks, V vocabulary, in translation with <pad>, whose row is multiplied though never used.
A product of an m x k and a k x n matrix counts 2 m k n. Matrix products are all that counts: vocabulary projection and
attention scores are in, of causal attention the masked half too; lookups, norms, activations and softmax are out.
A backward pass costs two forward passes: each product has two gradients of its own size.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np
from jaxtyping import Float, Int

from pipeline.models.bert import BertConfig
from pipeline.models.gpt import GPTConfig
from pipeline.models.recurrent import RecurrentConfig
from pipeline.models.seq2seq import TransformerConfig

Lengths = int | Sequence[int] | Int[np.ndarray, "N"]
"""Tokens of one pair, or of each of N pairs."""


def model_flops(config: TransformerConfig | RecurrentConfig, num_src_tokens: Lengths, num_tgt_tokens: Lengths) -> float:
    """Operations of one forward and backward pass over one pair, or over N pairs of which the lengths are given.

    Lengths of sentences give what the model needs, the lengths of padded rows what the hardware computes. The lengths
    of each pair are asked for, not their sums: attention grows with their products.
    """
    return 3.0 * sum(forward_flops(config, num_src_tokens, num_tgt_tokens).values())


def forward_flops(
    config: TransformerConfig | RecurrentConfig, num_src_tokens: Lengths, num_tgt_tokens: Lengths
) -> Mapping[str, float]:
    """Operations of one forward pass by part: encoder, decoder, attention (scores and weighted means), vocabulary."""
    # Floats: a whole training exceeds 64-bit integers.
    src, tgt = (np.atleast_1d(np.asarray(lengths, dtype=np.float64)) for lengths in (num_src_tokens, num_tgt_tokens))
    match config:
        case TransformerConfig():
            return _transformer(config, src, tgt)
        case RecurrentConfig():
            return _recurrent(config, src, tgt)
        case _:
            assert_never(config)


def gpt_flops(config: GPTConfig, num_tokens: Lengths) -> Mapping[str, float]:
    """Operations of one forward pass over windows, each of one document, by part."""
    lengths = np.atleast_1d(np.asarray(num_tokens, dtype=np.float64))
    return _stack(config.num_layers, config.d_model, 4 * config.d_model, lengths) | {
        "vocabulary": 2.0 * config.d_model * config.vocab_size * lengths.sum()
    }


def bert_flops(config: BertConfig, num_tokens: Lengths, num_masked: int) -> Mapping[str, float]:
    """Operations of one forward pass of pretraining over rows with `num_masked` predicted tokens in all, by part.

    These and the first token of each row are read; the predicted ones are spread as the tokens are.
    """
    lengths, d = np.atleast_1d(np.asarray(num_tokens, dtype=np.float64)), config.d_model
    reads = 1.0 + lengths * (num_masked / lengths.sum())
    return _stack(config.num_layers, d, config.d_ff, lengths, reads) | {
        "pooler": 2.0 * (d * d + 2 * d) * len(lengths),
        "vocabulary": 2.0 * d * (d + config.vocab_size) * num_masked,
    }


def encoder_flops(config: BertConfig, num_tokens: Lengths, *, reads_first: bool = False) -> Mapping[str, float]:
    """Operations of one forward pass of the encoder alone over rows of so many tokens, by part.

    With `reads_first` nothing but the state of the first token of each row is read.
    """
    lengths = np.atleast_1d(np.asarray(num_tokens, dtype=np.float64))
    reads = np.ones_like(lengths) if reads_first else lengths
    return _stack(config.num_layers, config.d_model, config.d_ff, lengths, reads)


def _stack(
    num_layers: int,
    d_model: int,
    d_ff: int,
    lengths: Float[np.ndarray, "N"],
    reads: Float[np.ndarray, "N"] | None = None,
) -> dict[str, float]:
    """Layers with self-attention alone: 4 D^2 + 2 D F weights, and two products of T x T with D.

    `reads` are the tokens of each row whose states are read in the end, all without it. The last layer computes
    queries, keys and values, 3 D^2 weights, at all tokens, and what follows at those that are read.
    """
    read = lengths if reads is None else reads
    behind = d_model**2 + 2 * d_model * d_ff
    through = (num_layers - 1) * lengths + read
    return {
        "layers": 2.0 * (3 * num_layers * d_model**2 * lengths.sum() + behind * through.sum()),
        "attention": 4.0 * d_model * (lengths @ through),
    }


def _transformer(
    config: TransformerConfig, src: Float[np.ndarray, "N"], tgt: Float[np.ndarray, "N"]
) -> Mapping[str, float]:
    """A layer has 4 D^2 weights of attention to itself, 2 D F of feed-forward, in the decoder 4 D^2 of cross-attention.

    Of the cross-attention, keys and values are computed at source positions, queries and output at target positions.
    """
    d, d_ff = config.d_model, config.d_ff
    own = 4 * d * d + 2 * d * d_ff
    encoder, decoder = config.num_encoder_layers, config.num_decoder_layers
    scores = encoder * (src @ src) + decoder * (tgt @ tgt + tgt @ src)
    return {
        "encoder": 2.0 * encoder * own * src.sum(),
        "decoder": 2.0 * decoder * ((own + 2 * d * d) * tgt.sum() + 2 * d * d * src.sum()),
        "attention": 4.0 * d * scores,
        "vocabulary": 2.0 * d * config.vocab_size * tgt.sum(),
    }


def _recurrent(
    config: RecurrentConfig, src: Float[np.ndarray, "N"], tgt: Float[np.ndarray, "N"]
) -> Mapping[str, float]:
    """A cell has one H x (I + H) matrix a gate, for its input I and its state H."""
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[config.cell]
    e, h, memory, layers = config.d_embedding, config.d_hidden, config.d_memory, config.num_layers
    directions = memory // h
    encoder = directions * gates * h * (e + h + (layers - 1) * (memory + h))
    bridges = (2 if config.cell == "lstm" else 1) * layers * memory * h
    fed, read = e + (e if config.input_feeding else 0), h
    if config.attention == "none" and config.context == "every":
        fed, read = fed + h, read + h + e
    decoder = gates * h * (fed + h + (layers - 1) * (h + h)) + read * e
    keys = queries = compared = 0
    match config.attention:
        case "none":
            pass
        case "dot":
            compared = h
        case "general":
            keys, compared = memory * h, h
        case "additive":
            keys, queries, compared = memory * h, h * h, h
        case "local_p":
            keys, queries, compared = memory * h, h * h + h, h
        case _:
            assert_never(config.attention)
    attended = 0 if config.attention == "none" else memory
    return {
        "encoder": 2.0 * (encoder * src.sum() + bridges * len(src)),
        "decoder": 2.0 * (decoder + attended * e) * tgt.sum(),
        "attention": 2.0 * (keys * src.sum() + queries * tgt.sum() + (compared + attended) * (src @ tgt)),
        "vocabulary": 2.0 * e * config.vocab_size * tgt.sum(),
    }
