"""Language model scores, the unigram entropy and the compressor, worked by hand or from the definition."""

import math
import random

import numpy as np
import pytest

from pipeline.evaluation.perplexity import language_model_score, primed_xz_bits_per_byte, unigram_entropy


def test_a_uniform_model_over_256_bytes_has_perplexity_256_and_eight_bits_per_byte() -> None:
    score = language_model_score(nll_sum=10 * math.log(256), num_tokens=10, num_bytes=10)
    assert score.nats_per_token == pytest.approx(math.log(256))
    assert score.perplexity == pytest.approx(256)
    assert score.bits_per_byte == pytest.approx(8)


def test_bits_per_byte_do_not_depend_on_how_the_text_is_cut_into_tokens() -> None:
    coarse = language_model_score(nll_sum=50.0, num_tokens=10, num_bytes=40)
    fine = language_model_score(nll_sum=50.0, num_tokens=40, num_bytes=40)
    assert coarse.bits_per_byte == fine.bits_per_byte == pytest.approx(50 / 40 / math.log(2))
    assert coarse.perplexity != fine.perplexity


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0 tokens of 5 bytes"):
        language_model_score(nll_sum=0.0, num_tokens=0, num_bytes=5)


def test_unigram_entropy_is_that_of_the_empirical_distribution() -> None:
    assert unigram_entropy(np.array([7, 7, 3, 9])) == pytest.approx(1.5 * math.log(2))
    assert unigram_entropy(np.array([4, 4, 4])) == 0.0


def test_priming_makes_a_repeated_text_almost_free_and_leaves_noise_at_eight_bits() -> None:
    noise = random.Random(0).randbytes(20_000)
    other = random.Random(1).randbytes(20_000)
    assert primed_xz_bits_per_byte(noise, noise) < 0.2
    assert primed_xz_bits_per_byte(noise, other) == pytest.approx(8.0, abs=0.05)


def test_only_the_end_of_the_training_text_primes_the_compressor() -> None:
    noise, other = random.Random(0).randbytes(20_000), random.Random(1).randbytes(20_000)
    assert primed_xz_bits_per_byte(noise + other, noise, num_prime_bytes=20_000) > 7.9
    assert primed_xz_bits_per_byte(other + noise, noise, num_prime_bytes=20_000) < 0.2
    assert primed_xz_bits_per_byte(noise, noise, num_prime_bytes=0) > 7.9
