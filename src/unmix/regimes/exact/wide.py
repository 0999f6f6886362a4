"""Wide linear networks f(x) = W2 W1 x: exact solutions from balanced starts, and the mirror flow of singular values.

W1 [h, d], W2 [c, h]; whitened inputs, S = correlation of outputs and inputs [c, d]. A start is lambda-balanced where
W2^T W2 - W1 W1^T = lambda I_h; lambda > 0 is upstream (small first layer).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unmix.core.errors import UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.regimes.exact.neuron import Array, flow


def balanced_start(
    hidden: int, inputs: int, outputs: int, balance: float, scale: float = 1.0, rng: int | Stream = 0
) -> tuple[Array, Array]:
    """Random W1 [h, d] and W2 [c, h] with W2^T W2 - W1 W1^T = balance I.

    The smaller layer has entries N(0, scale^2 / its inputs). Raises `UsageError` where the shapes forbid it:
    balance > 0 needs h <= c, balance < 0 needs h <= d.
    """
    if balance > 0 and hidden > outputs:
        raise UsageError(f"balance={balance}: positive needs hidden <= outputs, got {hidden} > {outputs}")
    if balance < 0 and hidden > inputs:
        raise UsageError(f"balance={balance}: negative needs hidden <= inputs, got {hidden} > {inputs}")
    draw = as_stream(rng).child("balanced start").numpy()
    if balance < 0:
        first, second = balanced_start(hidden, outputs, inputs, -balance, scale, rng)
        return second.T.copy(), first.T.copy()
    if balance == 0:
        rank = min(hidden, inputs, outputs)
        values = np.sqrt(scale * np.abs(draw.standard_normal(rank)))
        left, middle, right = (_orthonormal(n, rank, draw) for n in (outputs, hidden, inputs))
        return (middle * values) @ right.T, (left * values) @ middle.T
    first = scale * draw.standard_normal((hidden, inputs)) / np.sqrt(inputs)
    root = np.linalg.cholesky(first @ first.T + balance * np.eye(hidden))
    return first, _orthonormal(outputs, hidden, draw) @ root.T


def balance_of(first: Any, second: Any, tolerance: float = 1e-9) -> float:
    """lambda of W1 [h, d], W2 [c, h]. Raises `UsageError` where W2^T W2 - W1 W1^T is no multiple of I."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.ndim != 2 or second.ndim != 2 or second.shape[1] != first.shape[0]:
        raise UsageError(f"W1 {first.shape}, W2 {second.shape}: expected [h, d] and [c, h]")
    difference = second.T @ second - first @ first.T
    value = float(np.trace(difference) / len(difference))
    off = np.abs(difference - value * np.eye(len(difference))).max()
    if off > tolerance * max(1.0, np.square(first).sum(), np.square(second).sum()):
        raise UsageError(f"start is not balanced: W2^T W2 - W1 W1^T is off lambda I by {off:.3g}; see balanced_start")
    return value


def wide_flow(times: Any, first: Any, second: Any, target: Any) -> Array:
    """Q Q^T [..., d + c, d + c] at times [...] for Q = [W1^T; W2]: the off-diagonal block is the function W2 W1.

    Q Q^T = e^{Ft} Q0 [I + Q0^T int_0^t e^{2Fu} du Q0]^{-1} Q0^T e^{Ft}, F = [[-l/2 I, S^T], [S, l/2 I]].
    The integral is taken in the eigenbasis of F, which may be singular (l = 0 with c != d), and the inverse by a QR
    decomposition of rows sorted by size, so that modes of very unlike speed keep their digits.
    first W1 [h, d], second W2 [c, h] lambda-balanced, target S [c, d]. Raises `UsageError` where they are not
    balanced or for times so long (over 300 / largest singular value) that exponentials overflow.
    Source: Braun, Domine et al. 2022, arXiv 2210.05546 (lambda = 0); here for every lambda.
    """
    from scipy.linalg import qr

    first, second, target = (np.asarray(v, float) for v in (first, second, target))
    value = balance_of(first, second)
    if target.shape != (second.shape[0], first.shape[1]):
        raise UsageError(f"target {target.shape}: expected [c, d] = {(second.shape[0], first.shape[1])}")
    c, d = target.shape
    F = np.block([[-value / 2 * np.eye(d), target.T], [target, value / 2 * np.eye(c)]])
    speed, modes = np.linalg.eigh(F)
    start = modes.T @ np.concatenate([first.T, second])
    times = np.asarray(times, float)
    if np.any(~(times >= 0)) or np.any(times * np.abs(speed).max() > 300):
        raise UsageError(
            "times must be at least 0 and at most 300 / (largest eigenvalue of F); the end is reached by then"
        )
    h = start.shape[1]
    found = np.empty((times.size, d + c, d + c))
    for number, t in enumerate(times.ravel()):
        gap = 2 * speed * t
        # square roots of int e^{2fu} du and of e^{2ft} over that integral
        integral = t * np.where(gap == 0, 1.0, np.expm1(gap) / np.where(gap == 0, 1.0, gap))
        stacked = np.concatenate([np.sqrt(integral)[:, None] * start, np.eye(h)])
        order = np.argsort(-np.abs(stacked).max(1), kind="stable")
        part = np.empty_like(stacked)
        part[order] = qr(stacked[order], mode="economic", pivoting=True)[0]
        if t > 0:
            root = (np.exp(gap / 2) / np.sqrt(integral))[:, None] * part[: d + c]
        else:
            root = start
        root = modes @ root
        found[number] = root @ root.T
    return found.reshape(*times.shape, d + c, d + c)


def wide_function(times: Any, first: Any, second: Any, target: Any) -> Array:
    """The function W2 W1 [..., c, d] at times [...]; arguments as in `wide_flow`."""
    d = np.shape(first)[1]
    return wide_flow(times, first, second, target)[..., d:, :d]


def layer_grams(beta: Any, delta: float) -> tuple[Array, Array]:
    """W1^T W1 [d, d] and W2 W2^T [c, c] that belong to a function beta = W2 W1 [c, d] at balance delta I.

    W1^T W1 = sqrt(beta^T beta + delta^2/4 I) - delta/2 I,  W2 W2^T = sqrt(beta beta^T + delta^2/4 I) + delta/2 I;
    for h = c where delta > 0, h = d where delta < 0, any h >= rank at 0. Source: arXiv 2406.06158, section 4.
    """
    beta = np.asarray(beta, float)

    def root(gram: Array) -> Array:
        values, vectors = np.linalg.eigh(gram + delta**2 / 4 * np.eye(len(gram)))
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    c, d = beta.shape
    return root(beta.T @ beta) - delta / 2 * np.eye(d), root(beta @ beta.T) + delta / 2 * np.eye(c)


def singular_rates(beta: Any, gradient: Any, delta: float) -> Array:
    """Rates of the singular values [r] of beta [c, d] under isotropic balance, for the loss's gradient [c, d].

    lambda_i' = -sqrt(delta^2 + 4 lambda_i^2) (U^T gradient V)_ii: a mirror flow in the singular values.
    """
    u, values, vt = np.linalg.svd(np.asarray(beta, float), full_matrices=False)
    return -np.sqrt(delta**2 + 4 * values**2) * np.einsum("ik,ij,kj->k", u, np.asarray(gradient, float), vt)


def mirror_potential(x: Any, delta: float) -> Array:
    """q(x) = 1/4 (2x asinh(2x/|delta|) - sqrt(4x^2 + delta^2) + |delta|) [...], with q'' = 1 / sqrt(4x^2 + delta^2).

    Like |x| (up to a logarithm) for delta -> 0, x^2 / (2 |delta|) for |delta| -> infinity.
    Raises `UsageError` at delta = 0.
    """
    if delta == 0:
        raise UsageError("mirror_potential: delta=0 has no finite potential; take a small one")
    x, size = np.asarray(x, float), abs(delta)
    return (2 * x * np.arcsinh(2 * x / size) - np.sqrt(4 * x**2 + size**2) + size) / 4


def mirror_flow(times: Any, start: Any, target: Any, delta: Any) -> Array:
    """Singular values [...] at times [...] where those of the target [...] belong to the same singular vectors.

    lambda' = sqrt(delta^2 + 4 lambda^2) (s - lambda): the one-neuron model in one dimension. All broadcast.
    """
    start, target, delta = np.broadcast_arrays(*(np.asarray(v, float) for v in (start, target, delta)))
    kappa = np.sqrt(delta**2 + 4 * start**2)
    large = np.sqrt((kappa + np.abs(delta)) / 2)
    small = np.where(large > 0, start / np.where(large > 0, large, 1.0), 0.0)
    a, w = np.where(delta >= 0, large, small), np.where(delta >= 0, small, large)
    moved = flow(times, a, w[..., None], target[..., None])
    return moved.beta[..., 0]


def _orthonormal(rows: int, columns: int, draw: np.random.Generator) -> Array:
    return np.linalg.qr(draw.standard_normal((rows, columns)))[0]
