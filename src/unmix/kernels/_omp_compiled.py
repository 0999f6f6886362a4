"""Compiled orthogonal matching pursuit on the Gram matrix, one row at a time, with everything in the cache."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled

LANES = 64


@compiled()
def _copy(source: np.ndarray, target: np.ndarray) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@compiled(fastmath={"nnan", "nsz"})
def _lane_maxima(correlation: np.ndarray, weight: np.ndarray, signed: bool, best: np.ndarray) -> None:
    """best[l] = the largest score of the columns l, l + 64, ...: lanes never wait for one another."""
    for lane in range(LANES):
        best[lane] = -1
    for start in range(0, len(correlation) - len(correlation) % LANES, LANES):
        if signed:
            for lane in range(LANES):
                score = abs(correlation[start + lane]) * weight[start + lane]
                best[lane] = score if score > best[lane] else best[lane]
        else:
            for lane in range(LANES):
                score = correlation[start + lane] * weight[start + lane]
                best[lane] = score if score > best[lane] else best[lane]


@compiled(fastmath={"nnan", "nsz", "contract"})
def _reduced_lane_maxima(
    correlation: np.ndarray, direction: np.ndarray, amount: float, weight: np.ndarray, best: np.ndarray
) -> None:
    """correlation -= amount direction, and the lane maxima of |correlation| weight in the same pass."""
    m = len(correlation)
    for lane in range(LANES):
        best[lane] = -1
    for start in range(0, m - m % LANES, LANES):
        for lane in range(LANES):
            value = correlation[start + lane] - amount * direction[start + lane]
            correlation[start + lane] = value
            score = abs(value) * weight[start + lane]
            best[lane] = score if score > best[lane] else best[lane]
    for j in range(m - m % LANES, m):
        correlation[j] -= amount * direction[j]


@compiled()
def _strongest(correlation: np.ndarray, weight: np.ndarray, signed: bool, best: np.ndarray) -> tuple[int, float]:
    """The lowest index of the largest |correlation| weight (or correlation weight), and it, from the lane maxima."""
    m = len(correlation)
    whole = m - m % LANES
    largest, where = correlation[0] * 0 - 1, 0
    if whole > 0:
        for lane in range(LANES):
            if best[lane] >= largest:
                j = lane
                while j < whole:
                    score = (abs(correlation[j]) if signed else correlation[j]) * weight[j]
                    if score == best[lane]:
                        break
                    j += LANES
                if best[lane] > largest or j < where:
                    largest, where = best[lane], j
    for j in range(whole, m):
        score = (abs(correlation[j]) if signed else correlation[j]) * weight[j]
        if score > largest:
            largest, where = score, j
    return where, largest


@compiled(fastmath={"contract"})
def _take_four(rows: np.ndarray, factors: np.ndarray, i: int, source: np.ndarray, out: np.ndarray) -> None:
    a0, a1, a2, a3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
    r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    for j in range(len(out)):
        out[j] = source[j] - ((a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j]))


@compiled(fastmath={"contract"})
def _take_four_more(rows: np.ndarray, factors: np.ndarray, i: int, out: np.ndarray) -> None:
    a0, a1, a2, a3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
    r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
    for j in range(len(out)):
        out[j] -= (a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])


@compiled(fastmath={"contract"})
def _subtract(rows: np.ndarray, factors: np.ndarray, count: int, source: np.ndarray, out: np.ndarray) -> None:
    """out = source - factors[:count] @ rows[:count], four rows at a time."""
    i = 0
    if count >= 4:
        _take_four(rows, factors, 0, source, out)
        i = 4
    else:
        _copy(source, out)
    while i + 4 <= count:
        _take_four_more(rows, factors, i, out)
        i += 4
    while i < count:
        a0, r0 = factors[i], rows[i]
        for j in range(len(out)):
            out[j] -= a0 * r0[j]
        i += 1


@compiled()
def _append(factor: np.ndarray, inner: np.ndarray, t: int, dependent: float) -> bool:
    """Append column t of inner to its Cholesky factor; False where the new atom depends on the others."""
    for i in range(t):
        total = inner[t, i]
        for j in range(i):
            total -= factor[i, j] * factor[t, j]
        factor[t, i] = total / factor[i, i]
    pivot = inner[t, t]
    for j in range(t):
        pivot -= factor[t, j] * factor[t, j]
    if pivot <= dependent * inner[t, t]:
        return False
    factor[t, t] = math.sqrt(pivot)
    return True


@compiled()
def _solve(factor: np.ndarray, forward: np.ndarray, count: int, code: np.ndarray) -> None:
    """code of factor factor' code = factor forward."""
    for i in range(count - 1, -1, -1):
        total = forward[i]
        for j in range(i + 1, count):
            total -= factor[j, i] * code[j]
        code[i] = total / factor[i, i]


@compiled()
def _nonnegative(inner: np.ndarray, right: np.ndarray, count: int, scale: float, code: np.ndarray) -> None:
    """Non-negative least squares on the support by coordinate descent, from the code given."""
    for _ in range(10000):
        largest = 0.0
        for i in range(count):
            slope = right[i]
            for j in range(count):
                slope -= inner[i, j] * code[j]
            new = max(0.0, code[i] + slope / inner[i, i])
            change = abs(new - code[i]) * math.sqrt(inner[i, i])
            largest = max(largest, change)
            code[i] = new
        if largest <= scale:
            return


@compiled()
def omp_rows(
    part: int,
    parts: int,
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    energy: np.ndarray,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
    dependent: float,
    values: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Codes of each row from start = h D' [n, m], gram = D D', weight = 1 / |d| (0 for atoms never to be chosen).

    energy [n] = |h|^2; a correlation of at most silent |h|, and a pivot of at most dependent |d|^2, end a row.
    """
    n, m = start.shape
    rows = np.empty((k, m), start.dtype)
    correlation = np.empty(m, start.dtype)
    factors = np.empty(k, start.dtype)
    inner, factor = np.zeros((k, k)), np.zeros((k, k))
    right, forward, code, trial = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k)
    chosen, best = np.zeros(k, np.int64), np.empty(LANES, start.dtype)
    allowed, pivots = np.empty(m, start.dtype), np.empty(k, start.dtype)
    for row in range(part * n // parts, (part + 1) * n // parts):
        _copy(start[row], correlation)
        _copy(weight, allowed)
        _lane_maxima(correlation, allowed, not positive, best)
        left, limit, count = energy[row], tolerance * energy[row], 0
        quiet = silent * math.sqrt(energy[row])
        while count < k and left > limit:
            atom, score = _strongest(correlation, allowed, not positive, best)
            if not score > quiet:
                break
            for i in range(count):
                inner[count, i] = inner[i, count] = gram[atom, chosen[i]]
            inner[count, count] = gram[atom, atom]
            if not _append(factor, inner, count, dependent):
                break
            chosen[count] = atom
            allowed[atom] = 0
            right[count] = start[row, atom]
            total = right[count]
            for j in range(count):
                total -= factor[count, j] * forward[j]
            forward[count] = total / factor[count, count]
            count += 1
            if positive:
                _solve(factor, forward, count, trial)
                feasible = True
                for i in range(count):
                    feasible = feasible and trial[i] >= 0
                if feasible:
                    code[:count] = trial[:count]
                else:
                    code[count - 1] = 0.0
                    _nonnegative(inner, right, count, silent * 1e-3 * math.sqrt(energy[row]), code)
                left = energy[row]
                for i in range(count):
                    slope = 2 * right[i]
                    for j in range(count):
                        slope -= inner[i, j] * code[j]
                    left -= slope * code[i]
                    factors[i] = code[i]
                if count == k:
                    break
                _copy(gram[atom], rows[count - 1])
                _subtract(rows, factors, count, start[row], correlation)
                _lane_maxima(correlation, allowed, False, best)
            else:
                left -= forward[count - 1] * forward[count - 1]
                if count == k:
                    break
                # The products of the new direction, orthogonal to the others, with all atoms.
                for i in range(count - 1):
                    factors[i] = rows[i, atom] / pivots[i]
                pivots[count - 1] = factor[count - 1, count - 1] ** 2
                _subtract(rows, factors, count - 1, gram[atom], rows[count - 1])
                factors[count - 1] = forward[count - 1] / factor[count - 1, count - 1]
                _reduced_lane_maxima(correlation, rows[count - 1], factors[count - 1], allowed, best)
        if not positive:
            _solve(factor, forward, count, code)
        for slot in range(k):
            indices[row, slot] = chosen[slot] if slot < count else 0
            values[row, slot] = code[slot] if slot < count else 0.0
