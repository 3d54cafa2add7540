"""Scores of classification and regression on whole test sets, as the GLUE benchmark defines them (Wang et al. 2019).

Legend: N examples. Predictions of the whole set go in at once: never a mean over batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


@dataclass(frozen=True)
class ClassificationScore:
    """Share of right answers, F1 and Matthews correlation."""

    accuracy: float
    f1: float
    """Of class 1 where there are two classes, otherwise the mean over the classes."""
    matthews: float
    """0 for a constant prediction."""


@dataclass(frozen=True)
class RegressionScore:
    """Correlations of predicted with true values; 0 for a constant prediction, which has none."""

    pearson: float
    spearman: float


def classification_score(
    predictions: Integer[np.ndarray, "N"], labels: Integer[np.ndarray, "N"], *, num_classes: int
) -> ClassificationScore:
    """Scores predicted class numbers."""
    # Not torchmetrics: its Matthews correlation of a constant prediction is not 0 (0.58 for 3 of 4 examples right).
    classes = range(num_classes)
    by_class = f1_score(labels, predictions, labels=classes, average=None, zero_division=0.0)
    return ClassificationScore(
        accuracy=float(accuracy_score(labels, predictions)),
        f1=float(by_class[1] if num_classes == 2 else by_class.mean()),
        matthews=float(matthews_corrcoef(labels, predictions)),
    )


def regression_score(predictions: Float[np.ndarray, "N"], labels: Float[np.ndarray, "N"]) -> RegressionScore:
    """Scores predicted real values."""
    if np.ptp(predictions) == 0.0 or np.ptp(labels) == 0.0:
        return RegressionScore(pearson=0.0, spearman=0.0)
    return RegressionScore(
        pearson=float(stats.pearsonr(predictions, labels).statistic),
        spearman=float(stats.spearmanr(predictions, labels).statistic),
    )


def majority_score(
    train_labels: Sequence[int] | Integer[np.ndarray, "M"], labels: Integer[np.ndarray, "N"], *, num_classes: int
) -> ClassificationScore:
    """What always answering the most frequent class of the training set scores."""
    most_frequent = int(np.bincount(np.asarray(train_labels), minlength=num_classes).argmax())
    return classification_score(np.full(len(labels), most_frequent), labels, num_classes=num_classes)
