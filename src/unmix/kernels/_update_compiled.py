"""Compiled statistics of sparse codes, and the inner loop of the dictionary update."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled
from unmix.kernels._step_compiled import _dot


@compiled(fastmath={"contract"})
def statistics(
    part: int,
    parts: int,
    pointers: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    rows: np.ndarray,
    codes: np.ndarray,
    x: np.ndarray,
    bounds: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
) -> None:
    """a [m, m] = Z' Z and b [m, d] = Z' X from the codes by row (pointers, indices, values) and by latent."""
    for latent in range(bounds[part], bounds[part + 1]):
        line, target = a[latent], b[latent]
        for place in range(starts[latent], starts[latent + 1]):
            row, code = rows[place], codes[place]
            for i in range(pointers[row], pointers[row + 1]):
                line[indices[i]] += code * values[i]
            source = x[row]
            for i in range(len(target)):
                target[i] += code * source[i]


@compiled(fastmath={"contract"})
def update_block(
    atoms: np.ndarray,
    rest: np.ndarray,
    a: np.ndarray,
    first: int,
    last: int,
    positive: bool,
    sphere: bool,
    idle: np.ndarray,
) -> None:
    """Block coordinate descent of atoms first..last - 1 in place, from rest [last - first, d] = (B - A D) of them."""
    d = atoms.shape[1]
    change = np.empty(d, atoms.dtype)
    for j in range(first, last):
        if idle[j]:
            continue
        size = a[j, j]
        atom, pull = atoms[j], rest[j - first]
        for i in range(d):
            new = atom[i] + pull[i] / size
            change[i] = max(new, new * 0) if positive else new
        norm = math.sqrt(_dot(change, change))
        if norm == 0 and sphere:
            continue
        scale = 1 / norm if sphere or norm > 1 else norm * 0 + 1
        for i in range(d):
            new = change[i] * scale
            change[i] = new - atom[i]
            atom[i] = new
        for other in range(j + 1, last):
            share = a[other, j]
            if share != 0:
                line = rest[other - first]
                for i in range(d):
                    line[i] -= share * change[i]
