"""Classification and regression scores worked by hand, and the baselines that stand beside them."""

import math

import numpy as np
import pytest

from pipeline.evaluation.bag_of_words import bag_of_words_classes, bag_of_words_values, fewest_texts
from pipeline.evaluation.glue import classification_score, majority_score, regression_score

# Class 1: 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
LABELS = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])


def test_two_class_scores_are_those_of_the_confusion_matrix() -> None:
    score = classification_score(PREDICTIONS, LABELS, num_classes=2)
    assert score.accuracy == pytest.approx(0.7)
    assert score.f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert score.matthews == pytest.approx((3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


def test_f1_of_several_classes_is_their_mean() -> None:
    # Class 0: 1 tp. Class 1: 1 tp, 1 fn. Class 2: 1 tp, 1 fp.
    score = classification_score(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), num_classes=3)
    assert score.f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert score.accuracy == pytest.approx(0.75)


def test_accuracy_is_the_share_of_examples_not_the_mean_over_classes() -> None:
    score = classification_score(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), num_classes=2)
    assert score.accuracy == pytest.approx(0.75)
    assert score.matthews == 0.0


def test_majority_answers_the_class_of_the_training_set() -> None:
    score = majority_score([1, 1, 0], np.array([1, 0, 0, 0]), num_classes=2)
    assert score.accuracy == pytest.approx(0.25)
    assert score.f1 == pytest.approx(2 / (2 + 3))


def test_correlations_are_worked_by_hand() -> None:
    # x = (1, 2, 3), y = (1, 2, 9): covariance 8, variances 2 and 38; the order is the same.
    score = regression_score(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 9.0]))
    assert score.pearson == pytest.approx(8 / math.sqrt(2 * 38))
    assert score.spearman == pytest.approx(1.0)
    assert regression_score(-np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 9.0])).spearman == pytest.approx(-1.0)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    score = regression_score(np.array([2.0, 2.0, 2.0]), np.array([1.0, 2.0, 9.0]))
    assert (score.pearson, score.spearman) == (0.0, 0.0)


def test_bag_of_words_learns_which_words_decide_and_which_values_they_have() -> None:
    train = [f"{word} film {i % 5}" for i in range(20) for word in ("good", "bad")]
    labels = np.array([1, 0] * 20)
    test = ["a good play", "a bad play"]
    assert bag_of_words_classes(train, labels, test).tolist() == [1, 0]
    values = bag_of_words_values(train, 3.0 * labels, test)
    assert values[0] > 2.0 > 1.0 > values[1]


def test_bag_of_words_knows_word_pairs() -> None:
    train = ["not good", "good", "not bad", "bad", "not good at all", "good then", "not bad at all", "bad then"] * 3
    labels = np.array([0, 1, 1, 0, 0, 1, 1, 0] * 3)
    assert bag_of_words_classes(train, labels, train).tolist() == labels.tolist()


def test_where_no_term_stands_in_two_texts_those_of_one_are_learned() -> None:
    train = ["good film", "bad plot", "fine cast", "dull score"]
    labels = np.array([1, 0, 1, 0])
    assert fewest_texts(train) == 1
    assert bag_of_words_classes(train, labels, ["good", "dull"]).tolist() == [1, 0]
    good, bad = bag_of_words_values(train, 3.0 * labels, ["good film", "bad plot"])
    assert good > 1.5 > bad
    assert fewest_texts([*train, "a good one"]) == 2


@pytest.mark.parametrize("train", [["!", "? ?", "a b", "好"], ["", "", "", ""]])
def test_without_any_term_the_answer_is_the_most_frequent_class_or_the_mean(train: list[str]) -> None:
    assert fewest_texts(train) == 0
    assert bag_of_words_classes(train, np.array([2, 0, 2, 1]), ["a film", "!"]).tolist() == [2, 2]
    assert bag_of_words_values(train, np.array([1.0, 2.0, 2.0, 5.0]), ["a film", "!"]).tolist() == [2.5, 2.5]


def test_an_unspaced_sentence_is_one_term() -> None:
    train = ["这部电影很好看", "情节非常无聊", "演员的表演很精彩", "音乐实在太差了"]
    assert fewest_texts(train) == 1
    assert bag_of_words_classes(train, np.array([1, 0, 1, 0]), train).tolist() == [1, 0, 1, 0]


def test_one_class_in_training_is_the_answer() -> None:
    assert bag_of_words_classes(["a good film", "a good plot"], np.array([1, 1]), ["a bad film"]).tolist() == [1]
