"""The dictionary update of online dictionary learning, and the statistics it needs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unmix.core.codes import Codes
from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, array, check_matrix, compiled_wanted, own_threads, parts_for, run_parts

_BLOCK = 64  # atoms between two matrix products


class Updated(NamedTuple):
    """Atoms [m, d], and which were left as they were because no code uses them, [m] bool."""

    atoms: Tensor
    idle: Tensor


def update_atoms(
    atoms: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    positive: bool = False,
    sweeps: int = 1,
    constraint: Literal["sphere", "ball"] = "sphere",
    out: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Block coordinate descent of the atoms: u_j = d_j + (b_j - a_j D) / a_jj, d_j = u_j / |u_j|.

    atoms D [m, d], a [m, m] = Z' Z, b [m, d] = Z' X -> atoms [m, d]; `out` (it may be `atoms`) receives them,
    otherwise a new tensor. constraint: "sphere" gives unit norm, "ball" divides by max(1, |u_j|). positive: u_j is
    clipped at 0 first. Atoms with a_jj ~ 0 stay as they are (`update_atoms_reported` says which).
    Source: Mairal, Bach, Ponce, Sapiro 2009, arXiv 0908.0050. Raises `UsageError` where shapes do not fit.
    """
    updated = update_atoms_reported(
        atoms, a, b, positive=positive, sweeps=sweeps, constraint=constraint, out=out, backend=backend
    )
    return updated.atoms


@torch.no_grad()
def update_atoms_reported(
    atoms: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    positive: bool = False,
    sweeps: int = 1,
    constraint: Literal["sphere", "ball"] = "sphere",
    out: Tensor | None = None,
    backend: Backend = "auto",
) -> Updated:
    """As `update_atoms`, with the atoms that were left alone: Updated(atoms [m, d], idle [m])."""
    check_matrix("atoms", atoms)
    m, d = atoms.shape
    check_matrix("a", a, m)
    check_matrix("b", b, d)
    if len(a) != m or len(b) != m:
        raise UsageError(f"a, b: must be [{m}, {m}] and [{m}, {d}], got {list(a.shape)} and {list(b.shape)}")
    if constraint not in ("sphere", "ball"):
        raise UsageError(f"constraint: must be 'sphere' or 'ball', got {constraint!r}")
    on_cpu = compiled_wanted(backend, atoms, a, b)
    if out is None:
        out = atoms.clone(memory_format=torch.contiguous_format)
    elif out.shape != atoms.shape or out.dtype != atoms.dtype or not out.is_contiguous():
        raise UsageError(f"out: must be a contiguous {list(atoms.shape)} tensor of {atoms.dtype}")
    elif out is not atoms:
        out.copy_(atoms)
    a, b = a.to(atoms.dtype).contiguous(), b.to(atoms.dtype)
    sizes = a.diagonal()
    # Rounding of a sum of squares: below this no row of the batch used the atom.
    threshold = float(sizes.max().clamp_min(0)) * torch.finfo(atoms.dtype).eps if m else 0.0
    idle = sizes <= threshold
    used = [] if on_cpu else (~idle).tolist()
    for _ in range(sweeps):
        for first in range(0, m, _BLOCK):
            last = min(m, first + _BLOCK)
            rest = torch.addmm(b[first:last], a[first:last], out, alpha=-1)
            if on_cpu:
                from unmix.kernels._update_compiled import update_block

                sphere = constraint == "sphere"
                update_block(out.numpy(), array(rest), array(a), first, last, positive, sphere, idle.numpy())
            else:
                _update_block_plain(out, rest, a, first, last, positive, constraint, used)
    return Updated(out, idle)


def _update_block_plain(
    atoms: Tensor, rest: Tensor, a: Tensor, first: int, last: int, positive: bool, constraint: str, used: list[bool]
) -> None:
    """As `update_block`; which atoms are used is known beforehand, so that nothing waits for the device."""
    for j in range(first, last):
        if not used[j]:
            continue
        new = atoms[j] + rest[j - first] / a[j, j]
        new = new.clamp_min(0) if positive else new
        norm = new.norm()
        if constraint == "ball":
            new = new / norm.clamp_min(1)
        else:
            new = torch.where(norm > 0, new / norm, atoms[j])
        rest[j - first + 1 :].addr_(a[j + 1 : last, j], new - atoms[j], alpha=-1)
        atoms[j] = new


@torch.no_grad()
def gram_matrix(atoms: Tensor) -> Tensor:
    """D D' [m, m] of atoms D [m, d]; on the CPU each of our threads makes some of its rows."""
    check_matrix("atoms", atoms)
    if atoms.device.type != "cpu":
        return atoms @ atoms.T
    atoms = atoms.detach()
    m = len(atoms)
    out = atoms.new_empty(m, m)

    def work(part: int, parts: int) -> None:
        rows = slice(part * m // parts, (part + 1) * m // parts)
        torch.mm(atoms[rows], atoms.T, out=out[rows])

    with own_threads():
        run_parts(work, parts_for(m, 128))
    return out


@torch.no_grad()
def gram_statistics(codes: Codes, x: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """Z' Z [m, m] and Z' X [m, d] of codes Z [n, m] in any layout and rows x [n, d], in the dtype of x.

    Raises `UsageError` where the codes and x differ in rows.
    """
    check_matrix("x", x)
    if len(codes) != len(x):
        raise UsageError(f"codes: must have the {len(x)} rows of x, got {len(codes)}")
    m, d = codes.width, x.shape[1]
    rows, latents, values = codes.nonzero()
    values = values.to(x.dtype)
    if compiled_wanted(backend, x, values):
        return _statistics_compiled(rows, latents, values, x, m)
    a, b = x.new_zeros(m, m), x.new_zeros(m, d)
    height = max(1, (64 << 20) // max(1, m * x.element_size()))
    for start in range(0, len(x), height):
        own = (rows >= start) & (rows < start + height)
        block = x[start : start + height]
        dense = x.new_zeros(len(block), m)
        dense.index_put_((rows[own] - start, latents[own]), values[own], accumulate=True)
        a.addmm_(dense.T, dense)
        b.addmm_(dense.T, block)
    return a, b


def _statistics_compiled(rows: Tensor, latents: Tensor, values: Tensor, x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    from unmix.kernels._update_compiled import statistics

    n, d = x.shape
    a, b = x.new_zeros(m, m), x.new_zeros(m, d)
    pointers = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=n).cumsum(0)])
    starts = torch.cat([rows.new_zeros(1), torch.bincount(latents, minlength=m).cumsum(0)])
    order = latents.sort(stable=True).indices
    parts = parts_for(m)
    bounds = np.searchsorted(starts.numpy(), np.linspace(0, len(rows), parts + 1)).astype(np.int64)
    bounds[0], bounds[-1] = 0, m
    by_row = (array(pointers), array(latents), array(values))
    by_latent = (array(starts), array(rows[order]), array(values[order]))
    run_parts(statistics, parts, *by_row, *by_latent, array(x), bounds, a.numpy(), b.numpy())
    return a, b
