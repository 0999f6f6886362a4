"""Compiled selection of the k largest codes from rows of pre-activations."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled

GROUP = 16  # columns of which one maximum is taken; they lie a stride apart, so that maxima need no shuffles


@compiled(fastmath={"nnan", "nsz"})
def _group_maxima(row: np.ndarray, bias: np.ndarray, maxima: np.ndarray) -> None:
    """maxima[g] = the largest of row + bias over the columns g, g + stride, ... (GROUP of them)."""
    stride = len(maxima)
    for g in range(stride):
        maxima[g] = row[g] + bias[g]
    for step in range(1, GROUP - 2, 3):
        a, b, c = step * stride, (step + 1) * stride, (step + 2) * stride
        r0, r1, r2 = row[a : a + stride], row[b : b + stride], row[c : c + stride]
        b0, b1, b2 = bias[a : a + stride], bias[b : b + stride], bias[c : c + stride]
        for g in range(stride):
            maxima[g] = max(max(maxima[g], r0[g] + b0[g]), max(r1[g] + b1[g], r2[g] + b2[g]))


@compiled()
def _kth_largest(work: np.ndarray, count: int, k: int) -> float:
    """The k-th largest of work[:count] (1 <= k <= count); reorders work."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        middle = (low + high) >> 1
        a, b, c = work[low], work[middle], work[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while work[i] > pivot:
                i += 1
            while work[j] < pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return work[target]


@compiled()
def kth_largest(values: np.ndarray, k: int) -> float:
    """The k-th largest of values (1 <= k <= len(values))."""
    return _kth_largest(values.copy(), len(values), k)


@compiled()
def pick(
    columns: np.ndarray,
    kept: np.ndarray,
    found: int,
    k: int,
    work: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
) -> float:
    """The k largest of kept[:found], found >= k, in the order given, ties to the first; returns the k-th largest."""
    for place in range(found):
        work[place] = kept[place]
    least = _kth_largest(work, found, k)
    equal = k
    for place in range(found):
        equal -= kept[place] > least
    slot = 0
    for place in range(found):
        value = kept[place]
        if value > least or (value == least and equal > 0):
            equal -= value == least
            values[slot] = value
            indices[slot] = columns[place]
            slot += 1
    return least


@compiled()
def _lower_bound(maxima: np.ndarray, k: int, work: np.ndarray) -> float:
    """The k-th largest of the maxima: k groups reach it, so k values do."""
    for place in range(len(maxima)):
        work[place] = maxima[place]
    return _kth_largest(work, len(maxima), k)


@compiled()
def _collect(
    row: np.ndarray,
    bias: np.ndarray,
    maxima: np.ndarray,
    floor: float,
    hits: np.ndarray,
    candidates: np.ndarray,
    kept: np.ndarray,
) -> int:
    """Columns and values of row + bias that are positive and at least `floor`, in rising order of column."""
    stride, count, found = len(maxima), 0, 0
    # Written always and counted when wanted: a branch here would be guessed wrong as often as right.
    for g in range(stride):
        hits[count] = g
        count += maxima[g] >= floor
    for step in range(GROUP):
        start = step * stride
        for place in range(count):
            column = start + hits[place]
            value = row[column] + bias[column]
            candidates[found] = column
            kept[found] = value
            found += (value > 0) & (value >= floor)
    for column in range(GROUP * stride, len(row)):
        value = row[column] + bias[column]
        candidates[found] = column
        kept[found] = value
        found += (value > 0) & (value >= floor)
    return found


@compiled()
def _select(
    row: np.ndarray,
    bias: np.ndarray,
    k: int,
    guess: np.ndarray,
    maxima: np.ndarray,
    hits: np.ndarray,
    work: np.ndarray,
    kept: np.ndarray,
    candidates: np.ndarray,
    values: np.ndarray,
    indices: np.ndarray,
) -> None:
    """Top k of relu(row + bias): values and column numbers in rising order of column, ties to the lowest column.

    guess [1] is a floor for the k-th largest that need not hold: where fewer than k values reach it, a safe one is
    found. It is moved for the next row; 0 is no guess.
    """
    if np.isnan(row[0] + bias[0]):
        for slot in range(k):
            values[slot] = np.nan
            indices[slot] = slot
        return
    zero = row[0] * 0
    _group_maxima(row, bias, maxima)
    found = 0
    if guess[0] > 0:
        found = _collect(row, bias, maxima, guess[0], hits, candidates, kept)
        guess[0] *= 0.93 if found < k else 1.01 if found > 2 * k else 1.0
    if found < k:
        floor = zero
        if len(maxima) >= 2 * k:
            floor = max(floor, _lower_bound(maxima, k, work))
        found = _collect(row, bias, maxima, floor, hits, candidates, kept)
        if guess[0] == 0:
            guess[0] = 0.8 * floor
    if found > k:
        pick(candidates, kept, found, k, work, values, indices)
        return
    # Fewer than k are positive: the lowest columns that are not fill the other slots with zeros.
    spare = k - found
    place = slot = column = 0
    while slot < k:
        if place < found and candidates[place] == column:
            values[slot] = kept[place]
            indices[slot] = column
            slot += 1
            place += 1
        elif spare > 0:
            values[slot] = zero
            indices[slot] = column
            slot += 1
            spare -= 1
        elif place < found:
            column = candidates[place]
            continue
        column += 1


@compiled()
def select_rows(
    part: int, parts: int, block: np.ndarray, bias: np.ndarray, k: int, values: np.ndarray, indices: np.ndarray
) -> None:
    """Top k of relu(block + bias) of each row: block [n, m], bias [m], values and indices [n, k] are filled."""
    n, width = block.shape
    maxima = np.empty(width // GROUP, block.dtype)
    hits = np.empty(width // GROUP + 1, np.int64)
    work = np.empty(width, block.dtype)
    kept = np.empty(width + 1, block.dtype)
    candidates = np.empty(width + 1, np.int64)
    guess = np.zeros(1, block.dtype)
    for row in range(part * n // parts, (part + 1) * n // parts):
        given = block[row], bias, k, guess, maxima, hits, work, kept, candidates, values[row], indices[row]
        _select(*given)
