"""Greedy encoders: matching pursuit, orthogonal and by gradients, and the nearest atom."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.encoders.base import GRAM_ATOMS, BoundEncoder, Encoder, GramEncoder


class MatchingPursuit(GramEncoder):
    """Matching pursuit: k times the atom that correlates most with the residual, its product added to its code.

    k: steps of each row; an atom may be taken again, so that at most k codes are active. positive: only atoms with a
    positive product are taken. tolerance: stops a row whose squared residual is below this share.
    """

    equation: ClassVar[str] = "j = argmax |<d_j, r>| / |d_j|;  z_j <- z_j + <d_j, r> / |d_j|^2;  r <- x - z D"
    reference: ClassVar[str] = "Mallat, Zhang 1993"
    sparsity: ClassVar[str | None] = "k"

    k: int = Field(default=32, ge=1)
    positive: bool = True
    tolerance: float = Field(default=0.0, ge=0, lt=1)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.pursuit import matching_pursuit

        options: dict[str, Any] = {
            "positive": self.positive,
            "gram": bound.tensors.get("gram"),
            "tolerance": self.tolerance,
        }
        values, indices, _, cost = matching_pursuit(x, bound.atoms, self.k, **options)
        return Codes(values, indices, len(bound.atoms), cost=cost)

    def _flops(self, m: int, d: int) -> float:
        each = 4.0 * m if m <= GRAM_ATOMS else flops.product(1, d, m) + 2.0 * (m + d)
        return flops.product(1, d, m) + self.k * each


class GradientPursuit(GramEncoder):
    """Gradient pursuit: k times the atom that correlates most with the residual, then a gradient step on the support.

    k: steps of each row, and most active codes. positive: codes are non-negative; a step ends where the first would
    turn negative. tolerance: a row stops early when its residual is below this share of its squared norm.
    """

    equation: ClassVar[str] = "S <- S + argmax_j |<d_j, r>|;  g = D_S r;  z_S <- z_S + g |g|^2 / |g D_S|^2"
    reference: ClassVar[str] = "Blumensath, Davies 2008"
    sparsity: ClassVar[str | None] = "k"

    k: int = Field(default=32, ge=1)
    positive: bool = True
    tolerance: float = Field(default=0.0, ge=0, lt=1)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.pursuit import gradient_pursuit

        options: dict[str, Any] = {
            "positive": self.positive,
            "gram": bound.tensors.get("gram"),
            "tolerance": self.tolerance,
        }
        values, indices, _, cost = gradient_pursuit(x, bound.atoms, self.k, **options)
        return Codes(values, indices, len(bound.atoms), cost=cost)

    def _flops(self, m: int, d: int) -> float:
        steps = self.k * (self.k + 1.0) / 2
        if m <= GRAM_ATOMS:
            return flops.product(1, d, m) + 2.0 * m * (steps + self.k) + 3.0 * self.k**3
        return (self.k + 1) * (flops.product(1, d, m) + 2.0 * m) + 2.0 * d * (steps + self.k)


class Omp(GramEncoder):
    """Orthogonal matching pursuit: k times the atom that correlates most with the residual, then least squares.

    k: active codes in each row. positive: only non-negative codes (non-negative least squares on the support).
    tolerance: a row stops early when its residual is below this share of its squared norm.
    """

    equation: ClassVar[str] = "S <- S + argmax_j |<d_j, x - z_S D_S>|;  z_S = argmin |x - z_S D_S|^2"
    reference: ClassVar[str] = "Pati, Rezaiifar, Krishnaprasad 1993; Rubinstein, Zibulevsky, Elad 2008"
    sparsity: ClassVar[str | None] = "k"

    k: int = Field(default=32, ge=1)
    positive: bool = True
    tolerance: float = Field(default=0.0, ge=0, lt=1)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.omp import omp

        gram = bound.tensors.get("gram")
        values, indices = omp(x, bound.atoms, self.k, positive=self.positive, gram=gram, tolerance=self.tolerance)
        # Slots are in the order of selection; one that went back to 0 was paid for as well.
        steps = ((values != 0) * torch.arange(1, self.k + 1, device=x.device)).amax(1).double()
        m, d = bound.atoms.shape
        cost = flops.product(1, d, m) + m * steps * (steps + 3) + steps**3
        return Codes(values, indices, m, cost=cost)

    def _flops(self, m: int, d: int) -> float:
        return flops.product(1, d, m) + m * self.k * (self.k + 3.0) + self.k**3.0


class Nearest(Encoder):
    """The nearest atom, with code one: z_j = 1 for j = argmin |x - d_j|^2."""

    equation: ClassVar[str] = "z_j = [j = argmin_i |x - d_i|^2]"

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        scores = x @ bound.atoms.T - bound.atoms.square().sum(1) / 2
        nearest = scores.argmax(1, keepdim=True) if len(x) else scores.new_zeros(0, 1, dtype=torch.long)
        return Codes(torch.ones_like(nearest, dtype=x.dtype), nearest, len(bound.atoms))

    def _flops(self, m: int, d: int) -> float:
        return flops.product(1, d, m) + 2.0 * m
