"""Compiled AdamW on rows of a large table."""

from __future__ import annotations

import math

import numpy as np

from unmix.kernels._compiled import compiled


@compiled(fastmath={"contract"})
def adamw(
    w: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    keep: float,
    beta1: float,
    beta2: float,
    rate: float,
    root: float,
    eps: float,
) -> None:
    """One step on matrices [c, d] in place; all numbers in the dtype of w.

    m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2, w <- keep w - rate m / (sqrt(v) / root + eps).
    """
    one = w.dtype.type(1)
    for row in range(len(w)):
        weights, slope, first, second = w[row], g[row], m[row], v[row]
        for i in range(len(weights)):
            a = beta1 * first[i] + (one - beta1) * slope[i]
            b = beta2 * second[i] + (one - beta2) * slope[i] * slope[i]
            first[i] = a
            second[i] = b
            weights[i] = keep * weights[i] - rate * a / (math.sqrt(b) / root + eps)


@compiled(fastmath={"contract"})
def replay(
    part: int,
    parts: int,
    w: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    keeps: np.ndarray,
    rates: np.ndarray,
    roots: np.ndarray,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """The steps begins[row] .. ends[row] - 1 of AdamW without gradient on rows [n, d], in place.

    keeps, rates, roots: [steps] factors of every step, as in `adamw`.
    """
    for row in range(part * len(w) // parts, (part + 1) * len(w) // parts):
        weights, first, second = w[row], m[row], v[row]
        for step in range(begins[row], ends[row]):
            keep, rate, root = keeps[step], rates[step], roots[step]
            for i in range(len(weights)):
                a = beta1 * first[i]
                b = beta2 * second[i]
                first[i] = a
                second[i] = b
                weights[i] = keep * weights[i] - rate * a / (math.sqrt(b) / root + eps)
