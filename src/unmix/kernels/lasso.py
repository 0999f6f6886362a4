"""The l1 problem of sparse coding, solved row by row to a certified duality gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UsageError
from unmix.kernels._compiled import Backend, array, compiled_wanted, own_threads, parts_for, run_queue
from unmix.kernels.checks import check_problem
from unmix.kernels.polish import polish
from unmix.kernels.proximal import Method, certificate, iterate

__all__ = ["LassoResult", "certificate", "lasso"]

_BLOCK_BYTES = 64 << 20
_ROWS = 256  # rows that one thread takes at a time
_AGAIN = 8  # times that rows on which coordinate descent stalls go on from a step on their support

Ragged = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LassoResult:
    """Codes in the ragged layout (values, indices [nnz], pointers [n + 1], indices rising within a row), and per row:

    gap [n]: duality gap over |x|^2 / 2; objective [n] (float64); iterations [n]: rounds of the working set, or FISTA
    iterations; flops [n]: floating-point operations spent.
    """

    values: Tensor
    indices: Tensor
    pointers: Tensor
    gap: Tensor
    objective: Tensor
    iterations: Tensor
    flops: Tensor


@torch.no_grad()
def lasso(
    h: Tensor,
    atoms: Tensor,
    penalty: float | Tensor,
    *,
    positive: bool = True,
    gram: Tensor | None = None,
    start: Ragged | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 2000,
    method: Literal["auto", "coordinate", "fista", "ista", "lca"] = "auto",
    rate: float = 1.0,
    polished: bool = True,
    backend: Backend = "auto",
) -> LassoResult:
    """min_z 1/2 |x - z D|^2 + penalty sum_j |z_j| for each row x of h (z >= 0 where positive).

    h [n, d], atoms D [m, d] (any norms; zero atoms are never used), penalty a number or [n] -> LassoResult. A row
    ends when its duality gap is at most `tolerance` times |x|^2 / 2, after max_iterations, or when rounding stops it
    earlier: `gap` says what was reached. A penalty of 0 has no certificate of this kind, its gap stays open.
    gram [m, m] = atoms @ atoms.T saves making it. start: codes (values, indices, pointers) to begin from.
    method: "coordinate" descent (numba: with a working set on the Gram matrix; torch: cyclic), "fista" with adaptive
    restart, "ista", or "lca", the locally competitive algorithm with steps of `rate` / max(1, |D|^2) (these three in
    torch alone); "auto" takes numba's coordinate descent where it can and FISTA elsewhere. polished: the torch
    methods step to the minimum on the codes' support now and then and in the end (`kernels.polish`); numba's
    coordinate descent does so for rows on which it stalls.
    Sources: Massias, Gramfort, Salmon 2018, arXiv 1802.07481; O'Donoghue, Candes 2015, arXiv 1204.3982; Rozell,
    Johnson, Baraniuk, Olshausen 2008.
    Raises `UsageError` for a negative penalty or tolerance, or shapes that do not fit.
    """
    h, atoms = check_problem(h, atoms, gram)
    n, m = len(h), len(atoms)
    wanted = torch.as_tensor(penalty, dtype=torch.float64, device=h.device)
    if wanted.ndim > 1 or wanted.numel() not in (1, n) or (wanted < 0).any() or tolerance < 0:
        raise UsageError(f"penalty: must be a number or [{n}], not negative, and so must the tolerance be")
    if max_iterations < 1:
        raise UsageError(f"max_iterations: must be at least 1, got {max_iterations}")
    if start is not None and (len(start[2]) != n + 1 or len(start[0]) != len(start[1])):
        raise UsageError(f"start: must be values [nnz], indices [nnz], pointers [{n + 1}]")
    penalties = wanted.expand(n) if wanted.ndim == 0 or len(wanted) != n else wanted
    if method not in ("auto", "coordinate", "fista", "ista", "lca"):
        raise UsageError(f"method: {method!r} is not one of 'auto', 'coordinate', 'fista', 'ista', 'lca'")
    if backend == "numba" and method in ("fista", "ista", "lca"):
        raise UsageError(f"backend: {method} has no numba version; use 'torch' or 'auto'")
    if not 0 < rate <= 1:
        raise UsageError(f"rate: must be in (0, 1], got {rate}")
    on_cpu = method in ("auto", "coordinate") and compiled_wanted(backend, h, atoms, gram)
    if start is not None and len(start[1]) and not 0 <= int(start[1].min()) <= int(start[1].max()) < m:
        raise UsageError(f"start: indices must be in 0..{m - 1}")
    fits = _BLOCK_BYTES // (h.element_size() * max(m, 1))
    if on_cpu:
        gram = (atoms @ atoms.T if gram is None else gram).contiguous()
        with own_threads():
            count = parts_for(n)
            height = max(16, min(_ROWS, -(-n // count), fits))
            found: dict[int, LassoResult] = {}

            def work(slot: int, begin: int) -> None:
                rows = slice(begin, min(n, begin + height))
                guess = _cut(start, rows)
                given = (h[rows], atoms, penalties[rows], positive, gram, guess, tolerance, max_iterations)
                found[begin] = _coordinate(*given)

            run_queue(work, range(0, n, height), count)
        return _join([found[begin] for begin in sorted(found)], h)
    top = atoms.T @ atoms if atoms.shape[1] < m else atoms @ atoms.T
    plain: Method = "fista" if method == "auto" else "cyclic" if method == "coordinate" else method
    steepest = torch.linalg.eigvalsh(top.double())[-1].item() * (1 + 1e-6) if m else 1.0
    parts = []
    for begin in range(0, n, max(16, fits)):
        rows = slice(begin, min(n, begin + max(16, fits)))
        given = (h[rows], atoms, penalties[rows], positive, gram, _cut(start, rows), tolerance, max_iterations)
        parts.append(_first_order(plain, *given, steepest, rate, polished))
    return _join(parts, h)


def _coordinate(
    h: Tensor,
    atoms: Tensor,
    penalty: Tensor,
    positive: bool,
    gram: Tensor,
    guess: Ragged | None,
    tolerance: float,
    limit: int,
) -> LassoResult:
    from unmix.kernels._lasso_compiled import gather_ragged, lasso_rows

    n, m = len(h), len(atoms)
    kind = array(h).dtype
    if guess is None:
        guess = h.new_zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(n + 1, dtype=torch.int64)
    counts, rounds = np.zeros(n, np.int64), np.zeros(n, np.int64)
    gap, objective, cost = np.zeros(n), np.zeros(n), np.zeros(n)
    values, indices = np.empty((n, m), kind), np.empty((n, m), np.int32)  # pages that are not touched cost nothing
    weight = (gram.diagonal() > 0).to(h.dtype)
    energy = h.double().square().sum(1)
    products, square, usable = (array(t) for t in (h @ atoms.T, gram, weight))
    out: tuple[np.ndarray, ...] = (counts, gap, objective, rounds, cost, values, indices)
    first = (array(t) for t in (guess[2].long(), guess[1].long(), guess[0].to(h.dtype)))
    options = (positive, tolerance, limit)
    lasso_rows(0, 1, products, square, usable, array(energy), array(penalty), *options, *first, *out)
    for _ in range(_AGAIN):
        rows = np.flatnonzero((gap > tolerance) & (rounds <= limit) & (array(penalty) > 0))
        if not len(rows):
            break
        # Sweeps that move by less and less: where a step on the support helps, they go on from there.
        used = np.arange(m) < counts[rows, None]
        dense = np.zeros((len(rows), m), kind)
        dense[np.nonzero(used)[0], indices[rows][used]] = values[rows][used]
        x, bound = h[rows], penalty[rows]
        better, spent = polish(x, torch.from_numpy(dense), atoms, bound, positive)
        value, distance = (t.numpy() for t in certificate(x, better, atoms, bound, positive))
        lower = objective[rows] - value > 0.1 * tolerance * array(energy)[rows] / 2
        helped = lower | (distance < gap[rows] / 2)
        if not helped.any():
            break
        rows, start = rows[helped], better[helped]
        at, places = start.nonzero(as_tuple=True)
        begun = (np.concatenate([[0], np.cumsum(np.bincount(at, minlength=len(rows)))]), places, start[at, places])
        into = [np.zeros_like(part[rows]) for part in out]
        sizes = (array(energy[rows]), array(penalty[rows]))
        lasso_rows(0, 1, products[rows], square, usable, *sizes, *options, *map(np.asarray, begun), *into)
        into[3] += rounds[rows]
        into[4] += cost[rows] + spent.numpy()[helped] + 4.0 * m * h.shape[1]
        for part, found in zip(out, into, strict=True):
            part[rows] = found
    pointers = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    flat = np.empty(pointers[-1], kind), np.empty(pointers[-1], np.int64)
    gather_ragged(values, indices, pointers, *flat)
    arrays = (*flat, pointers, gap, objective, rounds, cost + 2.0 * m * h.shape[1])
    return LassoResult(*(torch.from_numpy(part) for part in arrays))


def _first_order(
    method: Method,
    h: Tensor,
    atoms: Tensor,
    penalty: Tensor,
    positive: bool,
    gram: Tensor | None,
    guess: Ragged | None,
    tolerance: float,
    limit: int,
    steepest: float,
    rate: float,
    polished: bool,
) -> LassoResult:
    n, m = len(h), len(atoms)
    first = h.new_zeros(n, m)
    if guess is not None:
        rows = torch.repeat_interleave(torch.arange(n, device=h.device), guess[2].diff().to(h.device))
        first[rows, guess[1].long()] = guess[0].to(h.dtype)
        first = first.clamp_min_(0) if positive else first
        first[:, atoms.square().sum(1) == 0] = 0
    given = (atoms, gram, penalty, positive, tolerance, limit, steepest, rate, polished)
    out, gap, objective, rounds, cost = iterate(method, h, first, *given)
    rows, indices = out.nonzero(as_tuple=True)
    pointers = torch.cat([rows.new_zeros(1), torch.bincount(rows, minlength=n).cumsum(0)])
    return LassoResult(out[rows, indices], indices, pointers, gap, objective, rounds, cost)


def _cut(start: Ragged | None, rows: slice) -> Ragged | None:
    if start is None:
        return None
    values, indices, pointers = start
    own = pointers[rows.start : rows.stop + 1]
    low, high = int(own[0]), int(own[-1])
    return values[low:high], indices[low:high], own - low


def _join(parts: list[LassoResult], h: Tensor) -> LassoResult:
    if len(parts) == 1:
        return parts[0]
    none: dict[str, Any] = {"dtype": torch.float64, "device": h.device}
    if not parts:
        whole, empty = torch.zeros(0, dtype=torch.int64, device=h.device), torch.zeros(0, **none)
        return LassoResult(h.new_zeros(0), whole, whole.new_zeros(1), empty, empty, whole, empty)
    pointers, offset = [parts[0].pointers[:1]], 0
    for part in parts:
        pointers.append(part.pointers[1:] + offset)
        offset += len(part.values)
    joined = {
        name: torch.cat([getattr(p, name) for p in parts])
        for name in LassoResult.__dataclass_fields__
        if name != "pointers"
    }
    return LassoResult(pointers=torch.cat(pointers), **joined)
