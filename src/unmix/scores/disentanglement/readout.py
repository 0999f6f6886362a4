"""Linear read-outs of factors from all codes together: logistic regression, least squares, areas under the curve."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from unmix.core.seeds import untouched
from unmix.scores.disentanglement.data import Paired, angle

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns by the mean and deviation of the training rows; constant ones become 0."""
    mean = np.where(np.ptp(train, axis=0) > 0, train.mean(0), train[0])
    deviation = (train - mean).std(0)
    scale = np.where(deviation > 0, deviation, np.inf)
    return (train - mean) / scale, (test - mean) / scale


def logistic(train: np.ndarray, y: np.ndarray, strength: float = 1.0) -> LogisticRegression:
    """scikit-learn's logistic regression with its defaults, C = strength; `classes_` and `predict_proba` as there."""
    with untouched():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 100 steps, as everyone's numbers are
        return model.fit(train, y)


def one_against_rest(scores: np.ndarray, y: np.ndarray) -> float:
    """Mean area under the ROC curve of every class in y [n] that has rows and others: scores [n, classes]."""
    from scipy.stats import rankdata

    areas = []
    for c in range(scores.shape[1]):
        positive = y == c
        count = int(positive.sum())
        if 0 < count < len(y):
            total = rankdata(scores[:, c])[positive].sum() - count * (count + 1) / 2
            areas.append(total / (count * (len(y) - count)))
    return float(np.mean(areas)) if areas else 0.5


def targets_of(pair: Paired, j: int | np.integer) -> np.ndarray:
    """Columns [n, p] of factor j for least squares: its values, indicators of categories, or cosine and sine."""
    factor, column = pair.factors[j], pair.z[:, j]
    if factor.kind == "categorical":
        values, label = np.unique(column, return_inverse=True)
        return np.eye(len(values))[label]
    if factor.kind == "circular":
        return np.stack([np.cos(angle(column, factor)), np.sin(angle(column, factor))], 1)
    return column[:, None]


def explained(train: np.ndarray, y: np.ndarray, test: np.ndarray, truth: np.ndarray, ridge: float = 1e-6) -> float:
    """Share of the test targets' variation about the training mean that least squares explains; may be negative."""
    mean = y.mean(0)
    gram = train.T @ train + ridge * len(train) * np.eye(train.shape[1])
    weights = np.linalg.solve(gram, train.T @ (y - mean))
    total = ((truth - mean) ** 2).sum()
    return 1 - float(((truth - mean - test @ weights) ** 2).sum() / total) if total > 0 else 0.0
