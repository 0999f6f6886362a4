"""First-order methods for the l1 problem on plain tensors: ISTA, FISTA, LCA and cyclic coordinate descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from unmix.kernels.polish import polish

Method = Literal["ista", "fista", "lca", "cyclic"]
State = dict[str, Tensor]
CHECK = 10  # iterations between two looks at the gap
POLISH = 20  # looks between two steps on the support
_EACH = {"ista": 6.0, "fista": 16.0, "lca": 9.0, "cyclic": 6.0}  # operations on each code beside the products


@torch.no_grad()
def iterate(
    method: Method,
    x: Tensor,
    z: Tensor,
    atoms: Tensor,
    gram: Tensor | None,
    penalty: Tensor,
    positive: bool,
    tolerance: float,
    limit: int,
    steepest: float,
    rate: float = 1.0,
    polished: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """min_z 1/2 |x - z D|^2 + penalty |z|_1 of each row from codes z, until its gap is within tolerance.

    x [n, d], z [n, m] (not modified), atoms [m, d], gram [m, m] or None, penalty [n] (float64), steepest: largest
    eigenvalue of D D'. rate: LCA's step in units of 1 / max(1, steepest). polished: every 200 iterations (20 sweeps),
    and when a row is done, its codes step to the minimum on their own support (`polish`), where that is better.
    -> codes [n, m], relative duality gap, objective, iterations and operations spent, each [n]. A row that is done
    leaves the iteration; after `limit` iterations (or sweeps over the atoms) the gap says what was reached.
    """
    n, (m, d) = len(x), atoms.shape
    by_gram = gram is not None and (m < 2 * d or method == "cyclic")
    out = z.clone()
    gap, objective, extra = (torch.zeros(n, dtype=torch.float64, device=x.device) for _ in range(3))
    rounds = torch.full((n,), limit, dtype=torch.int64, device=x.device)
    live: State = {"row": torch.arange(n, device=x.device), "x": x, "z": z.clone(), "penalty": penalty}
    live["bound"] = penalty.to(x.dtype).unsqueeze(1)
    if by_gram:
        live["start"] = x @ atoms.T

    def slope(codes: Tensor) -> Tensor:
        """Gradient of the squared error at codes: (z D - x) D'."""
        return codes @ gram - live["start"] if gram is not None and by_gram else (codes @ atoms - live["x"]) @ atoms.T

    def shrink(values: Tensor, by: Tensor) -> Tensor:
        if positive:
            return (values - by).clamp_min_(0)
        return values.sign() * (values.abs() - by).clamp_min_(0)

    _begin(method, live, slope)
    every = 1 if method == "cyclic" else CHECK
    for step in range(limit + 1):
        if step % every == 0 or step == limit:
            row = live["row"]
            objective[row], gap[row] = certificate(live["x"], live["z"], atoms, live["penalty"], positive)
            due = gap[row] <= tolerance
            if step and step % (every * POLISH) == 0:
                due = torch.ones_like(due)
            if polished and due.any():
                some, own = row[due], {name: live[name][due] for name in ("x", "z", "penalty")}
                better, spent = polish(own["x"], own["z"], atoms, own["penalty"], positive)
                value, distance = certificate(own["x"], better, atoms, own["penalty"], positive)
                taken = (value <= objective[some]) & ((distance <= tolerance) | (gap[some] > tolerance))
                extra[some] += spent + 4.0 * m * d
                moved = due.nonzero().squeeze(1)[taken]
                live["z"] = live["z"].index_copy(0, moved, better[taken])
                objective[some[taken]], gap[some[taken]] = value[taken], distance[taken]
                _begin(method, live, slope, moved)
            done = gap[row] <= tolerance
            if done.any() or step == limit:
                out[row] = live["z"]
                rounds[row[done]] = step
                live = {name: part[~done] for name, part in live.items()}
            if not len(live["row"]) or step == limit:
                break
        if method == "cyclic":
            _sweep(live, atoms, gram, shrink, slope)
        elif method == "lca":
            u, z = live["u"], live["z"]
            live["u"] = u + (rate / max(1.0, steepest)) * (z - slope(z) - u)
            live["z"] = shrink(live["u"], live["bound"])
        else:
            y = live.get("y", live["z"])
            new = shrink(y - slope(y) / steepest, live["bound"] / steepest)
            if method == "fista":
                _extrapolate(live, y, new)
            live["z"] = new
    products = 2.0 * m * m if by_gram or method == "cyclic" else 4.0 * m * d
    looks = torch.div(rounds, every, rounding_mode="floor") + 1
    cost = rounds.double() * (products + _EACH[method] * m) + looks.double() * (4.0 * m * d + 4.0 * m)
    return out, gap, objective, rounds, cost + extra + (2.0 * m * d if by_gram else 0.0)


def _begin(method: Method, live: State, slope: Callable[[Tensor], Tensor], rows: Tensor | None = None) -> None:
    """What a method keeps beside the codes, from the codes; of some rows only where they are given."""
    z, fresh = live["z"], State()
    if method == "fista":
        fresh = {"y": z, "momentum": z.new_ones(len(z), 1)}
    elif method == "lca":
        # Potentials whose thresholded value is z: beyond the threshold where z is active, within it elsewhere.
        bound = live["bound"]
        rest = torch.minimum(torch.maximum(-slope(z), -bound), bound)
        fresh = {"u": torch.where(z == 0, rest, z + z.sign() * bound)}
    for name, part in fresh.items():
        live[name] = part if rows is None else live[name].index_copy(0, rows, part[rows])


def _extrapolate(live: State, y: Tensor, new: Tensor) -> None:
    z, momentum = live["z"], live["momentum"]
    # Momentum that points uphill starts again (the gradient test).
    uphill = ((y - new) * (new - z)).sum(1, keepdim=True) > 0
    momentum = torch.where(uphill, torch.ones_like(momentum), momentum)
    following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
    live["y"] = new + ((momentum - 1) / following) * (new - z)
    live["momentum"] = following


def _sweep(
    live: State,
    atoms: Tensor,
    gram: Tensor | None,
    shrink: Callable[[Tensor, Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
) -> None:
    """One pass over the atoms, one exact minimisation after the other, all rows at once."""
    z, bound = live["z"], live["bound"].squeeze(1)
    correlation = -slope(z)
    for j, size in enumerate(atoms.square().sum(1).tolist()):
        if size == 0:
            continue
        new = shrink(correlation[:, j] + size * z[:, j], bound) / size
        change = new - z[:, j]
        z[:, j] = new
        line = gram[j] if gram is not None else atoms @ atoms[j]
        correlation -= change[:, None] * line


@torch.no_grad()
def certificate(x: Tensor, z: Tensor, atoms: Tensor, penalty: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Objective and relative duality gap of dense codes z [n, m] for rows x [n, d]: each [n], float64.

    P = |r|^2 / 2 + penalty |z|_1 with r = x - z D, and the dual value D = s <r, x> - s^2 |r|^2 / 2 at the best s for
    which s r is feasible; the gap is (P - D) / (|x|^2 / 2).
    """
    residual = x - z @ atoms
    products = residual @ atoms.T
    if not len(atoms):
        largest = products.new_zeros(len(x)).double()
    else:
        largest = (products if positive else products.abs()).amax(1).double().clamp_min(0)
    residual = residual.double()
    size, cross = residual.square().sum(1), (residual * x.double()).sum(1)
    primal = size / 2 + penalty * z.double().abs().sum(1)
    scale = torch.where(size > 0, cross / size, 1)
    scale = torch.minimum(scale, torch.where(largest > 0, penalty / largest, torch.inf)).clamp_min(0)
    distance = (primal - scale * cross + scale.square() * size / 2).clamp_min(0)
    return primal, distance / (x.double().square().sum(1) / 2).clamp_min(1e-300)
