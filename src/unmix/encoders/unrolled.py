"""Unrolled encoders: a few steps of an iterative solver with weights of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.core.seeds import Stream
from unmix.encoders.amortised import Amortised
from unmix.encoders.base import BoundEncoder


class Lista(Amortised):
    """Learnt ISTA: `layers` steps of ISTA, each with its own weights W_t [m, d] and thresholds theta_t [m].

    z_{t+1} = relu(z_t + (x - z_t D) W_t' - theta_t) from z_0 = 0, x = h - b; soft thresholding where signed. This is
    the form with weights coupled to the dictionary, which needs no m x m matrix. It starts at W_t = D / L and
    theta_t = penalty / L with L = |D|_2^2, where it is ISTA itself.

    layers: steps. penalty: lambda of 1/2 |x - z D|^2 + lambda |z|_1, which the fit on rows lowers.
    active: mean number of active codes; then thresholds start at 0, the fit is on the reconstruction from the largest
    codes of each batch, and one threshold on all codes is set in the end. positive: only non-negative codes.
    """

    equation: ClassVar[str] = "z_{t+1} = relu(z_t + (h - b - z_t D) W_t' - theta_t), t < layers"
    reference: ClassVar[str] = "Gregor, LeCun 2010; Chen, Liu, Wang, Yin 2018, arXiv 1808.10038"
    sparsity: ClassVar[str | None] = "active"
    latents: ClassVar[tuple[str, ...]] = ("weight", "level")
    axis: ClassVar[int] = 1
    units: ClassVar[tuple[str, ...]] = ("level", "threshold")

    layers: int = Field(default=3, ge=1)
    penalty: float = Field(default=0.1, ge=0)
    active: float | None = Field(default=None, gt=0)
    positive: bool = True

    @property
    def rectify(self) -> bool:
        """Codes are non-negative."""
        return self.positive

    def _wanted(self) -> float | None:
        return self.active

    def _l1(self) -> float:
        return self.penalty if self.active is None else 0.0

    def _fixed(self) -> frozenset[str]:
        return frozenset({"threshold"})

    def _start(self, atoms: Tensor, rng: Stream) -> dict[str, Tensor]:
        if self.init == "pinv":
            raise UsageError("Lista.init='pinv': its layers start from ISTA; use init='tied', or give rows to fit on")
        steepest = float(torch.linalg.matrix_norm(atoms, 2)) ** 2
        bound = torch.tensor(steepest or 1.0).to(atoms)
        return {
            "weight": (atoms / bound).expand(self.layers, *atoms.shape).clone(),
            "level": (self._l1() / bound).expand(self.layers, len(atoms)).clone(),
            "threshold": atoms.new_zeros(()),
        }

    def _shrink(self, before: Tensor, level: Tensor) -> Tensor:
        if self.positive:
            return (before - level).relu()
        return before.sign() * (before.abs() - level).relu()

    def _before(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return self._forward(tensors, x)

    def _forward(self, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
        weight, level, atoms = tensors["weight"], tensors["level"], tensors["atoms"]
        codes = self._shrink(x @ weight[0].T, level[0])
        for layer in range(1, self.layers):
            codes = self._shrink(codes + (x - codes @ atoms) @ weight[layer].T, level[layer])
        return codes

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        codes = self._forward({**bound.tensors, "atoms": bound.atoms}, x)
        return Codes(codes * (codes.abs() > bound.tensors["threshold"]), None, codes.shape[1])

    def _flops(self, m: int, d: int) -> float:
        return self.layers * flops.linear_code(m, d) + (self.layers - 1) * (flops.product(1, m, d) + m + d)
