"""Compiled boosting: histograms of the smaller child, the other by subtraction; all classes' roots at once."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled

TIE = 1e-9


@compiled()
def _residuals(goal, classes, raw, out):
    """Negative gradient [n, K] of the loss at raw [n, K]."""
    n, width = raw.shape
    for i in range(n):
        if classes == 0:
            out[i, 0] = goal[i] - raw[i, 0]
        elif classes == 2:
            out[i, 0] = goal[i] - 1 / (1 + np.exp(-raw[i, 0]))
        else:
            top = raw[i, 0]
            for k in range(1, width):
                top = max(top, raw[i, k])
            total = 0.0
            for k in range(width):
                out[i, k] = np.exp(raw[i, k] - top)
                total += out[i, k]
            scale = 1 / total
            for k in range(width):
                out[i, k] = -out[i, k] * scale
            out[i, int(goal[i])] += 1


@compiled()
def _roots(bins, residual, size, sums):
    """Sums of the residuals of every class in every bin of every column: sums [m, size, K]."""
    n, m = bins.shape
    width = residual.shape[1]
    sums[:] = 0
    for i in range(n):
        for j in range(m):
            b = bins[i, j]
            for k in range(width):
                sums[j, b, k] += residual[i, k]


@compiled()
def _fill(bins, values, rows, begin, end, hist):
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
def _best(hist, count, total, gains):
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
            gap = left / n_left - (total - left) / n_right
            gain = n_left * n_right / count * gap * gap
            gains[j] = max(gains[j], gain)
            if gain > best * (1 + TIE):
                column, cut, best = j, b, gain
    return column, cut, best


@compiled()
def _split(bins, rows, spare, begin, end, column, cut):
    """Put the rows with bin <= cut first, both sides in their order; the place where the right side begins."""
    left, held = begin, 0
    for i in range(begin, end):
        row = rows[i]
        if bins[row, column] <= cut:
            rows[left] = row
            left += 1
        else:
            spare[held] = row
            held += 1
    for i in range(held):
        rows[left + i] = spare[i]
    return left


@compiled()
def grow(bins, goal, classes, test_bins, rounds, depth, rate, size, raw, test_raw, importances):
    """Boost in place: raw [n, K], test_raw [n', K] and importances [m]."""
    n, m = bins.shape
    width = raw.shape[1]
    nodes = 1 << depth
    residual, values = np.empty((n, width)), np.empty(n)
    sums, hist, below = np.empty((m, size, width)), np.empty((nodes, m, size, 2)), np.empty((nodes, m, size, 2))
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
    trees = 0
    for _ in range(rounds):
        _residuals(goal, classes, raw, residual)
        _roots(bins, residual, size, sums)
        for k in range(width):
            total_square, total = 0.0, 0.0
            for i in range(n):
                values[i] = residual[i, k]
                rows[i] = i
                total += values[i]
                total_square += values[i] * values[i]
            floor = 1e-12 * total_square
            gained[:] = 0
            column[:] = -1
            for j in range(m):
                for b in range(size):
                    hist[0, j, b, 0] = counts[j, b]
                    hist[0, j, b, 1] = sums[j, b, k]
            begin[0], end[0], place[0], alive = 0, n, 0, 1
            for level in range(depth + 1):
                alive_below = 0
                for a in range(alive):
                    node, first, last = place[a], begin[a], end[a]
                    top, bottom = 0.0, 0.0
                    for i in range(first, last):
                        value = values[rows[i]]
                        top += value
                        bottom += 1.0 if classes == 0 else abs(value) * (1 - abs(value))
                    found, where, gain = -1, 0, 0.0
                    if level < depth and last - first > 1:
                        found, where, gain = _best(hist[a], float(last - first), top, gains)
                    if found < 0 or gain <= floor:
                        step = 0.0 if bottom < 1e-150 else top / bottom
                        if width > 1:
                            step *= (width - 1) / width
                        leaf[node] = rate * step
                        for i in range(first, last):
                            raw[rows[i], k] += leaf[node]
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
    if trees:
        for j in range(m):
            importances[j] /= trees
