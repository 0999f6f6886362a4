"""Compiled matching pursuit and gradient pursuit on the Gram matrix, one row at a time."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled
from unmix.kernels._lasso_compiled import _add_rows
from unmix.kernels._omp_compiled import LANES, _copy, _lane_maxima, _reduced_lane_maxima, _strongest


@compiled(fastmath={"nnan", "nsz", "contract"})
def _reduced_positive_maxima(
    correlation: np.ndarray, direction: np.ndarray, amount: float, weight: np.ndarray, best: np.ndarray
) -> None:
    """correlation -= amount direction, and the lane maxima of correlation weight in the same pass."""
    m = len(correlation)
    for lane in range(LANES):
        best[lane] = -1
    for start in range(0, m - m % LANES, LANES):
        for lane in range(LANES):
            value = correlation[start + lane] - amount * direction[start + lane]
            correlation[start + lane] = value
            score = value * weight[start + lane]
            best[lane] = score if score > best[lane] else best[lane]
    for j in range(m - m % LANES, m):
        correlation[j] -= amount * direction[j]


@compiled()
def _slot(members: np.ndarray, count: int, atom: int) -> int:
    """The place of an atom among those taken, or count."""
    for i in range(count):
        if members[i] == atom:
            return i
    return count


@compiled()
def matching_rows(
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    energy: np.ndarray,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
    values: np.ndarray,
    indices: np.ndarray,
    steps: np.ndarray,
) -> None:
    """Matching pursuit from start = h D' [n, m]; weight = 1 / |d|, energy = |h|^2; values and indices are zero."""
    n, m = start.shape
    correlation, best = np.empty(m, start.dtype), np.empty(LANES, start.dtype)
    for row in range(n):
        _copy(start[row], correlation)
        _lane_maxima(correlation, weight, not positive, best)
        left, quiet, count = energy[row], silent * math.sqrt(energy[row]), 0
        for _ in range(k):
            if left <= tolerance * energy[row]:
                break
            atom, score = _strongest(correlation, weight, not positive, best)
            if not score > quiet:
                break
            amount = correlation[atom] / gram[atom, atom]
            left -= amount * amount * gram[atom, atom]
            slot = _slot(indices[row], count, atom)
            indices[row, slot] = atom
            values[row, slot] += amount
            count = max(count, slot + 1)
            steps[row] += 1
            if positive:
                _reduced_positive_maxima(correlation, gram[atom], amount, weight, best)
            else:
                _reduced_lane_maxima(correlation, gram[atom], amount, weight, best)


@compiled()
def gradient_rows(
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    energy: np.ndarray,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
    values: np.ndarray,
    indices: np.ndarray,
    steps: np.ndarray,
    cost: np.ndarray,
) -> None:
    """Gradient pursuit, arguments as for matching_rows; cost [n] counts operations beyond the product h D'."""
    n, m = start.shape
    correlation, best = np.empty(m, start.dtype), np.empty(LANES, start.dtype)
    direction, factors, code = np.zeros(k), np.empty(k, start.dtype), np.zeros(k)
    inner, members = np.zeros((k, k)), np.zeros(k, np.int64)
    for row in range(n):
        _copy(start[row], correlation)
        _lane_maxima(correlation, weight, not positive, best)
        left, quiet, count = energy[row], silent * math.sqrt(energy[row]), 0
        for _ in range(k):
            if left <= tolerance * energy[row]:
                break
            atom, score = _strongest(correlation, weight, not positive, best)
            if not score > quiet:
                break
            if _slot(members, count, atom) == count:
                members[count], code[count] = atom, 0.0
                for i in range(count + 1):
                    inner[count, i] = inner[i, count] = gram[atom, members[i]]
                count += 1
            top, bottom = 0.0, 0.0
            for i in range(count):
                pull = correlation[members[i]]
                direction[i] = 0.0 if positive and pull < 0 and code[i] <= 0 else pull
                top += direction[i] * direction[i]
            for i in range(count):
                for j in range(count):
                    bottom += direction[i] * inner[i, j] * direction[j]
            if not bottom > 0:
                break
            length = top / bottom
            if positive:
                for i in range(count):
                    if direction[i] < 0:
                        length = min(length, -code[i] / direction[i])
            for i in range(count):
                code[i] += length * direction[i]
                if positive and direction[i] < 0 and code[i] < 1e-12 * -length * direction[i]:
                    code[i] = 0.0
                factors[i] = length * direction[i]
            left -= 2 * length * top - length * length * bottom
            _add_rows(gram, members, factors, count, correlation)
            _lane_maxima(correlation, weight, not positive, best)
            steps[row] += 1
            cost[row] += 2.0 * m * count + 2.0 * m + 3.0 * count * count
        for i in range(count):
            values[row, i], indices[row, i] = code[i], members[i]
