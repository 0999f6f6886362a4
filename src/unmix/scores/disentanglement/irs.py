"""IRS: how little a code moves when everything but one factor changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from unmix.core.seeds import Stream, as_stream
from unmix.scores.base import Inputs, Outcome
from unmix.scores.disentanglement.data import COMPAT, Disentanglement, labels_of, paired


def irs(
    codes: Any,
    z: Any,
    factors: Sequence[Any] | None = None,
    group: Any = None,
    rng: int | Stream = 0,
    compat: COMPAT = None,
    quantile: float = 0.99,
    bins: int = 20,
) -> Outcome:
    """Interventional robustness: mean over codes of the best factor's 1 - (deviation within a value) / (deviation).

    IRS_ij = 1 - mean_v q(|c_i - mean(c_i | z_j = v)|) / q(|c_i - mean(c_i)|), q the quantile; each code counts by its
    factor of largest IRS and weighs by its deviation over its standard deviation. The given rows stand for the
    intervention, as in `factor_vae`; values with fewer than 2 rows are left out, and a factor of more than 64 values
    is held within `bins` bins (about 1 - 1/bins at best). Constant codes and factors are left out; 0 where no code
    varies. codes: [n, m]. z: [n, f]. factors: kinds.
    compat: "disentanglement_lib" divides by the largest deviation, weighs codes by it, and cuts factors in 20 bins of
    equal width. Its quirks: one outlier brings a code near 1, codes weigh by their scale, and values with one row
    deviate by nothing.
    Chance: shuffled rows. Detail: matrix [m, f], best [m] (factor), weights [m], left_out.
    Source: Suter et al. 2019, arXiv 1811.00007.
    """
    pair, stream = paired(codes, z, factors, group, "irs"), as_stream(rng)
    if compat:
        labels = np.stack([np.digitize(c, np.histogram_bin_edges(c, 20)[:-1]) - 1 for c in pair.z.T])
        kept, least = np.arange(len(labels)), 1
    else:
        labels, kept, least = labels_of(pair, bins), np.flatnonzero(pair.varied), 2
    m, f = len(pair.live), len(labels)
    if not pair.live.any():
        return Outcome(0.0, 0.0, 1.0, detail={"matrix": np.zeros((m, f)), "left_out": pair.left_out})
    x = pair.codes[:, pair.live]
    whole = np.abs(x - x.mean(0))
    scale = whole.max(0) if compat else np.quantile(whole, quantile, axis=0)
    scale = np.where(scale > 0, scale, whole.max(0))
    weight = scale if compat else scale / x.std(0)

    def matrix(order: np.ndarray) -> np.ndarray:
        out = np.zeros((x.shape[1], f))
        for j in kept:
            rows = np.argsort(labels[j], kind="stable")
            parts = np.split(order[rows], np.flatnonzero(np.diff(labels[j][rows])) + 1)
            parts = [part for part in parts if len(part) >= least]
            if parts:
                inside = np.mean([_deviation(x[part], quantile) for part in parts], axis=0)
                out[:, j] = 1 - inside / scale
        return out

    found = matrix(np.arange(len(x)))
    unrelated = matrix(stream.child("shuffle").numpy().permutation(len(x)))
    value, chance = (float(np.average(part[:, kept].max(1), weights=weight)) for part in (found, unrelated))
    whole_matrix, weights, best = np.zeros((m, f)), np.zeros(m), np.full(m, -1)
    whole_matrix[pair.live], weights[pair.live] = found, weight / weight.sum()
    best[pair.live] = kept[found[:, kept].argmax(1)]
    detail = {
        "matrix": pair.back(whole_matrix),
        "best": pair.back(best),
        "weights": pair.back(weights),
        "left_out": pair.left_out,
    }
    return Outcome(value, chance, 1.0, detail=detail)


def _deviation(rows: np.ndarray, quantile: float) -> np.ndarray:
    return np.quantile(np.abs(rows - rows.mean(0)), quantile, axis=0)


class Irs(Disentanglement):
    """How little each code moves when everything but its own factor changes.

    compat: disentanglement_lib for that library's protocol. quantile: of deviations. bins: of factors that are
    continua.
    """

    name: ClassVar[str] = "irs"
    equation: ClassVar[str] = "sum_i w_i max_j (1 - mean_v q(|c_i - E[c_i | z_j = v]|) / q(|c_i - E[c_i]|))"
    reference: ClassVar[str] = "Suter et al. 2019, arXiv 1811.00007"

    compat: COMPAT = None
    quantile: float = Field(default=0.99, gt=0, le=1)
    bins: int = Field(default=20, ge=2, le=1000)

    def _measure(self, inputs: Inputs, rng: Stream) -> Outcome:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return irs(inputs.codes, inputs.z, inputs.factors, inputs.group, rng, **fields)
