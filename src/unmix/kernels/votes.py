"""Statistics of small groups of rows that share one factor's value: votes and mean differences, no renderer."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from unmix.core.errors import UsageError

Backend = Literal["auto", "plain", "numba"]


class Groups(NamedTuple):
    """Rows by the value of each factor.

    order: [f, n] row numbers, those of one value beside one another. begin, size: [f, n] for each row, where the rows
    that share its value begin in `order`, and how many they are (itself among them).
    """

    order: np.ndarray
    begin: np.ndarray
    size: np.ndarray


def groups_of(labels: Any) -> Groups:
    """Groups from labels [f, n], whole numbers from 0."""
    labels = np.asarray(labels)
    order = np.argsort(labels, axis=1, kind="stable")
    begin, size = np.empty(labels.shape, np.int64), np.empty(labels.shape, np.int64)
    for j, label in enumerate(labels):
        counts = np.bincount(label)
        begin[j], size[j] = (np.cumsum(counts) - counts)[label], counts[label]
    return Groups(order.astype(np.int32), begin.astype(np.int32), size.astype(np.int32))


def least_variance(
    codes: np.ndarray, groups: Groups, factor: Any, row: Any, picks: Any, scale: Any, backend: Backend = "auto"
) -> np.ndarray:
    """For each vote the code that varies least among rows that share a value: [v], numbers of columns.

    argmin_i var_i / scale_i, var with ddof 1 over the drawn rows; a code with scale 0 is never taken, one with NaN
    always (as numpy's argmin does).
    codes: [n, m]. factor: [v] which factor is held. row: [v] whose value is held. picks: [v, b] numbers in [0, 1)
    that choose b >= 2 rows of the group, with replacement. scale: [m] variances over all rows.
    """
    codes, picks = _checked(codes, picks, backend, 2)
    out = np.zeros(len(picks), np.int64)
    scale = np.asarray(scale, dtype=np.float64)
    if backend == "plain":
        for v in range(len(picks)):
            rows = _members(groups, factor[v], row[v], picks[v])
            variance = np.var(codes[rows] - codes[row[v]], axis=0, ddof=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[v] = np.argmin(np.where(scale == 0, np.inf, variance / scale))
    else:
        from unmix.kernels._votes_compiled import least

        least(codes, *groups, np.asarray(factor, np.int64), np.asarray(row, np.int64), picks, scale, out)
    return out


def mean_differences(
    codes: np.ndarray, groups: Groups, factor: Any, rows: Any, picks: Any, backend: Backend = "auto"
) -> np.ndarray:
    """Mean over pairs of |code of a row - code of another that shares its value|: [v, m].

    codes: [n, m]. factor: [v] which factor the pairs share. rows: [v, b] first rows. picks: [v, b] numbers in [0, 1)
    that choose the second row of each pair among the rows of the same value.
    """
    codes, picks = _checked(codes, picks, backend, 1)
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    out = np.zeros((len(picks), codes.shape[1]))
    if backend == "plain":
        for v in range(len(picks)):
            others = _members(groups, factor[v], rows[v], picks[v])
            out[v] = np.abs(codes[rows[v]] - codes[others]).mean(0)
    else:
        from unmix.kernels._votes_compiled import differences

        differences(codes, *groups, np.asarray(factor, np.int64), rows, picks, out)
    return out


def _members(groups: Groups, factor: Any, row: Any, picks: np.ndarray) -> np.ndarray:
    begin, size = groups.begin[factor, row], groups.size[factor, row]
    return groups.order[factor, begin + (picks.astype(np.float64) * size).astype(np.int64)]


def _checked(codes: Any, picks: Any, backend: str, least: int) -> tuple[np.ndarray, np.ndarray]:
    if backend not in ("auto", "plain", "numba"):
        raise UsageError(f"backend: {backend!r} is not one of 'auto', 'plain', 'numba'")
    picks = np.ascontiguousarray(picks, dtype=np.float32)
    if picks.ndim != 2 or picks.shape[1] < least:
        raise UsageError(f"picks: expected [v, b] with b >= {least}, got {picks.shape}")
    return np.ascontiguousarray(codes, dtype=np.float64), picks
