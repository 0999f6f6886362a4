"""Two-layer networks of piecewise linear units, neuron by neuron: f(x) = sum_k a_k s(w_k.x).

s(z) = max(z, slope z)."""

from __future__ import annotations

from typing import Any

import numpy as np

from unmix.regimes.exact.neuron import Array, Rates


def slopes(w: Any, x: Any, slope: float = 0.0) -> Array:
    """s'(w_k.x_i) [h, n]: 1 where the unit is on, `slope` where it is off; w [h, d], x [n, d]."""
    return np.where(np.asarray(w) @ np.asarray(x).T > 0, 1.0, slope)


def two_layer_kernel(a: Any, w: Any, x: Any, rates: Rates = (1.0, 1.0), slope: float = 0.0) -> Array:
    """K_ij = sum_k c_ki c_kj x_i^T (eta_w a_k^2 I + eta_a w_k w_k^T) x_j [n, n]; a [h], w [h, d], x [n, d]."""
    a, w, x = (np.asarray(v, float) for v in (a, w, x))
    c = slopes(w, x, slope)
    on = (w @ x.T) * c
    return rates[1] * (x @ x.T) * (c.T @ (a[:, None] ** 2 * c)) + rates[0] * on.T @ on


def flow_rates(a: Any, w: Any, x: Any, y: Any, rates: Rates = (1.0, 1.0), slope: float = 0.0) -> tuple[Array, Array]:
    """a' [h] and w' [h, d] of gradient flow on 1/2 |f(x) - y|^2; x [n, d], y [n]."""
    a, w, x, y = (np.asarray(v, float) for v in (a, w, x, y))
    c = slopes(w, x, slope)
    left = ((a[:, None] * (w @ x.T) * c).sum(0) - y) * c
    return -rates[0] * ((w @ x.T) * left).sum(1), -rates[1] * a[:, None] * (left @ x)


def spherical_rates(
    a: Any, w: Any, x: Any, y: Any, rates: Rates = (1.0, 1.0), slope: float = 0.0
) -> tuple[Array, Array]:
    """mu' [h] and (w/|w|)' [h, d] in signed spherical coordinates, mu = a |w|, xi_k = sum_i c_ki x_i (f_i - y_i):

    mu' = -kappa bhat.xi,  bhat' = -(kappa + delta) / (2 mu) (I - bhat bhat^T) xi.
    Upstream, the direction moves at rate delta / mu: fast for small mu. Source: arXiv 2406.06158, section 5.
    """
    a, w, x, y = (np.asarray(v, float) for v in (a, w, x, y))
    c = slopes(w, x, slope)
    xi = (((a[:, None] * (w @ x.T) * c).sum(0) - y) * c) @ x
    size = np.linalg.norm(w, axis=1)
    kappa, delta = rates[1] * a**2 + rates[0] * size**2, rates[1] * a**2 - rates[0] * size**2
    bhat = w / size[:, None]
    along = (bhat * xi).sum(1)
    turn = (kappa + delta) / (2 * a * size)
    return -kappa * along, -turn[:, None] * (xi - along[:, None] * bhat)
