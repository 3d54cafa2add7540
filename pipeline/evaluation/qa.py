"""Exact match and F1 of extractive answers, equal to the official scripts of SQuAD 1.1 and 2.0.

Legend: N questions. Scores are shares from 0 to 1, where the scripts print percentages (Rajpurkar et al. 2016, section
6; Rajpurkar et al. 2018, section 5).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class QuestionScores:
    """The score of each question: the best over its references."""

    exact: Float[np.ndarray, "N"]
    f1: Float[np.ndarray, "N"]

    def mean(self) -> "AnswerScore":
        """The mean over the questions."""
        return AnswerScore(exact_match=float(self.exact.mean()), f1=float(self.f1.mean()), num=len(self.exact))


@dataclass(frozen=True)
class AnswerScore:
    """Scores of some questions."""

    exact_match: float
    """Share of answers that are a reference, case, punctuation and articles apart."""
    f1: float
    """Mean over the questions of the F1 of the words of an answer."""
    num: int
    """Number of questions."""


@dataclass(frozen=True)
class Threshold:
    """The score of a system that answers a question only if its score of "no answer" is not above a threshold."""

    score: float
    threshold: float


@dataclass(frozen=True)
class NoAnswerScore:
    """What the script of SQuAD 2.0 prints."""

    exact_match: float
    f1: float
    has_answer: AnswerScore | None
    """Over the questions that have an answer; None where there is no such question."""
    no_answer: AnswerScore | None
    """Over those that have none."""
    best_exact: Threshold
    """The best that any threshold would give on these very questions: an upper bound, not a result."""
    best_f1: Threshold


def score_answers(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> QuestionScores:
    """SQuAD 1.1: every question has an answer. ValueError for a question without a reference.

    Of an answer or a reference without words, such as "the", the F1 is 0, whatever the other one is.
    """
    if not all(references):
        raise ValueError("every question needs a reference; questions without an answer are scored as in SQuAD 2.0")
    return _best(predictions, references, of_nothing=0.0)


def score_answers_or_none(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> QuestionScores:
    """SQuAD 2.0: the prediction '' is "no answer", which is right where a question has no references.

    References without words do not count; a question that has no others is one without an answer, but for the
    breakdown. Nothing compared with nothing has the F1 of 1.
    """
    kept = [[one for one in answers if _words(one)] or [""] for answers in references]
    return _best(predictions, kept, of_nothing=1.0)


def no_answer_score(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    no_answer: Float[np.ndarray, "N"],
    *,
    threshold: float,
) -> NoAnswerScore:
    """Scores of a system that leaves the questions unanswered whose score of "no answer" is above `threshold`.

    `predictions` are the answers that it would give if it had to. ValueError where there is no question.
    """
    if not predictions:
        raise ValueError("no questions to score")
    has_answer = np.array([bool(answers) for answers in references])
    answered = score_answers_or_none(predictions, references)
    unanswered = np.where(has_answer, 0.0, 1.0)
    scores = QuestionScores(
        exact=np.where(no_answer > threshold, unanswered, answered.exact),
        f1=np.where(no_answer > threshold, unanswered, answered.f1),
    )
    total = scores.mean()
    # The script's search takes any answer to a question without one for wrong, even one without words.
    is_empty = np.array([float(not prediction) for prediction in predictions])
    best = [
        best_threshold(np.where(has_answer, reached, is_empty), has_answer, no_answer)
        for reached in (answered.exact, answered.f1)
    ]
    return NoAnswerScore(
        exact_match=total.exact_match,
        f1=total.f1,
        has_answer=_part(scores, has_answer),
        no_answer=_part(scores, ~has_answer),
        best_exact=best[0],
        best_f1=best[1],
    )


def best_threshold(
    answered: Float[np.ndarray, "N"], has_answer: Bool[np.ndarray, "N"], no_answer: Float[np.ndarray, "N"]
) -> Threshold:
    """The threshold of `no_answer` with the best mean score, the lowest of several; `answered` scores the answers.

    What is tried is to answer nothing, and to answer everything up to each value that occurs. Questions with the same
    value are answered together; the script takes them apart, in the order of its file, which no threshold can. To
    answer nothing the threshold is 1 below the smallest value, where the script says 0, which is not below a score
    difference that may be negative.
    """
    order = np.argsort(no_answer, kind="stable")
    values = no_answer[order]
    gains = (answered - np.where(has_answer, 0.0, 1.0))[order]
    unanswered = float((~has_answer).sum())
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    totals = [unanswered, *(unanswered + total for total in np.cumsum(gains)[ends].tolist())]
    # Rounded, since sums of fractions in another order would prefer one of two thresholds that are equally good.
    best = max(range(len(totals)), key=lambda i: (round(totals[i], 9), -i))
    return Threshold(
        score=totals[best] / len(values),
        threshold=float(values[0]) - 1.0 if best == 0 else float(values[ends[best - 1]]),
    )


def normalised(answer: str) -> str:
    """An answer as it is compared: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_words(answer))


def _part(scores: QuestionScores, chosen: Bool[np.ndarray, "N"]) -> AnswerScore | None:
    return QuestionScores(scores.exact[chosen], scores.f1[chosen]).mean() if chosen.any() else None


def _best(predictions: Sequence[str], references: Sequence[Sequence[str]], *, of_nothing: float) -> QuestionScores:
    exact, f1 = [], []
    for given, answers in zip(predictions, references, strict=True):
        words = _words(given)
        true = [_words(answer) for answer in answers]
        exact.append(max(float(words == one) for one in true))
        f1.append(max(_word_f1(words, one, of_nothing=of_nothing) for one in true))
    return QuestionScores(exact=np.array(exact, dtype=np.float64), f1=np.array(f1, dtype=np.float64))


def _words(answer: str) -> list[str]:
    """The words of an answer without case, punctuation and articles."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()


def _word_f1(given: list[str], true: list[str], *, of_nothing: float) -> float:
    """Harmonic mean of the precision and recall of the words, with their counts."""
    if not given and not true:
        return of_nothing
    num_common = (Counter(given) & Counter(true)).total()
    return 2 * num_common / (len(given) + len(true))
