"""Gradient boosting of small trees over binned columns, and how much each column lowered the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unmix.core.errors import UsageError

Backend = Literal["auto", "plain", "numba"]
MOST_BINS = 256
FINE_ROWS = 5000  # up to here the finest bins keep every value apart


@dataclass(frozen=True, eq=False)
class Boosted:
    """What boosting found.

    importances: [m] decrease of the squared error by splits on each column, over n, averaged over the trees that
    split at all, not normalised (scikit-learn's normalise it to sum 1 afterwards). raw: [n, K] and test_raw [n', K]
    predictions: the mean (K = 1), log odds (K = 1, two classes) or log scores (K classes).
    """

    importances: np.ndarray
    raw: np.ndarray
    test_raw: np.ndarray


def boost(
    bins: np.ndarray,
    targets: np.ndarray,
    classes: int,
    test_bins: np.ndarray | None = None,
    rounds: int = 100,
    depth: int = 3,
    rate: float = 0.1,
    backend: Backend = "auto",
) -> Boosted:
    """Boosted trees of squared error (classes = 0) or of the (multinomial) log loss.

    F <- F + rate * tree(bins), each tree greedy on the residuals, with one Newton step for the value of a leaf; one
    tree a round for squared error and two classes, else one for each class, as scikit-learn's GradientBoosting does.
    bins: [n, m] of `binned`. targets: [n] numbers, or classes 0..classes-1. test_bins: [n', m].
    Raises `UsageError` for shapes that do not fit or an unknown backend. Source: Friedman 2001.
    """
    bins, test_bins = _checked(bins, targets, classes, test_bins, backend)
    n = len(bins)
    width = 1 if classes <= 2 else classes
    if classes == 0:
        start = np.array([np.mean(targets)])
    else:
        share = np.bincount(targets.astype(np.int64), minlength=classes) / n
        if not (share > 0).all():
            raise UsageError(f"targets: class {int((share == 0).argmax())} of {classes} has no row")
        start = np.log(share) if classes > 2 else np.array([np.log(share[1] / share[0])])
    raw, test_raw = np.tile(start, (n, 1)), np.tile(start, (len(test_bins), 1))
    importances = np.zeros(bins.shape[1])
    if n and bins.shape[1]:
        size = int(max(bins.max(), test_bins.max() if len(test_bins) else 0)) + 1
        goal = np.ascontiguousarray(targets, dtype=np.float64)
        given = (goal, classes, test_bins, rounds, depth, rate)
        into = (raw, test_raw, importances)
        if backend == "plain":
            from unmix.kernels._boosting_plain import grow

            grow(bins, *given, size, *into)
        elif size <= MOST_BINS:
            from unmix.kernels._boosting_compiled import grow as by_histograms

            by_histograms(bins, *given, size, *into)
        else:
            from unmix.kernels._boosting_sorted_compiled import grow as by_order

            order = np.argsort(bins, axis=0, kind="stable").T.astype(np.int32)
            by_order(np.ascontiguousarray(bins.T), np.ascontiguousarray(order), *given, *into)
    assert raw.shape[1] == width
    return Boosted(importances, raw, test_raw)


def binned(columns: Any, others: Any | None = None, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Columns [n, m], and others [n', m] by the same edges, as numbers of bins: uint8, or uint16 for many.

    A column with at most `count` values has a bin for each, with edges half way between them; else edges are at
    quantiles. The finest count, 256, gives every value a bin where there are at most 5000 rows: there trees set
    single rows apart, and without that the importances are up to .05 from those of exact trees.
    Raises `UsageError` for a count out of 2..256.
    """
    if not 2 <= count <= MOST_BINS:
        raise UsageError(f"count={count}: bins must be 2 to {MOST_BINS}")
    x = np.asarray(columns, dtype=np.float64)
    y = x[:0] if others is None else np.asarray(others, dtype=np.float64)
    most = max(count, len(x)) if count == MOST_BINS and len(x) <= FINE_ROWS else count
    kind = np.uint8 if most <= MOST_BINS else np.uint16
    out, other = np.empty(x.shape, kind), np.empty(y.shape, kind)
    for j in range(x.shape[1]):
        ordered = np.sort(x[:, j])
        fresh = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        if len(fresh) < most:
            edges = (ordered[fresh] + ordered[fresh - 1]) / 2
        else:
            cuts = (np.arange(1, count) * len(ordered)) // count
            edges = np.unique((ordered[cuts] + ordered[cuts - 1]) / 2)
        out[:, j] = np.searchsorted(edges, x[:, j], side="left")
        other[:, j] = np.searchsorted(edges, y[:, j], side="left")
    return out, other


def _checked(bins: Any, targets: Any, classes: int, test_bins: Any, backend: str) -> tuple[np.ndarray, np.ndarray]:
    if backend not in ("auto", "plain", "numba"):
        raise UsageError(f"backend: {backend!r} is not one of 'auto', 'plain', 'numba'")
    if bins.ndim != 2 or bins.dtype not in (np.uint8, np.uint16) or len(targets) != len(bins):
        raise UsageError(
            f"bins: expected [n, m] of `binned` with n targets, got {bins.shape} and {len(targets)} targets"
        )
    if classes == 1 or classes < 0:
        raise UsageError(f"classes={classes}: at least 2, or 0 for numbers")
    test_bins = bins[:0] if test_bins is None else test_bins
    if test_bins.ndim != 2 or test_bins.dtype != bins.dtype or test_bins.shape[1] != bins.shape[1]:
        raise UsageError(f"test_bins: expected [n', {bins.shape[1]}] {bins.dtype}, got {test_bins.shape}")
    return np.ascontiguousarray(bins), np.ascontiguousarray(test_bins)
