"""Checks that the solvers over a dictionary share."""

from __future__ import annotations

from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import check_matrix


def check_problem(h: Tensor, atoms: Tensor, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows h [n, d] and atoms [m, d] of one dtype, off the graph: grad mode is a thread's own, solvers have several.

    gram: atoms @ atoms.T [m, m] where it is given. Raises `UsageError` naming what does not fit.
    """
    check_matrix("atoms", atoms)
    check_matrix("h", h, atoms.shape[1])
    m = len(atoms)
    if h.dtype != atoms.dtype:
        raise UsageError(f"h: must have the dtype of the atoms, {atoms.dtype}, got {h.dtype}")
    if gram is not None and (gram.shape != (m, m) or gram.dtype != atoms.dtype):
        raise UsageError(f"gram: must be [{m}, {m}] {atoms.dtype}, got {list(gram.shape)} {gram.dtype}")
    return h.detach(), atoms.detach()


def check_greedy(k: int, m: int, tolerance: float) -> None:
    """Steps of a greedy method over m atoms, and the share of a row at which it ends; raises `UsageError`."""
    if not 1 <= k <= m:
        raise UsageError(f"k: must be between 1 and the number of atoms {m}, got {k}")
    if not 0 <= tolerance < 1:
        raise UsageError(f"tolerance: must be in [0, 1), got {tolerance}")
