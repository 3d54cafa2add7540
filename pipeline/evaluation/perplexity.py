"""How well a language model predicts held-out text, beside what a counter of tokens and a compressor achieve.

Legend: N tokens. Every figure divides sums over the whole text once: never a mean of means.
"""

import lzma
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer


@dataclass(frozen=True)
class LanguageModelScore:
    """Three units of the same sum. Only bits per byte compare models with different tokenizers."""

    nats_per_token: float
    perplexity: float
    bits_per_byte: float


def language_model_score(*, nll_sum: float, num_tokens: int, num_bytes: int) -> LanguageModelScore:
    """From the negative log-likelihood, in nats, of `num_tokens` tokens that stand for `num_bytes` of UTF-8 text."""
    if num_tokens < 1 or num_bytes < 1:
        raise ValueError(f"nothing to score: found {num_tokens} tokens of {num_bytes} bytes")
    nats_per_token = nll_sum / num_tokens
    return LanguageModelScore(
        nats_per_token=nats_per_token,
        perplexity=math.exp(nats_per_token),
        bits_per_byte=nll_sum / math.log(2.0) / num_bytes,
    )


def unigram_entropy(tokens: Integer[np.ndarray, "N"]) -> float:
    """Entropy in nats of the empirical distribution of `tokens`: no model without context has a lower loss on them."""
    counts = np.unique(tokens, return_counts=True)[1]
    probs = counts / counts.sum()
    return float(-(probs * np.log(probs)).sum())


def primed_xz_bits_per_byte(train_text: bytes, test_text: bytes, *, num_prime_bytes: int = 6_000_000) -> float:
    """What `xz -9e` needs for the test text after it has read the end of the training text.

    The size of the compressed end of the training text and test text together, less that of the former alone; raw
    LZMA2, so that no container is counted.
    """
    prime = train_text[-num_prime_bytes:] if num_prime_bytes else b""
    num_bytes = len(_xz(prime + test_text)) - len(_xz(prime))
    return 8.0 * num_bytes / len(test_text)


def _xz(text: bytes) -> bytes:
    preset = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}
    return lzma.compress(text, format=lzma.FORMAT_RAW, filters=[preset])
