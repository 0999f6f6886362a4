"""Compiled insertion into sorted lists of the largest codes."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def insert(found: np.ndarray, latents: np.ndarray, rows: np.ndarray, values: np.ndarray, places: np.ndarray) -> None:
    """Insert codes into values and places [width, size]: falling value, then rising row."""
    last = values.shape[1] - 1
    for i in range(len(found)):
        value, row = found[i], rows[i]
        top, where = values[latents[i]], places[latents[i]]
        if value < top[last] or (value == top[last] and 0 <= where[last] < row):
            continue
        slot = last
        while slot > 0 and (value > top[slot - 1] or (value == top[slot - 1] and row < where[slot - 1])):
            top[slot], where[slot] = top[slot - 1], where[slot - 1]
            slot -= 1
        top[slot], where[slot] = value, row
