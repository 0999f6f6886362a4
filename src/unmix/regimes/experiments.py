"""Two-layer ReLU networks over scale and balance: runs that a study repeats over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import Failure, UsageError
from unmix.core.seeds import Stream, as_stream
from unmix.regimes.exact.piecewise import two_layer_kernel


@dataclass
class TwoLayer:
    """f(x) = sum_k a_k max(0, w_k.x); a [h], w [h, d]."""

    a: Tensor
    w: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs [n] for x [n, d]."""
        return torch.relu(x @ self.w.T) @ self.a

    def copy(self) -> TwoLayer:
        """The same weights, apart."""
        return TwoLayer(self.a.clone(), self.w.clone())

    def step(self, x: Tensor, y: Tensor, rate: float) -> float:
        """One step of gradient descent on rate * sum of (f - y)^2 / 2, in place; that sum before the step."""
        z = x @ self.w.T
        on = torch.relu(z)
        left = on @ self.a - y
        pulled = (z > 0) * left[:, None]
        grad_w = (pulled.T @ x) * self.a[:, None]
        self.a -= rate * (on.T @ left)
        self.w -= rate * grad_w
        return float(left @ left) / 2

    @property
    def balance(self) -> Tensor:
        """delta_k = a_k^2 - |w_k|^2 [h]."""
        return self.a.double() ** 2 - self.w.double().square().sum(1)


def symmetric_start(hidden: int, dimensions: int, scale: float, balance: float, rng: int | Stream = 0) -> TwoLayer:
    """Pairs of units with the same w and opposite a, so that f = 0; |a| |w| = scale^2 and a^2 - |w|^2 = balance.

    hidden: units in all, even. Directions are uniform, float32. Raises `UsageError` for an odd number or scale <= 0.
    """
    if hidden < 2 or hidden % 2 or scale <= 0:
        raise UsageError(f"symmetric_start: hidden={hidden} must be even and scale={scale} positive")
    draw = as_stream(rng).child("symmetric start").torch()
    w = torch.nn.functional.normalize(torch.randn(hidden // 2, dimensions, generator=draw))
    signs = torch.randint(0, 2, (hidden // 2,), generator=draw) * 2.0 - 1
    root = math.sqrt(balance**2 + 4 * scale**4)
    # The smaller of the two sums comes from their product, which is exact.
    a2 = (balance + root) / 2 if balance >= 0 else 2 * scale**4 / (root - balance)
    a, w = math.sqrt(a2) * signs, w * (scale**2 / math.sqrt(a2))
    return TwoLayer(torch.cat([a, -a]), torch.cat([w, w]))


def movement(start: TwoLayer, end: TwoLayer, x: Tensor) -> dict[str, float]:
    """How far a network has gone: hamming (share of units and rows x [n, d] that switched), kernel and parameters.

    motion is the distance of all parameters, relative that over their norm at the start; drift the largest change of
    a unit's balance.
    """
    off = ((x @ start.w.T > 0) != (x @ end.w.T > 0)).float().mean()
    first, last = (two_layer_kernel(n.a.numpy(), n.w.numpy(), x.numpy()) for n in (start, end))
    cosine = float((first * last).sum() / np.linalg.norm(first) / np.linalg.norm(last))
    gone = math.sqrt(float((end.a - start.a).square().sum() + (end.w - start.w).square().sum()))
    norm = math.sqrt(float(start.a.square().sum() + start.w.square().sum()))
    return {
        "hamming": float(off),
        "kernel distance": 1 - cosine,
        "motion": gone,
        "relative motion": gone / norm,
        "drift": float((end.balance - start.balance).abs().max()),
    }


def teacher_run(
    scale: float, balance: float, seed: int = 0, steps: int = 100, hidden: int = 50, dimensions: int = 100,
    teachers: int = 3, rows: int = 1000, test: int = 10000, rate: float = 5e-3,
) -> dict[str, float]:  # fmt: skip
    """A student of a ReLU teacher after full-batch gradient descent on the mean squared error.

    rate: over scale^2 it is the step. Gives the mean squared error on train and test rows and `movement`.
    Source: the setting of figure 1b of arXiv 2406.06158.
    """
    from unmix.core.named import load_class

    world = load_class("unmix.worlds.teacher:TeacherStudent")(
        dimensions=dimensions, teachers=teachers, rows=rows, seed=seed
    )
    train, held_out = world.sample(rows, 0), world.held_out.sample(test, 1)
    net = symmetric_start(hidden, dimensions, scale, balance, seed)
    start = net.copy()
    for _ in range(steps):
        net.step(train.x, train.y, 2 * rate / scale**2 / rows)
    found = {"train": _error(net, train.x, train.y), "test": _error(net, held_out.x, held_out.y)}
    return {**found, **movement(start, net, train.x)}


def parity_run(
    scale: float, balance: float, seed: int = 0, steps: int = 1000, hidden: int = 100, bits: int = 40, order: int = 2,
    rows: int = 400, test: int = 4000, level: float = 0.97, every: int = 10,
) -> dict[str, Any]:  # fmt: skip
    """Parity learnt by full-batch gradient descent until `level` of the test rows are right or `steps` are done.

    The loss is the sum of (f - y)^2 / 2 with y = +-1; float64.

    The step is .1 over the largest eigenvalue of the kernel at the start. Gives the first multiple of `every` steps
    at which the level is reached (None: censored at `steps`), the curve of accuracy, and `movement` up to there.
    Raises `Failure` where the run diverges.
    """
    from unmix.core.named import load_class

    world = load_class("unmix.worlds.parity:Parity")(bits=bits, order=order, rows=rows, seed=seed)
    train, held_out = world.sample(rows, 0), world.held_out.sample(test, 1)
    x, x_test = train.x.double(), held_out.x.double()
    y, y_test = 2.0 * train.y.double() - 1, 2.0 * held_out.y.double() - 1
    net = symmetric_start(hidden, bits, scale, balance, seed)
    net = TwoLayer(net.a.double(), net.w.double())
    start = net.copy()
    top = np.linalg.eigvalsh(two_layer_kernel(net.a.numpy(), net.w.numpy(), x.numpy()))[-1]
    right, step = [float((net(x_test) * y_test > 0).double().mean())], 0
    while step < steps and right[-1] < level:
        net.step(x, y, 0.1 / float(top))
        step += 1
        if step % every == 0:
            right.append(float((net(x_test) * y_test > 0).double().mean()))
    error = _error(net, x, y)
    if not math.isfinite(error):
        raise Failure(f"parity_run: the loss is not finite after {step} steps")
    return {
        "steps to level": step if right[-1] >= level else None,
        "accuracy": right,
        "train": error,
        **movement(start, net, x),
    }


def _error(net: TwoLayer, x: Tensor, y: Tensor) -> float:
    return float((net(x) - y).square().mean())
