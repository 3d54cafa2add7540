"""Exact match and F1 worked by hand, against slow readings of the official rules, and against torchmetrics."""

import string
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from pipeline.evaluation.answer_baselines import nearest_sentence
from pipeline.evaluation.qa import (
    AnswerScore,
    Threshold,
    best_threshold,
    no_answer_score,
    normalised,
    score_answers,
    score_answers_or_none,
)


def v1(prediction: str, *references: str) -> tuple[float, float]:
    score = score_answers([prediction], [references]).mean()
    return score.exact_match, score.f1


def v2(prediction: str, *references: str) -> tuple[float, float]:
    score = score_answers_or_none([prediction], [references]).mean()
    return score.exact_match, score.f1


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("The  U.S. Army!", "us army"),
        ("theatre, an ant and a cat", "theatre ant and cat"),
        ("a", ""),
        ("...", ""),
        ("the-end", "theend"),  # the hyphen goes before articles are looked for
        ("Łódź, the ÉCOLE", "łódź école"),
        ("«10 °C»", "«10 °c»"),  # only the punctuation of ASCII is dropped
        ("rock 'n' roll\n\tband", "rock n roll band"),
        ("thé a\u00a0b", "thé b"),
        ("5\u20133", "5\u20133"),
    ],
)
def test_case_ascii_punctuation_articles_and_spaces_do_not_count(answer: str, compared: str) -> None:
    assert normalised(answer) == compared


def test_f1_counts_common_words_as_often_as_both_have_them() -> None:
    # given: red red car (3), true: red big car door (4), common: red, car.
    assert v1("red red car", "red big car door") == pytest.approx((0.0, 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)))


def test_the_best_of_several_references_counts_for_each_score_on_its_own() -> None:
    assert v1("blue", "green", "blue") == (1.0, 1.0)
    assert v1("x y z", "x", "y z") == pytest.approx((0.0, 0.8))
    score = score_answers(["blue", "x y"], [["green", "blue"], ["x"]]).mean()
    assert (score.exact_match, score.f1, score.num) == pytest.approx((0.5, (1 + 2 / 3) / 2, 2))


def test_answers_without_words_are_equal_in_both_versions_but_have_an_f1_only_in_the_second() -> None:
    assert (v1("the", "a"), v2("the", "a")) == ((1.0, 0.0), (1.0, 1.0))
    assert (v1("the", "cat"), v2("the", "cat")) == ((0.0, 0.0), (0.0, 0.0))
    # In the second a reference without words does not count beside another one.
    assert (v1("the", "a", "cat"), v2("the", "a", "cat")) == ((1.0, 0.0), (0.0, 0.0))


def test_a_question_without_an_answer_is_right_only_if_left_unanswered() -> None:
    assert (v2(""), v2("something"), v2("", "word")) == ((1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="every question needs a reference"):
        score_answers(["a"], [[]])


def slow_words(text: str) -> list[str]:
    """Letter by letter: lower case, no punctuation; then the words that are no articles, even inside of a token."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    runs: list[str] = [""]
    for letter in kept:
        is_word = letter.isalnum() or letter == "_"
        if runs[-1] and is_word == (runs[-1][-1].isalnum() or runs[-1][-1] == "_"):
            runs[-1] += letter
        else:
            runs.append(letter)
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def slow_scores(given: str, references: Sequence[str], *, version: int) -> tuple[float, float]:
    """Both scores of one question: match words one by one, then average precision and recall."""
    if version == 2:
        references = [one for one in references if slow_words(one)] or [""]
    exact, f1 = 0.0, 0.0
    for reference in references:
        one, other = slow_words(given), slow_words(reference)
        exact = max(exact, float(one == other))
        left, common = list(other), 0
        for word in one:
            if word in left:
                left.remove(word)
                common += 1
        if version == 2 and not (one and other):
            f1 = max(f1, float(one == other))
        elif common:
            precision, recall = common / len(one), common / len(other)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
    return exact, f1


TEXTS = st.lists(
    st.sampled_from(
        ["a", "An", "the", "cat", "Cat,", "dog", "dogs", "(sat)", "...", "Zürich", "é", "1,000", "10%", "—"]
    ),
    max_size=5,
).map(" ".join)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_scores_are_those_of_a_slow_reading_of_the_rules(given_answer: str, references: list[str]) -> None:
    assert v1(given_answer, *references) == pytest.approx(slow_scores(given_answer, references, version=1))
    assert v2(given_answer, *references) == pytest.approx(slow_scores(given_answer, references, version=2))
    assert v2(given_answer) == pytest.approx(slow_scores(given_answer, [], version=2))


# torchmetrics gives nothing compared with nothing an F1 of 1, as only the script of the second version does.
WORDY = TEXTS.filter(slow_words)


@given(st.lists(st.tuples(TEXTS, st.lists(WORDY, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_scores_of_the_first_version_are_those_of_torchmetrics(rows: list[tuple[str, list[str]]]) -> None:
    ours = score_answers([given for given, _ in rows], [references for _, references in rows]).mean()
    theirs = squad(
        [{"prediction_text": given, "id": str(i)} for i, (given, _) in enumerate(rows)],
        [
            {"answers": {"answer_start": [0] * len(references), "text": references}, "id": str(i)}
            for i, (_, references) in enumerate(rows)
        ],
    )
    assert 100 * ours.exact_match == pytest.approx(float(theirs["exact_match"]), abs=1e-3)
    assert 100 * ours.f1 == pytest.approx(float(theirs["f1"]), abs=1e-3)


Row = tuple[str, list[str], float]
"""An answer, its references, and the value of "no answer"."""
PREDICTIONS = ["cat", "big dog", "sun", "moon", "tree"]
REFERENCES = [["cat"], ["dog"], [], [], ["bush"]]
NO_ANSWER = np.array([-3.0, -1.0, 0.5, -2.0, 2.0])


def test_scores_with_unanswered_questions_worked_by_hand() -> None:
    # Above 0: sun (right to leave) and tree (wrong to leave). Answered: cat 1/1, big dog 0 and 2/3, moon wrong.
    found = no_answer_score(PREDICTIONS, REFERENCES, NO_ANSWER, threshold=0.0)
    assert [found.exact_match, found.f1] == pytest.approx([2 / 5, (1 + 2 / 3 + 1) / 5])
    assert found.has_answer and astuple(found.has_answer) == pytest.approx((1 / 3, (1 + 2 / 3) / 3, 3))
    assert found.no_answer == AnswerScore(0.5, 0.5, 2)
    # Exact: nothing 2, then cat +1 = 3, moon -1 = 2, big dog +0, sun -1, tree +0. F1: cat 3, moon 2, big dog 2 2/3.
    assert found.best_exact == found.best_f1 == Threshold(score=3 / 5, threshold=-3.0)


def test_a_question_whose_value_is_the_threshold_is_answered() -> None:
    assert no_answer_score(["cat"], [["cat"]], np.array([1.0]), threshold=1.0).exact_match == 1.0
    assert no_answer_score(["cat"], [["cat"]], np.array([1.0]), threshold=0.99).exact_match == 0.0


def test_where_it_is_best_to_answer_nothing_the_threshold_is_below_all_values() -> None:
    found = no_answer_score(["a b", "c"], [[], []], np.array([-4.0, 3.0]), threshold=-5.0)
    assert (found.best_f1.score, found.best_f1.threshold) == (1.0, -5.0)
    assert found.has_answer is None and found.no_answer == AnswerScore(1.0, 1.0, 2)


def test_questions_with_equal_values_are_answered_together() -> None:
    answered, has_answer = np.array([1.0, 0.0]), np.array([True, False])
    found = best_threshold(answered, has_answer, np.array([0.0, 0.0]))
    assert (found.score, found.threshold) == (0.5, -1.0)


def slow_score(answer: str, references: list[str], which: int, *, is_left: bool, in_search: bool) -> float:
    """The points of one question; in the search for a threshold any answer to a question without one is wrong."""
    if is_left:
        return float(not references)
    if in_search and not references:
        return float(not answer)
    return slow_scores(answer, references, version=2)[which]


def slow_best(rows: list[Row], which: int) -> Threshold:
    """Every threshold tried anew, the lowest first."""
    found = Threshold(-1.0, 0.0)
    for limit in [min(row[2] for row in rows) - 1.0, *sorted(row[2] for row in rows)]:
        points = [slow_score(row[0], row[1], which, is_left=row[2] > limit, in_search=True) for row in rows]
        if sum(points) / len(rows) > found.score + 1e-9:
            found = Threshold(sum(points) / len(rows), limit)
    return found


@given(
    st.lists(
        st.tuples(TEXTS, st.lists(TEXTS, max_size=2), st.floats(-9, 9) | st.sampled_from([-1.0, 0.0, 1.0])),
        min_size=1,
        max_size=7,
    ),
    st.sampled_from([-10.0, -1.0, 0.0, 0.3, 1.0, 10.0]),
)
def test_the_second_version_is_a_slow_reading_of_its_rules(rows: list[Row], threshold: float) -> None:
    found = no_answer_score(
        [row[0] for row in rows], [row[1] for row in rows], np.array([row[2] for row in rows]), threshold=threshold
    )
    for part, chosen in (
        (AnswerScore(found.exact_match, found.f1, len(rows)), rows),
        (found.has_answer, [row for row in rows if row[1]]),
        (found.no_answer, [row for row in rows if not row[1]]),
    ):
        assert (part is None) == (not chosen)
        if part:
            exact, f1 = (
                sum(slow_score(row[0], row[1], which, is_left=row[2] > threshold, in_search=False) for row in chosen)
                for which in (0, 1)
            )
            assert astuple(part) == pytest.approx((exact / len(chosen), f1 / len(chosen), len(chosen)))
    assert astuple(found.best_exact) == pytest.approx(astuple(slow_best(rows, 0)))
    assert astuple(found.best_f1) == pytest.approx(astuple(slow_best(rows, 1)))


def test_scores_of_no_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="no questions to score"):
        no_answer_score([], [], np.zeros(0), threshold=0.0)


def test_the_nearest_sentence_has_the_most_words_of_the_question() -> None:
    passage = "It rained. The red house stands by the lake. A red car stood there."
    assert nearest_sentence("Where stands the red house?", passage) == "The red house stands by the lake."
    assert nearest_sentence("What snowed?", passage) == "It rained."
    # Words count as often as both have them.
    assert nearest_sentence("the the", "One the. Two the the the.") == "Two the the the."
