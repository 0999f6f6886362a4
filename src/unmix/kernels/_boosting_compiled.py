"""Compiled boosting: histograms of the smaller child, and the other by subtraction."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled

TIE = 1e-9
LARGE = 30.0


@compiled()
def _shares(raw: np.ndarray, share: np.ndarray) -> None:
    """Probabilities [K, n] of the classes, from scratch: the softmax of raw [K, n], or one sigmoid."""
    width, n = raw.shape
    for i in range(n):
        top = 0.0 if width == 1 else raw[0, i]
        for k in range(1, width):
            top = max(top, raw[k, i])
        for k in range(width):
            share[k, i] = np.exp(raw[k, i] - top) if width > 1 else 1 / (1 + np.exp(-raw[k, i]))


@compiled()
def _residuals(
    goal: np.ndarray, classes: int, raw: np.ndarray, share: np.ndarray, total: np.ndarray, out: np.ndarray
) -> None:
    """Negative gradient [K, n] of the loss; share [K, n] comes unnormalised and leaves as probabilities."""
    width, n = raw.shape
    if classes == 0:
        for i in range(n):
            out[0, i] = goal[i] - raw[0, i]
        return
    if width > 1:
        total[:] = 0
        for k in range(width):
            for i in range(n):
                total[i] += share[k, i]
        for k in range(width):
            for i in range(n):
                share[k, i] /= total[i]
    for k in range(width):
        wanted = 1 if width == 1 else k
        for i in range(n):
            out[k, i] = (goal[i] == wanted) - share[k, i]


@compiled()
def _root(bins: np.ndarray, values: np.ndarray, counts: np.ndarray, hist: np.ndarray) -> None:
    """Counts, which are known, and sums of all rows in every bin of every column: hist [m, size, 2]."""
    n, m = bins.shape
    for j in range(m):
        for b in range(counts.shape[1]):
            hist[j, b, 0] = counts[j, b]
            hist[j, b, 1] = 0
    for i in range(n):
        value = values[i]
        for j in range(m):
            hist[j, bins[i, j], 1] += value


@compiled()
def _fill(bins: np.ndarray, values: np.ndarray, rows: np.ndarray, begin: int, end: int, hist: np.ndarray) -> None:
    """Counts and sums of rows[begin:end] in every bin of every column: hist [m, size, 2]."""
    m = bins.shape[1]
    hist[:] = 0
    for i in range(begin, end):
        row = rows[i]
        value = values[row]
        for j in range(m):
            b = bins[row, j]
            hist[j, b, 0] += 1
            hist[j, b, 1] += value


@compiled()
def _best(hist: np.ndarray, count: float, total: float, gains: np.ndarray) -> tuple[int, int, float]:
    """Column, last bin on the left and gain of the best split (column -1 for none); gains [m] of every column."""
    m, size = hist.shape[0], hist.shape[1]
    column, cut, best = -1, 0, 0.0
    for j in range(m):
        n_left, left, gains[j] = 0.0, 0.0, 0.0
        for b in range(size - 1):
            if hist[j, b, 0] == 0:
                continue
            n_left += hist[j, b, 0]
            left += hist[j, b, 1]
            n_right = count - n_left
            if n_right <= 0:
                break
            gap = left * count - total * n_left
            gain = gap * gap / (n_left * n_right * count)
            gains[j] = max(gains[j], gain)
            if gain > best * (1 + TIE):
                column, cut, best = j, b, gain
    return column, cut, best


@compiled()
def _split(bins: np.ndarray, rows: np.ndarray, spare: np.ndarray, begin: int, end: int, column: int, cut: int) -> int:
    """Put the rows with bin <= cut first, both sides in their order; the place where the right side begins."""
    left, held = begin, 0
    for i in range(begin, end):
        # Written to both sides, so that there is no branch to guess wrong.
        row = rows[i]
        rows[left] = row
        spare[held] = row
        goes_left = bins[row, column] <= cut
        left += goes_left
        held += not goes_left
    for i in range(held):
        rows[left + i] = spare[i]
    return left


@compiled()
def grow(
    bins: np.ndarray,
    goal: np.ndarray,
    classes: int,
    test_bins: np.ndarray,
    rounds: int,
    depth: int,
    rate: float,
    size: int,
    raw: np.ndarray,
    test_raw: np.ndarray,
    importances: np.ndarray,
) -> None:
    """Boost in place: raw [n, K], test_raw [n', K] and importances [m]."""
    n, m = bins.shape
    width = raw.shape[1]
    nodes = 1 << depth
    # By class, so that a tree reads beside one another what it needs.
    own, residual, share, total = np.empty((width, n)), np.empty((width, n)), np.empty((width, n)), np.empty(n)
    for i in range(n):
        for k in range(width):
            own[k, i] = raw[i, k]
    hist, below = np.empty((nodes, m, size, 2)), np.empty((nodes, m, size, 2))
    counts = np.zeros((m, size))
    for i in range(n):
        for j in range(m):
            counts[j, bins[i, j]] += 1
    rows, spare = np.empty(n, np.int32), np.empty(n, np.int32)
    begin, end = np.empty(nodes + 1, np.int64), np.empty(nodes + 1, np.int64)
    begin_below, end_below = np.empty(nodes + 1, np.int64), np.empty(nodes + 1, np.int64)
    place, place_below = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    # A tree as a heap: node v has children 2 v + 1 and 2 v + 2; column -1 marks a leaf.
    column, cut, leaf = np.empty(2 * nodes, np.int64), np.empty(2 * nodes, np.int64), np.empty(2 * nodes)
    gained, gains = np.empty(m), np.empty(m)
    trees, fresh = 0, True
    for _ in range(rounds):
        if classes > 0 and (fresh or width == 1):
            _shares(own, share)
        _residuals(goal, classes, own, share, total, residual)
        fresh = False
        for k in range(width):
            total_square = 0.0
            values = residual[k]
            for i in range(n):
                rows[i] = i
                total_square += values[i] * values[i]
            floor = 1e-12 * total_square
            gained[:] = 0
            column[:] = -1
            _root(bins, values, counts, hist[0])
            begin[0], end[0], place[0], alive = 0, n, 0, 1
            for level in range(depth + 1):
                alive_below = 0
                for a in range(alive):
                    node, first, last = place[a], begin[a], end[a]
                    found, where, gain = -1, 0, 0.0
                    if level < depth and last - first > 1:
                        top = 0.0
                        for b in range(size):
                            top += hist[a, 0, b, 1]
                        found, where, gain = _best(hist[a], float(last - first), top, gains)
                    if found < 0 or gain <= floor:
                        top, bottom = 0.0, 0.0
                        for i in range(first, last):
                            value = values[rows[i]]
                            top += value
                            bottom += 1.0 if classes == 0 else abs(value) * (1 - abs(value))
                        step = 0.0 if bottom < 1e-150 else top / bottom
                        if width > 1:
                            step *= (width - 1) / width
                        leaf[node] = rate * step
                        # A leaf multiplies the shares of its rows: one exponential for all, unless it is a large one.
                        fresh = fresh or abs(leaf[node]) > LARGE
                        factor = np.exp(min(leaf[node], LARGE))
                        for i in range(first, last):
                            own[k, rows[i]] += leaf[node]
                            share[k, rows[i]] *= factor
                        continue
                    # Columns that split as well share the credit, as they would over many random choices.
                    tied = 0
                    for j in range(m):
                        tied += gains[j] >= gain * (1 - TIE)
                    for j in range(m):
                        if gains[j] >= gain * (1 - TIE):
                            gained[j] += gain / tied
                    column[node], cut[node] = found, where
                    middle = _split(bins, rows, spare, first, last, found, where)
                    left, right = alive_below, alive_below + 1
                    begin_below[left], end_below[left], place_below[left] = first, middle, 2 * node + 1
                    begin_below[right], end_below[right], place_below[right] = middle, last, 2 * node + 2
                    if level + 1 < depth:
                        small, large = left, right
                        if middle - first > last - middle:
                            small, large = right, left
                        _fill(bins, values, rows, begin_below[small], end_below[small], below[small])
                        for j in range(m):
                            for b in range(size):
                                for part in range(2):
                                    below[large, j, b, part] = hist[a, j, b, part] - below[small, j, b, part]
                    alive_below += 2
                hist, below = below, hist
                begin, begin_below = begin_below, begin
                end, end_below = end_below, end
                place, place_below = place_below, place
                alive = alive_below
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
