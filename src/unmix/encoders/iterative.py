"""Iterative encoders: the l1 problem solved to a certified duality gap."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.core.rows import Rows
from unmix.core.seeds import Stream
from unmix.encoders.base import BoundEncoder, Encoder


class Fista(Encoder):
    """The l1 problem of every row, stopped row by row when the relative duality gap is under `tolerance`.

    penalty: lambda, in the units of the squared residual. positive: codes are non-negative.
    tolerance: largest relative duality gap. max_iterations: of FISTA, or rounds of the working set.
    solver: "auto" takes working-set coordinate descent on the CPU and FISTA with restart elsewhere; both reach
    the same objective within the gap, and the gap of every row is returned as the codes' certificate.
    """

    equation: ClassVar[str] = "z = argmin 1/2 |x - z D|^2 + lambda |z|_1"
    reference: ClassVar[str] = "Beck, Teboulle 2009; Massias, Gramfort, Salmon 2018, arXiv 1802.07481"
    sparsity: ClassVar[str | None] = "penalty"
    counted: ClassVar[bool] = False

    penalty: float = Field(0.1, ge=0)
    positive: bool = True
    tolerance: float = Field(1e-4, gt=0)
    max_iterations: int = Field(2000, ge=1)
    solver: Literal["auto", "fista", "coordinate"] = "auto"

    def _prepare(self, atoms: Tensor, bias: Tensor, rows: Rows | None, rng: Stream) -> dict[str, Tensor]:
        return {"gram": atoms @ atoms.T} if len(atoms) <= 16384 else {}

    def _encode(self, bound: BoundEncoder, x: Tensor) -> Codes:
        from unmix.kernels.lasso import lasso

        result = lasso(
            x,
            bound.atoms,
            self.penalty,
            positive=self.positive,
            gram=bound.tensors.get("gram"),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            backend={"auto": "auto", "fista": "torch", "coordinate": "numba"}[self.solver],
        )
        # Scaling the residual certifies nothing without a penalty: non-negative least squares has no such gap.
        gap = result.gap if self.penalty else None
        return Codes(
            result.values,
            result.indices,
            len(bound.atoms),
            result.pointers,
            cost=result.flops,
            certificate=gap,
        )

    def _flops(self, m: int, d: int) -> float:
        return flops.product(1, d, m) + self.max_iterations * min(2.0 * m * m, 4.0 * m * d)
