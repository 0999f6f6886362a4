"""Gradient flow by integration: what the closed forms are set beside, and layers that have none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.regimes.exact.neuron import Array, Rates


def simulate_neuron(
    times: Any, a0: float, w0: Any, target: Any, rates: Rates = (1.0, 1.0), gram: Any = None, tolerance: float = 1e-13
) -> tuple[Array, Array]:
    """a [T] and w [T, d] of the one-neuron flow at rising times [T], by scipy's DOP853; gram = X^T X, target = X^T y.

    a' = eta_a w.(target - a gram w), w' = eta_w a (target - a gram w). `Failure` where the integrator gives up.
    """
    w0, target = np.asarray(w0, float), np.asarray(target, float)
    gram = np.eye(len(w0)) if gram is None else np.asarray(gram, float)

    def motion(_: float, state: Array) -> Array:
        a, w = state[0], state[1:]
        left = target - a * (gram @ w)
        return np.concatenate([[rates[0] * (w @ left)], rates[1] * a * left])

    state = _integrate(motion, np.concatenate([[a0], w0]), times, tolerance)
    return state[:, 0], state[:, 1:]


def simulate_layers(
    times: Any, weights: Sequence[Any], x: Any, y: Any, rates: Sequence[float] | None = None, tolerance: float = 1e-12
) -> list[Array]:
    """Every layer [T, out, in] of a deep linear network W_L ... W_1 x at rising times [T]; loss 1/2 |x W^T - y|^2.

    weights: first layer first. x [n, d], y [n, c]. rates: of each layer, 1 without. Raises `UsageError` for shapes.
    """
    weights = [np.asarray(w, float) for w in weights]
    x, y = np.asarray(x, float), np.asarray(y, float)
    rates = [1.0] * len(weights) if rates is None else list(rates)
    if any(b.shape[1] != a.shape[0] for a, b in pairwise(weights)) or len(rates) != len(weights):
        raise UsageError("simulate_layers: each layer must take what the one before gives, with one rate for each")
    sizes = np.cumsum([0, *(w.size for w in weights)])
    gram, cross = x.T @ x, y.T @ x

    def unpack(state: Array) -> list[Array]:
        return [state[a:b].reshape(w.shape) for (a, b), w in zip(pairwise(sizes), weights, strict=True)]

    def motion(_: float, state: Array) -> Array:
        layers = unpack(state)
        below = [np.eye(x.shape[1])]
        for layer in layers:
            below.append(layer @ below[-1])
        left = cross - below[-1] @ gram
        parts = []
        for number in reversed(range(len(layers))):
            parts.append(rates[number] * left @ below[number].T)
            left = layers[number].T @ left
        return np.concatenate([part.ravel() for part in reversed(parts)])

    states = _integrate(motion, np.concatenate([w.ravel() for w in weights]), times, tolerance)
    return [states[:, a:b].reshape(len(states), *w.shape) for (a, b), w in zip(pairwise(sizes), weights, strict=True)]


def layer_balances(weights: Sequence[Any], rates: Sequence[float] | None = None) -> list[Array]:
    """eta_l W_{l+1}^T W_{l+1} - eta_{l+1} W_l W_l^T [..., h, h] of layers [..., out, in]; flow conserves them."""
    weights = [np.asarray(w, float) for w in weights]
    rates = [1.0] * len(weights) if rates is None else list(rates)
    return [
        rates[i] * np.swapaxes(b, -1, -2) @ b - rates[i + 1] * a @ np.swapaxes(a, -1, -2)
        for i, (a, b) in enumerate(pairwise(weights))
    ]


def rank_one_layers(beta: Any, widths: Sequence[int], rng: int | Stream = 0) -> list[Array]:
    """A balanced start of rank one with function beta [d]: layers [h1, d], [h2, h1], ..., [1, h_L] of equal norm."""
    beta = np.asarray(beta, float)
    size = float(np.linalg.norm(beta))
    if size == 0:
        raise UsageError("rank_one_layers: beta must not be zero")
    draw = as_stream(rng).child("rank one layers").numpy()
    directions = [beta / size]
    for width in widths:
        v = draw.standard_normal(width)
        directions.append(v / np.linalg.norm(v))
    directions.append(np.ones(1))
    share = size ** (1 / (len(widths) + 1))
    return [share * np.outer(after, before) for before, after in pairwise(directions)]


def _integrate(motion: Any, start: Array, times: Any, tolerance: float) -> Array:
    from scipy.integrate import solve_ivp

    times = np.atleast_1d(np.asarray(times, float))
    if np.any(np.diff(times) < 0) or np.any(times < 0):
        raise UsageError("times must rise from 0 on")
    if times[-1] == 0:
        return np.tile(start, (len(times), 1))
    run = solve_ivp(motion, (0, times[-1]), start, "DOP853", times, rtol=max(tolerance, 1e-13), atol=tolerance)
    if not run.success:
        raise Failure(f"the integrator gave up: {run.message}")
    return run.y.T
