"""Compiled l1 problem: working-set coordinate descent on the Gram matrix, one row at a time."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled
from unmix.kernels._omp_compiled import LANES, _copy, _lane_maxima


@compiled(fastmath={"contract"})
def _add_rows(gram: np.ndarray, members: np.ndarray, factors: np.ndarray, count: int, out: np.ndarray) -> None:
    """out -= factors @ gram[members], four rows at a time."""
    i, m = 0, len(out)
    while i + 4 <= count:
        a0, a1, a2, a3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
        r0, r1 = gram[members[i]], gram[members[i + 1]]
        r2, r3 = gram[members[i + 2]], gram[members[i + 3]]
        for j in range(m):
            out[j] -= (a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j])
        i += 4
    while i < count:
        a0, r0 = factors[i], gram[members[i]]
        for j in range(m):
            out[j] -= a0 * r0[j]
        i += 1


@compiled(fastmath={"contract"})
def _axpy(a: float, x: np.ndarray, y: np.ndarray, count: int) -> None:
    for i in range(count):
        y[i] -= a * x[i]


@compiled()
def _sweep(
    inner: np.ndarray, slope: np.ndarray, code: np.ndarray, count: int, penalty: float, positive: bool
) -> float:
    """One pass of coordinate descent over the working set; returns how much the objective fell."""
    fall = 0.0
    for i in range(count):
        size = inner[i, i]
        old = code[i]
        pull = slope[i] + size * old
        new = old * 0
        if pull > penalty:
            new = (pull - penalty) / size
        elif not positive and pull < -penalty:
            new = (pull + penalty) / size
        change = new - old
        if change != 0:
            code[i] = new
            _axpy(change, inner[i], slope, count)
            fall += 0.5 * size * change * change
    return fall


@compiled()
def _certificate(
    start: np.ndarray,
    correlation: np.ndarray,
    energy: float,
    members: np.ndarray,
    code: np.ndarray,
    count: int,
    penalty: float,
    largest: float,
) -> tuple[float, float]:
    """Objective and duality gap: P = |r|^2 / 2 + penalty |z|_1, D = s <r, h> - s^2 |r|^2 / 2 for the best s."""
    fit, rest, weight = 0.0, 0.0, 0.0
    for i in range(count):
        z = float(code[i])
        fit += z * start[members[i]]
        rest += z * correlation[members[i]]
        weight += abs(z)
    residual = max(0.0, energy - fit - rest)
    cross = energy - fit
    primal = 0.5 * residual + penalty * weight
    scale = cross / residual if residual > 0 else 1.0
    if largest > 0:
        scale = min(scale, penalty / largest)
    scale = max(scale, 0.0)
    return primal, primal - (scale * cross - 0.5 * scale * scale * residual)


@compiled()
def _largest(correlation: np.ndarray, weight: np.ndarray, signed: bool, lanes: np.ndarray) -> float:
    """The largest weighted correlation of all atoms, and in lanes those of the columns l, l + LANES, ..."""
    m = len(correlation)
    _lane_maxima(correlation, weight, signed, lanes)
    largest = correlation[0] * 0 - 1
    for lane in range(LANES):
        largest = max(largest, lanes[lane])
    for j in range(m - m % LANES, m):
        largest = max(largest, (abs(correlation[j]) if signed else correlation[j]) * weight[j])
    return largest


@compiled()
def _above(
    correlation: np.ndarray,
    weight: np.ndarray,
    level: float,
    positive: bool,
    position: np.ndarray,
    lanes: np.ndarray,
    keys: np.ndarray,
    places: np.ndarray,
) -> int:
    """Atoms outside the working set with a weighted correlation above level; returns how many."""
    m, found = len(correlation), 0
    whole = m - m % LANES
    for lane in range(LANES + 1):
        if lane < LANES and lanes[lane] <= level:
            continue
        begin, end, step = (lane, whole, LANES) if lane < LANES else (whole, m, 1)
        for j in range(begin, end, step):
            size = (correlation[j] if positive else abs(correlation[j])) * weight[j]
            if size > level and position[j] < 0:
                keys[found], places[found] = size, j
                found += 1
    return found


@compiled()
def _select(keys: np.ndarray, places: np.ndarray, count: int, wanted: int) -> None:
    """Bring the `wanted` largest keys, and their places, to the front (quickselect)."""
    low, high = 0, count - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                places[i], places[j] = places[j], places[i]
                i += 1
                j -= 1
        if wanted - 1 <= j:
            high = j
        elif wanted - 1 >= i:
            low = i
        else:
            return


@compiled()
def _admit(
    correlation: np.ndarray,
    weight: np.ndarray,
    penalty: float,
    largest: float,
    positive: bool,
    position: np.ndarray,
    members: np.ndarray,
    code: np.ndarray,
    count: int,
    wanted: int,
    lanes: np.ndarray,
    keys: np.ndarray,
    places: np.ndarray,
) -> int:
    """Take up to `wanted` of the atoms that violate optimality most into the working set; returns its new size."""
    if not largest > penalty:
        return count
    # Most violations are small ones: looking above a level first leaves few to choose from.
    found = 0
    for share in (0.5, 0.25, 0.125, 0.0):
        level = penalty + share * (largest - penalty)
        found = _above(correlation, weight, level, positive, position, lanes, keys, places)
        if found >= wanted:
            break
    if found > wanted:
        _select(keys, places, found, wanted)
        found = wanted
    for i in range(found):
        position[places[i]] = count
        members[count] = places[i]
        code[count] = 0
        count += 1
    return count


@compiled()
def lasso_rows(
    part: int,
    parts: int,
    start: np.ndarray,
    gram: np.ndarray,
    weight: np.ndarray,
    energy: np.ndarray,
    penalty: np.ndarray,
    positive: bool,
    tolerance: float,
    limit: int,
    pointers: np.ndarray,
    places: np.ndarray,
    given: np.ndarray,
    counts: np.ndarray,
    gap: np.ndarray,
    objective: np.ndarray,
    rounds: np.ndarray,
    cost: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Solve rows from start = h D' [n, m] and gram; weight is 1 for atoms that may be used and 0 for zero atoms.

    pointers, places, given: a first guess in the ragged layout (empty lists where there is none). Each row's codes
    go to the front of values and indices [n, m], as many as counts [n] says.
    """
    n, m = start.shape
    correlation = np.empty(m, start.dtype)
    position = np.full(m, -1, np.int64)
    members, places_found, keys = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, start.dtype)
    lanes = np.empty(LANES, start.dtype)
    code, applied = np.zeros(m, start.dtype), np.zeros(m, start.dtype)
    slope, change = np.empty(m, start.dtype), np.empty(m, start.dtype)
    changed = np.empty(m, np.int64)
    room = min(m, 64)
    inner = np.empty((room, room), start.dtype)
    # A round costs a pass over all atoms: the more there are, the more are taken in at once.
    least = min(16, max(4, m // 128))
    for row in range(part * n // parts, (part + 1) * n // parts):
        _copy(start[row], correlation)
        bound = start.dtype.type(penalty[row])
        unit = max(0.5 * energy[row], 1e-300)
        count, known = 0, 0
        for i in range(pointers[row], pointers[row + 1]):
            j = places[i]
            if given[i] != 0 and position[j] < 0 and weight[j] > 0 and (given[i] > 0 or not positive):
                position[j] = count
                members[count] = j
                code[count] = given[i]
                applied[count] = 0
                count += 1
        fresh, precision, turn, spent, best, stalls = count > 0, tolerance, 0, 0.0, np.inf, 0
        while True:
            moved = 0
            for i in range(count):
                if code[i] != applied[i]:
                    change[moved] = code[i] - applied[i]
                    changed[moved] = members[i]
                    applied[i] = code[i]
                    moved += 1
            _add_rows(gram, changed, change, moved, correlation)
            spent += 2.0 * moved * m
            largest = _largest(correlation, weight, not positive, lanes)
            objective[row], distance = _certificate(
                start[row], correlation, energy[row], members, code, count, penalty[row], float(largest)
            )
            gap[row] = max(0.0, distance) / unit
            turn += 1
            if gap[row] <= tolerance or turn > limit:
                break
            before = count
            wanted = max(least, count)
            count = _admit(
                correlation, weight, bound, largest, positive, position, members, code, count, wanted, lanes, keys,
                places_found,
            )  # fmt: skip
            if count == before and not fresh:
                # Nothing to add: solve more precisely, until rounding (or a penalty of 0) keeps the gap open.
                precision *= 0.1
                stalls = stalls + 1 if gap[row] > 0.9 * best else 0
                if stalls == 3:
                    break
            best = min(best, gap[row])
            fresh = False
            for i in range(before, count):
                applied[i] = 0
            if count > room:
                room = min(m, max(2 * room, count))
                inner = np.empty((room, room), start.dtype)
                known = 0
            for i in range(count):
                line = gram[members[i]]
                for j in range(known if i < known else 0, count):
                    inner[i, j] = line[members[j]]
                slope[i] = correlation[members[i]]
            known = count
            for _ in range(limit):
                fall = _sweep(inner, slope, code, count, bound, positive)
                spent += 2.0 * count * count
                if fall <= precision * precision * unit or fall == 0:
                    break
        rounds[row] = turn
        cost[row] = spent
        kept = 0
        for i in range(count):
            position[members[i]] = -1
            if code[i] != 0:
                values[row, kept] = code[i]
                indices[row, kept] = members[i]
                kept += 1
        counts[row] = kept


@compiled()
def gather_ragged(
    values: np.ndarray, indices: np.ndarray, pointers: np.ndarray, flat_values: np.ndarray, flat_indices: np.ndarray
) -> None:
    """Copy the first pointers[i + 1] - pointers[i] codes of each row to flat arrays, in rising order of index."""
    for row in range(len(pointers) - 1):
        start, count = pointers[row], pointers[row + 1] - pointers[row]
        order = np.argsort(indices[row, :count])
        for i in range(count):
            flat_values[start + i] = values[row, order[i]]
            flat_indices[start + i] = indices[row, order[i]]
