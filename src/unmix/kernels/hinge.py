"""Linear classifiers of one number: the exact squared-hinge machine by Newton steps on prefix sums."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from unmix.core.errors import UsageError

Backend = Literal["auto", "plain", "numba"]


def hinge_lines(x: Any, y: Any, classes: int, penalty: float = 0.01, backend: Backend = "auto") -> np.ndarray:
    """One-against-rest lines [classes, 2] (slope, offset) of the squared-hinge machine on one number.

    min 1/2 (w^2 + b^2) + sum_i C_i max(0, 1 - s_i (w x_i + b))^2 for each class, s_i = 1 in it and -1 elsewhere,
    C_i = penalty n / (classes n_c) in class c and penalty elsewhere (both balanced, and one line, for two classes):
    what scikit-learn's LinearSVC(C=penalty, class_weight="balanced") minimises. Two classes give opposite lines.
    x: [n] numbers. y: [n] classes 0..classes-1, each with a row. Raises `UsageError` otherwise.
    """
    if backend not in ("auto", "plain", "numba"):
        raise UsageError(f"backend: {backend!r} is not one of 'auto', 'plain', 'numba'")
    x, y = np.ascontiguousarray(x, dtype=np.float64), np.ascontiguousarray(y, dtype=np.int64)
    counts = np.bincount(y, minlength=classes)
    if x.ndim != 1 or x.shape != y.shape or classes < 2 or len(counts) > classes or not counts.all():
        raise UsageError(f"hinge_lines: x {x.shape}, y {y.shape}: each of {classes} classes (at least 2) needs a row")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    weight = penalty * len(x) / (classes * counts)
    lines = np.zeros((classes, 2))
    for c in range(classes):
        if classes == 2 and c == 0:
            continue
        rest = weight[0] if classes == 2 else penalty
        if backend == "plain":
            lines[c] = _plain(x, y == c, weight[c], rest)
        else:
            from unmix.kernels._hinge_compiled import line

            lines[c] = line(x, y == c, weight[c], rest)
    if classes == 2:
        lines[0] = -lines[1]
    return lines


def _plain(x: np.ndarray, positive: np.ndarray, inside: float, outside: float) -> np.ndarray:
    """The same minimum by Newton steps with halving over all rows."""
    sign = np.where(positive, 1.0, -1.0)
    cost = np.where(positive, inside, outside)
    design = np.stack([x, np.ones_like(x)], 1)
    at = np.zeros(2)

    def loss(line: np.ndarray) -> float:
        return float(line @ line / 2 + (cost * np.maximum(0, 1 - sign * (design @ line)) ** 2).sum())

    for _ in range(200):
        slack = 1 - sign * (design @ at)
        active = slack > 0
        gradient = at - 2 * design.T @ (cost * sign * np.where(active, slack, 0))
        curvature = np.eye(2) + 2 * (design * (cost * active)[:, None]).T @ design
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < 1e-18:
            break
        length, now = 1.0, loss(at)
        while length > 1e-10 and loss(at - length * step) > now - 1e-4 * length * (gradient @ step):
            length /= 2
        at = at - length * step
    return at
