"""Matching pursuit and gradient pursuit, for many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from unmix.kernels._compiled import Backend, array, compiled_wanted, own_threads, parts_for, run_queue
from unmix.kernels.checks import check_greedy, check_problem

_BLOCK_BYTES = 64 << 20
_ROWS = 256  # rows that one thread takes at a time

Found = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.no_grad()
def matching_pursuit(
    h: Tensor,
    atoms: Tensor,
    k: int,
    *,
    positive: bool = False,
    gram: Tensor | None = None,
    tolerance: float = 0.0,
    backend: Backend = "auto",
    gram_bytes: int = 1 << 30,
) -> Found:
    """k times: take the atom of the largest |<d_j, r>| / |d_j|, add <d_j, r> / |d_j|^2 to its code, subtract from r.

    h [n, d], atoms [m, d] (any norms) -> values [n, k], indices [n, k] (int64) in the order of first selection (slots
    that are not used have value 0 and index 0), steps [n] taken, operations [n] spent. An atom may be taken again, so
    at most k codes are active. A row stops early when |r|^2 <= tolerance |h|^2 or when nothing correlates with r
    beyond rounding. positive: only atoms with <d_j, r> > 0 are taken. gram, gram_bytes: as for `omp`.
    Source: Mallat, Zhang 1993. Raises `UsageError` as `omp` does.
    """
    return _pursue(False, h, atoms, k, positive, gram, tolerance, backend, gram_bytes)


@torch.no_grad()
def gradient_pursuit(
    h: Tensor,
    atoms: Tensor,
    k: int,
    *,
    positive: bool = False,
    gram: Tensor | None = None,
    tolerance: float = 0.0,
    backend: Backend = "auto",
    gram_bytes: int = 1 << 30,
) -> Found:
    """k times: add the atom of the largest |<d_j, r>| / |d_j| to the support, then one gradient step on the support.

    The step is along g = D_S r with the exact length |g|^2 / |g D_S|^2; where positive, codes at zero are not pulled
    below it, and the step ends where the first code would turn negative. Arguments, results and stops as for
    `matching_pursuit`. Source: Blumensath, Davies 2008.
    """
    return _pursue(True, h, atoms, k, positive, gram, tolerance, backend, gram_bytes)


def _pursue(
    gradient: bool,
    h: Tensor,
    atoms: Tensor,
    k: int,
    positive: bool,
    gram: Tensor | None,
    tolerance: float,
    backend: Backend,
    gram_bytes: int,
) -> Found:
    h, atoms = check_problem(h, atoms, gram)
    n, (m, d) = len(h), atoms.shape
    check_greedy(k, m, tolerance)
    on_cpu = compiled_wanted(backend, h, atoms, gram)
    if gram is None and m * m * atoms.element_size() <= gram_bytes:
        gram = atoms @ atoms.T
    values, indices = h.new_zeros(n, k), torch.zeros(n, k, dtype=torch.int64, device=h.device)
    steps = torch.zeros(n, dtype=torch.int64, device=h.device)
    cost = torch.zeros(n, dtype=torch.float64, device=h.device)
    norms = atoms.norm(dim=1)
    weight = torch.where(norms > 0, 1 / norms, 0)
    energy = h.double().square().sum(1)
    # Rounding of a correlation is about eps sqrt(d) |h|; below a few of these nothing is left to find.
    silent = 4 * torch.finfo(h.dtype).eps * d**0.5
    if on_cpu and gram is not None:
        _compiled(
            gradient, h, atoms, k, positive, gram, weight, energy, tolerance, silent, values, indices, steps, cost
        )
    else:
        height = max(16, _BLOCK_BYTES // (h.element_size() * max(m, k * d)))
        plain = _gradient_plain if gradient else _matching_plain
        for begin in range(0, n, height):
            rows = slice(begin, begin + height)
            given = (h[rows], atoms, gram, weight, energy[rows], k, positive, tolerance, silent)
            values[rows], indices[rows], steps[rows], cost[rows] = plain(*given)
    each = 4.0 * m if gram is not None else 2.0 * m * d + 2.0 * m + 2.0 * d
    return values, indices, steps, (cost if gradient else steps.double() * each) + 2.0 * m * d


def _compiled(
    gradient: bool,
    h: Tensor,
    atoms: Tensor,
    k: int,
    positive: bool,
    gram: Tensor,
    weight: Tensor,
    energy: Tensor,
    tolerance: float,
    silent: float,
    *out: Tensor,
) -> None:
    from unmix.kernels._pursuit_compiled import gradient_rows, matching_rows

    n, m = len(h), len(atoms)
    square, scale, size = array(gram), array(weight), array(energy)

    def work(slot: int, begin: int) -> None:
        rows = slice(begin, begin + height)
        into = [part[rows].numpy() for part in out]
        start = array(h[rows] @ atoms.T)
        given = (start, square, scale, size[rows], k, positive, tolerance, silent)
        if gradient:
            gradient_rows(*given, *into)
        else:
            matching_rows(*given, *into[:3])

    with own_threads():
        parts = parts_for(n)
        height = max(16, min(_ROWS, -(-n // parts), _BLOCK_BYTES // (h.element_size() * m)))
        run_queue(work, range(0, n, height), parts)


def _matching_plain(
    h: Tensor,
    atoms: Tensor,
    gram: Tensor | None,
    weight: Tensor,
    energy: Tensor,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
) -> Found:
    n, device = len(h), h.device
    size = atoms.square().sum(1)
    residual, correlation, left = h.clone(), h @ atoms.T, energy.clone()
    values, indices, taken, steps = _slots(n, k, h)
    active = torch.ones(n, dtype=torch.bool, device=device)
    for _ in range(k):
        best, atom = ((correlation if positive else correlation.abs()) * weight).max(1)
        active = active & (left > tolerance * energy) & (best > silent * energy.sqrt())
        if not active.any():
            break
        pull = correlation.gather(1, atom[:, None]).squeeze(1)
        amount = torch.where(active, pull / size[atom].clamp_min(torch.finfo(h.dtype).tiny), 0)
        left -= (amount.square() * size[atom]).double()
        slot = _place(indices, taken, atom, active)
        values[active, slot] += amount[active]
        steps += active
        if gram is not None:
            correlation -= amount[:, None] * gram[atom]
        else:
            residual -= amount[:, None] * atoms[atom]
            correlation = residual @ atoms.T
    return values, indices, steps, torch.zeros_like(energy)


def _gradient_plain(
    h: Tensor,
    atoms: Tensor,
    gram: Tensor | None,
    weight: Tensor,
    energy: Tensor,
    k: int,
    positive: bool,
    tolerance: float,
    silent: float,
) -> Found:
    n, m, d, device = len(h), len(atoms), atoms.shape[1], h.device
    residual, correlation, left = h.clone(), h @ atoms.T, energy.clone()
    values, indices, taken, steps = _slots(n, k, h)
    values, cost = values.double(), torch.zeros_like(energy)
    active = torch.ones(n, dtype=torch.bool, device=device)
    for _ in range(k):
        best, atom = ((correlation if positive else correlation.abs()) * weight).max(1)
        active = active & (left > tolerance * energy) & (best > silent * energy.sqrt())
        _place(indices, taken, atom, active)
        direction = torch.where(taken & active[:, None], correlation.gather(1, indices), 0).double()
        if positive:
            direction = torch.where((values <= 0) & (direction < 0), 0, direction)
        moved = embedding_bag(indices, atoms, mode="sum", per_sample_weights=direction.to(h.dtype)) if n else residual
        top, bottom = direction.square().sum(1), moved.double().square().sum(1)
        active = active & (bottom > 0)
        if not active.any():
            break
        length = torch.where(active, top / bottom.clamp_min(1e-300), 0)
        if positive:
            room = torch.where(direction < 0, -values / direction.clamp_max(-1e-300), torch.inf).amin(1)
            length = torch.minimum(length, room)
        change = length[:, None] * direction
        values = values + change
        if positive:
            values = torch.where((direction < 0) & (values < 1e-12 * -change), 0, values)
        left -= 2 * length * top - length.square() * bottom
        steps += active
        count = taken.sum(1).double()
        if gram is not None:
            correlation -= embedding_bag(indices, gram, mode="sum", per_sample_weights=change.to(h.dtype))
            cost += active * (2.0 * m * count + 2.0 * m + 2.0 * d * count)
        else:
            residual = residual - length[:, None].to(h.dtype) * moved
            correlation = residual @ atoms.T
            cost += active * (2.0 * m * d + 2.0 * m + 2.0 * d * (count + 1))
    return values.to(h.dtype), indices, steps, cost


def _slots(n: int, k: int, like: Tensor) -> Found:
    """Empty values and indices [n, k], which slots are taken [n, k], and steps [n]."""
    indices = torch.zeros(n, k, dtype=torch.int64, device=like.device)
    return like.new_zeros(n, k), indices, indices.bool(), indices.new_zeros(n)


def _place(indices: Tensor, taken: Tensor, atom: Tensor, active: Tensor) -> Tensor:
    """Note the chosen atoms of the active rows in their slots; returns the slot of each active row."""
    same = (indices == atom[:, None]) & taken
    slot = torch.where(same.any(1), same.to(torch.int8).argmax(1), taken.sum(1))[active]
    indices[active, slot] = atom[active]
    taken[active, slot] = True
    return slot
