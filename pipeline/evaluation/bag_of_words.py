"""Linear models of words and word pairs: what a text classifier must beat to have learnt more than which words occur.

Legend: N training texts, M test texts.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline


def bag_of_words_classes(
    train_texts: Sequence[str], train_labels: Integer[np.ndarray, "N"], texts: Sequence[str]
) -> Integer[np.ndarray, "M"]:
    """Classes by logistic regression; its strength (C = 10) was the best of 1 and 10 on SST-2."""
    model = make_pipeline(_features(), LogisticRegression(C=10.0, max_iter=1000))
    predictions: np.ndarray = model.fit(list(train_texts), train_labels).predict(list(texts))
    return predictions


def bag_of_words_values(
    train_texts: Sequence[str], train_values: Float[np.ndarray, "N"], texts: Sequence[str]
) -> Float[np.ndarray, "M"]:
    """Real values by ridge regression."""
    model = make_pipeline(_features(), Ridge(alpha=1.0))
    predictions: np.ndarray = model.fit(list(train_texts), train_values).predict(list(texts))
    return predictions


def _features() -> TfidfVectorizer:
    """TF-IDF of the words and word pairs that stand in two texts or more, with the logarithm of their counts."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
