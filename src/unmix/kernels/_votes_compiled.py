"""Compiled statistics of groups of rows."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def least(
    codes: np.ndarray,
    order: np.ndarray,
    begin: np.ndarray,
    size: np.ndarray,
    factor: np.ndarray,
    row: np.ndarray,
    picks: np.ndarray,
    scale: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill out [v] with the code of least variance over scale among the drawn rows of each group."""
    m, b = codes.shape[1], picks.shape[1]
    first, second = np.empty(m), np.empty(m)
    for v in range(len(picks)):
        k, anchor = factor[v], row[v]
        start, count = begin[k, anchor], size[k, anchor]
        first[:] = 0
        second[:] = 0
        for t in range(b):
            member = order[k, start + int(np.float64(picks[v, t]) * count)]
            for i in range(m):
                gap = codes[member, i] - codes[anchor, i]
                first[i] += gap
                second[i] += gap * gap
        best, chosen = np.inf, 0
        for i in range(m):
            if scale[i] == 0:
                continue
            ratio = (second[i] - first[i] * first[i] / b) / (b - 1) / scale[i]
            if np.isnan(ratio):
                chosen = i
                break
            if ratio < best:
                best, chosen = ratio, i
        out[v] = chosen


@compiled()
def differences(
    codes: np.ndarray,
    order: np.ndarray,
    begin: np.ndarray,
    size: np.ndarray,
    factor: np.ndarray,
    rows: np.ndarray,
    picks: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill out [v, m] with mean absolute differences over pairs."""
    m, b = codes.shape[1], picks.shape[1]
    for v in range(len(picks)):
        k = factor[v]
        for t in range(b):
            one = rows[v, t]
            other = order[k, begin[k, one] + int(np.float64(picks[v, t]) * size[k, one])]
            for i in range(m):
                out[v, i] += abs(codes[one, i] - codes[other, i])
        for i in range(m):
            out[v, i] /= b
