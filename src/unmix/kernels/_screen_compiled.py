"""Compiled loops that pick pre-activations above a level out of blocks of columns, and put them together by rows."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled
from unmix.kernels._topk_compiled import pick

GROUP = 8  # columns of which one maximum is taken; they lie a stride apart, so that maxima need no shuffles


@compiled(fastmath={"nnan", "nsz"})
def _group_maxima(row: np.ndarray, shift: np.ndarray, maxima: np.ndarray) -> None:
    """maxima[g] = the largest of row + shift over the columns g, g + stride, ... (GROUP of them)."""
    s = len(maxima)
    r0, r1, r2, r3 = row[:s], row[s : 2 * s], row[2 * s : 3 * s], row[3 * s : 4 * s]
    r4, r5, r6, r7 = row[4 * s : 5 * s], row[5 * s : 6 * s], row[6 * s : 7 * s], row[7 * s : 8 * s]
    s0, s1, s2, s3 = shift[:s], shift[s : 2 * s], shift[2 * s : 3 * s], shift[3 * s : 4 * s]
    s4, s5, s6, s7 = shift[4 * s : 5 * s], shift[5 * s : 6 * s], shift[6 * s : 7 * s], shift[7 * s : 8 * s]
    for g in range(s):
        low = max(max(r0[g] + s0[g], r1[g] + s1[g]), max(r2[g] + s2[g], r3[g] + s3[g]))
        high = max(max(r4[g] + s4[g], r5[g] + s5[g]), max(r6[g] + s6[g], r7[g] + s7[g]))
        maxima[g] = max(low, high)


@compiled()
def collect(
    block: np.ndarray,
    first: int,
    bias: np.ndarray,
    shift: np.ndarray,
    level: np.ndarray,
    pointers: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
) -> int:
    """The entries of block [n, width] with entry + shift > level of their row, and their values, entry + bias.

    first: number of the block's first column. pointers [n + 1] of the rows, columns and values are filled. Returns
    how many there are, or -1 where there is no room for all.
    """
    n, width = block.shape
    stride = width // GROUP
    maxima = np.empty(stride, block.dtype)
    hits = np.empty(stride + 1, np.int64)
    used = 0
    pointers[0] = 0
    for row in range(n):
        if used + width >= len(columns):
            return -1
        given, floor, count = block[row], level[row], 0
        _group_maxima(given, shift, maxima)
        # Written always and counted when wanted: a branch here would be guessed wrong as often as right.
        for g in range(stride):
            hits[count] = g
            count += maxima[g] > floor
        for step in range(GROUP):
            for place in range(count):
                column = step * stride + hits[place]
                columns[used] = first + column
                values[used] = given[column] + bias[column]
                used += given[column] + shift[column] > floor
        for column in range(GROUP * stride, width):
            columns[used] = first + column
            values[used] = given[column] + bias[column]
            used += given[column] + shift[column] > floor
        pointers[row + 1] = used
    return used


@compiled()
def copy_columns(
    block: np.ndarray, first: int, columns: np.ndarray, left: int, bias: np.ndarray, out: np.ndarray
) -> None:
    """out[:, left + i] = entry + bias of columns[i], of which the block begins at `first`."""
    for row in range(len(block)):
        for place in range(len(columns)):
            column = columns[place]
            out[row, left + place] = block[row, column - first] + bias[column]


@compiled()
def _row(
    pointers: np.ndarray,
    row: int,
    columns: np.ndarray,
    values: np.ndarray,
    kept_columns: np.ndarray,
    kept: np.ndarray,
) -> int:
    """Copy the segments of a row; returns their length."""
    found = 0
    for part in range(len(pointers)):
        for slot in range(pointers[part, row], pointers[part, row + 1]):
            kept_columns[found] = columns[slot]
            kept[found] = values[slot]
            found += 1
    return found


@compiled()
def _longest(pointers: np.ndarray, low: int, high: int) -> int:
    longest = 1
    for row in range(low, high):
        found = 0
        for part in range(len(pointers)):
            found += pointers[part, row + 1] - pointers[part, row]
        longest = max(longest, found)
    return longest


@compiled()
def largest_of_rows(
    part: int,
    parts: int,
    pointers: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    k: int,
    out_values: np.ndarray,
    out_indices: np.ndarray,
    least: np.ndarray,
) -> None:
    """The k largest of each row; least [n] becomes the k-th largest, or -1 where there are fewer than k."""
    n = len(least)
    low, high = part * n // parts, (part + 1) * n // parts
    longest = _longest(pointers, low, high)
    kept_columns, kept = np.empty(longest, columns.dtype), np.empty(longest, values.dtype)
    work = np.empty(longest, values.dtype)
    for row in range(low, high):
        found = _row(pointers, row, columns, values, kept_columns, kept)
        if found < k:
            least[row] = -1
        else:
            least[row] = pick(kept_columns, kept, found, k, work, out_values[row], out_indices[row])


@compiled()
def count_rows(
    part: int,
    parts: int,
    pointers: np.ndarray,
    values: np.ndarray,
    least: float,
    above: np.ndarray,
    equal: np.ndarray,
) -> None:
    """Number of each row's values that are above `least` and that are equal to it."""
    n = len(above)
    for row in range(part * n // parts, (part + 1) * n // parts):
        over = same = 0
        for block in range(len(pointers)):
            for slot in range(pointers[block, row], pointers[block, row + 1]):
                over += values[slot] > least
                same += values[slot] == least
        above[row], equal[row] = over, same


@compiled()
def gather_rows(
    part: int,
    parts: int,
    pointers: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    least: float,
    allowed: np.ndarray,
    starts: np.ndarray,
    out_columns: np.ndarray,
    out_values: np.ndarray,
) -> None:
    """Each row's values above `least` and the first allowed[row] of those equal to it, from starts[row] on."""
    n = len(allowed)
    for row in range(part * n // parts, (part + 1) * n // parts):
        used, equal = starts[row], allowed[row]
        for block in range(len(pointers)):
            for slot in range(pointers[block, row], pointers[block, row + 1]):
                value = values[slot]
                if value > least or (value == least and equal > 0):
                    equal -= value == least
                    out_columns[used] = columns[slot]
                    out_values[used] = value
                    used += 1
