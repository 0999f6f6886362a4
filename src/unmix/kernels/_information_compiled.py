"""Compiled counting for mutual information."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def count(
    bins: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    size: int,
    classes: int,
    information: np.ndarray,
    entropy: np.ndarray,
) -> None:
    """Fill information [r, m, f] and entropy [r, f] from bins [m, g, n], labels [f, n] and weights [r, n]."""
    m, g, n = bins.shape
    joint = np.empty((size, classes), np.int64)
    by_bin, by_class = np.empty(size, np.int64), np.empty(classes, np.int64)
    # n log n of small whole numbers, made once: most of the work is logarithms otherwise.
    table = np.zeros(n + 1)
    for c in range(1, n + 1):
        table[c] = c * np.log(c)
    for r in range(len(weights)):
        total = 0
        for i in range(n):
            total += weights[r, i]
        if total == 0:
            continue
        whole = total * np.log(total)
        for j in range(len(labels)):
            by_class[:] = 0
            for i in range(n):
                by_class[labels[j, i]] += weights[r, i]
            held = 0.0
            for c in range(classes):
                held += _xlogx(by_class[c], table)
            entropy[r, j] = max(0.0, (whole - held) / total)
            for code in range(m):
                row = bins[code, j if g > 1 else 0]
                joint[:] = 0
                by_bin[:] = 0
                for i in range(n):
                    joint[row[i], labels[j, i]] += weights[r, i]
                both, alone = 0.0, 0.0
                for b in range(size):
                    for c in range(classes):
                        if joint[b, c]:
                            by_bin[b] += joint[b, c]
                            both += _xlogx(joint[b, c], table)
                    alone += _xlogx(by_bin[b], table)
                information[r, code, j] = max(0.0, (both - alone - held + whole) / total)


@compiled()
def _xlogx(count: int, table: np.ndarray) -> float:
    if count < len(table):
        return table[count]
    return count * np.log(count)
