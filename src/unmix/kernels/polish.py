"""A step of the l1 problem to the minimum on the codes' own support: the end of first-order methods' slow tail."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 32  # codes that may leave the support in one call
_BLOCK_BYTES = 64 << 20
_RIDGE = 1e-11  # in units of the largest |d_j|^2: atoms that depend on each other leave a direction to move along


@torch.no_grad()
def polish(x: Tensor, z: Tensor, atoms: Tensor, penalty: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """Codes nearer to argmin 1/2 |x - z D|^2 + penalty |z|_1 over codes of the same support and signs.

    With s the signs and S the support, z_S moves towards D_S D_S' z_S = D_S x - penalty s, until a code reaches 0;
    that one leaves the support, at most 32 times. x [n, d], z [n, m] (not modified), atoms [m, d], penalty [n]
    -> codes [n, m] and operations [n]. Rounding aside the objective does not rise. Rows with more than d + 32 active
    codes stay as they are: an optimum has at most d where the atoms are in general position.
    Source: the subspace step of active-set methods; Osborne, Presnell, Turlach 2000.
    """
    out, counts = z.clone(), (z != 0).sum(1)
    cost = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    chosen = ((counts > 0) & (counts <= atoms.shape[1] + ROUNDS)).nonzero().squeeze(1)
    if not len(chosen):
        return out, cost
    most = int(counts[chosen].max())
    height = max(1, _BLOCK_BYTES // (8 * most * (most + atoms.shape[1])))
    for rows in chosen.split(height):
        given = z[rows]
        places = (given != 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        code, spent = _descend(
            x[rows].double(), given.gather(1, places).double(), atoms[places].double(), penalty[rows]
        )
        code = code.to(z.dtype)
        out[rows] = torch.zeros_like(given).scatter(1, places, code.clamp_min(0) if positive else code)
        cost[rows] = spent
    return out, cost


def _descend(x: Tensor, code: Tensor, chosen: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [n, s] of the atoms chosen [n, s, d], 0 in the slots that are not used; all float64."""
    width = x.shape[1]
    sign, on = code.sign(), code != 0
    square = torch.bmm(chosen, chosen.mT)
    unit = square.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-300)
    spent = on.sum(1).double().square() * width
    moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for _ in range(ROUNDS):
        left = x - torch.bmm(code.unsqueeze(1), chosen).squeeze(1)
        slope = torch.bmm(chosen, left.unsqueeze(2)).squeeze(2) - penalty[:, None] * sign
        inner = square * (on.unsqueeze(1) & on.unsqueeze(2))
        inner.diagonal(dim1=1, dim2=2).add_(torch.where(on, _RIDGE * unit[:, None], unit[:, None]))
        factor, failed = torch.linalg.cholesky_ex(inner)
        moving = moving & (failed == 0)
        step = torch.cholesky_solve((slope * on).unsqueeze(2), factor).squeeze(2)
        crossing = on & ((code + step) * sign <= 0)
        reach = torch.where(crossing, -code / step, torch.inf)
        share = torch.where(moving, reach.amin(1).clamp(0, 1), 0)
        gone = crossing & (reach <= share[:, None]) & moving[:, None]
        code = torch.where(gone, 0, code + share[:, None] * torch.where(moving[:, None], step, 0))
        count = on.sum(1).double()
        spent += moving * (count.square() * (count / 3 + 4) + 4 * width * count)
        on = on & ~gone
        moving = moving & gone.any(1)
        if not moving.any():
            break
    return code, spent
