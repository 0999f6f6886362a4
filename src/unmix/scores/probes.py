"""Probes: logistic regression on the best k features; chosen, tuned and scored on rows of their own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field
from scipy import sparse

from unmix.core.errors import UsageError
from unmix.core.labels import known, plain
from unmix.core.recipe import Recipe
from unmix.core.seeds import Stream, as_stream, untouched
from unmix.core.statistics import members
from unmix.scores.association import entries
from unmix.scores.base import Outcome

DRAWS = 400
STEPS = 1000


class Labelled(NamedTuple):
    """Rows with labels. x: `Codes` or [n, m]. y: [n] numbers or text. groups: [n] which rows belong together."""

    x: Any
    y: Any
    groups: Any = None


@dataclass(frozen=True, eq=False)
class Probed:
    """A probe on k features.

    active: k. auc, balanced: on the test rows, with chance and interval. chosen: [k] features, best first. strength:
    the C that validation chose; at an end of those tried a wider range may do better. converged: whether the
    regression ended before its last step.
    """

    active: int
    auc: Outcome
    balanced: Outcome
    chosen: np.ndarray
    strength: float
    converged: bool


class SparseProbe(Recipe):
    """k-sparse probes: how much of a concept single features, and few of them, tell.

    active: numbers k of features, None for all; those over m count as all. select: features are ranked by anova, the
    F statistic of the classes, or by mean, the largest |mean of a class - mean of the others|. strengths: values of C
    (the inverse of the ridge penalty) that validation chooses from. Features are scaled to unit deviation; classes
    weigh the same.
    """

    equation: ClassVar[str] = "p(y | z) = softmax(W z_S + b), |S| = k"
    reference: ClassVar[str] = "Gurnee et al. 2023, arXiv 2305.01610"

    active: tuple[int | None, ...] = (1, 2, 5, 16, None)
    select: Literal["anova", "mean"] = "anova"
    strengths: tuple[float, ...] = Field(default=(0.01, 0.1, 1.0, 10.0, 100.0), min_length=1)

    def measure(self, train: Labelled, validation: Labelled, test: Labelled, rng: int | Stream = 0) -> list[Probed]:
        """One result for each k. Features are chosen and weights fitted on `train`, C on `validation`; `test` is only
        scored, with intervals over its rows, or its groups where they are given.

        AUC of several classes is the mean of one against the rest. Raises `UsageError` for one class, a class that
        one of the parts lacks, unlike lengths, NaN, or a k or C that is not positive.
        """
        if any(k is not None and k < 1 for k in self.active) or any(c <= 0 for c in self.strengths):
            raise UsageError(f"SparseProbe: active={self.active}, strengths={self.strengths}: must be positive")
        parts = {"training": train, "validation": validation, "test": test}
        labels = {name: _labels(part.y, name) for name, part in parts.items()}
        classes = np.unique(labels["training"])
        if len(classes) < 2:
            raise UsageError(f"labels: only one class ({classes[0]}) in the training rows; a probe needs two")
        matrices, y = {}, {}
        for name, part in parts.items():
            y[name] = _numbers(labels[name], classes, name)
            rows, columns, values, shape = entries(part.x)
            matrices[name] = sparse.csc_array((values.astype(np.float64), (rows, columns)), shape=shape)
            if shape[0] != len(y[name]):
                raise UsageError(f"labels: {len(y[name])} for {shape[0]} {name} rows")
        if len({matrix.shape[1] for matrix in matrices.values()}) > 1:
            raise UsageError("codes: training, validation and test rows have unlike numbers of features")
        order = ranking(matrices["training"], y["training"], self.select)
        weights = _resamples(len(y["test"]), test.groups, as_stream(rng))
        wanted = dict.fromkeys(len(order) if k is None else min(k, len(order)) for k in self.active)
        return [self._one(k, order[:k], matrices, y, weights) for k in wanted]

    def _one(
        self,
        k: int,
        chosen: np.ndarray,
        matrices: Mapping[str, Any],
        y: Mapping[str, np.ndarray],
        weights: np.ndarray,
    ) -> Probed:
        x = {name: matrix[:, chosen].toarray() for name, matrix in matrices.items()}
        mean, deviation = x["training"].mean(0), x["training"].std(0)
        deviation[np.ptp(x["training"], axis=0) <= 1e-13 * np.abs(x["training"]).max(0)] = np.inf
        x = {name: (values - mean) / deviation for name, values in x.items()}
        tried = []
        for strength in self.strengths:
            model, converged = _fitted(x["training"], y["training"], strength)
            value = _auc(model.predict_proba(x["validation"]), y["validation"], None)
            tried.append((value, model, strength, converged))
        # The first of the best: the strongest penalty that does as well.
        _, model, strength, converged = max(tried, key=lambda entry: entry[0])
        chance = 1 / len(model.classes_)
        guesses, likely = model.predict_proba(x["test"]), model.predict(x["test"])
        return Probed(
            k,
            _outcome(lambda w: _auc(guesses, y["test"], w), weights, 0.5),
            _outcome(lambda w: _balanced(likely, y["test"], w), weights, chance),
            chosen,
            strength,
            converged,
        )


def ranking(x: sparse.csc_array, y: np.ndarray, select: str) -> np.ndarray:
    """All features, those first that tell the classes apart best: x [n, m], y [n] from 0. Constant ones come last."""
    n, stored = len(y), np.diff(x.indptr)
    # An offset would leave the squares little but rounding.
    offset = np.where(stored == n, np.asarray(x.sum(0)).ravel() / n, 0)
    x = sparse.csc_array((x.data - np.repeat(offset, stored), x.indices, x.indptr), shape=x.shape)
    member = np.eye(int(y.max()) + 1)[y]
    counts = member.sum(0)[:, None]
    sums = np.asarray(member.T @ x)
    if select == "mean":
        rest = (sums.sum(0) - sums) / (n - counts)
        return np.argsort(-np.abs(sums / counts - rest).max(0), kind="stable")
    total = sums.sum(0) ** 2 / n
    between = (sums**2 / counts).sum(0) - total
    squares = np.asarray(x.multiply(x).sum(0)).reshape(-1)
    within = np.maximum(squares - total - between, 0)
    # Rounding leaves about so much of features that are constant, or constant in every class.
    between[between <= 1e-12 * squares] = 0
    within[within <= 1e-12 * squares] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.nan_to_num(between / within, nan=0.0, posinf=np.inf)
    return np.argsort(-f, kind="stable")


def auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve of scores [n], ties counted half, rows weighted; NaN where a side has no weight."""
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    ordered, w, hit = scores[order], weights[order], positive[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    up, down = (np.add.reduceat(w * side, starts) for side in (hit, ~hit))
    below = np.cumsum(down) - down
    total = up.sum() * down.sum()
    return float((up * (below + down / 2)).sum() / total) if total else float("nan")


def _labels(values: Any, name: str) -> np.ndarray:
    y = np.asarray(values)
    if y.ndim != 1 or not len(y):
        raise UsageError(f"labels: expected [n] with n >= 1 for the {name} rows, got {list(y.shape)}")
    if not (there := known(plain(y))).all():
        raise UsageError(
            f"labels: {(~there).sum()} of the {len(y)} {name} rows have none (NaN, -1, blank); leave such rows out"
        )
    return y


def _numbers(y: np.ndarray, classes: np.ndarray, name: str) -> np.ndarray:
    places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    if (classes[places] != y).any():
        raise UsageError(f"labels: class {y[classes[places] != y][0]} is among the {name} rows only")
    missing = np.setdiff1d(np.arange(len(classes)), places)
    if len(missing):
        raise UsageError(f"labels: no {name} row of class {classes[missing[0]]}; give more rows")
    return places


def _fitted(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[Any, bool]:
    with untouched():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        model.fit(x, y)
    return model, bool(np.max(model.n_iter_) < STEPS)


def _auc(guesses: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Of the second class, or the mean over classes of each against the rest."""
    wanted: Sequence[int] = [1] if guesses.shape[1] == 2 else range(guesses.shape[1])
    return float(np.mean([auc(guesses[:, c], y == c, weights) for c in wanted]))


def _balanced(likely: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    total = np.bincount(y, weights)
    with np.errstate(invalid="ignore"):
        return float((np.bincount(y, weights * (likely == y)) / total).mean())


def _resamples(n: int, groups: Any, rng: Stream) -> np.ndarray:
    """Weights of the test rows: as they are, then drawn anew, whole groups at a time: [1 + draws, n]."""
    member = members(groups, n, "groups")
    count = int(member.max()) + 1
    drawn = rng.child("bootstrap").numpy().multinomial(count, np.full(count, 1 / count), DRAWS)
    return np.concatenate([np.ones((1, n)), drawn[:, member]])


def _outcome(measure: Any, weights: np.ndarray, chance: float) -> Outcome:
    value, *drawn = (measure(w) for w in weights)
    known = np.asarray(drawn)[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (float("nan"), float("nan"))
    return Outcome(value, chance, 1.0, (float(low), float(high)))
