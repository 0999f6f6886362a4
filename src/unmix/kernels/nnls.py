"""Non-negative least squares by an active set, and least squares on a given support, for many rows at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, array, check_matrix, compiled_wanted, own_threads, parts_for, run_queue
from unmix.kernels.checks import check_problem
from unmix.kernels.lasso import Ragged, _cut

_BLOCK_BYTES = 64 << 20
_ROWS = 64  # rows that one thread takes at a time: they differ much in what they cost
_DEPENDENT = 100  # in units of eps: a smaller pivot means an atom that depends on others


@torch.no_grad()
def nnls(
    h: Tensor,
    atoms: Tensor,
    *,
    gram: Tensor | None = None,
    start: Ragged | None = None,
    max_rounds: int | None = None,
    backend: Backend = "auto",
    gram_bytes: int = 1 << 30,
) -> tuple[Ragged, Tensor, Tensor]:
    """min_{z >= 0} |x - z D|^2 for each row x of h, by Lawson and Hanson's active set: at most d atoms are active.

    h [n, d], atoms [m, d] (any norms; zero atoms are never used) -> codes (values, indices, pointers), violation [n]
    and operations [n]. The violation is the largest of <d_j, r> / (|d_j| |x|), and of its absolute value where
    z_j > 0, which is 0 at an optimum. start: codes whose atoms make up the first passive set. max_rounds: atoms let
    in at most (3 m + 100). gram [m, m] = atoms @ atoms.T saves making it; without one, and where it would need more
    than `gram_bytes`, residuals are used instead (torch).
    Source: Lawson, Hanson 1974; Bro, De Jong 1997. Raises `UsageError` for shapes that do not fit.
    """
    h, atoms = check_problem(h, atoms, gram)
    n, (m, d) = len(h), atoms.shape
    if start is not None and (len(start[2]) != n + 1 or len(start[0]) != len(start[1])):
        raise UsageError(f"start: must be values [nnz], indices [nnz], pointers [{n + 1}]")
    on_cpu = compiled_wanted(backend, h, atoms, gram)
    if gram is None and m * m * atoms.element_size() <= gram_bytes:
        gram = atoms @ atoms.T
    eps = torch.finfo(h.dtype).eps
    silent, limit = 4 * eps * d**0.5, 3 * m + 100 if max_rounds is None else max_rounds
    norms = atoms.norm(dim=1)
    weight = torch.where(norms > 0, 1 / norms, 0)
    energy = h.double().square().sum(1)
    if not (on_cpu and gram is not None):
        return _plain_nnls(h, atoms, gram, weight, energy, start, silent, limit)
    from unmix.kernels._nnls_compiled import nnls_rows

    room = min(m, d)
    if start is None:
        none = torch.zeros(n + 1, dtype=torch.int64)
        start = h.new_zeros(0), none[:0], none
    first = tuple(array(part) for part in (start[2].long(), start[1].long(), start[0].to(h.dtype)))
    counts, worst, cost = np.zeros(n, np.int64), np.zeros(n), np.zeros(n)
    values, indices = np.zeros((n, room), array(h).dtype), np.zeros((n, room), np.int64)
    given = array(gram), array(weight)
    sizes = array(energy)

    def work(slot: int, begin: int) -> None:
        rows = slice(begin, begin + _ROWS)
        into = (part[rows] for part in (counts, worst, cost, values, indices))
        inside = (first[0][begin : min(n, begin + _ROWS) + 1], *first[1:])
        options = (sizes[rows], silent, _DEPENDENT * eps, limit, room)
        nnls_rows(array(h[rows] @ atoms.T), *given, *options, *inside, *into)

    with own_threads():
        run_queue(work, range(0, n, _ROWS), parts_for(n))
    found, pointers = _ragged(torch.from_numpy(values), torch.from_numpy(indices), torch.from_numpy(counts))
    return (*found, pointers), torch.from_numpy(worst), torch.from_numpy(cost) + 2.0 * m * d


@torch.no_grad()
def on_support(
    h: Tensor, atoms: Tensor, codes: Ragged, *, positive: bool, backend: Backend = "auto"
) -> tuple[Tensor, Tensor]:
    """argmin |x - z D|^2 over codes with the support given, non-negative ones where `positive`.

    h [n, d], atoms [m, d], codes (values, indices [nnz], pointers [n + 1]) -> new values [nnz], operations [n].
    Products are summed in float64. Atoms that depend on others of the support leave many solutions: signed, the
    atoms of larger given codes are used and the others get 0; positive, an active set chooses.
    """
    check_matrix("atoms", atoms)
    check_matrix("h", h, atoms.shape[1])
    h, atoms = h.detach(), atoms.detach()
    n, d = h.shape
    values, indices, pointers = codes[0].to(h.dtype), codes[1].long(), codes[2].long()
    if len(pointers) != n + 1 or len(values) != len(indices):
        raise UsageError(f"codes: must be values [nnz], indices [nnz], pointers [{n + 1}]")
    dependent = _DEPENDENT * torch.finfo(torch.float64).eps * d
    if not compiled_wanted(backend, h, atoms):
        return _plain_support(h, atoms, (values, indices, pointers), positive, dependent)
    from unmix.kernels._nnls_compiled import support_rows

    out, cost = torch.empty_like(values), np.zeros(n)
    places, given, bounds, into = array(indices), array(values), array(pointers), out.numpy()
    rows_in, dictionary = array(h), array(atoms)

    def work(slot: int, begin: int) -> None:
        end = min(n, begin + _ROWS)
        rows = slice(begin, end)
        support_rows(
            rows_in[rows], dictionary, bounds[begin : end + 1], places, given, positive, dependent, cost[rows], into
        )

    with own_threads():
        run_queue(work, range(0, n, _ROWS), parts_for(n))
    return out, torch.from_numpy(cost)


def _ragged(values: Tensor, indices: Tensor, counts: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Flat values and indices, indices rising within a row, of the first counts [n] slots of [n, room]."""
    room = values.shape[1]
    used = torch.arange(room, device=counts.device) < counts[:, None]
    order = torch.where(used, indices, torch.iinfo(torch.int64).max).argsort(1)
    values, indices = values.gather(1, order), indices.gather(1, order)
    pointers = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return (values[used], indices[used]), pointers


def _plain_nnls(
    h: Tensor,
    atoms: Tensor,
    gram: Tensor | None,
    weight: Tensor,
    energy: Tensor,
    start: Ragged | None,
    silent: float,
    limit: int,
) -> tuple[Ragged, Tensor, Tensor]:
    n, (m, d) = len(h), atoms.shape
    dependent = _DEPENDENT * torch.finfo(h.dtype).eps
    square, exact = None if gram is None else gram.double(), atoms.double()
    height = max(1, _BLOCK_BYTES // (8 * (m + min(m, d) * (min(m, d) + (d if gram is None else 0)))))
    dense, worst, cost = [], [], []
    for begin in range(0, n, height):
        rows = slice(begin, min(n, begin + height))
        right = (h[rows] @ atoms.T).double()
        code = torch.zeros_like(right)
        if start is not None:
            values, indices, pointers = _cut(start, rows)  # type: ignore[misc]
            places = torch.repeat_interleave(torch.arange(len(right), device=h.device), pointers.diff())
            code[places, indices.long()] = values.double().clamp_min(0)
        size = energy[rows].sqrt()

        def inner(places: Tensor, row: Tensor) -> Tensor:
            if square is None:
                return torch.bmm(exact[places], exact[places].mT)
            return square[places.unsqueeze(2), places.unsqueeze(1)]

        def apply(code: Tensor, row: Tensor) -> Tensor:
            return code @ exact @ exact.T if square is None else code @ square

        given = (right, inner, apply, weight.double().expand_as(right), silent * size, dependent, limit)
        code, left, spent = _active_set(*given, code, d if gram is None else None)
        pull = left * weight
        violation = torch.where(code > 0, pull.abs(), pull.clamp_min(0)).amax(1)
        dense.append(code.to(h.dtype))
        worst.append(violation / size.clamp_min(1e-300))
        cost.append(spent)
    if not dense:
        none = torch.zeros(1, dtype=torch.int64, device=h.device)
        return (h.new_zeros(0), none[:0], none), energy.clone(), energy.clone()
    code = torch.cat(dense)
    where, indices = code.nonzero(as_tuple=True)
    pointers = torch.cat([where.new_zeros(1), torch.bincount(where, minlength=n).cumsum(0)])
    return (code[where, indices], indices, pointers), torch.cat(worst), torch.cat(cost) + 2.0 * m * d


def _plain_support(
    h: Tensor, atoms: Tensor, codes: Ragged, positive: bool, dependent: float
) -> tuple[Tensor, Tensor]:
    values, indices, pointers = codes
    n, d = h.shape
    counts = pointers.diff()
    most = int(counts.max()) if n else 0
    used = torch.arange(most, device=h.device) < counts[:, None]
    out, cost = torch.zeros_like(values), torch.zeros(n, dtype=torch.float64, device=h.device)
    height = max(1, _BLOCK_BYTES // (8 * max(1, most) * max(d, most)))
    for begin in range(0, n if most else 0, height):
        rows = slice(begin, min(n, begin + height))
        own, mask = slice(int(pointers[rows.start]), int(pointers[rows.stop])), used[rows]
        # Slots by falling size of the given code, because a dependent atom gives way to those before it.
        size = values.new_full(mask.shape, -1.0).masked_scatter(mask, values[own].abs())
        order = size.argsort(dim=1, descending=True, stable=True)
        back = order.argsort(1)
        places = indices.new_zeros(mask.shape).masked_scatter(mask, indices[own]).gather(1, order)
        first = values.new_zeros(mask.shape).masked_scatter(mask, values[own]).gather(1, order).double()
        here = mask.gather(1, order)
        chosen = atoms[places].double() * here.unsqueeze(2)
        square = torch.bmm(chosen, chosen.mT)
        right = torch.bmm(chosen, h[rows].double().unsqueeze(2)).squeeze(2)
        if positive:
            norms = square.diagonal(dim1=1, dim2=2).sqrt()
            weight = torch.where(norms > 0, 1 / norms, 0)
            quiet = 1e-15 * d**0.5 * h[rows].double().norm(dim=1)
            code, _, spent = _active_set(
                right, _local(square), _applied(square), weight, quiet, dependent, 3 * most + 10, first.clamp_min(0)
            )
        else:
            factor, keep = _factor(square, here, dependent)
            code = torch.cholesky_solve((right * keep).unsqueeze(2), factor).squeeze(2) * keep
            spent = cost[rows]
        out[own] = code.gather(1, back)[mask].to(out.dtype)
        count = counts[rows].double()
        cost[rows] = spent + count * (count + 3) * d + count.square() * (count / 3 + 4)
    return out, cost


def _local(square: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def inner(places: Tensor, row: Tensor) -> Tensor:
        return square[row[:, None, None], places.unsqueeze(2), places.unsqueeze(1)]

    return inner


def _applied(square: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda code, row: torch.bmm(square[row], code.unsqueeze(2)).squeeze(2)


def _factor(square: Tensor, mask: Tensor, dependent: float) -> tuple[Tensor, Tensor]:
    """Cholesky factor of square [n, s, s] over the masked atoms not depending on those before, and which they are.

    Atoms left out have a unit pivot and nothing beside it.
    """
    factor, keep = torch.zeros_like(square), mask.clone()
    for t in range(square.shape[1]):
        line = square[:, t, :t] * keep[:, :t]
        solved = torch.linalg.solve_triangular(factor[:, :t, :t], line.unsqueeze(2), upper=False).squeeze(2)
        pivot = square[:, t, t] - solved.square().sum(1)
        keep[:, t] &= pivot > dependent * square[:, t, t]
        factor[:, t, :t] = torch.where(keep[:, t, None], solved, 0)
        factor[:, t, t] = torch.where(keep[:, t], pivot, 1).sqrt()
    return factor, keep


def _active_set(
    right: Tensor,
    inner: Callable[[Tensor, Tensor], Tensor],
    apply: Callable[[Tensor, Tensor], Tensor],
    weight: Tensor,
    quiet: Tensor,
    dependent: float,
    limit: int,
    code: Tensor,
    width: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lawson and Hanson in step over all rows: codes [n, m], D (x - z D) [n, m] and operations [n].

    right [n, m] = h D'; inner(places [r, p], rows [r]) their Gram matrices; apply(codes, rows) = codes D D'.
    A first passive set whose atoms depend on each other is thinned; atoms let in never depend on those present.
    width: of the rows, where `apply` takes residuals instead of Gram rows (for what is counted).
    """
    n, m = right.shape
    code = torch.where(weight > 0, code, 0)
    passive, barred = code > 0, weight == 0
    spent = torch.zeros(n, dtype=torch.float64, device=right.device)
    live = torch.arange(n, device=right.device)
    for _ in range(limit + 1):
        moving = live
        while len(moving):
            trial, independent = _restricted(right[moving], inner, moving, passive[moving], dependent)
            lost = passive[moving] & ~independent
            passive[moving] = independent
            now = torch.where(lost, 0, code[moving])
            negative = independent & (trial <= 0)
            reach = torch.where(negative, now / (now - trial).clamp_min(1e-300), torch.inf)
            share = reach.amin(1).clamp(0, 1)
            stepping = negative.any(1)
            now = torch.where(stepping[:, None], now + share[:, None] * (trial - now), trial)
            gone = negative & ((reach <= share[:, None]) | (now <= 0)) & stepping[:, None]
            passive[moving] &= ~gone
            code[moving] = torch.where(gone, 0, now)
            barred[moving] = torch.where(gone.any(1)[:, None], weight[moving] == 0, barred[moving])
            count = independent.sum(1).double()
            spent[moving] += count.square() * (count / 3 + 4)
            moving = moving[stepping]
        left = right[live] - apply(code[live], live)
        count = passive[live].sum(1).double()
        spent[live] += (2.0 * m * count if width is None else 2.0 * width * (m + count)) + 2.0 * m
        score = (left * weight[live]).masked_fill(passive[live] | barred[live], -1)
        best, atom = score.max(1)
        more = best > quiet[live]
        live, atom = live[more], atom[more]
        if not len(live):
            break
        passive[live, atom] = True
        trial, independent = _restricted(right[live], inner, live, passive[live], dependent, atom)
        own = torch.arange(len(live), device=live.device)
        wrong = ~independent[own, atom] | (trial[own, atom] <= 0)
        passive[live[wrong], atom[wrong]] = False
        barred[live[wrong], atom[wrong]] = True
    return code, right - apply(code, torch.arange(n, device=right.device)), spent


def _restricted(
    right: Tensor,
    inner: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    passive: Tensor,
    dependent: float,
    last: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Least squares on each row's passive atoms, and which of them do not depend on the others: each [r, m].

    last [r]: the atom that comes last, so that it and no other is found to depend on the rest.
    """
    most = max(1, int(passive.sum(1).max()))
    rank = passive.to(torch.int8) * 2
    if last is not None:
        rank[torch.arange(len(rank), device=rank.device), last] = 1
    places = rank.argsort(dim=1, descending=True, stable=True)[:, :most]
    here = passive.gather(1, places)
    factor, keep = _factor(inner(places, rows), here, dependent)
    found = torch.cholesky_solve((right.gather(1, places) * keep).unsqueeze(2), factor).squeeze(2) * keep
    return torch.zeros_like(right).scatter(1, places, found), torch.zeros_like(passive).scatter(1, places, keep)
