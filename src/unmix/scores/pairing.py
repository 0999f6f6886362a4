"""Pairing: one-to-one matchings of the rows and columns of a similarity, the best one and the greedy one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor, require_finite
from unmix.core.scale import centred, flattened, near_one, resolution

COMPAT = Literal["greedy-pearson"] | None


@dataclass(frozen=True, eq=False)
class Pairing:
    """For each of f columns the row matched to it, [f] (-1 for none), the signed similarity [f] (0 for none), and
    strength [f], what is averaged; count: how many entries the mean is over.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    strength: np.ndarray
    count: int

    @property
    def value(self) -> float:
        """Sum of the strengths over the count."""
        return float(self.strength.sum() / self.count)


def pair(similarity: Tensor, signed: bool = False) -> Pairing:
    """The one-to-one matching of rows to columns of a similarity [m, f] with the largest sum of |similarity|."""
    return Matching(signed, None)(similarity)


def columns_of(values: Any, name: str) -> Tensor:
    """Codes or an array as a float64 matrix [n, columns], columns that are constant up to rounding made constant.

    Raises `UsageError` for another shape or NaN.
    """
    given = values.values if isinstance(values, Codes) else values
    matrix = (values.dense() if isinstance(values, Codes) else as_tensor(values, name)).detach().double()
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise UsageError(f"{name}: expected [n, columns], got {list(matrix.shape)}")
    require_finite(matrix, name)
    return flattened(matrix, resolution(given))


@dataclass(frozen=True)
class Matching:
    """A rule of matching: by value where signed, else by absolute value; `compat` as in `scores.matching.mcc`."""

    signed: bool
    compat: COMPAT

    def __post_init__(self) -> None:
        if self.signed and self.compat:
            raise UsageError(f"signed=True: compat={self.compat!r} is of absolute values")

    def __call__(self, similarity: Tensor) -> Pairing:
        from scipy.optimize import linear_sum_assignment

        matrix = similarity.cpu().numpy()
        score = matrix if self.signed else np.abs(matrix)
        m, f = matrix.shape
        kept_rows, kept_columns = np.arange(m), np.arange(f)
        if self.compat:
            kept_rows, kept_columns = greedy(score)
        inner = linear_sum_assignment(score[np.ix_(kept_rows, kept_columns)], maximize=True)
        rows, columns = kept_rows[inner[0]], kept_columns[inner[1]]
        pairs, matched = np.full(f, -1), np.zeros(f)
        pairs[columns], matched[columns] = rows, matrix[rows, columns]
        strength = matched if self.signed else np.abs(matched)
        return Pairing(pairs, matched, strength, min(m, f) if self.compat else f)


def greedy(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns [min(m, f)] taken when the largest remaining entry is taken again and again."""
    left = score.copy()
    best = left.argmax(1)
    value = left[np.arange(len(left)), best]
    rows, columns = [], []
    for _ in range(min(left.shape)):
        row = int(value.argmax())
        column = int(best[row])
        rows.append(row)
        columns.append(column)
        left[:, column], value[row] = -np.inf, -np.inf
        stale = np.flatnonzero((best == column) & np.isfinite(value))
        best[stale] = left[stale].argmax(1)
        value[stale] = left[stale, best[stale]]
    return np.array(rows), np.array(columns)


def standardised(columns: Tensor) -> Tensor:
    """Columns [n, f] with mean 0 and variance 1; a constant column becomes 0."""
    away = centred(near_one(columns))
    deviation = away.square().mean(0).sqrt()
    return away / torch.where(deviation > 0, deviation, 1)
