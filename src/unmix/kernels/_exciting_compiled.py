"""Compiled comparison of rows with the least of the best so far, and insertion where it is beaten."""

from __future__ import annotations

from unmix.kernels._compiled import compiled

GROUP = 64  # columns of four rows that are compared before any is looked at: nearly always none is above


@compiled()
def _beaten(first, second, third, fourth, least, sign):
    """Whether an entry of four rows of a group is above the least of its column."""
    found = False
    for j in range(GROUP):
        a, b, c, d = sign * first[j], sign * second[j], sign * third[j], sign * fourth[j]
        a = a if a > b else b
        c = c if c > d else d
        found |= (a if a > c else c) > least[j]
    return found


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
def _insert_row(row, number, low, high, sign, values, rows, least):
    for j in range(low, high):
        if sign * row[j] > least[j]:
            least[j] = _insert(sign * row[j], number, values[j], rows[j])


@compiled()
def insert_rows(part, parts, block, numbers, sign, values, rows, least):
    """Insert a block [n, width] into values and rows [width, size]; least [width] holds each column's last value."""
    n, width = block.shape
    low, high = part * width // parts, (part + 1) * width // parts
    whole, tall = low + (high - low) // GROUP * GROUP, n // 4 * 4
    for i in range(0, tall, 4):
        first, second, third, fourth = block[i], block[i + 1], block[i + 2], block[i + 3]
        for start in range(low, whole, GROUP):
            end = start + GROUP
            if _beaten(
                first[start:end], second[start:end], third[start:end], fourth[start:end], least[start:end], sign
            ):
                for row in range(i, i + 4):
                    _insert_row(block[row], numbers[row], start, end, sign, values, rows, least)
        for row in range(i, i + 4):
            _insert_row(block[row], numbers[row], whole, high, sign, values, rows, least)
    for row in range(tall, n):
        _insert_row(block[row], numbers[row], low, high, sign, values, rows, least)
