"""Extractive question answering: from start and end scores to a span, and from answers to exact match and F1.

Legend: B questions, T length in tokens. Masks are boolean; True counts. Scores are those of SQuAD (Rajpurkar et al.
2016, section 6).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class AnswerScore:
    """Shares from 0 to 1, over all questions."""

    exact_match: float
    f1: float
    """Mean over the questions of the F1 of the words of an answer."""


@dataclass(frozen=True)
class Spans:
    """The best span of each question, both ends in it."""

    starts: Int[Tensor, "B"]
    ends: Int[Tensor, "B"]
    scores: Float[Tensor, "B"]


def best_spans(
    start_logits: Float[Tensor, "B T"],
    end_logits: Float[Tensor, "B T"],
    allowed: Bool[Tensor, "B T"],
    *,
    max_tokens: int,
) -> Spans:
    """The span with the largest `start + end` among those within `allowed` of at most `max_tokens` tokens."""
    length = allowed.shape[1]
    starts = start_logits.masked_fill(~allowed, -torch.inf)
    ends = end_logits.masked_fill(~allowed, -torch.inf)
    is_span = torch.ones(length, length, dtype=torch.bool, device=allowed.device).triu().tril(max_tokens - 1)
    scores = (starts[:, :, None] + ends[:, None, :]).masked_fill(~is_span, -torch.inf)
    best, places = scores.flatten(1).max(1)
    return Spans(starts=places // length, ends=places % length, scores=best)


def answer_score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> AnswerScore:
    """Each prediction against the best of its references; a question without an answer has the reference ''."""
    if not references or not all(references):
        raise ValueError("every question needs a reference, '' if it has no answer")
    pairs = list(zip(predictions, references, strict=True))
    matches = [max(float(_words(given) == _words(true)) for true in answers) for given, answers in pairs]
    overlaps = [max(_word_f1(_words(given), _words(true)) for true in answers) for given, answers in pairs]
    return AnswerScore(exact_match=sum(matches) / len(pairs), f1=sum(overlaps) / len(pairs))


def _words(answer: str) -> list[str]:
    """The words of an answer without case, punctuation and articles."""
    plain = answer.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _word_f1(given: list[str], true: list[str]) -> float:
    """Harmonic mean of the precision and recall of the words, with their counts; of nothing, whether both are."""
    if not given or not true:
        return float(given == true)
    num_common = (Counter(given) & Counter(true)).total()
    return 2 * num_common / (len(given) + len(true))
