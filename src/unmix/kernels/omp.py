"""Orthogonal matching pursuit, for many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, array, check_matrix, compiled_wanted, own_threads, parts_for, run_queue

_BLOCK_BYTES = 64 << 20
_ROWS = 256  # rows that one thread takes at a time


@torch.no_grad()
def omp(
    h: Tensor,
    atoms: Tensor,
    k: int,
    *,
    positive: bool = False,
    gram: Tensor | None = None,
    tolerance: float = 0.0,
    backend: Backend = "auto",
    gram_bytes: int = 1 << 30,
) -> tuple[Tensor, Tensor]:
    """k times: take the atom of the largest |<d_j, r>| / |d_j|, then solve least squares on all atoms taken.

    h [n, d], atoms [m, d] (any norms) -> values [n, k], indices [n, k] (int64) in the order of selection. No atom is
    taken twice, zero atoms never; slots that are not used have value 0 and index 0. A row stops early when
    |r|^2 <= tolerance |h|^2, when no atom correlates with r beyond rounding, or when the next atom depends
    numerically on those taken. positive: the largest <d_j, r> / |d_j| is taken and the codes are the non-negative
    least squares solution (a slot may go back to 0). gram [m, m] = atoms @ atoms.T saves making it; without one, and
    where it would need more than `gram_bytes`, residuals are used instead (torch).
    Sources: Pati, Rezaiifar, Krishnaprasad 1993; Rubinstein, Zibulevsky, Elad 2008.
    Raises `UsageError` where k is not in 1..m, a tolerance not in [0, 1), or shapes do not fit.
    """
    check_matrix("atoms", atoms)
    check_matrix("h", h, atoms.shape[1])
    h, atoms = h.detach(), atoms.detach()  # grad mode is a thread's own, and the work below is in several
    n, m = len(h), len(atoms)
    if not 1 <= k <= m:
        raise UsageError(f"k: must be between 1 and the number of atoms {m}, got {k}")
    if not 0 <= tolerance < 1:
        raise UsageError(f"tolerance: must be in [0, 1), got {tolerance}")
    if h.dtype != atoms.dtype:
        raise UsageError(f"h: must have the dtype of the atoms, {atoms.dtype}, got {h.dtype}")
    if gram is not None and (gram.shape != (m, m) or gram.dtype != atoms.dtype):
        raise UsageError(f"gram: must be [{m}, {m}] {atoms.dtype}, got {list(gram.shape)} {gram.dtype}")
    on_cpu = compiled_wanted(backend, h, atoms, gram)
    if gram is None and m * m * atoms.element_size() <= gram_bytes:
        gram = atoms @ atoms.T
    values, indices = h.new_zeros(n, k), torch.zeros(n, k, dtype=torch.int64, device=h.device)
    norms = atoms.norm(dim=1)
    weight = torch.where(norms > 0, 1 / norms, 0)
    # Rounding of a correlation is about eps sqrt(d) |h|; below a few of these nothing is left to find.
    eps = torch.finfo(h.dtype).eps
    silent, dependent = 4 * eps * atoms.shape[1] ** 0.5, 100 * eps
    if not (on_cpu and gram is not None):
        height = max(16, min(_BLOCK_BYTES // (h.element_size() * m), _BLOCK_BYTES // (8 * 3 * k * k)))
        for begin in range(0, n, height):
            rows = slice(begin, begin + height)
            found = _omp_plain(h[rows], atoms, gram, weight, k, positive, tolerance, silent, dependent)
            values[rows], indices[rows] = found
        return values, indices
    from unmix.kernels._omp_compiled import omp_rows

    given, energy = (array(gram), array(weight)), array(h.double().square().sum(1))

    def work(slot: int, begin: int) -> None:
        rows = slice(begin, begin + height)
        into = (values[rows].numpy(), indices[rows].numpy())
        start = (h[rows] @ atoms.T).numpy()
        omp_rows(0, 1, start, *given, energy[rows], k, positive, tolerance, silent, dependent, *into)

    with own_threads():
        parts = parts_for(n)
        height = max(16, min(_ROWS, -(-n // parts), _BLOCK_BYTES // (h.element_size() * m)))
        run_queue(work, range(0, n, height), parts)
    return values, indices


def _omp_plain(
    h: Tensor,
    atoms: Tensor,
    gram: Tensor | None,
    weight: Tensor,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
    dependent: float,
) -> tuple[Tensor, Tensor]:
    """All rows step by step; a row that has ended keeps unit pivots and zero right-hand sides in its other slots."""
    n, device = len(h), h.device
    rows = torch.arange(n, device=device)
    energy = h.double().square().sum(1)
    start = h @ atoms.T
    indices = torch.zeros(n, k, dtype=torch.int64, device=device)
    inner = torch.eye(k, dtype=torch.float64, device=device).repeat(n, 1, 1)
    factor = inner.clone()
    right = torch.zeros(n, k, dtype=torch.float64, device=device)
    code = torch.zeros_like(right)
    taken = torch.zeros(start.shape, dtype=torch.bool, device=device)
    active = torch.ones(n, dtype=torch.bool, device=device)
    left = energy.clone()
    correlation = start
    for t in range(k):
        scores = (correlation if positive else correlation.abs()) * weight
        best, atom = scores.masked_fill(taken, -1).max(1)
        active = active & (left > tolerance * energy) & (best > silent * energy.sqrt())
        chosen = atoms[atom].double()
        products = torch.bmm(atoms[indices[:, :t]].double(), chosen.unsqueeze(2)).squeeze(2)
        products = products * (torch.arange(t, device=device) < taken.sum(1, keepdim=True))
        solved = torch.linalg.solve_triangular(factor[:, :t, :t], products.unsqueeze(2), upper=False).squeeze(2)
        size = chosen.square().sum(1)
        pivot = size - solved.square().sum(1)
        active = active & (pivot > dependent * size)
        if not active.any():
            break
        on = rows[active]
        indices[on, t] = atom[on]
        taken[on, atom[on]] = True
        inner[on, t, :t], inner[on, :t, t], inner[on, t, t] = products[on], products[on], size[on]
        factor[on, t, :t], factor[on, t, t] = solved[on], pivot[on].sqrt()
        right[on, t] = start[on, atom[on]].double()
        s = t + 1
        trial = torch.cholesky_solve(right[:, :s, None], factor[:, :s, :s]).squeeze(2)
        if positive:
            wrong = (trial < 0).any(1) & active
            if wrong.any():
                scale = silent * 1e-3 * energy[wrong].sqrt()
                trial[wrong] = _nonnegative(inner[wrong, :s, :s], right[wrong, :s], code[wrong, :s], scale)
        code[on, :s] = trial[on]
        found, parts = code[:, :s].to(h.dtype), indices[:, :s]
        residual = h - embedding_bag(parts, atoms, mode="sum", per_sample_weights=found)
        left = residual.double().square().sum(1)
        if t + 1 < k:
            if gram is None:
                correlation = residual @ atoms.T
            else:
                correlation = start - embedding_bag(parts, gram, mode="sum", per_sample_weights=found)
    return code.to(h.dtype), indices


def _nonnegative(inner: Tensor, right: Tensor, code: Tensor, scale: Tensor) -> Tensor:
    """Non-negative least squares of each row by coordinate descent from `code`: inner [n, s, s], right [n, s]."""
    code = code.clone()
    sizes = inner.diagonal(dim1=1, dim2=2)
    for _ in range(10000):
        largest = torch.zeros_like(scale)
        for i in range(code.shape[1]):
            slope = right[:, i] - (inner[:, i] * code).sum(1)
            new = (code[:, i] + slope / sizes[:, i]).clamp_min(0)
            largest = torch.maximum(largest, (new - code[:, i]).abs() * sizes[:, i].sqrt())
            code[:, i] = new
        if (largest <= scale).all():
            break
    return code
