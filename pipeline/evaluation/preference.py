"""Is the reward model right, and did alignment change what it should: scores of pairs and of sampled answers.

Legend: N pairs, answers or prompts.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


@dataclass(frozen=True)
class CalibrationBin:
    """The pairs whose winner was predicted with a probability in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean predicted probability."""
    accuracy: float
    """Share of pairs whose predicted winner is right."""


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities beside what came true."""

    expected_error: float
    """Mean over the pairs of |accuracy - confidence| of their bin (Guo et al. 2017, eq. 3)."""
    bins: tuple[CalibrationBin, ...]
    """Those that hold a pair, from 0.5 upwards."""


@dataclass(frozen=True)
class MeanInterval:
    """A mean and its bootstrap interval of 95%."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class KLEstimate:
    """KL(policy || reference) of whole answers in nats, estimated from answers that the policy sampled."""

    kl: float
    standard_error: float


def pair_accuracy(chosen: Float[np.ndarray, "N"], rejected: Float[np.ndarray, "N"]) -> float:
    """Share of pairs whose chosen answer has the larger score; a tie is half right, as a coin would make it."""
    return float(((chosen > rejected) + 0.5 * (chosen == rejected)).mean())


def calibration(margins: Float[np.ndarray, "N"], *, num_bins: int = 10) -> Calibration:
    """Of a Bradley-Terry model, from `reward of chosen - reward of rejected`: p(chosen wins) is its sigmoid.

    The predicted winner has a confidence from 0.5 to 1, cut into bins of equal width.
    """
    confidences = 1.0 / (1.0 + np.exp(-np.abs(margins)))
    is_right = np.where(margins == 0.0, 0.5, margins > 0.0)
    edges = np.linspace(0.5, 1.0, num_bins + 1)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    bins = []
    for i in range(num_bins):
        inside = places == i
        if inside.any():
            bins.append(
                CalibrationBin(
                    low=float(edges[i]),
                    high=float(edges[i + 1]),
                    count=int(inside.sum()),
                    confidence=float(confidences[inside].mean()),
                    accuracy=float(is_right[inside].mean()),
                )
            )
    errors = sum(each.count * abs(each.accuracy - each.confidence) for each in bins)
    return Calibration(expected_error=errors / len(margins), bins=tuple(bins))


def paired_difference(
    treated: Float[np.ndarray, "N"], control: Float[np.ndarray, "N"], *, seed: int, num_resamples: int = 10_000
) -> MeanInterval:
    """Mean of `treated - control` over the same N prompts, with a percentile bootstrap over the prompts."""
    differences = treated - control
    draws = np.random.default_rng(seed)
    means = [differences[draws.integers(len(differences), size=len(differences))].mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return MeanInterval(mean=float(differences.mean()), low=float(low), high=float(high))


def sequence_kl(policy_log_probs: Float[np.ndarray, "N"], reference_log_probs: Float[np.ndarray, "N"]) -> KLEstimate:
    """Mean of `log policy - log reference` over N sampled answers, each the sum over its tokens."""
    log_ratios = policy_log_probs - reference_log_probs
    error = float(log_ratios.std(ddof=1) / np.sqrt(len(log_ratios))) if len(log_ratios) > 1 else 0.0
    return KLEstimate(kl=float(log_ratios.mean()), standard_error=error)


def distinct_n(answers: Sequence[Sequence[Hashable]], n: int) -> float:
    """Different n-grams of all answers over the number of n-grams (Li et al. 2016); 0 if there are none.

    It falls with the amount of text: compare equal numbers of answers of like length.
    """
    grams = [tuple(answer[i : i + n]) for answer in answers for i in range(len(answer) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


class SentimentJudge:
    """The rule-based judge of alignment, VADER (Hutto and Gilbert 2014): it evaluates and never trains."""

    def __init__(self) -> None:
        self._analyzer = SentimentIntensityAnalyzer()

    def scores(self, texts: Sequence[str]) -> Float[np.ndarray, "N"]:
        """Compound score of each text, from -1 (negative) to 1 (positive)."""
        return np.array([self._analyzer.polarity_scores(text)["compound"] for text in texts], dtype=np.float64)
