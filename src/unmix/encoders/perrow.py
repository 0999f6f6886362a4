"""Optimisation of every row's codes by gradient steps, as in the study of the amortisation gap."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.encoders.base import BoundEncoder, Encoder

_BLOCK_BYTES = 64 << 20
_BETAS, _EPS = (0.9, 0.999), 1e-8


class Exponentiated(Encoder):
    """The non-negative l1 problem by Adam on the log-codes of every row, z = exp(s) > 0: the paper's "sparse coding".

    Give one of penalty: lambda of the textbook objective 1/2 |x - z D|^2 + lambda |z|_1, and weight: w of the paper's
    mean (x - z D)^2 + w mean |z|, the same problem with lambda = w d / (2 m), d the width and m the number of atoms.
    steps, lr: of Adam. log_start: where s begins; given codes are begun from where they are larger than its exp.
    Rows are optimised apart from each other: the paper's mean over the batch is left out, which Adam does not see.
    No code is ever exactly 0: `Thresholded` makes these codes sparse. The duality gap of every row, which says how
    far it is from the optimum, is the certificate.
    """

    equation: ClassVar[str] = "s <- Adam(s, grad 1/2 |x - exp(s) D|^2 + lambda |exp(s)|_1),  z = exp(s)"
    reference: ClassVar[str] = "O'Neill, Gumran, Klindt 2024, arXiv 2411.13117"
    warm: ClassVar[bool] = True

    penalty: float | None = Field(default=None, ge=0)
    weight: float | None = Field(default=None, ge=0)
    steps: int = Field(default=10_000, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    log_start: float = Field(default=-10.0, ge=-80, le=0)

    @model_validator(mode="after")
    def _possible(self) -> Exponentiated:
        if (self.penalty is None) == (self.weight is None):
            raise ValueError("give one of penalty (the textbook's lambda) and weight (the paper's w)")
        return self

    def textbook_penalty(self, m: int, d: int) -> float:
        """lambda of the textbook objective for m atoms of width d."""
        return self.penalty if self.penalty is not None else self.weight * d / (2 * m)  # type: ignore[operator]

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        from unmix.kernels.lasso import certificate

        n, (m, d) = len(x), bound.atoms.shape
        penalty = self.textbook_penalty(m, d)
        log_codes = x.new_full((n, m), self.log_start)
        if start is not None:
            log_codes = torch.maximum(log_codes, start.dense().to(x).clamp_min(1e-38).log())
        height = max(16, _BLOCK_BYTES // (x.element_size() * m))
        for begin in range(0, n, height):
            rows = slice(begin, begin + height)
            log_codes[rows] = self._optimise(log_codes[rows], x[rows], bound.atoms, penalty)
        codes = log_codes.exp()
        gap = None
        if penalty:
            bounds = torch.full((n,), penalty, dtype=torch.float64, device=x.device)
            gap = certificate(x, codes, bound.atoms, bounds, True)[1]
        cost = torch.full((n,), self._flops(m, d), dtype=torch.float64, device=x.device)
        return Codes(codes, None, m, cost=cost, certificate=gap)

    def _optimise(self, s: Tensor, x: Tensor, atoms: Tensor, penalty: float) -> Tensor:
        """Adam written out on the gradient z ((z D - x) D' + lambda): torch's needs autograd, which costs more."""
        s, first, second = s.clone(), torch.zeros_like(s), torch.zeros_like(s)
        one, two = _BETAS
        for step in range(1, self.steps + 1):
            z = s.exp()
            slope = (z @ atoms).sub_(x) @ atoms.T
            slope.add_(penalty).mul_(z)
            first.mul_(one).add_(slope, alpha=1 - one)
            second.mul_(two).addcmul_(slope, slope, value=1 - two)
            root = second.sqrt().div_((1 - two**step) ** 0.5).add_(_EPS)
            s.addcdiv_(first, root, value=-self.lr / (1 - one**step))
        return s

    def _flops(self, m: int, d: int) -> float:
        return self.steps * flops.code_step(1, m, d) + m
