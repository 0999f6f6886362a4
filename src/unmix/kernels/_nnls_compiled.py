"""Compiled non-negative least squares by an active set, and least squares on a support, one row at a time."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled
from unmix.kernels._lasso_compiled import _add_rows
from unmix.kernels._omp_compiled import _append, _copy, _solve


@compiled()
def _factorise(inner: np.ndarray, factor: np.ndarray, first: int, count: int, dependent: float) -> None:
    """Cholesky rows first..count - 1 of inner, whose atoms do not depend on each other."""
    for t in range(first, count):
        _append(factor, inner, t, dependent)


@compiled()
def _fit(factor: np.ndarray, right: np.ndarray, count: int, forward: np.ndarray, trial: np.ndarray) -> None:
    """Least squares on the first `count` atoms by their Cholesky factor."""
    for i in range(count):
        total = right[i]
        for j in range(i):
            total -= factor[i, j] * forward[j]
        forward[i] = total / factor[i, i]
    _solve(factor, forward, count, trial)


@compiled()
def _drop(
    keep: np.ndarray, count: int, members: np.ndarray, code: np.ndarray, right: np.ndarray, inner: np.ndarray
) -> tuple[int, int]:
    """Move what is kept of the passive set to the front; returns the new size and the first place that changed."""
    kept, first = 0, count
    for i in range(count):
        if not keep[i]:
            first = min(first, i)
            continue
        if kept != i:
            members[kept], code[kept], right[kept] = members[i], code[i], right[i]
            for j in range(count):
                inner[kept, j] = inner[i, j]
        kept += 1
    if kept < count:
        column = 0
        for j in range(count):
            if keep[j]:
                if column != j:
                    for i in range(kept):
                        inner[i, column] = inner[i, j]
                column += 1
    return kept, min(first, kept)


@compiled()
def _descend(
    members: np.ndarray,
    code: np.ndarray,
    right: np.ndarray,
    inner: np.ndarray,
    factor: np.ndarray,
    forward: np.ndarray,
    trial: np.ndarray,
    keep: np.ndarray,
    count: int,
    dependent: float,
) -> int:
    """Go to the least-squares solution of the passive set, dropping atoms that would turn negative on the way."""
    while count > 0:
        _fit(factor, right, count, forward, trial)
        share, where = 1.0, -1
        for i in range(count):
            if trial[i] <= 0:
                reach = code[i] / (code[i] - trial[i]) if code[i] > 0 else 0.0
                if reach < share or where < 0:
                    share, where = reach, i
        if where < 0:
            code[:count] = trial[:count]
            return count
        for i in range(count):
            code[i] += share * (trial[i] - code[i])
            keep[i] = i != where and (code[i] > 0 or trial[i] > 0)
        count, first = _drop(keep, count, members, code, right, inner)
        _factorise(inner, factor, first, count, dependent)
    return count


@compiled()
def _active_set(
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    quiet: float,
    dependent: float,
    limit: int,
    count: int,
    members: np.ndarray,
    code: np.ndarray,
    correlation: np.ndarray,
    passive: np.ndarray,
    barred: np.ndarray,
    right: np.ndarray,
    inner: np.ndarray,
    factor: np.ndarray,
    forward: np.ndarray,
    trial: np.ndarray,
    keep: np.ndarray,
    factors: np.ndarray,
) -> tuple[int, int, float]:
    """min |x - z D|^2, z >= 0 from a passive set of `count` members with positive codes; returns its final size,
    the rounds and the operations. correlation ends as D (x - z D)."""
    m, room = len(start), len(code)
    spent, rounds = 0.0, 0
    known = 0
    for i in range(count):  # of the first atoms, those that depend on others are left out
        atom = members[i]
        members[known], code[known], right[known] = atom, code[i], start[atom]
        for j in range(known + 1):
            inner[known, j] = inner[j, known] = gram[atom, members[j]]
        if known < room and _append(factor, inner, known, dependent):
            passive[atom] = True
            known += 1
    count = known
    while True:
        for i in range(count):
            passive[members[i]] = False
        before = count
        count = _descend(members, code, right, inner, factor, forward, trial, keep, count, dependent)
        if count < before:  # what depended on the atoms dropped may be let in again
            barred[:] = False
        for i in range(count):
            passive[members[i]] = True
            factors[i] = code[i]
        _copy(start, correlation)
        _add_rows(gram, members, factors, count, correlation)
        spent += 2.0 * m * count + 2.0 * m + count * count * (count / 3.0 + 4.0)
        rounds += 1
        if rounds > limit:
            break
        added = False
        while not added and count < room:
            atom, largest = -1, quiet
            for j in range(m):
                score = correlation[j] * weight[j]
                if score > largest and not passive[j] and not barred[j]:
                    atom, largest = j, score
            if atom < 0:
                break
            members[count], code[count], right[count] = atom, 0.0, start[atom]
            for j in range(count + 1):
                inner[count, j] = inner[j, count] = gram[atom, members[j]]
            added = _append(factor, inner, count, dependent)
            if added:
                # Rounding may turn down at once what was just let in: it would be let in again for ever.
                _fit(factor, right, count + 1, forward, trial)
                added = trial[count] > 0
            if not added:
                barred[atom] = True
        if not added:
            break
        count += 1
    return count, rounds, spent


@compiled()
def nnls_rows(
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    energy: np.ndarray,
    silent: float,
    dependent: float,
    limit: int,
    room: int,
    pointers: np.ndarray,
    places: np.ndarray,
    given: np.ndarray,
    counts: np.ndarray,
    residual: np.ndarray,
    cost: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Non-negative least squares of rows from start = h D' [n, m], gram = D D', weight = 1 / |d| (0 for zero atoms).

    pointers, places, given: a first guess in the ragged layout. residual [n]: the largest violation of the
    optimality conditions over |h|. room: most atoms in a passive set. Codes go to the front of values, indices.
    """
    n, m = start.shape
    correlation, factors = np.empty(m, start.dtype), np.empty(room, start.dtype)
    passive, barred = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
    members, keep = np.zeros(room + 1, np.int64), np.zeros(room, np.bool_)
    code, right, forward, trial = np.zeros(room), np.zeros(room), np.zeros(room), np.zeros(room)
    inner, factor = np.zeros((room, room)), np.zeros((room, room))
    for row in range(n):
        count = 0
        for i in range(pointers[row], pointers[row + 1]):
            if given[i] > 0 and weight[places[i]] > 0 and count < room:
                members[count], code[count] = places[i], given[i]
                count += 1
        size = math.sqrt(energy[row])
        passive[:], barred[:] = False, False
        count, _, spent = _active_set(
            start[row], gram, weight, silent * size, dependent, limit, count, members, code, correlation, passive,
            barred, right, inner, factor, forward, trial, keep, factors,
        )  # fmt: skip
        worst = 0.0
        for j in range(m):
            pull = correlation[j] * weight[j]
            worst = max(worst, abs(pull) if passive[j] else pull)
        residual[row] = worst / max(size, 1e-300)
        cost[row] += spent
        counts[row] = count
        for i in range(count):
            values[row, i], indices[row, i] = code[i], members[i]


@compiled()
def support_rows(
    h: np.ndarray,
    atoms: np.ndarray,
    pointers: np.ndarray,
    places: np.ndarray,
    given: np.ndarray,
    positive: bool,
    dependent: float,
    cost: np.ndarray,
    values: np.ndarray,
) -> None:
    """Least squares on the support of each row: places, given [nnz] in the ragged layout -> values [nnz].

    Products are summed in float64. Signed: an atom that depends on ones of larger given codes gets 0. positive:
    non-negative least squares from the given codes.
    """
    n, d = h.shape
    most = 1
    for row in range(n):
        most = max(most, pointers[row + 1] - pointers[row])
    room = min(most, d)
    start, correlation, weight, order = np.zeros(most), np.zeros(most), np.zeros(most), np.zeros(most, np.int64)
    square, inner, factor = np.zeros((most, most)), np.zeros((room, room)), np.zeros((room, room))
    code, right, forward, trial = np.zeros(room), np.zeros(room), np.zeros(room), np.zeros(room)
    members, keep, factors = np.zeros(room + 1, np.int64), np.zeros(room, np.bool_), np.zeros(room)
    passive, barred = np.zeros(most, np.bool_), np.zeros(most, np.bool_)
    for row in range(n):
        begin, size = pointers[row], pointers[row + 1] - pointers[row]
        if size == 0:
            continue
        order[:size] = np.argsort(-np.abs(given[begin : begin + size]))
        energy = 0.0
        for c in range(d):
            energy += float(h[row, c]) * float(h[row, c])
        for a in range(size):
            one = atoms[places[begin + order[a]]]
            start[a] = 0.0
            for c in range(d):
                start[a] += float(h[row, c]) * float(one[c])
            for b in range(a + 1):
                other = atoms[places[begin + order[b]]]
                total = 0.0
                for c in range(d):
                    total += float(one[c]) * float(other[c])
                square[a, b] = square[b, a] = total
            weight[a] = 1 / math.sqrt(square[a, a]) if square[a, a] > 0 else 0.0
        cost[row] += size * (size + 3.0) * d + size * size * (size / 3.0 + 4.0)
        count = 0
        if positive:
            for a in range(size):
                if weight[a] > 0 and given[begin + order[a]] > 0 and count < room:
                    members[count], code[count] = a, given[begin + order[a]]
                    count += 1
            passive[:size], barred[:size] = False, False
            quiet = 1e-15 * math.sqrt(energy * d)
            count, _, spent = _active_set(
                start[:size], square[:size, :size], weight[:size], quiet, dependent, 3 * size + 10, count, members,
                code, correlation[:size], passive, barred, right, inner, factor, forward, trial, keep, factors,
            )  # fmt: skip
            cost[row] += spent
        else:
            for a in range(size):
                if count == room:
                    break
                members[count], right[count] = a, start[a]
                for b in range(count + 1):
                    inner[count, b] = inner[b, count] = square[a, members[b]]
                if weight[a] > 0 and _append(factor, inner, count, dependent):
                    count += 1
            _fit(factor, right, count, forward, code)
        for a in range(size):
            values[begin + a] = 0.0
        for i in range(count):
            values[begin + order[members[i]]] = code[i]
