"""Association: how well each feature alone tells rows with a concept from the others, for all features at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, stats

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.rows import as_tensor, require_finite
from unmix.core.seeds import Stream, as_stream


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of n values in each of m columns, ties at their mean, kept sparse: what is stored is rank less `zero`.

    above: [n, m] sparse. zero: [m] rank of a zero. ties: [m] sum of t^3 - t over groups of t equal values.
    """

    above: sparse.csr_array
    zero: np.ndarray
    ties: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.above.shape

    def auc(self, positive: np.ndarray) -> np.ndarray:
        """Area under the ROC curve of every column for every set of positive rows: [c, m] from [n, c] of bool.

        AUC = (R - P (P + 1) / 2) / (P N), R the rank sum of the P positive rows, N the number of others.
        Raises `UsageError` for a set that is empty or everything.
        """
        n = self.shape[0]
        count = positive.sum(0).astype(np.float64)
        if len(positive) != n or not ((count > 0) & (count < n)).all():
            raise UsageError(f"labels: each needs rows with and rows without it, among {n} rows")
        ranks = (self.above.T @ positive.astype(np.float64)).T + count[:, None] * self.zero
        return (ranks - (count * (count + 1) / 2)[:, None]) / (count * (n - count))[:, None]

    def p(self, positive: np.ndarray) -> np.ndarray:
        """Two-sided p-values [c, m] of the rank-sum test (normal, with ties), were the rows independent."""
        n = self.shape[0]
        count = positive.sum(0).astype(np.float64)
        pairs = (count * (n - count))[:, None]
        spread = np.sqrt((n + 1 - self.ties / (n * (n - 1))) / (12 * pairs))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(self.auc(positive) - 0.5) / spread
        return np.where(spread > 0, 2 * stats.norm.sf(z), 1.0)


def ranks_of(codes: Codes | Any) -> Ranks:
    """Ranks of codes (`Codes` or [n, m]), for the work of sorting what is not zero.

    Raises `UsageError` for fewer than 2 rows or NaN.
    """
    rows, columns, values, (n, m) = entries(codes)
    if n < 2:
        raise UsageError(f"codes: needs at least 2 rows, got {n}")
    order = np.lexsort((values, columns))
    rows, columns, values = rows[order], columns[order], values[order]
    active = np.bincount(columns, minlength=m)
    negative = np.bincount(columns[values < 0], minlength=m)
    zeros = n - active
    zero = negative + (zeros + 1) / 2
    first = np.concatenate([[0], np.cumsum(active)])[:-1]
    place = np.arange(len(rows)) - first[columns] + 1 + np.where(values > 0, zeros[columns], 0)
    begins = np.ones(len(rows), bool)
    begins[1:] = (columns[1:] != columns[:-1]) | (values[1:] != values[:-1])
    group = np.cumsum(begins) - 1
    sizes = np.bincount(group) if len(rows) else np.zeros(0, int)
    means = np.bincount(group, place) / sizes if len(rows) else np.zeros(0)
    ties = np.bincount(columns[begins], sizes.astype(np.float64) ** 3 - sizes, m) + zeros.astype(float) ** 3 - zeros
    above = sparse.csr_array((means[group] - zero[columns], (rows, columns)), shape=(n, m))
    return Ranks(above, zero, ties)


def shifted(positive: np.ndarray, draws: int, rng: int | Stream = 0) -> np.ndarray:
    """One label [n] of bool moved around the rows by random distances: [n, draws].

    Runs of equal labels stay whole, so that rows near one another may depend on one another; shuffling breaks that.
    """
    n = len(positive)
    steps = as_stream(rng).child("shifts").numpy().integers(1, max(2, n), draws)
    return positive[(np.arange(n)[:, None] + steps[None]) % n]


def best_threshold(values: np.ndarray, positive: np.ndarray) -> tuple[float, float, float]:
    """The threshold of largest F1 for "value > threshold", its precision and its recall: values, positive [n]."""
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    hits, taken = np.cumsum(positive[order]), np.arange(1, len(values) + 1)
    f1 = 2 * hits / (taken + positive.sum())
    # Equal values are taken all or none.
    ends = np.append(ordered[1:] != ordered[:-1], True)
    best = int(np.where(ends, f1, -1).argmax())
    below = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - max(1, 1e-9 * abs(ordered[best]))
    threshold = float((np.float64(ordered[best]) + np.float64(below)) / 2)
    return threshold, float(hits[best] / taken[best]), float(hits[best] / max(1, positive.sum()))


def entries(codes: Codes | Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Row, column and value of everything that is not zero, and the shape. Raises `UsageError` for NaN."""
    if not isinstance(codes, Codes):
        dense = as_tensor(codes, "codes")
        if dense.ndim != 2:
            raise UsageError(f"codes: expected [n, m], got {list(dense.shape)}")
        require_finite(dense, "codes")
        codes = Codes(dense, None, dense.shape[1])
    rows, columns, values = (part.cpu().numpy() for part in codes.nonzero())
    if not np.isfinite(values).all():
        raise UsageError(f"codes: row {int(rows[~np.isfinite(values)][0])} is NaN or infinite; drop such rows first")
    return rows, columns, values, codes.shape
