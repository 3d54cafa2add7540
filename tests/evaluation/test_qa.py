"""Spans against a loop over all of them, answers against scores worked by hand."""

import pytest
import torch

from pipeline.evaluation.qa import answer_score, best_spans


def test_the_best_span_is_that_of_a_loop_over_all_spans() -> None:
    generator = torch.Generator().manual_seed(0)
    starts, ends = (torch.randn(20, 9, generator=generator) for _ in range(2))
    allowed = torch.rand(20, 9, generator=generator) < 0.7
    allowed[:, 4] = True
    result = best_spans(starts, ends, allowed, max_tokens=3)
    for b in range(20):
        spans = [(i, j) for i in range(9) for j in range(i, min(i + 3, 9)) if allowed[b, i] and allowed[b, j]]
        i, j = max(spans, key=lambda span: float(starts[b, span[0]] + ends[b, span[1]]))
        assert (int(result.starts[b]), int(result.ends[b])) == (i, j)
        assert float(result.scores[b]) == pytest.approx(float(starts[b, i] + ends[b, j]))


def test_case_punctuation_and_articles_do_not_count() -> None:
    score = answer_score(["The  U.S. Army!"], [["us army"]])
    assert (score.exact_match, score.f1) == (1.0, 1.0)


def test_articles_are_words_not_letters() -> None:
    assert answer_score(["theatre"], [["atre"]]).exact_match == 0.0


def test_f1_counts_common_words_as_often_as_both_have_them() -> None:
    # given: red red car (3), true: red big car door (4), common: red, car.
    score = answer_score(["red red car"], [["red big car door"]])
    assert score.f1 == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert score.exact_match == 0.0


def test_the_best_of_several_references_counts_and_questions_are_averaged() -> None:
    score = answer_score(["blue", "x y"], [["green", "blue"], ["x"]])
    assert score.exact_match == pytest.approx(0.5)
    assert score.f1 == pytest.approx((1 + 2 / 3) / 2)


def test_a_question_without_an_answer_is_right_only_if_left_unanswered() -> None:
    score = answer_score(["", "something", ""], [[""], [""], ["word"]])
    assert [score.exact_match, score.f1] == pytest.approx([1 / 3, 1 / 3])


def test_a_question_without_references_is_refused() -> None:
    with pytest.raises(ValueError, match="every question needs a reference"):
        answer_score(["a"], [[]])
