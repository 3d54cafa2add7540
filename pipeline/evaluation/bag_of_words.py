"""Linear models of words and word pairs: what a text classifier must beat to have learnt more than which words occur.

A term is a word of two letters or more, or two such words in a row. Those count that stand in two training texts; where
there is none, every term does; and where no training text has a term at all, the answer is the same for every text.

Legend: N training texts, M test texts.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline


def bag_of_words_classes(
    train_texts: Sequence[str], train_labels: Integer[np.ndarray, "N"], texts: Sequence[str]
) -> Integer[np.ndarray, "M"]:
    """Classes by logistic regression; its strength (C = 10) was the best of 1 and 10 on SST-2.

    The most frequent class where no training text has a term, and where there is one class.
    """
    least = fewest_texts(train_texts)
    if least == 0 or np.ptp(train_labels) == 0:
        return np.full(len(texts), np.bincount(train_labels).argmax())
    model = make_pipeline(_features(least), LogisticRegression(C=10.0, max_iter=1000))
    predictions: np.ndarray = model.fit(list(train_texts), train_labels).predict(list(texts))
    return predictions


def bag_of_words_values(
    train_texts: Sequence[str], train_values: Float[np.ndarray, "N"], texts: Sequence[str]
) -> Float[np.ndarray, "M"]:
    """Real values by ridge regression; their mean where no training text has a term."""
    least = fewest_texts(train_texts)
    if least == 0:
        return np.full(len(texts), train_values.mean())
    model = make_pipeline(_features(least), Ridge(alpha=1.0))
    predictions: np.ndarray = model.fit(list(train_texts), train_values).predict(list(texts))
    return predictions


def fewest_texts(train_texts: Sequence[str]) -> Literal[0, 1, 2]:
    """In how many training texts a term has to stand so that it counts; 0 where there are no terms."""
    terms = _features(1).build_analyzer()
    known: set[str] = set()
    for text in train_texts:
        found = set(terms(text))
        if not known.isdisjoint(found):
            return 2
        known |= found
    return 1 if known else 0


def remark(train_texts: Sequence[str]) -> str:
    """What has to be known of a model of these texts; empty where its terms stand in two of them, as usual."""
    match fewest_texts(train_texts):
        case 0:
            return "no word of two letters or more in the training texts: the same answer for every text"
        case 1:
            return "no word stands in two training texts: those of one text count too"
        case 2:
            return ""


def _features(least: int) -> TfidfVectorizer:
    """TF-IDF of the terms that stand in `least` texts or more, with the logarithm of their counts."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least)
