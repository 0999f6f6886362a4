"""Muon: gradients of matrices are orthogonalised before they move the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Muon on the groups marked `matrices`, Adam with decoupled weight decay on all others.

    m <- .95 m + .05 g,  W <- (1 - lr decay) W - .2 lr sqrt(max(rows, columns)) orthogonalised(.95 m + .05 g),
    so that the entries move by about as much as under Adam with the same lr. A kernel is the matrix of its rows.
    groups: of parameters, each with lr, weight_decay and matrices. Source: Jordan et al. 2024, Muon: an optimizer for
    hidden layers in neural networks; the factor .2 sqrt(max) from Liu et al. 2025, arXiv 2502.16982.
    """

    def __init__(
        self, groups: Any, lr: float, momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "matrices": False})
        self.momentum, self.betas = momentum, betas

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            move = self._turned if group["matrices"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move(parameter, parameter.grad, group["lr"])

    def _turned(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[weights]
        if not state:
            state["first"] = torch.zeros_like(weights)
        state["first"].lerp_(gradient, 1 - self.momentum)
        ahead = gradient.lerp(state["first"], self.momentum).flatten(1)
        move = orthogonalised(ahead)
        weights.add_(move.view_as(weights), alpha=-0.2 * lr * math.sqrt(max(move.shape)))

    def _adam(self, weights: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[weights]
        if not state:
            state |= {"first": torch.zeros_like(weights), "second": torch.zeros_like(weights)}
            state["step"] = torch.zeros(())
        state["step"] += 1
        first, second = (1 - beta ** float(state["step"]) for beta in self.betas)
        state["first"].lerp_(gradient, 1 - self.betas[0])
        state["second"].mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        weights.addcdiv_(state["first"], (state["second"] / second).sqrt_().add_(1e-8), value=-lr / first)


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V' of a matrix U S V' [rows, columns], nearly: singular values come to about 0.7 to 1.2, zeros stay.

    Five rounds of X <- a X + b (X X') X + c (X X')^2 X in float32 at least, from the matrix over its norm.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = wide.to(torch.promote_types(matrix.dtype, torch.float32))
    x = x / (x.norm() + 1e-20)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x if wide is matrix else x.T).to(matrix.dtype)
