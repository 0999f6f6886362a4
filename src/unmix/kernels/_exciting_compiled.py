"""Compiled comparison of rows with the least of the best so far, and insertion where it is beaten."""

from __future__ import annotations

from unmix.kernels._compiled import compiled

GROUP = 32  # columns compared before any is looked at: nearly always none is above


@compiled(fastmath={"nnan", "nsz"})
def _beaten(row, least, sign):
    """Whether an entry of a group is above the least of its column."""
    most = sign * row[0] - least[0]
    for j in range(1, GROUP):
        most = max(most, sign * row[j] - least[j])
    return most > 0


@compiled()
def _insert(value, number, top, where):
    """Insert into a falling list, behind equal values; returns the new last value."""
    slot = len(top) - 1
    while slot > 0 and value > top[slot - 1]:
        top[slot], where[slot] = top[slot - 1], where[slot - 1]
        slot -= 1
    top[slot], where[slot] = value, number
    return top[-1]


@compiled()
def insert_rows(part, parts, block, numbers, sign, values, rows, least):
    """Insert a block [n, width] into values and rows [width, size]; least [width] holds each column's last value."""
    n, width = block.shape
    low, high = part * width // parts, (part + 1) * width // parts
    whole = low + (high - low) // GROUP * GROUP
    for i in range(n):
        row = block[i]
        for start in range(low, whole, GROUP):
            if _beaten(row[start : start + GROUP], least[start : start + GROUP], sign):
                for j in range(start, start + GROUP):
                    if sign * row[j] > least[j]:
                        least[j] = _insert(sign * row[j], numbers[i], values[j], rows[j])
        for j in range(whole, high):
            if sign * row[j] > least[j]:
                least[j] = _insert(sign * row[j], numbers[i], values[j], rows[j])
