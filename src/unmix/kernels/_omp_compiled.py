"""Compiled orthogonal matching pursuit on the Gram matrix, one row at a time, with everything in the cache."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled

BLOCK = 64


@compiled(fastmath={"nnan", "nsz", "reassoc"})
def _block_maximum(correlation, weight, start, end, signed):
    best = correlation[start] * 0 - 1
    if signed:
        for j in range(start, end):
            best = max(best, abs(correlation[j]) * weight[j])
    else:
        for j in range(start, end):
            best = max(best, correlation[j] * weight[j])
    return best


@compiled()
def _copy(source, target):
    for i in range(len(source)):
        target[i] = source[i]


@compiled()
def _strongest(correlation, weight, signed):
    """The lowest index of the largest |correlation| weight (or correlation weight), and that number."""
    m = len(correlation)
    best, where = correlation[0] * 0 - 1, 0
    for start in range(0, m, BLOCK):
        found = _block_maximum(correlation, weight, start, min(m, start + BLOCK), signed)
        if found > best:
            best, where = found, start
    for j in range(where, min(m, where + BLOCK)):
        size = abs(correlation[j]) if signed else correlation[j]
        if size * weight[j] == best:
            return j, best
    return where, best


@compiled(fastmath={"contract"})
def _subtract(rows, factors, count, out):
    """out -= factors[:count] @ rows[:count], four rows at a time."""
    i = 0
    m = len(out)
    while i + 4 <= count:
        a0, a1, a2, a3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
        r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        for j in range(m):
            out[j] -= (a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])
        i += 4
    while i < count:
        a0, r0 = factors[i], rows[i]
        for j in range(m):
            out[j] -= a0 * r0[j]
        i += 1


@compiled()
def _append(factor, inner, t, dependent):
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
def _solve(factor, forward, count, code):
    """code of factor factor' code = factor forward."""
    for i in range(count - 1, -1, -1):
        total = forward[i]
        for j in range(i + 1, count):
            total -= factor[j, i] * code[j]
        code[i] = total / factor[i, i]


@compiled()
def _nonnegative(inner, right, count, scale, code):
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
def omp_rows(part, parts, start, gram, weight, energy, k, positive, tolerance, silent, dependent, values, indices):
    """Codes of each row from start = h D' [n, m], gram = D D', weight = 1 / |d| (0 for atoms never to be chosen).

    energy [n] = |h|^2; a correlation of at most silent |h|, and a pivot of at most dependent |d|^2, end a row.
    """
    n, m = start.shape
    rows = np.empty((k, m), start.dtype)
    correlation = np.empty(m, start.dtype)
    factors = np.empty(k, start.dtype)
    inner, factor = np.zeros((k, k)), np.zeros((k, k))
    right, forward, code, trial = np.zeros(k), np.zeros(k), np.zeros(k), np.zeros(k)
    chosen = np.zeros(k, np.int64)
    for row in range(part * n // parts, (part + 1) * n // parts):
        _copy(start[row], correlation)
        left, limit, count = energy[row], tolerance * energy[row], 0
        quiet = silent * math.sqrt(energy[row])
        while count < k and left > limit:
            atom, best = _strongest(correlation, weight, not positive)
            if not best > quiet:
                break
            repeated = False
            for i in range(count):
                inner[count, i] = inner[i, count] = gram[atom, chosen[i]]
                repeated = repeated or chosen[i] == atom
            inner[count, count] = gram[atom, atom]
            if repeated or not _append(factor, inner, count, dependent):
                break
            chosen[count] = atom
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
                _copy(start[row], correlation)
                _subtract(rows, factors, count, correlation)
            else:
                left -= forward[count - 1] * forward[count - 1]
                if count == k:
                    break
                # The products of the new orthonormal direction with all atoms.
                fresh = rows[count - 1]
                _copy(gram[atom], fresh)
                for i in range(count - 1):
                    factors[i] = rows[i, atom]
                _subtract(rows, factors, count - 1, fresh)
                scale = 1 / factor[count - 1, count - 1]
                size = forward[count - 1]
                for j in range(m):
                    fresh[j] *= scale
                    correlation[j] -= size * fresh[j]
            for i in range(count):
                correlation[chosen[i]] = 0
        if not positive:
            _solve(factor, forward, count, code)
        for slot in range(k):
            indices[row, slot] = chosen[slot] if slot < count else 0
            values[row, slot] = code[slot] if slot < count else 0.0
