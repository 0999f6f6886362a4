"""InfoMEC: modularity, compactness and explicitness from normalised information and linear read-outs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from unmix.core.seeds import Stream, as_stream, untouched
from unmix.core.statistics import bootstrap_mean
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import Disentanglement, Paired, labels_of, once, paired, shared, split
from unmix.scores.disentanglement.mutual import information
from unmix.scores.disentanglement.readout import explained, logistic, standardised, targets_of

Part = Literal["modularity", "compactness", "explicitness"]
Estimator = Literal["bins", "neighbours"]
NEIGHBOURS = 3, 10
PRUNED = 1 / 20
KNOWS = 0.02


def infomec(
    codes: Any,
    z: Any,
    part: Part,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    estimator: Estimator = "bins",
) -> Outcome:
    """One of the three parts of InfoMEC, each 1 at best.

    InfoM = (mean_i max_j N_ij / sum_j N_ij - 1/f) / (1 - 1/f) over codes, InfoC the same over factors with the number
    of codes, InfoE = mean_j of the share of a factor that a linear read-out of all codes predicts, on rows it was not
    fitted on: 1 - cross-entropy over that of the class rates (categorical), R2 (else), at least 0.
    N: normalised information, adjusted as in `mutual.information`; codes that know less than .02 of every factor are
    left out. estimator: "neighbours" is the paper's, k nearest neighbours over the entropy of the factor's values and
    codes left out by a range below 1/20 of the largest; slower, and it has no chance level or interval. k is the
    paper's 10 from 100 rows a value on, a tenth of the rows of a value (at least 3) below: ten of 20 rows span what
    the value has to tell. Neither estimator is free of bias: see docs/metrics.md.
    0 where no code is left; 1 where there is nothing to choose from (one factor, or one code).
    codes: [n, m]. z: [n, f]. Detail: matrix [m, f], active [m], or by_factor [f]; left_out.
    Source: Hsu et al. 2023, arXiv 2305.18378.
    """
    pair, stream = paired(codes, z, factors, group, f"infomec_{part[0]}"), as_stream(rng)
    if part == "explicitness":
        return _explicitness(pair, stream)
    axis = 1 if part == "modularity" else 0

    def rule(matrix: np.ndarray) -> float:
        return _concentration(matrix[:, pair.varied], _active(pair, matrix, estimator), axis)

    if estimator == "bins":
        found = information(pair, stream)
        detail = _detail(pair, found.matrix, estimator)
        return found.outcome(rule, detail)
    matrix = once(pair.key("neighbours", stream), lambda: _neighbours(pair, stream))
    return Outcome(rule(matrix), ceiling=1.0, detail=_detail(pair, matrix, estimator))


def _active(pair: Paired, matrix: np.ndarray, estimator: Estimator) -> np.ndarray:
    if estimator == "bins":
        return pair.live & (matrix.max(1) >= KNOWS)
    spread = np.ptp(pair.codes, axis=0)
    return pair.live & (spread > PRUNED * spread.max())


def _detail(pair: Paired, matrix: np.ndarray, estimator: Estimator) -> dict[str, Any]:
    active = pair.back(_active(pair, matrix, estimator))
    return {"matrix": pair.back(matrix), "active": active, "left_out": pair.left_out}


def _concentration(matrix: np.ndarray, active: np.ndarray, axis: int) -> float:
    kept = matrix[active]
    if not len(kept) or not kept.any():
        return 0.0
    count = kept.shape[axis]
    if count == 1:
        return 1.0
    total = kept.sum(axis)
    share = np.where(total > 0, kept.max(axis) / np.where(total > 0, total, 1), 1 / count)
    return float(max(0.0, (share.mean() - 1 / count) / (1 - 1 / count)))


def _neighbours(pair: Paired, rng: Stream) -> np.ndarray:
    with untouched():
        from sklearn.feature_selection import mutual_info_classif
    labels = labels_of(pair)
    matrix = np.zeros((pair.codes.shape[1], len(labels)))
    x, _ = standardised(pair.codes, pair.codes[:0])
    seed = rng.child("neighbours").number % (1 << 32)
    for j in np.flatnonzero(pair.varied):
        share = np.bincount(labels[j]) / len(x)
        entropy = -float((share[share > 0] * np.log(share[share > 0])).sum())
        k = int(np.clip(len(x) // (share > 0).sum() // 10, *NEIGHBOURS))
        state = np.random.RandomState(seed)
        nats = mutual_info_classif(x, labels[j], discrete_features=False, n_neighbors=k, random_state=state)
        matrix[:, j] = np.where(pair.live, nats / entropy, 0)
    return np.clip(matrix, 0, None)


def _explicitness(pair: Paired, rng: Stream) -> Outcome:
    train, test = split(pair, rng)
    x, other = (np.pad(part, ((0, 0), (0, 1)), constant_values=1.0) for part in _both(pair, train, test))
    found = np.zeros(len(pair.factors))
    for j in np.flatnonzero(pair.varied):
        if pair.factors[j].kind == "categorical":
            found[j] = _likelihood(x[:, :-1], other[:, :-1], pair.z[train, j], pair.z[test, j])
        else:
            y = targets_of(pair, j)
            found[j] = explained(x, y[train], other, y[test])
    found = np.clip(found, 0, 1)
    kept = found[pair.varied]
    detail = {"by_factor": found, "left_out": pair.left_out}
    return Outcome(float(kept.mean()), 0.0, 1.0, bootstrap_mean(kept, rng), detail)


def _both(pair: Paired, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return standardised(pair.codes[train], pair.codes[test])


def _likelihood(x: np.ndarray, other: np.ndarray, y: np.ndarray, truth: np.ndarray) -> float:
    """1 - cross-entropy of the truth over that of the training rates, values unseen in training left out."""
    classes = np.unique(y)
    known = np.isin(truth, classes)
    if len(classes) < 2 or not known.any():
        return 0.0
    place = np.searchsorted(classes, truth[known])
    rates = np.bincount(np.searchsorted(classes, y), minlength=len(classes)) / len(y)
    null = -float(np.log(rates[place]).mean())
    # Next to no penalty, so that codes which separate the classes come near 1.
    chosen = logistic(x, y, 1e4).predict_proba(other[known])[np.arange(int(known.sum())), place]
    loss = -float(np.log(np.maximum(chosen, 1e-12)).mean())
    return 1 - loss / null if null > 0 else 0.0


class InfoM(Disentanglement):
    """InfoMEC's modularity: how far each code's information is about one factor.

    estimator: bins, or neighbours as in the paper.
    """

    name: ClassVar[str] = "infomec_infom"
    part: ClassVar[Part] = "modularity"
    equation: ClassVar[str] = "(mean_i max_j N_ij / sum_j N_ij - 1/f) / (1 - 1/f)"
    reference: ClassVar[str] = "Hsu et al. 2023, arXiv 2305.18378"

    estimator: Estimator = "bins"

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        given = inputs.codes, inputs.z, self.part, inputs.factors, inputs.group
        return infomec(*given, shared(rng), self.estimator)


class InfoC(InfoM):
    """InfoMEC's compactness: how far the information about each factor is in one code."""

    name: ClassVar[str] = "infomec_infoc"
    part: ClassVar[Part] = "compactness"
    equation: ClassVar[str] = "(mean_j max_i N_ij / sum_i N_ij - 1/m) / (1 - 1/m)"


class InfoE(Disentanglement):
    """InfoMEC's explicitness: what a linear read-out of all codes predicts of each factor, on other rows."""

    name: ClassVar[str] = "infomec_infoe"
    equation: ClassVar[str] = "mean_j max(0, 1 - loss_j / loss_j of the mean)"
    reference: ClassVar[str] = "Hsu et al. 2023, arXiv 2305.18378"

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        return infomec(inputs.codes, inputs.z, "explicitness", inputs.factors, inputs.group, shared(rng))
