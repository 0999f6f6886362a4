"""Compiled boosting with a bin for every value: each column is read in its order, for all nodes of a level."""

from __future__ import annotations

import numpy as np

from unmix.kernels._boosting_compiled import TIE, _residuals, _shares
from unmix.kernels._compiled import compiled


@compiled()
def _best(
    values: np.ndarray,
    bins: np.ndarray,
    order: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    total: np.ndarray,
    gains: np.ndarray,
    column: np.ndarray,
    cut: np.ndarray,
    best: np.ndarray,
) -> None:
    """Column (-1 for none), last bin on the left and gain of the best split of every node, and gains [nodes, m].

    bins, order: [m, n] bin of each row, and the rows by their bin. place: [n] node of each row, -1 for none.
    """
    m, n = bins.shape
    nodes = len(count)
    n_left, left, last = np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int64)
    column[:], cut[:], best[:], gains[:] = -1, 0, 0.0, 0.0
    for j in range(m):
        n_left[:], left[:], last[:] = 0.0, 0.0, -1
        for p in range(n):
            row = order[j, p]
            a = place[row]
            if a < 0:
                continue
            b = np.int64(bins[j, row])
            if b != last[a] and n_left[a] > 0:
                gap = left[a] * count[a] - total[a] * n_left[a]
                gain = gap * gap / (n_left[a] * (count[a] - n_left[a]) * count[a])
                gains[a, j] = max(gains[a, j], gain)
                if gain > best[a] * (1 + TIE):
                    column[a], cut[a], best[a] = j, last[a], gain
            last[a] = b
            n_left[a] += 1
            left[a] += values[row]


@compiled()
def grow(
    bins: np.ndarray,
    order: np.ndarray,
    goal: np.ndarray,
    classes: int,
    test_bins: np.ndarray,
    rounds: int,
    depth: int,
    rate: float,
    raw: np.ndarray,
    test_raw: np.ndarray,
    importances: np.ndarray,
) -> None:
    """Boost in place: raw [n, K], test_raw [n', K] and importances [m]; bins and order [m, n], test_bins [n', m]."""
    m, n = bins.shape
    width = raw.shape[1]
    most = 1 << depth
    own, residual, share, total = np.empty((width, n)), np.empty((width, n)), np.empty((width, n)), np.empty(n)
    for i in range(n):
        for k in range(width):
            own[k, i] = raw[i, k]
    # A tree as a heap: node v has children 2 v + 1 and 2 v + 2; column -1 marks a leaf.
    column, cut, leaf = np.empty(2 * most, np.int64), np.empty(2 * most, np.int64), np.empty(2 * most)
    best, gains = np.empty(most), np.empty((most, m))
    count, sums, bottoms, split = np.empty(most), np.empty(most), np.empty(most), np.empty(most, np.bool_)
    place, gained = np.empty(n, np.int64), np.empty(m)
    trees = 0
    for _ in range(rounds):
        if classes > 0:
            _shares(own, share)
        _residuals(goal, classes, own, share, total, residual)
        for k in range(width):
            values = residual[k]
            floor = 1e-12 * np.sum(values * values)
            gained[:], column[:], place[:] = 0, -1, 0
            for level in range(depth + 1):
                first, nodes = (1 << level) - 1, 1 << level
                count[:nodes], sums[:nodes], bottoms[:nodes] = 0, 0, 0
                for i in range(n):
                    a = place[i]
                    if a >= 0:
                        count[a] += 1
                        sums[a] += values[i]
                        bottoms[a] += 1.0 if classes == 0 else abs(values[i]) * (1 - abs(values[i]))
                here = slice(first, first + nodes)
                split[:nodes] = False
                if level < depth:
                    given = (count[:nodes], sums[:nodes], gains[:nodes], column[here], cut[here], best[:nodes])
                    _best(values, bins, order, place, *given)
                for a in range(nodes):
                    node = first + a
                    split[a] = level < depth and column[node] >= 0 and best[a] > floor
                    if split[a]:
                        # Columns that split as well share the credit, as they would over many random choices.
                        tied = np.sum(gains[a] >= best[a] * (1 - TIE))
                        for j in range(m):
                            if gains[a, j] >= best[a] * (1 - TIE):
                                gained[j] += best[a] / tied
                    else:
                        column[node] = -1
                        step = 0.0 if bottoms[a] < 1e-150 else sums[a] / bottoms[a]
                        leaf[node] = rate * step * ((width - 1) / width if width > 1 else 1.0)
                for i in range(n):
                    a = place[i]
                    if a < 0:
                        continue
                    node = first + a
                    if split[a]:
                        place[i] = 2 * a + (0 if bins[column[node], i] <= cut[node] else 1)
                    else:
                        own[k, i] += leaf[node]
                        place[i] = -1
            if column[0] >= 0:
                trees += 1
                for j in range(m):
                    importances[j] += gained[j] / n
            for i in range(len(test_bins)):
                node = 0
                while column[node] >= 0:
                    node = 2 * node + (1 if test_bins[i, column[node]] <= cut[node] else 2)
                test_raw[i, k] += leaf[node]
    for i in range(n):
        for k in range(width):
            raw[i, k] = own[k, i]
    if trees:
        for j in range(m):
            importances[j] /= trees
