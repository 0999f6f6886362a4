"""Compiled loops of JumpReLU: codes of the entries about the thresholds, and the gradient of the thresholds."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def jump_codes(columns: np.ndarray, before: np.ndarray, threshold: np.ndarray, values: np.ndarray) -> None:
    """values = before where it is above the threshold of its column, 0 elsewhere."""
    for slot in range(len(columns)):
        value = before[slot]
        values[slot] = value if value > threshold[columns[slot]] else 0


@compiled()
def jump_slopes(
    columns: np.ndarray,
    before: np.ndarray,
    slopes: np.ndarray,
    threshold: np.ndarray,
    bandwidth: float,
    scale: float,
    weight: float,
    gradient: np.ndarray,
) -> None:
    """gradient[j] -= t_j (scale slope t_j + weight) / bandwidth over the entries within bandwidth / 2 of t_j."""
    half = bandwidth / 2
    for slot in range(len(columns)):
        own = threshold[columns[slot]]
        if abs(before[slot] - own) < half:
            gradient[columns[slot]] -= (scale * slopes[slot] * own + weight) * own / bandwidth
