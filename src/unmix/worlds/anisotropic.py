"""The anisotropic von Mises-Fisher distribution: p(z | v) ~ exp(-sum_i rates_i (z_i - v_i)^2) on the sphere."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 20


def anisotropic(means: np.ndarray, rates: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """One draw around each row of `means`, exact: [n, d] float64.

    means: [n, d], unit norm. rates: [d], positive; equal rates k / 2 give von Mises-Fisher with concentration k.
    A = diag(rates) - w w' / q with w = rates * v, q = <v, w> is positive semi-definite with A v = 0, and
    -sum_i rates_i (z_i - v_i)^2 = -z'A z - (<w, z> - q)^2 / q, so that the distribution is drawn by rejection from
    the Bingham distribution exp(-z'A z), and that one from an angular central Gaussian (Kent, Ganeiban, Mardia 2018).
    The Gaussian's covariance is diagonal plus one direction: no row needs a factorisation.
    """
    n, d = means.shape
    b = _tuning(rates)
    scale = 1 / np.sqrt(1 + 2 * rates / b)
    peak = -(d - b) / 2 + d / 2 * np.log(d / b)
    z = np.empty((n, d))
    todo = np.arange(n)
    while len(todo):
        v = means[todo]
        w = v * rates
        q = np.einsum("ij,ij->i", v, w)
        along = np.sqrt(2 / b / ((v * v) @ (rates * b / (b + 2 * rates))))
        y = draw.standard_normal((len(todo), d)) * scale
        y += (along * draw.standard_normal(len(todo)))[:, None] * (w * scale**2)
        y /= np.sqrt(np.einsum("ij,ij->i", y, y))[:, None]
        s = np.einsum("ij,ij->i", y, w)
        bent = np.maximum((y * y) @ rates - s * s / q, 0)  # y'A y
        log = -bent + d / 2 * np.log1p(2 * bent / b) - peak - (s - q) ** 2 / q
        kept = log > -draw.standard_exponential(len(todo))
        z[todo[kept]] = y[kept]
        todo = todo[~kept]
    return z


def log_normaliser(means: np.ndarray, rates: np.ndarray, nodes: int = 400) -> np.ndarray:
    """log of the integral of exp(-sum_i rates_i (z_i - v_i)^2) over the sphere for each row v of `means`: [n].

    It is 2 Pi^{d/2} / prod_i sqrt(rates_i) times the density at 1 of |x|^2 for x_i ~ N(v_i, 1 / (2 rates_i)), whose
    transform inverts along a parabola through the saddle point, where the trapezoid rule converges exponentially
    (Kume, Wood 2005 use the saddle point alone).
    """
    squares, d = means * means, means.shape[1]
    saddle = _saddle(squares, rates)
    ratio = 1 / (rates - saddle[:, None])  # 1 / (rates_i - s)
    noncentral = squares * rates**2
    second = (0.5 * ratio**2 + 2 * noncentral * ratio**3).sum(1)
    third = (ratio**3 + 6 * noncentral * ratio**4).sum(1)
    bend = third / (6 * second)  # of the path of steepest descent at the saddle
    reach = np.minimum(np.sqrt(80 / second) + 10 / np.sqrt(d), np.sqrt(45 / bend) + 6 / np.sqrt(second))
    out = np.empty(len(means))
    step = max(1, BLOCK // (nodes * d))
    for start in range(0, len(means), step):
        rows = slice(start, start + step)
        tau = np.linspace(-1, 1, 2 * nodes + 1) * reach[rows, None]
        s = saddle[rows, None] + 1j * tau + bend[rows, None] * tau**2
        log = -s.copy()
        for j in range(d):
            left = 1 - s / rates[j]
            log += -0.5 * np.log(left) + s * squares[rows, j, None] / left
        top = log.real.max(1, keepdims=True)
        velocity = 1j + 2 * bend[rows, None] * tau
        total = (np.exp(log - top) * velocity).sum(1).imag * reach[rows] / nodes
        out[rows] = np.log(total / (2 * np.pi)) + top[:, 0]
    return out + np.log(2) + d / 2 * np.log(np.pi) - 0.5 * np.log(rates).sum()


def _saddle(squares: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """s < min(rates) with K'(s) = 1, K the cumulant generating function of |x|^2; K' rises: bisection, [n]."""
    n, d = squares.shape
    low, high = np.full(n, rates.min() - d * 10.0 * rates.max() - 10 * d), np.full(n, rates.min())
    for _ in range(200):
        middle = (low + high) / 2
        ratio = 1 / np.maximum(rates - middle[:, None], 1e-300)
        slope = (0.5 * ratio + squares * (rates * ratio) ** 2).sum(1)
        low, high = np.where(slope < 1, middle, low), np.where(slope < 1, high, middle)
    return low


def _tuning(rates: np.ndarray) -> float:
    """b with sum_i 1 / (b + 2 a_i) = 1, the eigenvalues a of A replaced by 0 and all but the largest rate."""
    values = np.r_[0.0, np.sort(rates)[:-1]]
    low, high = 1.0, float(len(rates))
    for _ in range(100):
        b = (low + high) / 2
        low, high = (b, high) if (1 / (b + 2 * values)).sum() > 1 else (low, b)
    return (low + high) / 2
