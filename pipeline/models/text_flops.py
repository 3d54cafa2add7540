"""Floating-point operations of training the encoders of texts, as flops.py counts those of other models.

Legend: N texts, E input size, H hidden size of one direction.
"""

from typing import assert_never

import numpy as np
from jaxtyping import Int

from pipeline.models.bert import Bert
from pipeline.models.bilm import BiLMConfig
from pipeline.models.bilstm import BiLSTM
from pipeline.models.flops import encoder_flops, gpt_flops
from pipeline.models.text_encoders import BiLMEncoder, GPTEncoder, TextEncoder


def text_training_flops(encoder: TextEncoder, lengths: Int[np.ndarray, "N"], *, reads_first: bool = False) -> float:
    """Operations of one forward and backward pass over texts of so many tokens; what is frozen has no backward pass.

    With `reads_first` a BERT computes of its last layer what the first token needs.
    """
    num_tokens = float(lengths.sum())
    match encoder:
        case Bert():
            return 3.0 * sum(encoder_flops(encoder.config, lengths, reads_first=reads_first).values())
        case GPTEncoder():
            parts = gpt_flops(encoder.config, lengths)
            return 3.0 * (sum(parts.values()) - parts["vocabulary"])  # nothing is projected to the vocabulary
        case BiLSTM():
            shape = encoder.config
            return 3.0 * lstm_flops(shape.d_embedding, shape.d_hidden, shape.num_layers) * num_tokens
        case BiLMEncoder():
            over, below = encoder.config, encoder.config.language_model
            own = lstm_flops(2 * below.d_model, over.d_hidden, over.num_layers)
            return (3.0 * own + bilm_flops(below)) * num_tokens
        case _:
            assert_never(encoder)


def lstm_flops(d_input: int, d_hidden: int, num_layers: int) -> float:
    """Operations a token of layers in both directions: four gates, each of an H x (E + H) matrix."""
    gates = [d_hidden * (width + d_hidden) for width in [d_input, *[2 * d_hidden] * (num_layers - 1)]]
    return 2.0 * 2 * 4 * sum(gates)


def bilm_flops(config: BiLMConfig) -> float:
    """Operations a token of the LSTMs of a bidirectional language model, without its softmax."""
    projection = config.d_hidden * config.d_model if config.d_hidden > config.d_model else 0
    return 2.0 * 2 * config.num_layers * (4 * config.d_hidden * 2 * config.d_model + projection)
