"""Compiled comparison of rows with the least of the best so far, and insertion where it is beaten."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled

GROUP = 64  # columns of four rows that are compared before any is looked at: nearly always none is above


@compiled()
def _worth_a_look(
    first: np.ndarray,
    second: np.ndarray,
    third: np.ndarray,
    fourth: np.ndarray,
    least: np.ndarray,
    sign: float,
    largest: float,
) -> bool:
    """Whether an entry of four rows of a group is above the least of its column, or may not be finite."""
    found = False
    for j in range(GROUP):
        a, b, c, d = sign * first[j], sign * second[j], sign * third[j], sign * fourth[j]
        found |= not (abs((a + b) + (c + d)) <= largest)
        a = a if a > b else b
        c = c if c > d else d
        found |= (a if a > c else c) > least[j]
    return found


@compiled()
def _insert(value: float, number: int, top: np.ndarray, where: np.ndarray) -> float:
    """Insert into a falling list, behind equal values; returns the new last value."""
    slot = len(top) - 1
    while slot > 0 and value > top[slot - 1]:
        top[slot], where[slot] = top[slot - 1], where[slot - 1]
        slot -= 1
    top[slot], where[slot] = value, number
    return top[-1]


@compiled()
def _insert_row(
    row: np.ndarray,
    number: int,
    low: int,
    high: int,
    sign: float,
    largest: float,
    values: np.ndarray,
    rows: np.ndarray,
    least: np.ndarray,
) -> bool:
    """Insert some columns of a row; returns whether all are finite."""
    for j in range(low, high):
        value = sign * row[j]
        if not (abs(value) <= largest):
            return False
        if value > least[j]:
            least[j] = _insert(value, number, values[j], rows[j])
    return True


@compiled()
def insert_rows(
    part: int,
    parts: int,
    block: np.ndarray,
    numbers: np.ndarray,
    sign: float,
    largest: float,
    values: np.ndarray,
    rows: np.ndarray,
    least: np.ndarray,
    finite: np.ndarray,
) -> None:
    """Insert a block [n, width] into values and rows [width, size]; least [width] holds each column's last value.

    largest: of the finite numbers. finite: [parts], made False where an entry is not, and then the part ends there.
    """
    n, width = block.shape
    low, high = part * width // parts, (part + 1) * width // parts
    whole, tall = low + (high - low) // GROUP * GROUP, n // 4 * 4
    good = True
    for i in range(0, tall, 4):
        first, second, third, fourth = block[i], block[i + 1], block[i + 2], block[i + 3]
        for start in range(low, whole, GROUP):
            end = start + GROUP
            if _worth_a_look(
                first[start:end],
                second[start:end],
                third[start:end],
                fourth[start:end],
                least[start:end],
                sign,
                largest,
            ):
                for row in range(i, i + 4):
                    good &= _insert_row(block[row], numbers[row], start, end, sign, largest, values, rows, least)
        for row in range(i, i + 4):
            good &= _insert_row(block[row], numbers[row], whole, high, sign, largest, values, rows, least)
        if not good:
            break
    for row in range(tall, n):
        good &= _insert_row(block[row], numbers[row], low, high, sign, largest, values, rows, least)
    finite[part] = good
