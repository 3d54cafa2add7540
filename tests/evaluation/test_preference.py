"""Scores of preferences and of samples, worked by hand."""

import math

import numpy as np
import pytest

from pipeline.evaluation.preference import (
    SentimentJudge,
    calibration,
    distinct_n,
    pair_accuracy,
    paired_difference,
    sequence_kl,
)


def test_a_tie_is_half_right() -> None:
    chosen, rejected = np.array([2.0, 1.0, 0.0, 5.0]), np.array([1.0, 1.0, 3.0, 4.0])
    assert pair_accuracy(chosen, rejected) == pytest.approx((1 + 0.5 + 0 + 1) / 4)


def test_calibration_compares_confidence_with_accuracy_in_each_bin() -> None:
    # Confidence 0.8 in four pairs, of which two are right; 0.6 in one pair, which is right.
    strong, weak = math.log(0.8 / 0.2), math.log(0.6 / 0.4)
    result = calibration(np.array([strong, strong, -strong, -strong, weak]), num_bins=5)
    assert [(each.count, round(each.low, 6), round(each.high, 6)) for each in result.bins] == [
        (1, 0.5, 0.6),
        (4, 0.7, 0.8),
    ]
    assert result.bins[1].confidence == pytest.approx(0.8) and result.bins[1].accuracy == pytest.approx(0.5)
    assert result.expected_error == pytest.approx((4 * 0.3 + 1 * 0.4) / 5)


def test_a_model_as_sure_as_it_is_right_has_almost_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=50_000)
    wins = rng.random(50_000) < 1 / (1 + np.exp(-logits))
    margins = np.where(wins, logits, -logits)  # the winner is the chosen one
    assert calibration(margins).expected_error < 0.01
    assert calibration(5 * margins).expected_error > 0.05


def test_pairs_without_a_margin_or_with_a_huge_one_are_in_a_bin() -> None:
    result = calibration(np.array([0.0, 0.0, 800.0]))
    assert [(each.count, each.confidence, each.accuracy) for each in result.bins] == [(2, 0.5, 0.5), (1, 1.0, 1.0)]
    assert result.expected_error == 0.0


def test_the_interval_of_a_mean_has_the_width_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(1)
    control = rng.normal(size=400)
    treated = control + rng.normal(loc=0.3, size=400)
    result = paired_difference(treated, control, seed=0)
    half_width = 1.96 * (treated - control).std() / 20
    assert result.mean == pytest.approx((treated - control).mean())
    assert result.low == pytest.approx(result.mean - half_width, abs=0.015)
    assert result.high == pytest.approx(result.mean + half_width, abs=0.015)


def test_pairing_removes_what_both_have_in_common() -> None:
    prompts = np.random.default_rng(2).normal(scale=100.0, size=50)
    result = paired_difference(prompts + 0.5, prompts, seed=0, num_resamples=200)
    assert [result.low, result.high] == pytest.approx([0.5, 0.5])


def test_the_interval_is_a_function_of_its_seed() -> None:
    values, zeros = np.arange(20.0), np.zeros(20)
    first, again, other = (paired_difference(values, zeros, seed=seed, num_resamples=99) for seed in (1, 1, 2))
    assert first == again != other


def test_distinct_n_counts_different_n_grams_over_all_answers_and_none_across_them() -> None:
    answers = [["a", "b", "a", "b"], ["b", "a"], ["c"]]
    assert distinct_n(answers, 1) == pytest.approx(3 / 7)
    assert distinct_n(answers, 2) == pytest.approx(2 / 4)  # ab, ba, ab, ba
    assert distinct_n(answers, 9) == 0.0


def test_sequence_kl_is_the_mean_log_ratio_and_converges_to_the_divergence() -> None:
    estimate = sequence_kl(np.array([-1.0, -2.0]), np.array([-2.0, -5.0]))
    assert estimate.kl == pytest.approx(2.0)
    assert estimate.standard_error == pytest.approx(1.0)
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    samples = np.random.default_rng(0).choice(3, size=20_000, p=policy)
    sampled = sequence_kl(np.log(policy[samples]), np.log(reference[samples]))
    exact = float((policy * np.log(policy / reference)).sum())
    assert abs(sampled.kl - exact) < 3 * sampled.standard_error < 0.05


def test_the_judge_tells_praise_from_blame_and_gives_zero_to_what_is_neither() -> None:
    praise, blame, neither = SentimentJudge().scores(
        ["A wonderful, moving film!", "A terrible waste.", "It has scenes."]
    )
    assert praise > 0.5 > 0.0 > -0.5 > blame
    assert neither == 0.0
