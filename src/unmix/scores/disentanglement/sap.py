"""SAP: how much better the best single code predicts a factor than the second best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.seeds import Stream, as_stream
from unmix.core.statistics import bootstrap_mean
from unmix.kernels.hinge import hinge_lines
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import (
    COMPAT,
    Disentanglement,
    Paired,
    around,
    exact_labels,
    paired,
    reweighted,
    split,
)
from unmix.scores.disentanglement.typed import Associations, spread
from unmix.scores.influence import tell_of_rows


def sap(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    discrete: bool = True,
    draws: int = 8,
    resamples: int = 60,
) -> Outcome:
    """Separated attribute predictability: mean over factors of the best code's score less the second best's.

    SAP = mean_j (S_(1)j - S_(2)j), S_ij the square of the typed association of code i with factor j (r^2, eta^2,
    circular-linear R^2), so that perfect codes score 1 for factors of any kind and size. A single code has a second
    of 0; factors that do not vary are left out. codes: [n, m]. z: [n, f]. factors: kinds. group: [n] sequences.
    compat: "disentanglement_lib" takes for S the accuracy, on a third of the rows, of LinearSVC(C=.01, balanced) on
    one code (`discrete`), or the squared correlation (discrete=False). Its quirks: a linear machine on an ordered
    factor of many values cannot reach 1, codes are not scaled although the penalty depends on their scale, a code
    with a variance below 1e-12 scores 0 (discrete=False), and unrelated codes already score the rate of the most
    frequent value, so that gaps are small.
    Detail: gaps [f], best [f] (code), matrix [m, f], left_out. Source: Kumar et al. 2018, arXiv 1711.00848.
    """
    pair, stream = paired(codes, z, factors, group, "sap"), as_stream(rng)
    if compat and discrete:
        matrix = svm_accuracies(pair, stream)
        gaps = _gaps(matrix)[pair.varied]
        interval = bootstrap_mean(gaps, stream)
        return Outcome(float(gaps.mean()), 0.0, 1.0, interval, _detail(pair, matrix))
    if compat:
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.corrcoef(pair.codes.T, pair.z.T)[: pair.codes.shape[1], pair.codes.shape[1] :] ** 2
        matrix = np.where(pair.codes.var(0, ddof=1)[:, None] > 1e-12, both, 0)
        matrix[:, ~pair.varied] = 0
        gaps = _gaps(matrix)[pair.varied]
        return Outcome(float(gaps.mean()), 0.0, 1.0, bootstrap_mean(gaps, stream), _detail(pair, matrix))
    measure = Associations(pair)

    def rule(weights: np.ndarray | None = None, order: np.ndarray | None = None) -> float:
        return float(_gaps(measure(weights, order)[0] ** 2)[pair.varied].mean())

    def again(kept: np.ndarray) -> float:
        some = pair.only(kept)
        return float(_gaps(Associations(some)()[0] ** 2)[some.varied].mean())

    matrix, value = measure()[0] ** 2, rule()
    tell_of_rows("sap", value, pair.arrays, again, pair.rows)
    orders = [stream.child(f"shuffle {draw}").numpy().permutation(len(pair.z)) for draw in range(draws)]
    level = np.array([rule(None, order) for order in orders])
    drawn = np.array([rule(weights) for weights in reweighted(pair, stream, resamples)])
    return Outcome(value, float(level.mean()), 1.0, around(value, drawn), _detail(pair, matrix), spread(level))


def svm_accuracies(pair: Paired, rng: Stream) -> np.ndarray:
    """Accuracy on a third of the rows of the linear machine of each code alone for each factor: [m, f]."""
    labels = exact_labels(pair, "sap")
    train, test = split(pair, rng)
    matrix = np.zeros((pair.codes.shape[1], len(labels)))
    for j in np.flatnonzero(pair.varied):
        classes, y = np.unique(labels[j, train], return_inverse=True)
        for i, column in enumerate(pair.codes.T):
            if len(classes) == 1:
                guess = np.full(len(test), classes[0])
            else:
                lines = hinge_lines(column[train], y, len(classes))
                guess = classes[(column[test, None] * lines[:, 0] + lines[:, 1]).argmax(1)]
            matrix[i, j] = (guess == labels[j, test]).mean()
    return matrix


def _gaps(matrix: np.ndarray) -> np.ndarray:
    ordered = np.sort(np.concatenate([np.zeros((1, matrix.shape[1])), matrix]), axis=0)
    return ordered[-1] - ordered[-2]


def _detail(pair: Paired, matrix: np.ndarray) -> dict[str, Any]:
    best = pair.columns[matrix.argmax(0)]
    return {"gaps": _gaps(matrix), "best": best, "matrix": pair.back(matrix), "left_out": pair.left_out}


class Sap(Disentanglement):
    """The best code's predictability of each factor less the second best's.

    compat: disentanglement_lib for that library's protocol. discrete: with compat, accuracy of linear machines rather
    than squared correlation. draws: shuffles for the chance level. resamples: of the bootstrap.
    """

    name: ClassVar[str] = "sap"
    equation: ClassVar[str] = "mean_j (S_(1)j - S_(2)j), S = A(z_j, code_i)^2"
    reference: ClassVar[str] = "Kumar, Sattigeri, Balakrishnan 2018, arXiv 1711.00848"

    compat: COMPAT = None
    discrete: bool = True
    draws: int = Field(default=8, ge=1)
    resamples: int = Field(default=60, ge=0)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return sap(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, **fields)
