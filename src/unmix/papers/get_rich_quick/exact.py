"""Exact solutions beside simulation: one neuron, where flows end, wide and deep linear networks, the delay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unmix.core.seeds import Stream
from unmix.regimes.exact import bias, neuron, simulate, wide


def neuron_flow(cases: int, seed: int = 0) -> dict[str, float]:
    """Largest and median difference of the closed form and an integrator (DOP853 at 1e-13) over random starts.

    1 to 6 dimensions, rates .2 to 3, every sign of a; every fourth start is balanced exactly, some have a = 0.
    """
    draw, off = Stream(seed).child("neuron flow").numpy(), []
    for number in range(cases):
        d = 1 + number % 6
        a, w, target = float(draw.standard_normal()), draw.standard_normal(d), draw.standard_normal(d)
        first, second = draw.uniform(0.2, 3, 2)
        rates = float(first), float(second)
        if number % 4 == 1:
            a = float(np.sign(a) * np.sqrt(rates[0] / rates[1]) * np.linalg.norm(w))
        if number % 8 == 2:
            a = 0.0
        times = np.linspace(0, 10, 21)
        found = neuron.flow(times, a, w, target, rates)
        a_true, w_true = simulate.simulate_neuron(times, a, w, target, rates)
        off.append(max(float(np.abs(found.a - a_true).max()), float(np.abs(found.w - w_true).max())))
    return {"largest": max(off), "median": float(np.median(off)), "cases": cases}


def endpoints(cases: int, seed: int = 0) -> dict[str, float]:
    """Largest difference of the endpoint's formula and the end of the integrated flow on rank-deficient data."""
    draw, off = Stream(seed).child("endpoints").numpy(), []
    for number in range(cases):
        x = np.linalg.qr(draw.standard_normal((6, 3)))[0].T * draw.uniform(0.8, 1.5, 3)[:, None]
        y, a, w = draw.standard_normal(3), float(draw.standard_normal()), draw.standard_normal(6)
        rates = ((1.0, 1.0), (0.5, 2.0))[number % 2]
        found = bias.endpoint(a, w, x, y, rates)
        a_end, w_end = simulate.simulate_neuron([0.0, 150.0], a, w, x.T @ y, rates, x.T @ x)
        off.append(float(np.abs(found - a_end[-1] * w_end[-1]).max()))
    return {"largest": max(off), "cases": cases}


def wide_flow(shapes: Sequence[Sequence[float]], seed: int = 0) -> dict[str, float]:
    """Largest difference of the wide solution and an integrator. shapes: hidden, inputs, outputs, balance of each."""
    off = []
    for number, (hidden, inputs, outputs, balance) in enumerate(shapes):
        stream = Stream(seed).child(f"wide {number}")
        h, d, c = int(hidden), int(inputs), int(outputs)
        first, second = wide.balanced_start(h, d, c, balance, 0.6, stream)
        target = stream.child("target").numpy().standard_normal((c, d))
        times = np.linspace(0, 3, 7)
        layers = simulate.simulate_layers(times, [first, second], np.eye(d), target.T)
        off.append(float(np.abs(wide.wide_function(times, first, second, target) - layers[1] @ layers[0]).max()))
    return {"largest": max(off), "cases": len(off)}


def deep_flow(layers: Sequence[int], seed: int = 0) -> dict[str, float]:
    """Deep linear networks of one output from balanced starts: endpoint against the flow, and drift of the balance.

    layers: numbers of hidden layers, each 4 wide.
    """
    off, drift = [], []
    for hidden in layers:
        draw = Stream(seed).child(f"deep {hidden}").numpy()
        x = np.linalg.qr(draw.standard_normal((5, 2)))[0].T
        beta0, y = draw.standard_normal(5), draw.uniform(1, 2, 2)
        # A start on the side of the target, so that the path does not pass through zero.
        beta0 = beta0 - x.T @ (x @ beta0) + x.T @ y / 2
        beta0 /= np.linalg.norm(beta0)
        run = simulate.simulate_layers([0.0, 60.0], simulate.rank_one_layers(beta0, [4] * hidden), x, y[:, None])
        end = run[0][-1]
        for layer in run[1:]:
            end = layer[-1] @ end
        off.append(float(np.abs(end[0] - bias.deep_endpoint(beta0, x, y, hidden)).max()))
        drift += [float(np.abs(b[-1] - b[0]).max()) for b in simulate.layer_balances(run)]
    return {"largest": max(off), "drift": max(drift), "cases": len(off)}


def delay(deltas: Sequence[float], cosine: float = 0.141, level: float = 0.9) -> list[dict[str, float]]:
    """When the cosine with the target reaches `level` from a unit function at `cosine`, over |delta|; its limit."""
    beta0, target = np.array([np.sqrt(1 - cosine**2), cosine]), np.array([0.0, 1.0])
    a, w = neuron.initial(beta0, np.asarray(deltas, float))
    times = neuron.alignment_time(level, a, w, target)
    limits = neuron.delayed_time(level, cosine, np.asarray(deltas, float), 1.0)
    return [
        {"delta": float(d), "time": float(t), "ratio": float(t / abs(d)), "limit": float(m / abs(d))}
        for d, t, m in zip(deltas, times, limits, strict=True)
    ]
