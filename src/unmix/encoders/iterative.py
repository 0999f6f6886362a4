"""Iterative encoders: the l1 problem and non-negative least squares, solved with a certificate for every row."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from unmix.core import flops
from unmix.core.codes import Codes
from unmix.encoders.base import BoundEncoder, GramEncoder


class Lasso(GramEncoder):
    """The l1 problem of every row, stopped row by row when the relative duality gap is under `tolerance`.

    penalty: lambda, in the units of the squared residual. positive: codes are non-negative.
    tolerance: largest relative duality gap. max_iterations: most iterations of a row. All solvers reach the same
    objective within the gap from any start; the gap of every row is returned as the codes' certificate.
    """

    equation: ClassVar[str] = "z = argmin 1/2 |x - z D|^2 + lambda |z|_1"
    sparsity: ClassVar[str | None] = "penalty"
    counted: ClassVar[bool] = False
    warm: ClassVar[bool] = True

    penalty: float = Field(default=0.1, ge=0)
    positive: bool = True
    tolerance: float = Field(default=1e-4, gt=0)
    max_iterations: int = Field(default=2000, ge=1)

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What the kernel is told of the method."""

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        from unmix.kernels.lasso import lasso

        result = lasso(
            x,
            bound.atoms,
            self.penalty,
            positive=self.positive,
            gram=bound.tensors.get("gram"),
            start=_guess(start),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            **self._options(),
        )
        # Scaling the residual certifies nothing without a penalty: least squares has no such gap.
        gap = result.gap if self.penalty else None
        parts = (result.values, result.indices, len(bound.atoms), result.pointers)
        return Codes(*parts, cost=result.flops, certificate=gap)

    def _flops(self, m: int, d: int) -> float:
        # An iteration has two products, or one with the Gram matrix; every tenth looks at the gap.
        each = min(flops.product(1, m, m), 2 * flops.product(1, d, m)) + 16.0 * m
        looks = self.max_iterations // 10 + 1
        return flops.product(1, d, m) + self.max_iterations * each + looks * (2 * flops.product(1, d, m) + 4.0 * m)


class Ista(Lasso):
    """The l1 problem by proximal gradient steps of length 1 / L, L the largest eigenvalue of D D'.

    polish: every 200 iterations, and in the end, codes step to the minimum on their own support, where that is
    better; without it a small penalty can take dozens of times as many iterations.
    """

    equation: ClassVar[str] = "z <- S(z + (x - z D) D' / L, lambda / L)  to  argmin 1/2 |x - z D|^2 + lambda |z|_1"
    reference: ClassVar[str] = "Daubechies, Defrise, De Mol 2004, arXiv math/0307152"

    max_iterations: int = Field(default=20_000, ge=1)
    polish: bool = True

    def _options(self) -> dict[str, Any]:
        return {"method": "ista", "polished": self.polish}


class Fista(Lasso):
    """The l1 problem of every row, stopped row by row when the relative duality gap is under `tolerance`.

    max_iterations: of FISTA, or rounds of the working set.
    solver: "auto" takes working-set coordinate descent on the CPU and FISTA with restart elsewhere; both reach
    the same objective within the gap, and the gap of every row is returned as the codes' certificate.
    """

    reference: ClassVar[str] = "Beck, Teboulle 2009; O'Donoghue, Candes 2015, arXiv 1204.3982"

    solver: Literal["auto", "fista", "coordinate"] = "auto"

    def _options(self) -> dict[str, Any]:
        return {"method": self.solver}


class CoordinateDescent(Lasso):
    """The l1 problem by coordinate descent: on a growing working set on the CPU, cyclic over all atoms elsewhere.

    max_iterations: rounds of the working set, or sweeps over the atoms.
    """

    equation: ClassVar[str] = "z_j <- S(<d_j, r> + |d_j|^2 z_j, lambda) / |d_j|^2  for j in the working set"
    reference: ClassVar[str] = "Massias, Gramfort, Salmon 2018, arXiv 1802.07481"

    def _options(self) -> dict[str, Any]:
        return {"method": "coordinate"}


class Lca(Lasso):
    """The l1 problem by the locally competitive algorithm: potentials u that inhibit each other, soft threshold.

    rate: length of a step in units of 1 / max(1, L), L the largest eigenvalue of D D'.
    polish: as for `Ista`; the potentials go on from the polished codes.
    """

    equation: ClassVar[str] = "u <- u + eta (x D' - z (D D' - I) - u),  z = S(u, lambda)"
    reference: ClassVar[str] = "Rozell, Johnson, Baraniuk, Olshausen 2008"

    max_iterations: int = Field(default=20_000, ge=1)
    rate: float = Field(default=1.0, gt=0, le=1)
    polish: bool = True

    def _options(self) -> dict[str, Any]:
        return {"method": "lca", "rate": self.rate, "polished": self.polish}


class Nnls(GramEncoder):
    """Non-negative least squares of every row, exactly, by an active set: at most d codes are active.

    The certificate of a row is its largest violation of the optimality conditions: <d_j, r> / (|d_j| |x|), and its
    absolute value where z_j > 0; rounding alone keeps it from 0.
    max_rounds: most changes of the active set in a row; None allows 3 m + 100.
    """

    equation: ClassVar[str] = "z = argmin_{z >= 0} |x - z D|^2"
    reference: ClassVar[str] = "Lawson, Hanson 1974; Bro, De Jong 1997"
    warm: ClassVar[bool] = True

    max_rounds: int | None = Field(default=None, ge=1)

    def _encode(self, bound: BoundEncoder, x: Tensor, start: Codes | None = None) -> Codes:
        from unmix.kernels.nnls import nnls

        gram = bound.tensors.get("gram")
        found, violation, cost = nnls(x, bound.atoms, gram=gram, start=_guess(start), max_rounds=self.max_rounds)
        values, indices, pointers = found
        return Codes(values, indices, len(bound.atoms), pointers, cost=cost, certificate=violation)

    def _flops(self, m: int, d: int) -> float:
        size, rounds = float(min(m, d)), 3.0 * m + 100 if self.max_rounds is None else float(self.max_rounds)
        return flops.product(1, d, m) + rounds * (2 * m * (size + 1) + size**2 * (size / 3 + 4))


def _guess(start: Codes | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Codes as the kernels take them: values, indices, pointers."""
    if start is None:
        return None
    ragged = start.ragged()
    return ragged.values, ragged.indices, ragged.pointers  # type: ignore[return-value]
