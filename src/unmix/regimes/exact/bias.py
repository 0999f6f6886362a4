"""Where gradient flow ends among all that fit: the implicit bias of one neuron and of deep balanced networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError
from unmix.regimes.exact.neuron import Array, Rates, balance, basin


def endpoint(a0: float, w0: Any, x: Any, y: Any, rates: Rates = (1.0, 1.0)) -> Array:
    """beta(inf) [d] of the one-neuron model on data x [n, d], y [n] of any rank, for every balance and layer rate.

    w moves only in the row space of x, so that its part w_null stays; the rest is a neuron with balance
    delta' = delta + eta_a |w_null|^2 that ends at beta_min = X^+ y:
    beta = beta_min + a w_null, a^2 = [delta' + sqrt(delta'^2 + 4 eta_a eta_w |beta_min|^2)] / (2 eta_w).
    The sign of a is that of a0 for delta' >= 0; else it is the basin's, in closed form for whitened rows, otherwise
    found by integrating the flow until its loss is below that of a = 0, which it can never cross again.
    Raises `UsageError` for shapes that do not fit, `Failure` where the flow runs into the saddle.
    Source: Kunin et al. 2024, arXiv 2406.06158, theorem 3.1 (stated for a null space of one dimension).
    """
    w0, x, y = np.asarray(w0, float), np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or w0.shape != x.shape[1:]:
        raise UsageError(f"endpoint: w0 {w0.shape}, x {x.shape}, y {y.shape}: expected [d], [n, d] and [n]")
    eta_a, eta_w = rates
    rows, values = _row_space(x)
    along = rows.T @ w0
    null = w0 - rows @ along
    least = rows @ (rows.T @ (np.linalg.pinv(x) @ y))
    inner = float(balance(a0, along, rates))
    root = np.sqrt(inner**2 + 4 * eta_a * eta_w * least @ least)
    size = (inner + root) / (2 * eta_w) if inner >= 0 else 2 * eta_a * (least @ least) / (root - inner or np.inf)
    sign = _final_sign(float(a0), along, rows.T @ (x.T @ y), values, inner, rates)
    return least + sign * np.sqrt(size) * null


def potential(beta: Any, beta0: Any, delta: float) -> Array:
    """The function [...] of beta [..., d] that `endpoint` minimises among all that fit, for unit rates.

    Psi_delta(beta) - psi beta0.beta / |beta0|, Psi = 1/3 (k - 2 delta) sqrt(k + delta),
    k = sqrt(delta^2 + 4|beta|^2), psi = sqrt(k0 - delta). Source: arXiv 2406.06158, theorem 3.1.
    """
    beta, beta0 = np.asarray(beta, float), np.asarray(beta0, float)
    kappa = np.sqrt(delta**2 + 4 * np.square(beta).sum(-1))
    start = np.sqrt(np.sqrt(delta**2 + 4 * beta0 @ beta0) - delta)
    return (kappa - 2 * delta) * np.sqrt(kappa + delta) / 3 - start * (beta @ beta0) / np.linalg.norm(beta0)


def potential_gradient(beta: Any, beta0: Any, delta: float) -> Array:
    """Gradient [d] of `potential`: sqrt(kappa - delta) beta / |beta| less the same at beta0, for unit rates."""

    def part(v: Array) -> Array:
        kappa = np.sqrt(delta**2 + 4 * v @ v)
        return np.sqrt(kappa - delta) * v / np.linalg.norm(v)

    return part(np.asarray(beta, float)) - part(np.asarray(beta0, float))


def deep_gradient(beta: Any, beta0: Any, hidden: int) -> Array:
    """Gradient [d] of the deep potential with L hidden layers: |beta|^(-L/(L+1)) beta less the same at beta0.

    Q = (L+1)/(L+2) |beta|^((L+2)/(L+1)) - |beta0|^(-L/(L+1)) beta0.beta.
    Source: arXiv 2406.06158, deep linear networks.
    """

    def part(v: Array) -> Array:
        return v * np.linalg.norm(v) ** (-hidden / (hidden + 1))

    return part(np.asarray(beta, float)) - part(np.asarray(beta0, float))


def deep_endpoint(beta0: Any, x: Any, y: Any, hidden: int) -> Array:
    """beta(inf) [d] of a deep balanced linear network of one output with L hidden layers, on x [n, d], y [n].

    The minimiser of Q (see `deep_gradient`) among all that fit: beta = X^+ y + r^(L/(L+1)) v with
    v = |beta0|^(-L/(L+1)) P_null beta0 and r = |beta| the root of r^2 = |X^+ y|^2 + r^(2L/(L+1)) |v|^2.
    Holds for paths that do not pass through beta = 0. Raises `UsageError` for beta0 = 0, shapes or a negative L.
    """
    from scipy.optimize import brentq

    beta0, x, y = np.asarray(beta0, float), np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or beta0.shape != x.shape[1:]:
        raise UsageError(
            f"deep_endpoint: beta0 {beta0.shape}, x {x.shape}, y {y.shape}: expected [d], [n, d] and [n]"
        )
    if not np.any(beta0) or hidden < 0:
        raise UsageError(f"deep_endpoint: beta0 must not be zero and hidden={hidden} at least 0")
    rows, _ = _row_space(x)
    least = rows @ (rows.T @ (np.linalg.pinv(x) @ y))
    power = hidden / (hidden + 1)
    v = (beta0 - rows @ (rows.T @ beta0)) * np.linalg.norm(beta0) ** -power
    size, across = np.linalg.norm(least), np.linalg.norm(v)
    if size == 0:
        raise UsageError(
            "deep_endpoint: y has no part that x can fit; the path ends at beta = 0, where Q says nothing"
        )
    high = 2 * (size + across ** (hidden + 1) + 1)
    r = brentq(lambda r: r**2 - size**2 - (r**power * across) ** 2, size * (1 - 1e-12), high, xtol=1e-15, rtol=1e-15)
    return least + r**power * v


def _row_space(x: Array) -> tuple[Array, Array]:
    """Orthonormal basis [d, r] of the rows of x and the squared singular values [r]."""
    _, values, vt = np.linalg.svd(x, full_matrices=False)
    kept = values > values.max(initial=0.0) * max(x.shape) * np.finfo(float).eps
    return vt[kept].T, values[kept] ** 2


def _final_sign(a0: float, along: Array, pull: Array, curvature: Array, inner: float, rates: Rates) -> float:
    """Sign of a at the end; everything in the eigenbasis of X^T X: pull = X^T y, curvature its eigenvalues."""
    if inner >= 0 or not np.any(pull):
        return float(np.sign(a0))
    if np.allclose(curvature, curvature[0], rtol=1e-12, atol=0):
        scale = curvature[0]
        found = float(basin(a0, along, pull / scale, (rates[0] * scale, rates[1] * scale)))
    else:
        found = _integrated_sign(a0, along, pull, curvature, rates)
    if found == 0:
        raise Failure("endpoint: the flow starts on the separatrix and ends in the saddle a = 0, not at a fit")
    return found


def _integrated_sign(a0: float, along: Array, pull: Array, curvature: Array, rates: Rates) -> float:
    from scipy.integrate import solve_ivp

    def motion(_: float, state: Array) -> Array:
        a, w = state[0], state[1:]
        left = pull - a * curvature * w
        return np.concatenate([[rates[0] * w @ left], rates[1] * a * left])

    def below(_: float, state: Array) -> float:
        beta = state[0] * state[1:]
        return float(beta @ (curvature * beta) / 2 - pull @ beta) + 1e-9 * float(pull @ (pull / curvature))

    start = np.concatenate([[a0], along])
    if below(0, start) < 0:
        return float(np.sign(a0))
    below.terminal = True  # type: ignore[attr-defined]
    rate = np.sqrt(rates[0] * rates[1]) * np.linalg.norm(pull)
    run = solve_ivp(motion, (0, 1e4 / rate), start, "LSODA", events=below, rtol=1e-10, atol=1e-12)
    return float(np.sign(run.y[0, -1])) if run.t_events[0].size else 0.0
