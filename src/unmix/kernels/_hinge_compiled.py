"""Compiled squared-hinge line: every step costs two searches in prefix sums."""

from __future__ import annotations

import numpy as np

from unmix.kernels._compiled import compiled


@compiled()
def line(x: np.ndarray, positive: np.ndarray, inside: float, outside: float) -> tuple[float, float]:
    """Slope and offset that minimise the squared hinge loss on sorted x [n]; positive [n] of bool."""
    n = len(x)
    # Prefix sums of 1, x and x^2 over the rows of the class (0) and the others (1).
    sums = np.zeros((2, n + 1, 3))
    for i in range(n):
        for side in range(2):
            for p in range(3):
                sums[side, i + 1, p] = sums[side, i, p]
        side = 0 if positive[i] else 1
        sums[side, i + 1, 0] += 1
        sums[side, i + 1, 1] += x[i]
        sums[side, i + 1, 2] += x[i] * x[i]
    w, b = 0.0, 0.0
    facts, trial = np.empty(6), np.empty(6)
    _evaluate(x, sums, w, b, inside, outside, facts)
    for _ in range(200):
        loss, g_w, g_b, h_ww, h_wb, h_bb = facts
        determinant = h_ww * h_bb - h_wb * h_wb
        step_w = (h_bb * g_w - h_wb * g_b) / determinant
        step_b = (h_ww * g_b - h_wb * g_w) / determinant
        decrease = g_w * step_w + g_b * step_b
        if decrease < 1e-18:
            break
        length = 1.0
        while True:
            _evaluate(x, sums, w - length * step_w, b - length * step_b, inside, outside, trial)
            if trial[0] <= loss - 1e-4 * length * decrease or length < 1e-10:
                break
            length /= 2
        w, b = w - length * step_w, b - length * step_b
        facts, trial = trial, facts
    return w, b


@compiled()
def _evaluate(
    x: np.ndarray, sums: np.ndarray, w: float, b: float, inside: float, outside: float, out: np.ndarray
) -> None:
    """Loss, gradient and curvature at the line (w, b)."""
    n = len(x)
    out[0], out[1], out[2] = (w * w + b * b) / 2, w, b
    out[3], out[4], out[5] = 1.0, 0.0, 1.0
    for side in range(2):
        sign, cost = (1.0, inside) if side == 0 else (-1.0, outside)
        # Active rows have sign (w x + b) < 1.
        slope, offset = sign * w, sign * b
        low, high = 0, n
        if slope > 0:
            high = int(np.searchsorted(x, (1 - offset) / slope, side="left"))
        elif slope < 0:
            low = int(np.searchsorted(x, (1 - offset) / slope, side="right"))
        elif offset >= 1:
            high = 0
        count = sums[side, high, 0] - sums[side, low, 0]
        first = sums[side, high, 1] - sums[side, low, 1]
        second = sums[side, high, 2] - sums[side, low, 2]
        gap = 1 - offset
        out[0] += cost * (count * gap * gap - 2 * gap * slope * first + slope * slope * second)
        out[1] -= 2 * cost * sign * (gap * first - slope * second)
        out[2] -= 2 * cost * sign * (gap * count - slope * first)
        out[3] += 2 * cost * second
        out[4] += 2 * cost * first
        out[5] += 2 * cost * count
