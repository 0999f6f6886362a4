"""Greedy encoders: orthogonal matching pursuit, and the nearest atom."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.encoders.base import BoundEncoder, Encoder, GramEncoder


class Omp(GramEncoder):
    """Orthogonal matching pursuit: k times the atom that correlates most with the residual, then least squares.

    k: active codes in each row. positive: only non-negative codes (non-negative least squares on the support).
    tolerance: a row stops early when its residual is below this share of its squared norm.
    """

    equation: ClassVar[str] = "S <- S + argmax_j |<d_j, x - z_S D_S>|;  z_S = argmin |x - z_S D_S|^2"
    reference: ClassVar[str] = "Pati, Rezaiifar, Krishnaprasad 1993; Rubinstein, Zibulevsky, Elad 2008"
    sparsity: ClassVar[str | None] = "k"

    k: int = Field(32, ge=1)
    positive: bool = True
    tolerance: float = Field(0.0, ge=0, lt=1)

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.omp import omp

        gram = bound.tensors.get("gram")
        values, indices = omp(x, bound.atoms, self.k, positive=self.positive, gram=gram, tolerance=self.tolerance)
        steps = (values != 0).sum(1).double()
        m, d = bound.atoms.shape
        cost = flops.product(1, d, m) + m * steps * (steps + 1) + steps**3
        return Codes(values, indices, m, cost=cost)

    def _flops(self, m: int, d: int) -> float:
        return flops.pursuit(m, d, self.k)


class Nearest(Encoder):
    """The nearest atom, with code one: z_j = 1 for j = argmin |x - d_j|^2."""

    equation: ClassVar[str] = "z_j = [j = argmin_i |x - d_i|^2]"

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        scores = x @ bound.atoms.T - bound.atoms.square().sum(1) / 2
        nearest = scores.argmax(1, keepdim=True) if len(x) else scores.new_zeros(0, 1, dtype=torch.long)
        return Codes(torch.ones_like(nearest, dtype=x.dtype), nearest, len(bound.atoms))

    def _flops(self, m: int, d: int) -> float:
        return flops.product(1, d, m) + 2.0 * m
